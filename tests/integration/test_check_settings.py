# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The command looks where it is told to, aligns, and has one threshold for all that it says."""

from pathlib import Path
from threading import Event

import pytest
from PIL import Image, ImageChops

from anomalib_htdgm import Htdgm
from anomalib_htdgm.inspection import run
from anomalib_htdgm.inspection.checking import FolderCheck
from anomalib_htdgm.inspection.inspecting import Inspector
from anomalib_htdgm.inspection.project import Project
from anomalib_htdgm.inspection.thresholds import choose_threshold

from .checked import do, read_table, write

pytestmark = pytest.mark.usefixtures("learnt")


def test_what_is_outside_the_region_does_not_count_and_a_project_keeps_it(
    parts: Path, new: Path, tmp_path: Path, learnt: list[int]
) -> None:
    wanted = {"new": new, "project": tmp_path / "project"}

    def scores() -> dict[str, float]:
        return {row["photograph"]: float(row["raw score"]) for row in read_table(tmp_path / "project")}

    do(**wanted, good=parts, region=[0.0, 0.0, 1.0, 0.3])  # defects lie below
    above = scores()
    assert len(set(above.values())) == 1
    assert "Where to look" in (tmp_path / "project" / "report.html").read_text(encoding="utf-8")
    do(**wanted)
    assert learnt == [3]
    do(**wanted, region=[0.0, 0.0, 1.0, 1.0])
    assert learnt == [3, 3]
    assert scores()["checkered 2.png"] > scores()["good 2.png"]
    assert "Where to look" not in (tmp_path / "project" / "report.html").read_text(encoding="utf-8")


def test_shifted_photographs_are_aligned(parts: Path, tmp_path: Path, learnt: list[int]) -> None:
    folder = tmp_path / "shifted"
    with Image.open(write(folder, "good", 0)) as image:
        shifted = ImageChops.offset(image, 8, 0)
    shifted.save(folder / "good 0.png")
    scores = []
    for align in (False, True):
        do(good=parts, new=folder, out=tmp_path / str(align), align=align)
        scores += [float(row["raw score"]) for row in read_table(tmp_path / str(align))]
    assert scores[1] < scores[0]
    do(model=tmp_path / "True" / "model.ckpt", new=folder, out=tmp_path / "elsewhere")
    assert float(read_table(tmp_path / "elsewhere")[0]["raw score"]) == scores[1]
    (tmp_path / "True" / "reference.png").unlink()
    do(good=parts, new=folder, out=tmp_path / "True", align=True)
    assert learnt == [3, 3, 3]  # anew, since nobody knows what the model's photographs were aligned with
    (tmp_path / "True" / "reference.png").write_text("damaged")
    with pytest.raises(ValueError, match=r"reference\.png is what photographs are aligned with"):
        do(good=parts, new=folder, out=tmp_path / "True", align=True)


def test_other_good_photographs_may_stand_beside_a_checkpoint(parts: Path, new: Path, tmp_path: Path) -> None:
    do(good=parts, new=new, out=tmp_path / "first")
    for _ in range(2):
        do(model=tmp_path / "first" / "model.ckpt", good=parts, new=new, out=tmp_path / "out")
        scores = {row["photograph"]: row["score"] for row in read_table(tmp_path / "out")}
        assert scores == {row["photograph"]: row["score"] for row in read_table(tmp_path / "first")}
        write(parts, "flat", 0)


def test_an_earlier_name_does_not_change_what_is_aligned_with(parts: Path, tmp_path: Path, learnt: list[int]) -> None:
    project = Project(tmp_path / "project")
    wanted, reference = {"good": parts, "project": project.folder, "align": True}, project.folder / "reference.png"
    do(**wanted)
    first = reference.read_bytes()
    write(parts, "flat", 0)
    do(**wanted)
    assert list(project.read().model.good) == ["good 0.png", "flat 0.png", "good 1.png", "good 3.png"]
    assert reference.read_bytes() == first
    project.decide("good/good 0.png", "defective")
    do(project=project.folder)
    assert learnt == [3, 4, 3]
    assert reference.read_bytes() != first  # that photograph is not good any more


def test_twenty_photographs_that_nobody_has_looked_at_choose_it(
    tmp_path: Path, learnt: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    good, new, out = (tmp_path / name for name in ("good", "new", "out"))
    write(good, "good", 0)
    for index in range(1, 21):
        write(new, "good", index)
    write(new, "checkered", 2)
    do(good=good, new=new, out=out)
    assert "21 photographs that nobody has looked at chose the threshold." in capsys.readouterr().err
    rows = read_table(out)
    assert {row["threshold chosen by"] for row in rows} == {"unlabelled images"}
    assert {row["photograph"] for row in rows if row["verdict"] == "anomalous"} == {"checkered 2.png"}
    assert Htdgm.load_from_checkpoint(out / "model.ckpt").threshold_chosen_by == "unlabelled images"
    do(good=good, new=new, out=out)
    assert (learnt, read_table(out)) == ([1], rows)


def test_a_threshold_that_is_chosen_meanwhile_is_that_of_all(
    parts: Path, new: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(tmp_path / "project")
    do(good=parts, new=new, project=project.folder)
    write(new, "flat", 7)
    write(new, "flat", 8)

    class Page(FolderCheck):
        """Is a page, too, whose user calls a photograph defective after the first check."""

        def check(self, files: dict[str, Path], stopped: Event) -> object:
            for checked in super().check(files, stopped):
                yield checked
                project.decide("checked/checkered 2.png", "defective")
                inspector = Inspector(self.inspector.model, project.read().facts, {})
                choose_threshold(project, inspector)

    monkeypatch.setattr(run, "FolderCheck", Page)
    do(new=new, project=project.folder)
    state = project.read()
    facts = state.facts
    assert facts.chosen_by == "labelled images"
    for each in state.checked().values():
        assert each.finding.score == pytest.approx(min(facts.score_at(each.finding.raw), 1.0), abs=1e-6)
