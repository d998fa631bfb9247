# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The page in a real browser, as a user has it: train, check, move the threshold, add a shot, stop, download."""

import csv
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from io import BytesIO, StringIO
from pathlib import Path
from urllib.request import urlopen

import pytest
from PIL import Image
from skimage import data as pictures

pytest.importorskip("gradio", reason="pip install '.[demo]'")
pytest.importorskip("selenium", reason="pip install '.[test]'")

from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from anomalib_htdgm import Htdgm
from anomalib_htdgm.demo.__main__ import main
from anomalib_htdgm.demo.__main__ import serve as serve_in_this_process
from anomalib_htdgm.demo.page import CAMERA

PROJECT = Path(__file__).parents[2]
sys.path.insert(0, str(PROJECT / "benchmarks" / "figures"))

from demo import browse, find, has_browser, serve, set_threshold, wait_for  # noqa: E402

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(not has_browser(), reason="chromium and chromedriver are not installed"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the page, and see that nothing of it stays behind."""
    temporary = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(PROJECT)
        patch.setenv("TMPDIR", str(temporary))
        patch.setenv("PAGE_FOLDER", str(temporary))
        with serve([sys.executable, "-W", "ignore", "-m", "tests.integration.served"]) as url:
            assert list(temporary.glob("htdgm_*"))
            yield url
    assert not list(temporary.glob("htdgm_*"))


@pytest.fixture(scope="module")
def opened(address: str) -> Iterator[Chrome]:
    """Start the browser."""
    with browse(address) as browser:
        yield browser


@pytest.fixture
def browser(opened: Chrome, address: str) -> Iterator[Chrome]:
    """Visit the page anew, and see that it asks nobody else for anything."""
    opened.get(address)
    wait_for(opened, "message", "Learnt in")
    wait_for(opened, "new-message", "6 checked.")  # to show what was checked takes back what was clicked before
    yield opened
    entries = (json.loads(entry["message"])["message"] for entry in opened.get_log("performance"))
    urls = [each["params"]["request"]["url"] for each in entries if each["method"] == "Network.requestWillBeSent"]
    own = ("data:", "blob:", "chrome:", "chrome-untrusted:")
    assert any(url.startswith(address) for url in urls)
    assert [url for url in urls if not url.startswith((address, *own))] == []
    opened.get("about:blank")


@pytest.fixture
def photographs(tmp_path: Path) -> dict[str, Path]:
    """Write photographs of grass, one with a scratch, and what is no photograph."""
    grass = pictures.grass()
    bad = grass[300:428, 300:428].copy()
    bad[60:70, 20:110] = 255
    images = {"first.png": grass[:128, :128], "second.png": grass[:128, 200:328], "third.png": grass[200:328, :128]}
    for name, pixels in (images | {"bad.png": bad}).items():
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no photograph")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    return {path.name: path for path in tmp_path.iterdir()}


def drop(browser: Chrome, name: str, *paths: Path) -> None:
    find(browser, f"#{name} input[type=file]").send_keys("\n".join(map(str, paths)))


def click(browser: Chrome, selector: str) -> None:
    browser.execute_script("arguments[0].click()", find(browser, selector))


def download(address: str) -> bytes:
    with urlopen(address) as answer:  # noqa: S310
        return answer.read()


def wait_until(browser: Chrome, condition: Callable[[], bool]) -> None:
    """Wait for what is drawn a moment after the message beside it."""
    WebDriverWait(browser, 10).until(lambda _: condition())


def captions(browser: Chrome, name: str) -> list[str]:
    return [
        each.get_attribute("textContent") for each in browser.find_elements(By.CSS_SELECTOR, f"#{name} .caption-label")
    ]


def test_it_begins_with_the_quick_starts_bricks(browser: Chrome) -> None:
    assert wait_for(browser, "message", "3 good photographs")
    wait_until(browser, lambda: (len(captions(browser, "good")), len(captions(browser, "results"))) == (3, 6))
    scores = [float(each.split()[0]) for each in captions(browser, "results")]
    assert scores == sorted(scores, reverse=True)
    table = wait_for(browser, "table", "test_good")
    assert table.rindex("defect") < table.index("test_good")  # defects have a patch of another material
    assert "guess" not in wait_for(browser, "verdicts", "of 6 anomalous.")  # three good photographs are firm
    source = find(browser, "#results img").get_attribute("src")
    with Image.open(BytesIO(download(source))) as picture:
        assert picture.size == (256, 128)  # photograph and heat map


def test_from_photographs_to_files(browser: Chrome, photographs: dict[str, Path], tmp_path: Path) -> None:
    drop(browser, "good-files", photographs["first.png"], photographs["second.png"])
    wait_for(browser, "good-message", "2 good photographs. Press Learn.")
    wait_until(browser, lambda: captions(browser, "results") == [])
    click(browser, "#learn")
    wait_for(browser, "message", "Learnt in")
    drop(browser, "new-files", photographs["third.png"], photographs["bad.png"])
    wait_for(browser, "new-message", "2 checked.")

    assert "third.png" in wait_for(browser, "table", "bad.png")
    wait_until(browser, lambda: len(captions(browser, "results")) == 2)
    bad, good = (float(each.split()[0]) for each in captions(browser, "results"))
    assert good < bad
    set_threshold(browser, 0)
    assert "The threshold is a guess" in wait_for(browser, "verdicts", "2 of 2 anomalous?")  # of two photographs
    wait_until(browser, lambda: {each.split()[1] for each in captions(browser, "results")} == {"anomalous?"})
    set_threshold(browser, 1)
    turned = wait_for(browser, "verdicts", "0 of 2 anomalous?")
    assert (f"bad.png ({bad:.2f})" in turned) == (bad > 0.5)
    assert (f"third.png ({good:.2f})" in turned) == (good > 0.5)
    set_threshold(browser, 0.99)

    click(browser, "#save")
    wait_for(browser, "files-message", "Checkpoint and ONNX file, too, call anomalous what is above 0.99.")
    wait_for(browser, "files", "scores")
    links = [each.get_attribute("href") for each in browser.find_elements(By.CSS_SELECTOR, "#files a[href]")]
    files = {link.rpartition("/")[2]: link for link in links}
    assert set(files) == {"model.ckpt", "model.onnx", "scores.csv"}
    table = csv.DictReader(StringIO(download(files["scores.csv"]).decode()))
    rows = {row["photograph"]: row for row in table}
    assert rows["bad.png"]["threshold"] == "0.99"
    (tmp_path / "model.ckpt").write_bytes(download(files["model.ckpt"]))
    assert Htdgm.load_from_checkpoint(tmp_path / "model.ckpt").model.num_shots == 2
    assert len(download(files["model.onnx"])) > 100_000


def test_bad_input_gets_a_sentence_and_costs_nothing(browser: Chrome, photographs: dict[str, Path]) -> None:
    before = captions(browser, "results")
    drop(browser, "good-files", photographs["notes.txt"])
    message = wait_for(browser, "good-message", "image notes.txt cannot be read: cannot identify image file")
    assert "3 good photographs" in message
    drop(browser, "new-files", photographs["huge.png"])
    assert "6 checked" in wait_for(
        browser, "new-message", "image huge.png cannot be read: Image size (400000000 pixels) exceeds"
    )
    assert captions(browser, "results") == before
    click(browser, "#accept")
    wait_for(browser, "message", "Click on one of the photographs that were checked first.")
    click(browser, "#remove")
    wait_for(browser, "message", "Click on one of the good photographs first.")
    for left in (2, 1, 0):
        click(browser, "#good button.thumbnail-item")
        wait_for(browser, "remove", ".png")
        click(browser, "#remove")
        wait_for(browser, "message", f"{left} good photograph")
    click(browser, "#learn")
    wait_for(browser, "message", "There is no good photograph to learn from: add one to 10")
    assert captions(browser, "results") == before


def test_what_is_to_be_checked_waits_for_good_ones_and_refusals_are_few(
    browser: Chrome, photographs: dict[str, Path], tmp_path: Path
) -> None:
    notes = [tmp_path / f"note {index}.txt" for index in range(20)]
    for note in notes:
        note.write_text("no photograph")
    drop(browser, "new-files", photographs["third.png"], *notes)
    said = wait_for(browser, "new-message", "1 photograph kept and waiting: drop good ones in 1. and press Learn.")
    assert "And 17 more files were left out." in said
    assert said.count("cannot be read") == 3
    assert "waits" in wait_for(browser, "table", "third.png")
    drop(browser, "good-files", photographs["first.png"])
    wait_for(browser, "good-message", "1 good photograph. Press Learn.")
    drop(browser, "good-files", photographs["first.png"])
    assert "0 of 2 good photographs tell something" in wait_for(browser, "good-message", "are copies of one photograph")
    click(browser, "#learn")
    wait_for(browser, "new-message", "1 checked.")
    wait_until(browser, lambda: len(captions(browser, "results")) == 1)


def test_what_was_clicked_is_learnt_and_nothing_else(browser: Chrome, photographs: dict[str, Path]) -> None:
    drop(browser, "good-files", photographs["first.png"])
    wait_for(browser, "good-message", "1 good photograph. Press Learn.")
    click(browser, "#learn")
    wait_for(browser, "message", "Learnt in")
    drop(browser, "new-files", photographs["third.png"])
    wait_for(browser, "new-message", "1 checked.")
    wait_until(browser, lambda: len(captions(browser, "results")) == 1)
    click(browser, "#results button.thumbnail-item")
    wait_for(browser, "accept", "third.png is good after all: learn it, too")
    drop(browser, "new-files", photographs["bad.png"])  # which comes first then
    wait_for(browser, "new-message", "2 checked.")
    wait_for(browser, "accept", "The clicked one is good after all: learn it, too")
    click(browser, "#accept")
    wait_for(browser, "message", "Click on one of the photographs that were checked first.")
    wait_until(browser, lambda: len(captions(browser, "results")) == 2)
    browser.execute_script("document.querySelectorAll('#results button.thumbnail-item')[1].click()")
    clicked = wait_for(browser, "accept", ".png is good after all").split()[0]
    click(browser, "#accept")
    wait_for(browser, "message", "2 good photographs")
    wait_until(browser, lambda: captions(browser, "good") == ["first.png", clicked])


def test_a_threshold_that_was_moved_stays(browser: Chrome, photographs: dict[str, Path]) -> None:
    set_threshold(browser, 0.35)
    wait_for(browser, "verdicts", "but not at 0.5")
    click(browser, "#learn")
    wait_for(browser, "message", "Learning.")
    wait_for(browser, "message", "Learnt in")
    wait_for(browser, "new-message", "6 checked.")
    wait_for(browser, "verdicts", "but not at 0.5")
    set_threshold(browser, 0.6)
    click(browser, "#threshold .reset-button")
    wait_until(browser, lambda: "but not at" not in wait_for(browser, "verdicts", "of 6 anomalous."))
    set_threshold(browser, 0.35)
    drop(browser, "good-files", photographs["first.png"])
    wait_for(browser, "good-message", "1 good photograph. Press Learn.")
    assert find(browser, "#threshold input[type=number]").get_attribute("value") == "0.35"


def test_nothing_of_a_visit_stays(browser: Chrome, photographs: dict[str, Path]) -> None:
    (folder,) = Path(os.environ["PAGE_FOLDER"]).glob("htdgm_*")
    drop(browser, "good-files", *(photographs[name] for name in ("first.png", "notes.txt")))
    wait_for(browser, "good-message", "1 good photograph. Press Learn.")
    assert len(list((folder / "sessions").glob("*/photographs/*.png"))) > 0
    browser.get("about:blank")
    wait_until(browser, lambda: not list((folder / "sessions").iterdir()))
    assert [path for path in (folder / "uploads").rglob("*") if path.is_file()] == []


def test_browsers_want_https_for_the_camera(browser: Chrome) -> None:
    note = browser.execute_script(
        f"Object.defineProperty(window, 'isSecureContext', {{value: false}}); return ({CAMERA})()"
    )
    assert "only over https, or at http://localhost" in note
    assert browser.execute_script("return document.getElementById('good-camera-note')?.innerText ?? ''") == ""


def test_a_photograph_that_is_good_after_all_is_learnt(browser: Chrome) -> None:
    click(browser, "#results button.thumbnail-item")
    wait_for(browser, "accept", ".png is good after all")
    click(browser, "#accept")
    wait_for(browser, "message", "4 good photographs")
    wait_for(browser, "message", "Learnt in")
    wait_until(browser, lambda: len(captions(browser, "good")) == 4)
    wait_for(browser, "verdicts", "of 5")
    click(browser, "#accept")  # once more, by mistake
    wait_for(browser, "message", "Click on one of the photographs that were checked first.")
    wait_until(browser, lambda: not browser.find_elements(By.CSS_SELECTOR, "#results .preview"))


def test_a_training_can_be_stopped(browser: Chrome) -> None:
    """It takes two seconds, so it may be through before the click arrives; then nothing is lost, either."""
    before = captions(browser, "results")
    click(browser, "#learn")
    click(browser, "#stop")
    wait_for(browser, "message", "3 good photographs")
    wait_until(browser, lambda: captions(browser, "results") == before)


def test_the_camera_takes_photographs(browser: Chrome) -> None:
    browser.execute_script(
        "for (const tab of document.querySelectorAll('button[role=tab]'))"
        "  if (tab.innerText.includes('camera')) {tab.click(); break}"
    )
    click(browser, "#good-camera button:not(.upload-container)")
    click(browser, "#good-camera button[aria-label='capture photo']")
    wait_for(browser, "good-message", "1 good photograph. Press Learn.")
    wait_until(browser, lambda: len(captions(browser, "good")) == 1)


def test_only_this_machine_is_served(address: str) -> None:
    port = int(address.rstrip("/").rpartition(":")[2])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing, but tells which address of this machine others see
        outer = probe.getsockname()[0]
    assert not outer.startswith("127.")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((outer, port), timeout=1)


def test_a_place_where_nothing_can_be_served_is_named(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR"):
        monkeypatch.setenv(name, "")  # what is set of them goes with the test
    port = int(address.rstrip("/").rpartition(":")[2])
    with pytest.raises(SystemExit) as end:
        serve_in_this_process(tmp_path, "127.0.0.1", port, open_browser=False)
    assert end.value.code == (
        f"--host, --port: got 127.0.0.1 and {port}; allowed are an address of this machine and a port that is free"
    )


def test_without_gradio_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setattr(sys, "argv", ["demo"])
    with pytest.raises(SystemExit, match=r"^The page needs Gradio: pip install"):
        main()
