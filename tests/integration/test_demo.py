# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The page in a real browser, as a user has it: begin a project, learn, check, review, come back, download."""

import json
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

pytest.importorskip("gradio", reason="pip install '.[demo]'")
pytest.importorskip("selenium", reason="pip install '.[test]'")

from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from anomalib_htdgm import Htdgm
from anomalib_htdgm.demo.layout import CAMERA
from anomalib_htdgm.demo.part import EXAMPLE
from anomalib_htdgm.inspection.project import Project

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY / "benchmarks" / "figures"))

from demo import browse, find, has_browser, serve, set_threshold, wait_for  # noqa: E402

from .browsing import begin, click, drop, open_project, paint, press, wait_until, write_photographs  # noqa: E402

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(not has_browser(), reason="chromium and chromedriver are not installed"),
]
Serve = Callable[[], object]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("projects") / ".hidden"


@pytest.fixture(scope="module")
def serving(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Serve the page, as often as is wanted, and see that nothing stays behind in the system's temporary folder."""
    temporary = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(REPOSITORY)
        patch.setenv("TMPDIR", str(temporary))
        command = [sys.executable, "-W", "ignore", "-m", "tests.integration.served", "--projects", str(root)]
        yield lambda: serve(command)
    assert not list(temporary.glob("htdgm_*"))


@pytest.fixture(scope="module")
def opened(serving: Serve) -> Iterator[tuple[Chrome, str]]:
    with serving() as address, browse(address) as browser:
        yield browser, address


@pytest.fixture
def browser(opened: tuple[Chrome, str]) -> Iterator[Chrome]:
    """See that the page asks nobody else for anything."""
    browser, address = opened
    browser.get(address)
    yield browser
    entries = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    urls = [each["params"]["request"]["url"] for each in entries if each["method"] == "Network.requestWillBeSent"]
    assert any(url.startswith(address) for url in urls)
    assert all(url.startswith((address, "data:", "blob:", "chrome:", "chrome-untrusted:")) for url in urls), urls


@pytest.fixture
def photographs(tmp_path: Path) -> dict[str, Path]:
    return write_photographs(tmp_path)


def test_the_example_is_there_and_shows_why(browser: Chrome) -> None:
    wait_for(browser, "projects", "7 good, 6 to check")
    open_project(browser, EXAMPLE)
    wait_for(browser, "message", "Learnt 7 good photographs")
    wait_for(browser, "new-message", "6 checked.")
    wait_for(browser, "expectation", "Of 100 good ones")
    click(browser, "#results .tile")
    wait_for(browser, "detail", "most like it, in a good one")
    drawn = "return [...document.querySelectorAll('#job img')].filter(each => each.naturalWidth > 9).length"
    wait_until(browser, lambda: browser.execute_script(drawn) >= 7 + 6 + 4)
    before = find(browser, "#detail img").get_attribute("src")
    set_threshold(browser, 0.3)
    wait_until(browser, lambda: find(browser, "#detail img").get_attribute("src") != before)
    assert browser.execute_script("return document.documentElement.scrollHeight <= innerHeight")  # 1360 x 1000


def test_from_photographs_to_files(browser: Chrome, root: Path, photographs: dict[str, Path], tmp_path: Path) -> None:
    project = Project(root / "Grass")
    begin(browser, "Grass")
    drop(browser, "new-files", photographs["third.png"])
    wait_for(browser, "new-message", "1 photograph kept and waiting: drop good ones in 1. and press Learn.")
    click(browser, "#learn")
    wait_for(browser, "message", "There is no good photograph to learn from: add one to ten.")
    drop(browser, "good-files", photographs["first.png"], photographs["notes.txt"])
    said = wait_for(browser, "message", "1 good photograph. Press Learn.")
    assert "image notes.txt cannot be read: cannot identify image file" in said
    click(browser, "#learn")
    wait_for(browser, "new-message", "1 checked.")
    wait_for(browser, "expectation", "The threshold is a guess")
    drop(browser, "new-files", photographs["bad.png"])
    wait_for(browser, "new-message", "2 checked.")

    press(browser, "s")
    wait_for(browser, "new-message", ": skip.")
    wait_for(browser, "detail", "1 left to review")
    press(browser, "d")
    wait_for(browser, "new-message", ": defective.")
    wait_for(browser, "expectation", "What you called defective chose the threshold.")
    wait_for(browser, "detail", "All are reviewed.")
    assert sorted(each.decision for each in project.read().checked().values()) == ["defective", "skip"]
    for left in (1, 2):
        press(browser, "z")
        wait_for(browser, "detail", f"{left} left to review")
    set_threshold(browser, 0.3)
    wait_for(browser, "expectation", "The threshold is your own.")
    click(browser, "#other-threshold")
    wait_until(browser, lambda: project.read().threshold == 0.5)

    click(browser, "#how button")
    click(browser, "#look-here")
    wait_for(browser, "message", "Nothing is painted")
    paint(browser)
    click(browser, "#look-here")
    wait_for(browser, "message", "Only the painted place counts from the next Learn on.")
    click(browser, "#results [data-key='checked/third.png']")
    wait_for(browser, "remove", "Remove third.png")
    click(browser, "#accept")
    wait_for(browser, "message", "Learnt 2 good photographs")
    wait_until(browser, lambda: project.read().waiting() == {})
    assert project.read().settings["region"]
    assert project.read().model.settings["region"] == project.read().settings["region"]

    click(browser, "#save")
    wait_for(browser, "files-message", "All call anomalous what is above 0.50.")
    links = [each.get_attribute("href") for each in browser.find_elements(By.CSS_SELECTOR, "#files a[href]")]
    files = {link.rpartition("/")[2]: link for link in links}
    assert set(files) == {"model.ckpt", "model.onnx", "report.html", "score.py", "scores.csv"}
    with urlopen(files["model.ckpt"]) as answer:  # noqa: S310
        (tmp_path / "model.ckpt").write_bytes(answer.read())
    assert Htdgm.load_from_checkpoint(tmp_path / "model.ckpt").model.num_shots == 2


def test_nothing_is_lost_by_a_reload_another_tab_or_another_server(
    browser: Chrome, photographs: dict[str, Path], serving: Serve
) -> None:
    begin(browser, "Kept")
    drop(browser, "good-files", photographs["first.png"])
    wait_for(browser, "message", "1 good photograph. Press Learn.")
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    with serving() as address:
        browser.get(f"{address}?project=Kept")
        drop(browser, "good-files", photographs["second.png"])
        wait_for(browser, "message", "2 good photographs. Press Learn.")
        click(browser, "#learn")
        wait_for(browser, "message", "Learnt 2 good photographs")
    browser.close()
    browser.switch_to.window(first)
    drop(browser, "new-files", photographs["third.png"])
    wait_for(browser, "new-message", "1 checked.")
    browser.refresh()
    wait_until(browser, lambda: len(browser.find_elements(By.CSS_SELECTOR, "#good .tile")) == 2)
    assert "third.png" in wait_for(browser, "results", "third.png")
    browser.get_log("performance")  # the other server's address is none of the page's own
    browser.refresh()


def test_the_camera_takes_photographs(browser: Chrome) -> None:
    begin(browser, "Camera")
    assert browser.execute_script("return document.getElementById('good-camera-note')?.innerText ?? ''") == ""
    browser.execute_script(
        "for (const tab of document.querySelectorAll('button[role=tab]'))"
        "  if (tab.innerText.includes('camera')) {tab.click(); break}"
    )
    click(browser, "#good-camera button:not(.upload-container)")
    click(browser, "#good-camera button[aria-label='capture photo']")
    wait_for(browser, "message", "1 good photograph. Press Learn.")
    note = f"Object.defineProperty(window, 'isSecureContext', {{value: false}}); return ({CAMERA})()"
    assert "only over https, or at http://localhost" in browser.execute_script(note)


def test_only_this_machine_is_served(opened: tuple[Chrome, str]) -> None:
    port = int(opened[1].rstrip("/").rpartition(":")[2])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing, but tells which address of this machine others see
        outer = probe.getsockname()[0]
    assert not outer.startswith("127.")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((outer, port), timeout=1)
