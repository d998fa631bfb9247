# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What is behind the page: which files are taken, what is learnt, and who chooses the threshold."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from anomalib.engine import Engine
from PIL import Image

from anomalib_htdgm import Htdgm
from anomalib_htdgm.demo import part as part_module
from anomalib_htdgm.demo import thresholds
from anomalib_htdgm.demo.inspectors import Inspectors
from anomalib_htdgm.demo.part import Part, advise, name_project, write_example
from anomalib_htdgm.demo.views import choose_row, draw, rows_of, show_good, show_projects, show_results
from anomalib_htdgm.inspection import preparing
from anomalib_htdgm.inspection.exporting import StoppedError
from anomalib_htdgm.inspection.facts import digest_of
from anomalib_htdgm.inspection.learning import learn as learn_project
from anomalib_htdgm.inspection.project import Project
from anomalib_htdgm.inspection.report import finding_of
from anomalib_htdgm.models.htdgm import calibration
from tests.integration.checked import SMALL
from tests.unit.textures import shingles


@pytest.fixture
def part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Part:
    small = {"settings": SMALL | {"iterations": 2}, "precision": "float32"}
    monkeypatch.setattr(preparing, "learn", partial(learn_project, **small))
    name = name_project(tmp_path / "projects", "Jürgen 日")
    return open_again(tmp_path / "projects", name)


def open_again(root: Path, name: str) -> Part:
    """Open a project as a server does that was started anew, or another tab."""
    inspectors = Inspectors(root)
    return Part(inspectors.find(name), inspectors)


@pytest.fixture
def photographs(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"part {index}.png" for index in range(7)]
    for index, path in enumerate(paths):
        pixels = (shingles(seed=index)[0] * 0.5 + 0.5) * 255
        Image.fromarray(pixels.round().byte().permute(1, 2, 0).numpy()).save(path)
    return paths


def learn(part: Part, *good: Path) -> None:
    assert part.add(good, "good") == []
    part.learn(1, lambda _: None, Event())


def check(part: Part, *new: Path) -> dict[str, float]:
    """Check photographs, and give the scores of all by their names."""
    assert part.add(new, "checked") == []
    list(part.check(Event()))
    return {row.name: row.score for row in rows_of(part.project.read())}


def basis(part: Part) -> str:
    return part.project.read().model["chosen_by"]


def score_anew(part: Part, raw: list[float]) -> None:
    """Let photographs have scores; thresholds do not ask whose."""
    with part.project.changing() as state:
        for (key, each), value in zip(state.checked().items(), raw, strict=True):
            state.photographs[key] = replace(each, finding=each.finding | {"raw": value})


def test_a_file_is_left_out_in_one_sentence(part: Part, photographs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    Image.new("RGB", (200, 100), "red").save(tmp_path / "wide.png")
    Image.new("RGB", (200, 10)).save(tmp_path / "thin.png")
    bad = [tmp_path / name for name in ("notes.txt", "wide.png", "thin.png")]
    refused = part.add([photographs[0], *bad, photographs[1]], "good")
    assert [sentence.partition(" cannot")[0].partition(" has")[0] for sentence in refused] == [
        f"image {path.name}" for path in bad
    ]
    assert str(tmp_path) not in " ".join(refused)
    assert list(part.project.read().good()) == ["good/part 0.png", "good/part 1.png"]
    assert len(part.add([bad[0], bad[1]], "checked")) == 1  # what is to be checked may have any shape


@pytest.mark.parametrize("name", ["", "  ", "..", ".hidden", "a/b", "a\\b", "x" * 61, "nul\0"])
def test_a_project_is_no_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"^name: got "):
        name_project(tmp_path, name)
    with pytest.raises(KeyError):
        Inspectors(tmp_path).find(name)


