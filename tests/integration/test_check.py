# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The command checks a folder: scores are the model's own, each file is done once, and nothing is lost."""

import csv
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Event

import pytest
from anomalib.engine import Engine
from PIL import Image

from anomalib_htdgm import Htdgm
from anomalib_htdgm.check import main
from anomalib_htdgm.inspection import run
from anomalib_htdgm.inspection.project import Project
from anomalib_htdgm.inspection.run import CannotBeDoneError, Wanted, check

from .small import TESTED, make_image

SMALL = {"transformations": "rotations", "image_size": 25, "coarsest_size": 19, "width": 4, "memory_patches": 30}


def write(folder: Path, kind: str, index: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{kind} {index}.png"
    Image.fromarray(make_image(kind, index).permute(1, 2, 0).numpy()).save(path)
    return path


@pytest.fixture
def good(tmp_path: Path) -> Path:
    for index in (0, 1, 3):
        write(tmp_path / "good parts", "good", index)
    return tmp_path / "good parts"


@pytest.fixture
def new(tmp_path: Path) -> Path:
    for each in TESTED:
        write(tmp_path / "new", *each)
    return tmp_path / "new"


@pytest.fixture(autouse=True)
def learnt(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Learn small models, and count them."""
    counted, learn = [], run.learn

    def count(images: dict, *arguments: Path, **settings: int) -> object:
        counted.append(len(images))
        return learn(images, *arguments, **SMALL, iterations=2, precision="float32", **settings)

    monkeypatch.setattr(run, "learn", count)
    return counted


def do(stopped: Event | None = None, ready: Callable[[], None] = lambda: None, **wanted: object) -> bool:
    return check(Wanted(**wanted), stopped or Event(), ready)


def read_table(out: Path) -> list[dict[str, str]]:
    with (out / "scores.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


def test_scores_are_those_of_the_model_and_the_report_needs_nothing_else(
    good: Path, new: Path, tmp_path: Path, engine: Engine
) -> None:
    out = tmp_path / "out"
    is_anomalous = do(good=good, new=new, out=out)
    batches = engine.predict(Htdgm(), data_path=new, ckpt_path=out / "model.ckpt")
    expected = {
        Path(path).name: (float(score), bool(label))
        for batch in batches
        for path, score, label in zip(batch.image_path, batch.pred_score, batch.pred_label, strict=True)
    }
    rows = read_table(out)
    assert {row["photograph"]: float(row["score"]) for row in rows} == {
        name: each[0] for name, each in expected.items()
    }
    assert is_anomalous == any(label for _, label in expected.values())
    report = (out / "report.html").read_text(encoding="utf-8")
    assert set(re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([\w:/;.]{,12})""", report)) == {"data:image/j"}
    assert "http" not in report
    assert "<script" not in report
    order = re.findall(r'<div class="name">(.*?)</div>', report)
    assert order == [row["photograph"] for row in sorted(rows, key=lambda row: -float(row["raw score"]))]
    assert "Of 100 good ones" in report
    assert all(name in report for name in ("good 0.png", "good 1.png", "good 3.png", "training images"))


def test_what_cannot_be_read_is_a_row(good: Path, new: Path, tmp_path: Path) -> None:
    (new / "below").mkdir()
    (new / "below" / "<b>notes.txt").write_text("no photograph")
    (new / ".hidden").write_text("no file to check")
    write(new, "good", 0).rename(new / "again.png")
    do(good=good, new=new, out=tmp_path / "out")
    rows = {row["photograph"]: row for row in read_table(tmp_path / "out")}
    assert len(rows) == len(TESTED) + 2
    assert rows["below/<b>notes.txt"]["verdict"] == "cannot be read"
    assert rows["below/<b>notes.txt"]["score"] == ""
    assert rows["below/<b>notes.txt"]["reason"].startswith("It cannot be read: ")
    assert str(tmp_path) not in rows["below/<b>notes.txt"]["reason"]
    assert "It is a copy of good 0.png." in rows["again.png"]["reason"]
    assert "&lt;b&gt;notes.txt" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_a_second_run_does_what_is_new_and_keeps_what_was_there(
    good: Path, new: Path, tmp_path: Path, learnt: list[int]
) -> None:
    out, before = tmp_path / "out", {}
    do(good=good, new=new, out=out)
    before = {row["photograph"]: row for row in read_table(out)}
    write(new, "flat", 7)
    with (out / "scores.csv").open("a", encoding="utf-8") as file:
        file.write('"half a li')  # as a process leaves it that is killed
    do(good=good, new=new, out=out)
    assert learnt == [3]
    rows = {row["photograph"]: row for row in read_table(out)}
    assert rows.keys() == {*before, "flat 7.png"}
    assert {name: rows[name] for name in before} == before
    first = contents(out)
    write(good, "good", 5)
    do(good=good, new=new, out=out)
    assert learnt == [3, 4]
    (earlier,) = (out / "earlier").iterdir()
    kept = {out / path.relative_to(earlier): content for path, content in contents(earlier).items()}
    assert kept == first


