# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Reviewing: which photographs a person is to look at first, and what the decisions make of the threshold."""

from collections.abc import Sequence

import numpy as np

from .facts import Facts
from .report import finding_of
from .state import State


def to_review(state: State, facts: Facts) -> list[str]:
    """Order the photographs that nobody has decided about, the most unsure ones first.

    Args:
        state (State): What is known of the project.
        facts (Facts): What is known of its model.

    Returns:
        list[str]: Their keys: by how few times the score is above the threshold, or below it.
    """
    undecided = {key: finding_of(each) for key, each in state.checked().items() if each.decision is None}
    logarithm = float(np.log(facts.raw_at(state.threshold)))
    distances = {
        key: abs(float(np.log(max(each.raw, 1e-12))) - logarithm)
        for key, each in undecided.items()
        if each.raw is not None
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
