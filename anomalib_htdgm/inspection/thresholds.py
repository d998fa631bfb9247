# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Who chooses the threshold of a project: photographs decided to be defective, many unchecked ones, or the good ones.

Whoever chooses it, 0.5 is the threshold then, for page, checkpoint, endpoint and command alike. What was noted before
is in the project, so that each choice can be taken back.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from anomalib_htdgm.models.htdgm.threshold import Basis, doubt_about_unlabelled, threshold_above_most

from .exporting import save_checkpoint
from .inspecting import Inspector
from .pictures import read_map
from .project import CHECKPOINT, Project
from .sentences import NOTE
from .state import State

ENOUGH_UNCHECKED = 20
"""Photographs that nobody has looked at which tell, by most of them being good, how much good ones differ."""
LEAST_CHANGE = 0.05
"""Share by which a threshold of unchecked photographs changes, if it does: with less, scores would never be at rest."""
OF_SHOTS = "of shots"
"""Setting of a project: the threshold that its good photographs have chosen."""
USES_UNCHECKED = "uses unchecked"
"""Setting of a project: whether a person wants unchecked photographs to choose, or not; absent if nobody has said."""
Choice = tuple[float, float, Basis, str]
"""Raw thresholds of images and of pixels, what they were chosen by, and a sentence about that."""


def to_review(state: State) -> list[str]:
    """Order the photographs that nobody has decided about, the most unsure ones first.

    Returns:
        list[str]: Their keys: by how few times the score is above the threshold, or below it.
    """
    if state.model is None:
        return []
    logarithm = np.log(state.model.raw_at(state.threshold))
    distances = {
        key: abs(float(np.log(max(each.finding.raw, 1e-12)) - logarithm))
        for key, each in state.checked().items()
        if each.decision is None and each.finding and each.finding.raw is not None
    }
    return sorted(distances, key=lambda key: distances[key])


def threshold_of_decisions(good: Sequence[float], defective: Sequence[float]) -> float | None:
    """Choose a threshold by photographs that a person has decided about.

    Args:
        good (Sequence[float]): Raw scores of good ones that were not trained on, or as if they had not been seen.
        defective (Sequence[float]): Raw scores of defective ones.

    Returns:
        float | None: The raw threshold in the middle between the highest good one and the lowest defective one above
        it: what a person calls good is never anomalous by what they call defective. ``None`` if there is no defective
        one above the good ones.
    """
    highest = max(good, default=0.0)
    above = [each for each in defective if each > highest]
    return (highest + min(above)) / 2 if above else None


def choose_threshold(project: Project, inspector: Inspector) -> None:
    """Choose the threshold anew, unless the user has one of their own, and note why."""
    state, facts, note = project.read(), inspector.facts, ""
    fields = ("raw_threshold", "pixel_threshold", "chosen_by")
    of_shots = state.settings.get(OF_SHOTS) or {name: getattr(facts, name) for name in fields}
    if state.threshold == facts.threshold:
        image, pixel, basis, note = _choose(project, state, of_shots)
        change, is_same_kind = image / facts.raw_threshold - 1, basis == facts.chosen_by
        is_at_rest = is_same_kind and basis == "unlabelled images" and abs(change) < LEAST_CHANGE
        if (change or not is_same_kind) and not is_at_rest:
            _set(project, inspector, image, pixel, basis)
            if change:
                how = f"{abs(change):.0%} {'higher' if change > 0 else 'lower'} than before"
                note += f" The threshold is {how}; scores are shown anew, with 0.5 as the threshold."
    with project.changing() as state:
        state.settings |= {OF_SHOTS: of_shots, NOTE: note.strip()}


def has_choice(state: State) -> bool:
    """Tell whether there are enough unchecked photographs for a threshold beside that of the good ones."""
    return state.model is not None and len(_unchecked(state)) >= ENOUGH_UNCHECKED


def _choose(project: Project, state: State, of_shots: dict[str, Any]) -> Choice:
    image, pixel, basis = of_shots["raw_threshold"], of_shots["pixel_threshold"], of_shots["chosen_by"]
    scored = [(each, each.finding) for each in state.checked().values() if each.finding]
    known = [(each.decision, found.raw, found.digest) for each, found in scored if found.raw is not None]
    defective = [raw for decision, raw, _ in known if decision == "defective"]
    learnt = set(state.facts.good.values())
    good = [raw for decision, raw, digest in known if decision == "good" and digest not in learnt]
    threshold = threshold_of_decisions([*state.facts.unseen.values(), *good], defective)
    if threshold:
        return threshold, pixel * threshold / image, "labelled images", "What you called defective chose the threshold."
    uses, unchecked = state.settings.get(USES_UNCHECKED), _unchecked(state)
    if defective and uses is None:
        why = "What you called defective scores no higher than good ones do: it cannot choose the threshold."
        return image, pixel, basis, why
    if uses is False:
        return image, pixel, basis, "The threshold is that of the good photographs, as you want it."
    if len(unchecked) < ENOUGH_UNCHECKED:
        return image, pixel, basis, ""
    scores = torch.tensor(list(unchecked.values()))
    doubt = doubt_about_unlabelled(scores, torch.tensor(image) if basis == "training images" else None)
    if doubt and not uses:
        return image, pixel, basis, f"{doubt}. The threshold is that of the good photographs."
    maps = (read_map(project, state.photographs[key].identity) for key in unchecked)
    peaks = torch.tensor([float(heat.max()) for heat in maps if heat is not None])
    of_image = float(threshold_above_most(scores))
    are_all = len(peaks) == len(unchecked)  # those of some only would be those of the strangest
    of_pixel = float(threshold_above_most(peaks)) if are_all else pixel * of_image / image
    why = f"{len(unchecked)} photographs that nobody has looked at chose the threshold."
    return of_image, of_pixel, "unlabelled images", why


def _unchecked(state: State) -> dict[str, float]:
    """Give the raw scores of photographs that nobody has decided about, but copies of others or of what was learnt."""
    digests, scores = set(state.facts.good.values()), {}
    for key, each in state.checked().items():
        found = each.finding
        if each.decision in {None, "skip"} and found and found.raw is not None and found.digest not in digests:
            digests.add(found.digest)
            scores[key] = found.raw
    return scores


def _set(project: Project, inspector: Inspector, image: float, pixel: float, basis: Basis) -> None:
    """Let 0.5 be another threshold, from then on and of what has been checked."""
    checkpoint = project.folder / CHECKPOINT
    raw: dict[str, Any] = {"raw_threshold": image, "raw_range": 2 * image, "pixel_threshold": pixel}
    inspector.follow(replace(inspector.facts, threshold=0.5, chosen_by=basis, **raw))
    with project.changing() as state:  # nobody else is to save another checkpoint meanwhile
        facts = replace(inspector.facts, digest=save_checkpoint(inspector.model, checkpoint, checkpoint))
        inspector.facts = state.model = facts
        state.threshold, band = 0.5, facts.band_at(0.5)
        for key, each in state.photographs.items():
            if each.finding and each.finding.raw is not None:
                score = min(max(facts.score_at(each.finding.raw), 0.0), 1.0)
                moved = replace(each.finding, score=score, verdict=each.finding.verdict_at(band))
                state.photographs[key] = replace(each, finding=moved)