def test_another_tab_and_another_server_know_all(part: Part, photographs: list[Path]) -> None:
    learn(part, *photographs[:3])
    scores = check(part, *photographs[3:5])
    other = open_again(part.project.folder.parent, part.project.folder.name)
    assert check(other, photographs[5]).items() > scores.items()
    part.project.decide("checked/part 3.png", "skip")
    other.project.decide("checked/part 4.png", "skip")
    state = part.project.read()
    assert [each.decision for each in state.checked().values()] == ["skip", "skip", None]
    assert choose_row(state, rows_of(state), "")[0].name == "part 5.png"
    assert choose_row(state, rows_of(state), "checked/part 3.png") == (
        next(row for row in rows_of(state) if row.name == "part 3.png"),
        1,
    )


def test_names_do_not_become_html(part: Part, photographs: list[Path]) -> None:
    part.project.add(photographs[0], "good", "<b>'.png")
    part.project.add(photographs[1], "checked", '<b>".png')
    state = part.project.read()
    shown = show_good("<b>", state, "") + "".join(show_results("<b>", state, "")[:2])
    assert "<b>" not in shown + show_projects([part.project]).replace("<b>Jürgen", "")


def test_nothing_can_be_learnt_of_nothing(part: Part, photographs: list[Path]) -> None:
    with pytest.raises(ValueError, match="There is no good photograph to learn from"):
        part.learn(1, lambda _: None, Event())
    check(part, photographs[0])
    assert [row.verdict for row in rows_of(part.project.read())] == [""]


def test_what_was_stopped_goes_on(part: Part, photographs: list[Path]) -> None:
    learn(part, photographs[0])
    before = part.project.read().model
    part.add(photographs[1:2], "good")
    for when in (0, 1):  # at once, and while it chooses the threshold
        stopped = Event()
        with pytest.raises(StoppedError):
            part.learn(1, lambda share: stopped.set() if share >= when else None, stopped)  # noqa: B023
        assert part.project.read().model == before
    part.add(photographs[2:6], "checked")
    stopped = Event()
    checking = part.check(stopped)
    assert [next(checking), next(checking)] == [(1, 4), (2, 4)]
    stopped.set()
    with pytest.raises(StoppedError):
        next(checking)
    assert len(part.project.read().waiting()) == 2
    check(part)
    assert part.project.read().waiting() == {}


def test_copies_are_said_to_be_copies(part: Part, photographs: list[Path]) -> None:
    learn(part, photographs[0], photographs[0], photographs[1])
    assert advise(part.project.read()) == [
        "part 0 (2).png and part 0.png are copies of one photograph, and tell nothing of how much good ones differ."
    ]
    assert basis(part) == "guess"


def test_decisions_are_learnt_and_choose_and_are_taken_back(
    part: Part, photographs: list[Path], tmp_path: Path
) -> None:
    learn(part, *photographs[:3])
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "noise.png")
    before = check(part, *photographs[3:5], tmp_path / "noise.png")
    part.project.decide("checked/noise.png", "defective")
    part.choose_threshold()
    assert basis(part) == "labelled images"
    verdicts = {row.name: row.score > 0.5 for row in rows_of(part.project.read())}
    assert [name for name, is_anomalous in verdicts.items() if is_anomalous] == ["noise.png"]
    checkpoint = part.project.folder / "model.ckpt"
    assert digest_of(checkpoint) == part.project.read().model["digest"]
    model = Htdgm.load_from_checkpoint(checkpoint)
    assert model.threshold_chosen_by == "labelled images"
    engine = Engine(logger=False, default_root_dir=tmp_path / "elsewhere", enable_progress_bar=False)
    for each in part.project.read().checked().values():
        path = (tmp_path / "ascii.png").write_bytes(part.project.path_of(each).read_bytes()) and tmp_path / "ascii.png"
        (batch,) = engine.predict(model, data_path=path)
        assert float(batch.pred_score) == pytest.approx(finding_of(each).score, abs=1e-6)
    part.project.take_back()
    part.choose_threshold()
    assert basis(part) == "training images"
    assert {row.name: row.score for row in rows_of(part.project.read())} == pytest.approx(before, abs=1e-6)
    part.project.decide("checked/part 3.png", "good")
    part.learn(1, lambda _: None, Event())
    assert next(iter(part.project.read().model["good"])) == "checked/part 3.png"
    check(part)


