# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""From the scores of good images to a threshold: what a verdict holds by where no image is labelled."""

import math
from typing import Literal

import torch

Basis = Literal["guess", "training images", "unlabelled images", "labelled images", "unknown"]
"""What a threshold was chosen by; ``unknown`` is that of a checkpoint that does not tell."""

DEVIATIONS = 2.0
"""Standard deviations of the logarithm between good images' scores and the threshold; the same for all data."""
USUAL_DEVIATION = 0.08
"""Standard deviation of the logarithm of good images' scores on most of the sets that it was looked up on."""
USUAL_WEIGHT = 2
"""Number of images that the usual deviation counts for, beside those that are there."""
MAD_TO_DEVIATION = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""
LEAST_FIRM = 3
"""Training images that are enough for a threshold that is more than a guess."""
LEAST_UNLABELLED = 5
"""Unlabelled images that are enough for one, where up to a fifth of them may be defective: most are good then."""
GUESSED_RATIO = 1.5
"""What the threshold is over the greatest score of copies of a training image, where no other image is known."""


def threshold_above_good(scores: torch.Tensor) -> torch.Tensor:
    """Choose a threshold by good images that were not trained on.

    It is the end of an interval that the next good image's logarithm lies below: mean plus two deviations, widened as
    the mean of few is uncertain; and since the deviation of few is even more so, it is drawn towards the usual one.

    Args:
        scores (torch.Tensor): Scores of the images, at least 0, of shape ``(n,)``.

    Returns:
        torch.Tensor: The threshold, a scalar.
    """
    logarithms = _logarithms(scores)
    deviation = logarithms.std(correction=1) if len(logarithms) > 1 else logarithms.new_zeros(())
    return _above(logarithms.mean(), deviation, len(scores))


def threshold_above_most(scores: torch.Tensor) -> torch.Tensor:
    """Choose a threshold by images of which most are good, and nobody knows which.

    As :func:`threshold_above_good`, with the median in place of the mean, and the median absolute deviation in place of
    the standard deviation, which a few defective images hardly move.

    Args:
        scores (torch.Tensor): Scores of the images, at least 0, of shape ``(n,)``.

    Returns:
        torch.Tensor: The threshold, a scalar.
    """
    logarithms = _logarithms(scores)
    centre = logarithms.quantile(0.5)
    return _above(centre, MAD_TO_DEVIATION * (logarithms - centre).abs().quantile(0.5), len(scores))


def _logarithms(scores: torch.Tensor) -> torch.Tensor:
    return scores.double().clamp(min=torch.finfo(torch.float32).tiny).log()


def _above(centre: torch.Tensor, deviation: torch.Tensor, number: int) -> torch.Tensor:
    squares = (number - 1) * deviation**2 + USUAL_WEIGHT * USUAL_DEVIATION**2
    expected = (squares / (number - 1 + USUAL_WEIGHT)).sqrt()
    return (centre + DEVIATIONS * expected * math.sqrt(1 + 1 / number)).exp().float()
