# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""A threshold lies above nearly all good images, however few are known and whatever is among the unlabelled ones."""

from collections.abc import Callable

import pytest
import torch

from anomalib_htdgm.models.htdgm.calibration import MOVES, move_images
from anomalib_htdgm.models.htdgm.threshold import (
    USUAL_DEVIATION,
    doubt_about_unlabelled,
    threshold_above_good,
    threshold_above_most,
)

from .textures import shingles

TRIALS = 400
Rule = Callable[[torch.Tensor], torch.Tensor]
RULES = pytest.mark.parametrize("rule", [threshold_above_good, threshold_above_most])


def draw(number: int, deviation: float, seed: int = 0) -> torch.Tensor:
    """Draw good images' scores, whose logarithms are normally distributed about 0, for many trials."""
    source = torch.Generator().manual_seed(seed)
    return (deviation * torch.randn(TRIALS, number, generator=source)).exp()


@pytest.mark.parametrize("deviation", [0.5, 1, 1.5])
@pytest.mark.parametrize("number", [3, 5, 10, 20])
def test_few_good_images_are_above(number: int, deviation: float) -> None:
    """At half, once and 1.5 times the usual deviation at most 15 % of the next good images are above.

    Where all is known, 1.6 deviations are 5 %; of a set that varies 1.5 times as much as usual three tell too little.
    """
    thresholds = torch.stack([threshold_above_good(scores) for scores in draw(number, deviation * USUAL_DEVIATION)])
    above = (draw(1, deviation * USUAL_DEVIATION, seed=1)[:, 0] > thresholds).float().mean()
    assert above < 0.15
    defects = 6 * USUAL_DEVIATION * max(deviation, 1)
    assert (thresholds.log() < defects).float().mean() > 0.95


@pytest.mark.parametrize("number", [10, 20, 50])
def test_a_fifth_of_defective_images_does_not_move_it_far(number: int) -> None:
    scores = draw(number, USUAL_DEVIATION)
    mixed = scores.clone()
    mixed[:, : number // 5] *= 10
    moved = torch.stack([threshold_above_most(each) for each in mixed]).log()
    unmoved = torch.stack([threshold_above_most(each) for each in scores]).log()
    assert (moved - unmoved).mean() < 1.25 * USUAL_DEVIATION
    assert (moved < 5 * USUAL_DEVIATION).float().mean() > 0.95  # the defects are at 23


@RULES
@pytest.mark.parametrize("factor", [1e-3, 1e4])
def test_units_do_not_matter(factor: float, rule: Rule) -> None:
    scores = draw(7, USUAL_DEVIATION)[0]
    torch.testing.assert_close(rule(factor * scores), factor * rule(scores))


@RULES
def test_one_image_and_images_alike_have_the_usual_deviation(rule: Rule) -> None:
    assert 1 + USUAL_DEVIATION < rule(torch.ones(1)) < 1.5
    assert 1 < rule(torch.ones(100)) < rule(torch.ones(5)) < rule(torch.ones(1))


@RULES
def test_scores_of_nothing_and_of_too_much_have_finite_thresholds(rule: Rule) -> None:
    for scores in (torch.zeros(3), torch.tensor([0.0, 1, 2])):
        assert rule(scores).isfinite()


def spread(number: int, middle: float = 1.0, deviation: float = 0.1) -> torch.Tensor:
    """Give scores as evenly as those of a normal distribution lie on average."""
    shares = (torch.arange(number) + 0.5) / number
    return middle * torch.distributions.Normal(0.0, deviation).icdf(shares).exp()


@pytest.mark.parametrize("deviation", [0.02, 0.1, 0.2])
@pytest.mark.parametrize("number", [10, 20, 100])
def test_good_images_and_a_few_defects_choose_a_threshold(number: int, deviation: float) -> None:
    good = spread(number, deviation=deviation)
    assert doubt_about_unlabelled(good) == ""
    defects = torch.full((number // 5,), 3.0)
    assert doubt_about_unlabelled(torch.cat([good[number // 5 :], defects])) == ""


@pytest.mark.parametrize("defective", [8, 12, 15])
def test_two_groups_choose_no_threshold(defective: int) -> None:
    scores = torch.cat([spread(20 - defective), spread(defective, middle=2.5)])
    assert doubt_about_unlabelled(scores) == (
        f"20 unlabelled images fall into two groups, of which the upper one has {defective}, more than a fifth"
    )
    assert doubt_about_unlabelled(1e6 * scores.flip(0)) == doubt_about_unlabelled(scores)


@pytest.mark.parametrize(("above", "doubt"), [(6, ""), (7, "7 of 20 unlabelled images"), (20, "20 of 20 unlabelled")])
def test_what_three_shots_say_is_not_overruled_by_many_above_it(above: int, doubt: str) -> None:
    scores = spread(20)
    between = scores[19 - above : 21 - above].mean() if above < 20 else scores.min() / 2
    assert doubt_about_unlabelled(scores, between).startswith(doubt)
    assert bool(doubt_about_unlabelled(scores, between)) == bool(doubt)
    assert doubt_about_unlabelled(scores) == ""


@pytest.mark.parametrize("number", [1, 2, 5, 9])
def test_few_images_show_no_groups(number: int) -> None:
    assert doubt_about_unlabelled(torch.cat([spread(number), spread(number, middle=9.0)])[::2][:number]) == ""


@pytest.mark.parametrize("move", MOVES, ids=str)
def test_moved_copies_show_the_same(move: tuple[float, float, float]) -> None:
    image = shingles(size=64)
    moved = move_images(image, *move)
    assert moved.shape == image.shape
    degrees, right, down = move
    inside = slice(8, -8)
    back = move_images(move_images(image, 0.0, right, down), 0.0, -right, -down)
    torch.testing.assert_close(back[..., inside, inside], image[..., inside, inside], atol=1e-4, rtol=0)
    assert not torch.allclose(moved[..., inside, inside], image[..., inside, inside], atol=0.05)
    if not degrees:
        shift = round(right * 64), round(down * 64)
        expected = image.roll(shift, (3, 2))
        torch.testing.assert_close(moved[..., inside, inside], expected[..., inside, inside], atol=1e-4, rtol=0)
