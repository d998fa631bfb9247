# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The command checks a folder: scores are the model's own, each file is done once, and nothing is lost."""

import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from threading import Event, Thread

import pytest
from anomalib.engine import Engine

from anomalib_htdgm import Htdgm
from anomalib_htdgm.inspection import preparing
from anomalib_htdgm.inspection.evidence import outline_regions
from anomalib_htdgm.inspection.inspecting import Inspector
from anomalib_htdgm.inspection.learning import read_good
from anomalib_htdgm.inspection.project import Project

from .checked import contents, do, read_table, wait_for, write
from .small import SIDE, TESTED

pytestmark = pytest.mark.usefixtures("learnt")


def test_scores_are_those_of_the_model_and_the_report_needs_nothing_else(
    parts: Path, new: Path, tmp_path: Path, engine: Engine
) -> None:
    out = tmp_path / "out"
    write(new, "good", 0).rename(new / "again.png")
    (new / ".hidden").write_text("no file to check")
    (new / "below").mkdir()
    (new / "below" / "<b>notes.txt").write_text("no photograph")
    assert do(good=parts, new=new, out=out)
    rows = {row["photograph"]: row for row in read_table(out)}
    unread = rows.pop("below/<b>notes.txt")
    assert (unread["verdict"], unread["score"]) == ("cannot be read", "")
    assert unread["reason"].startswith("It cannot be read: ")
    assert str(tmp_path) not in unread["reason"]
    assert "It is a copy of good 0.png." in rows["again.png"]["reason"]
    batches = engine.predict(Htdgm(), data_path=new, ckpt_path=out / "model.ckpt")
    paths, scores, labels = zip(
        *((path, float(batch.pred_score), bool(batch.pred_label)) for batch in batches for path in batch.image_path),
        strict=True,
    )
    names = [Path(path).name for path in paths]
    assert {name: float(row["score"]) for name, row in rows.items()} == dict(zip(names, scores, strict=True))
    anomalous = {name for name, row in rows.items() if row["verdict"] == "anomalous"}
    assert anomalous <= {name for name, label in zip(names, labels, strict=True) if label}
    report = (out / "report.html").read_text(encoding="utf-8")
    assert set(re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([\w:/;.]{,12})""", report)) == {"data:image/j"}
    assert "http" not in report
    assert "<script" not in report
    order = re.findall(r'<div class="name">(.*?)</div>', report)
    ranked = sorted(rows, key=lambda name: -float(rows[name]["raw score"]))
    assert order == [*sorted(ranked, key=lambda name: rows[name]["verdict"] == "good"), "below/&lt;b&gt;notes.txt"]
    assert "Of 100 good ones" in report
    assert all(name in report for name in ("good 0.png", "good 1.png", "good 3.png", "training images"))
    for path in [*new.glob("*.png"), new / ".hidden"]:
        path.unlink()
    assert do(good=parts, new=new, out=tmp_path / "other")  # so that no script takes what cannot be read for good


def test_the_outline_lies_at_the_defect(parts: Path, new: Path, tmp_path: Path) -> None:
    images = read_good({path.name: path for path in sorted(parts.iterdir())})
    model, facts = preparing.learn(images, tmp_path / "model.ckpt")
    inspector = Inspector(model, facts, images)
    finding, heat, pictures = inspector.inspect(new / "checkered 2.png")
    assert finding.verdict == "anomalous"
    assert " times the usual)." in finding.reason_of(finding.verdict)
    assert pictures.keys() == {"photograph", "heat", "place", "similar"}
    columns, rows = outline_regions(heat, facts.pixel_threshold)[0].T * SIDE
    assert 20 <= rows.mean() <= 44  # where make_image puts it
    assert 24 <= columns.mean() <= 48
    assert inspector.inspect(parts / "good 0.png").pictures.keys() == {"photograph"}


def test_a_second_run_does_what_is_new_and_keeps_what_was_there(
    parts: Path, new: Path, tmp_path: Path, learnt: list[int]
) -> None:
    out, before = tmp_path / "out", {}
    do(good=parts, new=new, out=out)
    before = {row["photograph"]: row for row in read_table(out)}
    write(new, "flat", 7)
    with (out / "scores.csv").open("a", encoding="utf-8") as file:
        file.write('"half a li')  # as a process leaves it that is killed
    do(good=parts, new=new, out=out)
    assert learnt == [3]
    rows = {row["photograph"]: row for row in read_table(out)}
    assert rows.keys() == {*before, "flat 7.png"}
    assert {name: rows[name] for name in before} == before
    first = contents(out)
    write(parts, "good", 5)
    do(good=parts, new=new, out=out)
    assert learnt == [3, 4]
    (earlier,) = (out / "earlier").iterdir()
    kept = {out / path.relative_to(earlier): content for path, content in contents(earlier).items()}
    assert kept == first


def test_a_project_has_copies_and_learns_what_is_said_of_them(
    parts: Path, new: Path, tmp_path: Path, learnt: list[int]
) -> None:
    project = Project(tmp_path / "bottle")
    do(good=parts, new=new, project=project.folder)
    for folder in (parts, new):
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


def test_a_watch_takes_what_comes_and_what_is_complete_at_last(parts: Path, new: Path, tmp_path: Path) -> None:
    out, stopped = tmp_path / "out", Event()
    whole = write(tmp_path, "flat", 9).read_bytes()
    watch = Thread(target=do, kwargs={"good": parts, "new": new, "out": out, "watch": True, "stopped": stopped})
    watch.start()
    try:
        wait_for(len(TESTED), out, watch.is_alive)
        (new / "late.png").write_bytes(whole[: len(whole) // 2])
        wait_for(len(TESTED) + 1, out, watch.is_alive)
        assert read_table(out)[-1]["verdict"] == "cannot be read"
        (new / "late.png").write_bytes(whole)
        while read_table(out)[-1]["verdict"] == "cannot be read":
            assert watch.is_alive()
            time.sleep(0.05)
    finally:
        stopped.set()
        watch.join(60)
    names = [row["photograph"] for row in read_table(out)]
    assert sorted(names) == sorted(path.name for path in new.iterdir())
    assert "late.png" in (out / "report.html").read_text(encoding="utf-8")


@pytest.mark.thorough
def test_a_watch_that_is_killed_goes_on_where_it_was(
    parts: Path, new: Path, tmp_path: Path, small_checkpoint: Path
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "anomalib_htdgm.check", "--model", small_checkpoint, "--good", parts]
    start = partial(subprocess.Popen, [*map(str, command), "--new", str(new), "--out", str(out), "--watch"])

    process = start()
    try:
        wait_for(2, out, lambda: process.poll() is None)
        process.kill()  # amid the first ones
        process.wait()
        some = read_table(out)
        write(new, "good", 8)
        process = start()
        wait_for(len(TESTED) + 1, out, lambda: process.poll() is None)
        write(new, "checkered", 9)
        wait_for(len(TESTED) + 2, out, lambda: process.poll() is None)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 1
    finally:
        process.kill()
    rows = read_table(out)
    assert rows[: len(some)] == some
    assert sorted(row["photograph"] for row in rows) == sorted(path.name for path in new.iterdir())
    assert "checkered 9.png" in (out / "report.html").read_text(encoding="utf-8")
