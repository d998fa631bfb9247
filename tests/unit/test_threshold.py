# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""A threshold lies above nearly all good images, however few are known and whatever is among the unlabelled ones."""

import pytest
import torch

from anomalib_htdgm.models.htdgm.threshold import (
    DEVIATIONS_OF_UNLABELLED,
    USUAL_DEVIATION,
    threshold_above_most,
)

TRIALS = 400


def draw(number: int, deviation: float, seed: int = 0) -> torch.Tensor:
    """Draw good images' scores, whose logarithms are normally distributed about 0, for many trials."""
    source = torch.Generator().manual_seed(seed)
    return (deviation * torch.randn(TRIALS, number, generator=source)).exp()


@pytest.mark.parametrize("deviation", [0.5, 1, 1.5])
@pytest.mark.parametrize("number", [3, 5, 10, 20])
def test_few_good_images_are_above(number: int, deviation: float) -> None:
    """At half, once and 1.5 times the usual deviation at most 13 % of the next good images are above."""
    thresholds = torch.stack([threshold_above_most(scores) for scores in draw(number, deviation * USUAL_DEVIATION)])
    above = (draw(1, deviation * USUAL_DEVIATION, seed=1)[:, 0] > thresholds).float().mean()
    assert above < 0.13
    defects = 6 * USUAL_DEVIATION * max(deviation, 1)
    assert (thresholds.log() < defects).float().mean() > 0.95


@pytest.mark.parametrize("number", [10, 20, 50])
def test_a_fifth_of_defective_images_does_not_move_it_far(number: int) -> None:
    scores = draw(number, USUAL_DEVIATION)
    mixed = scores.clone()
    mixed[:, : number // 5] *= 10
    moved = torch.stack([threshold_above_most(each, DEVIATIONS_OF_UNLABELLED) for each in mixed]).log()
    unmoved = torch.stack([threshold_above_most(each) for each in scores]).log()
    assert (moved - unmoved).mean() < 1.25 * USUAL_DEVIATION
    assert (moved < 5 * USUAL_DEVIATION).float().mean() > 0.95  # the defects are at 23


@pytest.mark.parametrize("factor", [1e-3, 1e4])
def test_units_do_not_matter(factor: float) -> None:
    scores = draw(7, USUAL_DEVIATION)[0]
    torch.testing.assert_close(threshold_above_most(factor * scores), factor * threshold_above_most(scores))


def test_one_image_and_images_alike_have_the_usual_deviation() -> None:
    assert 1 + USUAL_DEVIATION < threshold_above_most(torch.ones(1)) < 1.5
    assert (
        1
        < threshold_above_most(torch.ones(100))
        < threshold_above_most(torch.ones(5))
        < threshold_above_most(torch.ones(1))
    )


def test_scores_of_nothing_and_of_too_much_have_finite_thresholds() -> None:
    for scores in (torch.zeros(3), torch.tensor([0.0, 1, 2])):
        assert threshold_above_most(scores).isfinite()
