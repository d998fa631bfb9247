# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What chooses the threshold while the command checks, and that all it says is on one scale."""

from pathlib import Path
from threading import Event

import pytest

from anomalib_htdgm import Htdgm
from anomalib_htdgm.inspection import run
from anomalib_htdgm.inspection.checking import FolderCheck
from anomalib_htdgm.inspection.inspecting import Inspector
from anomalib_htdgm.inspection.project import Project
from anomalib_htdgm.inspection.thresholds import choose_threshold

from .checked import do, read_table, write

pytestmark = pytest.mark.usefixtures("learnt")


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
