# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Who chooses the threshold of a project: decisions, photographs that nobody has looked at, or good ones."""

from pathlib import Path
from threading import Event

import numpy as np
import pytest
from anomalib.engine import Engine
from PIL import Image

from anomalib_htdgm import Htdgm
from anomalib_htdgm.demo.part import Part
from anomalib_htdgm.inspection import thresholds
from anomalib_htdgm.inspection.facts import Facts, Finding, digest_of
from anomalib_htdgm.inspection.sentences import NOTE, expect
from anomalib_htdgm.inspection.state import Photograph, State
from anomalib_htdgm.inspection.thresholds import threshold_of_decisions, to_review
from anomalib_htdgm.models.htdgm import calibration

from .parts import basis, check, learn


def test_decisions_are_learnt_and_choose_and_are_taken_back(
    part: Part, photographs: list[Path], tmp_path: Path
) -> None:
    learn(part, *photographs[:3])
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "noise.png")
    before = check(part, *photographs[3:5], tmp_path / "noise.png")
    part.project.decide("checked/noise.png", "defective")
    part.choose_threshold()
    assert basis(part) == "labelled images"
    verdicts = {row.name: row.finding.score > 0.5 for row in part.project.read().rows()}
    assert [name for name, is_anomalous in verdicts.items() if is_anomalous] == ["noise.png"]
    checkpoint = part.project.folder / "model.ckpt"
    assert digest_of(checkpoint) == part.project.read().model.digest
    model = Htdgm.load_from_checkpoint(checkpoint)
    assert model.threshold_chosen_by == "labelled images"
    engine = Engine(logger=False, default_root_dir=tmp_path / "elsewhere", enable_progress_bar=False)
    for each in part.project.read().checked().values():
        path = (tmp_path / "ascii.png").write_bytes(part.project.path_of(each).read_bytes()) and tmp_path / "ascii.png"
        (batch,) = engine.predict(model, data_path=path)
        assert float(batch.pred_score) == pytest.approx(each.finding.score, abs=1e-6)
    part.project.take_back()
    part.choose_threshold()
    assert basis(part) == "training images"
    assert {row.name: row.finding.score for row in part.project.read().rows()} == pytest.approx(before, abs=1e-6)
    part.project.decide("checked/part 3.png", "good")
    part.learn(1, lambda _: None, Event())
    assert list(part.project.read().model.good)[-1] == "checked/part 3.png"
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
    assert "% higher than before" in part.project.read().settings[NOTE]
    for uses, chosen_by in ((False, "guess"), (True, "unlabelled images")):
        with part.project.changing() as state:
            state.settings[thresholds.USES_UNCHECKED] = uses
        part.choose_threshold()
        assert basis(part) == chosen_by
    assert {row.name: row.finding.score for row in part.project.read().rows()} == pytest.approx(scores, abs=1e-6)
    part.project.move_threshold(0.62)
    check(part, photographs[6])
    assert "The threshold is your own." in expect(part.project.read())
    part.add(photographs[1:2], "good")
    part.learn(1, lambda _: None, Event())
    assert (part.project.read().threshold, basis(part)) == (0.62, "guess")


def test_a_box_of_defects_does_not_raise_the_threshold(part: Part, photographs: list[Path]) -> None:
    learn(part, *photographs[:3])
    limit = part.project.read().model.raw_threshold
    with part.project.changing() as state:
        for number, share in enumerate([2.0, 1.9] * 5 + [0.8, 0.7] * 5):
            finding = Finding(raw=share * limit, digest=str(number))
            state.photographs[f"checked/{number}"] = Photograph(str(number), "", "checked", "", finding=finding)
    part.choose_threshold()
    assert basis(part) == "training images"
    assert "10 of 20 unlabelled images, more than a fifth" in part.project.read().settings[NOTE]


def test_the_unsure_ones_come_first_and_none_that_is_decided() -> None:
    raws = {"far": 9.0, "near": 2.1, "low": 0.1, "nearest": 1.95, "decided": 2.0, "unread": None}
    photographs = {
        name: Photograph(
            name, name, "checked", "", decision="skip" if name == "decided" else None, finding=Finding(raw=raw)
        )
        for name, raw in raws.items()
    }
    facts = Facts("", "", {}, {}, {}, "guess", threshold=0.5, raw_threshold=2.0, raw_range=4.0, pixel_threshold=1.0)
    state = State("part", model=facts, photographs={**photographs, "good": Photograph("good", "good", "good", "")})
    assert to_review(state) == ["nearest", "near", "far", "low"]
    state.threshold = 1.0  # a raw score of 4
    assert to_review(state)[0] == "near"


@pytest.mark.parametrize(
    ("good", "defective", "threshold"),
    [
        ([1.0, 2.0], [4.0, 5.0], 3.0),
        ([1.0, 2.0, 4.5], [4.0, 5.0, 6.0], 4.75),  # what was called good stays good
        ([1.0, 3.0], [2.0], None),
        ([1.0, 2.0, 3.0], [0.5, 5.0, 6.0, 7.0], 4.0),
        ([], [4.0], 2.0),
        ([1.0], [], None),
    ],
)
def test_decisions_choose_what_tells_the_two_apart(good: list[float], defective: list[float], threshold: float) -> None:
    assert threshold_of_decisions(good, defective) == threshold