def test_unchecked_photographs_choose_and_are_undone(
    part: Part, photographs: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(thresholds, "ENOUGH_UNCHECKED", 5)
    monkeypatch.setattr(calibration, "GUESSED_RATIO", 0.1)  # far too low: all scores are above twice the threshold
    learn(part, photographs[0])
    check(part, *photographs[:3], photographs[2])  # copies of what was learnt, and of one another, tell nothing
    assert basis(part) == "guess"
    assert not thresholds.has_choice(part.project.read())
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "noise.png")
    scores = check(part, *photographs[3:6], tmp_path / "noise.png")
    assert basis(part) == "unlabelled images"
    assert [name for name, score in scores.items() if score > 0.5] == ["noise.png"]
    assert "% higher than before" in part.project.read().settings[thresholds.NOTE]
    for uses, chosen_by in ((False, "guess"), (True, "unlabelled images")):
        with part.project.changing() as state:
            state.settings[thresholds.USES_UNCHECKED] = uses
        part.choose_threshold()
        assert basis(part) == chosen_by
    assert {row.name: row.score for row in rows_of(part.project.read())} == pytest.approx(scores, abs=1e-6)
    part.project.move_threshold(0.62)
    check(part, photographs[6])
    assert part.project.read().settings[thresholds.NOTE] == "Your own threshold, 0.62, stays."
    part.add(photographs[1:2], "good")
    part.learn(1, lambda _: None, Event())
    assert (part.project.read().threshold, basis(part)) == (0.62, "guess")


def test_a_box_of_defects_does_not_raise_the_threshold(
    part: Part, photographs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thresholds, "ENOUGH_UNCHECKED", 4)
    learn(part, *photographs[:3])
    part.add(photographs[3:], "checked")
    monkeypatch.setattr(part_module, "choose_threshold", lambda *_: None)
    list(part.check(Event()))
    monkeypatch.undo()
    monkeypatch.setattr(thresholds, "ENOUGH_UNCHECKED", 4)
    limit = part.project.read().model["raw_threshold"]
    score_anew(part, [2 * limit, 1.9 * limit, 0.8 * limit, 0.7 * limit])
    part.choose_threshold()
    assert basis(part) == "training images"
    assert "2 of 4 unlabelled images, more than a fifth" in part.project.read().settings[thresholds.NOTE]


def test_pictures_follow_the_threshold(part: Part, photographs: list[Path]) -> None:
    learn(part, *photographs[:2])
    check(part, photographs[2])
    drawn = []
    for threshold in (0.05, 0.2):
        part.project.move_threshold(threshold)
        drawn.append(draw(part.inspectors, part.project, "checked/part 2.png", "heat", large=True))
    assert drawn[0] != drawn[1]
    part.project.move_threshold(1.0)
    with pytest.raises(KeyError):  # of a good one there is no heat map
        draw(part.inspectors, part.project, "checked/part 2.png", "heat", large=True)


@pytest.mark.thorough
def test_all_broken_bricks_of_the_example_are_found(tmp_path: Path) -> None:
    inspectors = Inspectors(tmp_path)
    part = Part(write_example(tmp_path), inspectors)
    part.learn(1, lambda _: None, Event())
    list(part.check(Event()))
    verdicts = {row.name: row.verdict for row in rows_of(Project(part.project.folder).read())}
    assert sorted(verdicts) == [f"{kind} {index:03}.png" for kind in ("defect", "good") for index in (0, 7, 14)]
    assert {name for name, verdict in verdicts.items() if verdict == "anomalous"} == {
        name for name in verdicts if name.startswith("defect")
    }
    assert set(verdicts.values()) == {"anomalous", "good"}
