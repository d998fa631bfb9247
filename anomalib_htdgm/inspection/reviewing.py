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
    """Choose a threshold by photographs that a person has decided about, as labelled images choose it.

    Args:
        good (Sequence[float]): Raw scores of good ones that were not trained on, or as if they had not been seen.
        defective (Sequence[float]): Raw scores of defective ones.

    Returns:
        float | None: The raw threshold of the highest F1, in the middle between the scores on its two sides; the lowest
        of several. ``None`` if there is no defective one.
    """
    if not len(defective):
        return None
    scores = np.unique([*good, *defective])
    below = np.concatenate([[0.0], scores[:-1]])
    candidates = (below + scores) / 2  # one below each score: the defective ones must be above it
    found = (np.asarray(defective) > candidates[:, None]).sum(axis=1)
    false_alarms = (np.asarray(good, dtype=float) > candidates[:, None]).sum(axis=1)
    return float(candidates[np.argmax(2 * found / (found + false_alarms + len(defective)))])
