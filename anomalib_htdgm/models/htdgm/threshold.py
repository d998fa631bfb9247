# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""From the scores of good images to a threshold: what a verdict holds by where no image is labelled."""

import math
from typing import Literal

import torch

Basis = Literal["guess", "training images", "unlabelled images", "labelled images", "unknown"]
"""What a threshold was chosen by; ``unknown`` is that of a checkpoint that does not tell."""

DEVIATIONS = 1.6
"""Standard deviations of the logarithm between the mean of good images' scores and the threshold."""
DEVIATIONS_OF_UNLABELLED = 1.75
"""The same above the median, where defects may be among them."""
USUAL_DEVIATION = 0.1
"""Standard deviation of the logarithm of good images' scores, as it is on thirteen sets on average."""
USUAL_WEIGHT = 8
"""Number of images that the usual deviation counts for, beside good ones."""
USUAL_WEIGHT_OF_UNLABELLED = 4
"""The same beside images that nobody has looked at."""
MAD_TO_DEVIATION = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""
LEAST_FIRM = 3
"""Training images that are enough for a threshold that is more than a guess."""
LEAST_UNLABELLED = 5
"""Unlabelled images that are enough for one, where up to a fifth of them may be defective."""
MOST_APART = 0.3
"""Share of unlabelled images that may lie apart: more than the fifth that may be defective, as good ones do, too."""
DEVIATIONS_APART = 3.0
"""Deviations above the middle of a group of images from which on others are no part of it."""
LEAST_GROUPED = 10
"""Unlabelled images that are enough to see two groups among them."""
GUESSED_RATIO = 1.3
"""What the threshold is over the greatest score, or value of a map, of moved copies of the one image that is known:
what gives few false alarms and misses together, see "A verdict that holds" in benchmarks/FINDINGS.md."""
GUESSED_RATIO_OF_GIST = 4.0
"""The same of scores that a gist is part of: moved copies of an image have its gist, other images of its subject not.
Chosen on held-out images, see "Whole images" in benchmarks/FINDINGS.md."""


def threshold_above_good(scores: torch.Tensor) -> torch.Tensor:
    """Choose a threshold by good images that were not trained on.

    It is the end of an interval that the next good image's logarithm lies below: some standard deviations above the
    mean, and more where few are known. Since the deviation of few is uncertain, it is drawn towards the usual one.

    Args:
        scores (torch.Tensor): Scores of the images, at least 0, of shape ``(n,)``.

    Returns:
        torch.Tensor: The threshold, a scalar.
    """
    logarithms = _logarithms(scores)
    deviation = logarithms.std(correction=min(len(scores) - 1, 1))
    return _end_of_interval(logarithms.mean(), deviation, len(scores), DEVIATIONS, USUAL_WEIGHT)


def threshold_above_most(scores: torch.Tensor, deviations: float = DEVIATIONS_OF_UNLABELLED) -> torch.Tensor:
    """Choose a threshold by images of which most are good, and that were not trained on.

    It is as :func:`threshold_above_good`'s, but by the median and the median absolute deviation, which a few defective
    images hardly move.

    Args:
        scores (torch.Tensor): Scores of the images, at least 0, of shape ``(n,)``.
        deviations (float): How many deviations.

    Returns:
        torch.Tensor: The threshold, a scalar.
    """
    logarithms = _logarithms(scores)
    middle = logarithms.quantile(0.5)
    deviation = MAD_TO_DEVIATION * (logarithms - middle).abs().quantile(0.5)
    return _end_of_interval(middle, deviation, len(scores), deviations, USUAL_WEIGHT_OF_UNLABELLED)


def _logarithms(scores: torch.Tensor) -> torch.Tensor:
    return scores.double().clamp(min=torch.finfo(torch.float32).tiny).log()


def _end_of_interval(
    middle: torch.Tensor, deviation: torch.Tensor, number: int, deviations: float, weight: int
) -> torch.Tensor:
    squares = (number - 1) * deviation**2 + weight * USUAL_DEVIATION**2
    expected = (squares / (number - 1 + weight)).sqrt()
    return (middle + deviations * expected * math.sqrt(1 + 1 / number)).exp().float()


def doubt_about_unlabelled(scores: torch.Tensor, of_shots: torch.Tensor | None = None) -> str:
    """Say why unlabelled images are not to choose a threshold: too many of them may be defective.

    Where the training images tell a threshold, it is because far more than a fifth lie above it. In any case, it is
    because the scores fall into two groups: the lowest third, and all that it takes in as it grows by what is not far
    above it, leave out far more than a fifth.

    Args:
        scores (torch.Tensor): Raw scores of the images, at least 0, of shape ``(n,)``.
        of_shots (torch.Tensor | None): Raw threshold that three training images or more have chosen, a scalar; ``None``
            if there is none but a guess, which is often too low.

    Returns:
        str: The reason, to be followed by what happens; empty if the images are to choose a threshold.
    """
    number = len(scores)
    above = 0 if of_shots is None else int((scores > of_shots).sum())
    if above > MOST_APART * number:
        return f"{above} of {number} unlabelled images, more than a fifth, look unlike the good ones"
    apart = _count_apart(scores) if number >= LEAST_GROUPED else 0
    if apart > MOST_APART * number:
        return f"{number} unlabelled images fall into two groups, of which the upper one has {apart}, more than a fifth"
    return ""


def _count_apart(scores: torch.Tensor) -> int:
    """Count the scores above the lower group, which grows until none is near."""
    ordered = scores.double().sort().values
    taken = math.ceil(len(ordered) / 3)
    while (near := int((ordered <= threshold_above_most(ordered[:taken], DEVIATIONS_APART)).sum())) > taken:
        taken = near
    return len(ordered) - near