def test_a_project_has_copies_and_learns_what_is_said_of_them(
    good: Path, new: Path, tmp_path: Path, learnt: list[int]
) -> None:
    project = Project(tmp_path / "bottle")
    do(good=good, new=new, project=project.folder)
    for folder in (good, new):
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    before = read_table(project.folder)
    project.decide("checked/good 2.png", "good")
    do(project=project.folder)
    assert learnt == [3, 4]
    after = read_table(project.folder)
    assert [row["photograph"] for row in after] == [row["photograph"] for row in before]
    assert [row["raw score"] for row in after] != [row["raw score"] for row in before]
    assert {row["photograph"]: row["decision"] for row in after if row["decision"]} == {"good 2.png": "good"}
    assert "You said: good." in (project.folder / "report.html").read_text(encoding="utf-8")
    project.take_back()
    write(tmp_path / "good again", "good", 6).rename(tmp_path / "good again" / "good 0.png")
    do(project=project.folder, good=tmp_path / "good again")
    do(project=project.folder, good=tmp_path / "good again")
    assert learnt == [3, 4, 4]  # a photograph of the same name is another one, but only once
    assert "good 0 (2).png" in (project.folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("wrong", ["empty", "unreadable", "small", "shape", "model"])
def test_what_cannot_be_done_is_said_before_anything_is_written(
    good: Path, new: Path, tmp_path: Path, wrong: str, learnt: list[int]
) -> None:
    outs, wanted = (tmp_path / "out", tmp_path / "none yet"), {"good": good}
    do(good=good, new=new, out=outs[0])
    before = contents(tmp_path / "out")
    if wrong == "empty":
        wanted["good"] = tmp_path / "nothing"
        wanted["good"].mkdir()
    elif wrong == "unreadable":
        (good / "good 4.png").write_bytes((good / "good 0.png").read_bytes()[:200])
    elif wrong in {"small", "shape"}:
        Image.new("RGB", (8, 8) if wrong == "small" else (90, 60)).save(good / "other.png")
    elif wrong == "model":
        wanted = {"model": good / "good 0.png"}
    for out in outs:
        with pytest.raises(CannotBeDoneError, match=r"allowed|cannot be loaded"):
            do(**wanted, new=new, out=out)
    assert contents(outs[0]) == before
    assert contents(outs[1]) == {}
    assert learnt == [3]


def test_two_checks_do_not_write_to_one_folder(good: Path, new: Path, tmp_path: Path) -> None:
    wanted = {"good": good, "new": new, "out": tmp_path / "out"}
    with pytest.raises(CannotBeDoneError, match=r"is being written to by another check; end it"):
        do(**wanted, ready=lambda: do(**wanted))
    do(**wanted)
    assert len(read_table(tmp_path / "out")) == len(TESTED)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--good", ".", "--new", "."], "--out, --project: got both or none"),
        (["--good", "nowhere", "--new", ".", "--out", "out"], "--good: got nowhere, which is no folder"),
        (["--good", ".", "--new", "nowhere", "--out", "out"], "--new: got nowhere, which is no folder"),
        (["--new", ".", "--out", "out"], "--good, --model: got none"),
        (["--model", "none.ckpt", "--new", ".", "--out", "out"], "--model: got none.ckpt, which is no file"),
        (["--good", ".", "--tiles", "0", "--new", ".", "--out", "out"], "--tiles: got 0"),
        (["--project", "out", "--watch"], "--new: got none"),
    ],
)
def test_wrong_arguments_end_with_two(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["check", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.thorough
def test_a_watch_that_is_killed_goes_on_where_it_was(
    good: Path, new: Path, tmp_path: Path, small_checkpoint: Path
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "anomalib_htdgm.check", "--model", small_checkpoint, "--good", good]
    start = partial(subprocess.Popen, [*map(str, command), "--new", str(new), "--out", str(out), "--watch"])

    def wait_for(number: int) -> None:
        deadline = time.monotonic() + 120
        while not (out / "scores.csv").is_file() or len(read_table(out)) < number:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.1)

    process = start()
    wait_for(2)
    process.kill()  # amid the first ones
    process.wait()
    some = read_table(out)
    write(new, "good", 8)
    process = start()
    wait_for(len(TESTED) + 1)
    write(new, "checkered", 9)
    wait_for(len(TESTED) + 2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 1
    rows = read_table(out)
    assert rows[: len(some)] == some
    assert sorted(row["photograph"] for row in rows) == sorted(path.name for path in new.iterdir())
    assert "checkered 9.png" in (out / "report.html").read_text(encoding="utf-8")
