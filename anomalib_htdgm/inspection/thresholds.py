# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Who chooses the threshold of a project: photographs decided to be defective, many unchecked ones, or the good ones.

Whoever chooses it, 0.5 is the threshold then, for page, checkpoint, endpoint and command alike. What was noted before
is in the project, so that each choice can be taken back.
"""

from dataclasses import asdict, replace
from typing import Any, cast

import torch

from anomalib_htdgm.models.htdgm.threshold import Basis, doubt_about_unlabelled, threshold_above_most

from .exporting import save_checkpoint
from .facts import Facts
from .inspecting import Inspector
from .preparing import OF_SHOTS
from .project import CHECKPOINT, Project
from .report import finding_of, identity_of, read_map
from .reviewing import threshold_of_decisions
from .state import Photograph, State

ENOUGH_UNCHECKED = 20
"""Photographs that nobody has looked at which tell, by most of them being good, how much good ones differ."""
LEAST_CHANGE = 0.05
"""Share by which a threshold of unchecked photographs changes, if it does: with less, scores would never be at rest."""
USES_UNCHECKED = "uses unchecked"
NOTE = "note"
Choice = tuple[float, float, Basis, str]
"""Raw thresholds of images and of pixels, what they were chosen by, and a sentence about that."""


def choose_threshold(project: Project, inspector: Inspector) -> None:
    """Choose the threshold anew, unless the user has one of their own, and note why."""
    state, facts = project.read(), inspector.facts
    fields = ("raw_threshold", "pixel_threshold", "chosen_by")
    of_shots = state.settings.get(OF_SHOTS) or {name: getattr(facts, name) for name in fields}
    note = ""
    if state.threshold == facts.threshold:
        image, pixel, basis, why = _choose(project, state, facts, of_shots)
        change, is_same_kind = image / facts.raw_threshold - 1, basis == facts.chosen_by
        is_at_rest = is_same_kind and basis == "unlabelled images" and abs(change) < LEAST_CHANGE
        note = why
        if (change or not is_same_kind) and not is_at_rest:
            how = f"{abs(change):.0%} {'higher' if change > 0 else 'lower'} than before"
            note = f"{why} The threshold is {how}; scores are shown anew, with 0.5 as the threshold." if change else why
            _set(project, inspector, image, pixel, basis)
    with project.changing() as state:
        state.settings |= {OF_SHOTS: of_shots, NOTE: note}


def has_choice(state: State) -> bool:
    """Tell whether there are enough unchecked photographs for a threshold beside that of the good ones."""
    return state.model is not None and len(_unchecked(state)) >= ENOUGH_UNCHECKED


def _choose(project: Project, state: State, facts: Facts, of_shots: dict[str, Any]) -> Choice:
    image, pixel = of_shots["raw_threshold"], of_shots["pixel_threshold"]
    raw = {key: cast("float", finding_of(each).raw) for key, each in state.checked().items() if _has_score(each)}
    decided = {key: state.photographs[key].decision for key in raw}
    defective = [raw[key] for key, decision in decided.items() if decision == "defective"]
    learnt = set(facts.good.values())
    good = [
        raw[key]
        for key, decision in decided.items()
        if decision == "good" and finding_of(state.photographs[key]).digest not in learnt
    ]
    threshold = threshold_of_decisions([*facts.unseen.values(), *good], defective)
    if threshold:
        return threshold, pixel * threshold / image, "labelled images", "What you called defective chose the threshold."
    unchecked, uses = _unchecked(state), state.settings.get(USES_UNCHECKED)
    if defective and uses is None:
        why = "What you called defective scores no higher than good ones do: it cannot choose the threshold."
        return image, pixel, of_shots["chosen_by"], why
    why = "" if uses is not False else "The threshold is that of the good photographs, as you want it."
    if len(unchecked) >= ENOUGH_UNCHECKED and uses is not False:
        scores = torch.tensor([cast("float", finding_of(each).raw) for each in unchecked])
        is_firm = of_shots["chosen_by"] == "training images"
        doubt = doubt_about_unlabelled(scores, torch.tensor(image) if is_firm else None)
        if uses or not doubt:
            maps = (read_map(project, identity_of(each)) for each in unchecked)
            peaks = torch.tensor([float(heat.max()) for heat in maps if heat is not None])
            are_all = len(peaks) == len(unchecked)  # those of some only would be those of the strangest
            of_image = float(threshold_above_most(scores))
            pixel = float(threshold_above_most(peaks)) if are_all else pixel * of_image / image
            image = of_image
            why = f"{len(unchecked)} photographs that nobody has looked at chose the threshold."
            return image, pixel, "unlabelled images", why
        why = f"{doubt}. The threshold is that of the good photographs."
    return image, pixel, of_shots["chosen_by"], why


def _has_score(photograph: Photograph) -> bool:
    return finding_of(photograph).raw is not None


def _unchecked(state: State) -> list[Photograph]:
    """List what tells how good photographs differ: no copies of those that were learnt, or of one another."""
    learnt = set((state.model or {}).get("good", {}).values())
    every = (each for each in state.checked().values() if each.decision in {None, "skip"} and _has_score(each))
    by_digest = {finding_of(each).digest: each for each in every}
    return [each for digest, each in by_digest.items() if digest not in learnt]


def _set(project: Project, inspector: Inspector, image: float, pixel: float, basis: Basis) -> None:
    """Let 0.5 be another threshold, from then on and of what has been checked."""
    checkpoint = project.folder / CHECKPOINT
    chosen: dict[str, Any] = {
        "raw_threshold": image,
        "raw_range": 2 * image,
        "pixel_threshold": pixel,
        "chosen_by": basis,
    }
    inspector.follow(replace(inspector.facts, threshold=0.5, **chosen))
    with project.changing() as state:  # nobody else is to save another checkpoint meanwhile
        facts = replace(inspector.facts, digest=save_checkpoint(inspector.model, checkpoint, checkpoint))
        inspector.follow(facts)
        state.model, state.threshold = asdict(facts), 0.5
        for key, each in state.photographs.items():
            finding = finding_of(each)
            if finding.raw is not None:
                score = min(max(facts.score_at(finding.raw), 0.0), 1.0)
                moved = replace(finding, score=score, verdict=finding.verdict_at(inspector.band))
                state.photographs[key] = replace(each, finding=asdict(moved))
