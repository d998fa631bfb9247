# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What is said of photographs to come holds: intervals by simulation, bands by what they are made of."""

import math

import numpy as np
import pytest
import torch

from anomalib_htdgm.inspection.expectation import (
    expect_by_count,
    spread_around,
    spread_of_unseen,
)
from anomalib_htdgm.inspection.facts import Finding
from anomalib_htdgm.models.htdgm.threshold import threshold_above_good


def simulate(number: int, deviation: float, trials: int = 150) -> tuple[float, float]:
    """Tell how often the number of false alarms is as expected, and how wide the interval is."""
    source = np.random.default_rng(0)
    hits, widths = [], []
    for _ in range(trials):
        good = np.exp(source.normal(0, deviation, number))
        threshold = float(threshold_above_good(torch.from_numpy(good)))
        spread = spread_of_unseen(good.tolist())
        assert spread is not None
        expected = spread.expect(threshold)
        above = (np.exp(source.normal(0, deviation, 100)) > threshold).sum()
        hits.append(expected.least <= above <= expected.most)
        widths.append(expected.most - expected.least)
    return float(np.mean(hits)), float(np.median(widths))


@pytest.mark.parametrize("deviation", [0.05, 0.1, 0.3])
def test_nine_of_ten_intervals_hold_and_three_photographs_make_wide_ones(deviation: float) -> None:
    held, width = zip(*(simulate(number, deviation) for number in (3, 10)), strict=True)
    assert min(held) >= 0.85  # of 0.9, by 150 trials; where good ones differ more than usually a little less
    assert width[0] > 1.2 * width[1]
    assert width[0] > 25


def test_intervals_of_counts_hold() -> None:
    source, hits = np.random.default_rng(0), []
    for _ in range(300):
        share = source.uniform(0, 0.3)
        expected = expect_by_count(int(source.binomial(40, share)), 40)
        hits.append(expected.least <= source.binomial(100, share) <= expected.most)
    assert np.mean(hits) >= 0.88
    assert str(expect_by_count(0, 1000)).startswith("Of 100 good ones fewer than 1 will be called anomalous (between 0")
    with pytest.raises(ValueError, match=r"^above: got 3 of 2; allowed are 0 to 2"):
        expect_by_count(3, 2)


def test_a_lower_threshold_lets_fewer_pass() -> None:
    good = np.exp(np.random.default_rng(0).normal(0, 0.1, 40)).tolist()
    every = spread_of_unseen(good)
    assert every is not None
    expected = [every.expect(threshold).about for threshold in (0.9, 1, 1.1, 1.2)]
    assert expected == sorted(expected, reverse=True)
    assert expected[1] == pytest.approx(50, abs=15)
    assert spread_of_unseen([1.0]) is None


def test_more_photographs_make_the_middle_narrower() -> None:
    widths = []
    for number in (2, 3, 5, 10, 20):
        good = torch.linspace(-0.1, 0.1, number).exp()
        threshold = float(threshold_above_good(good))
        spread = spread_of_unseen(good.tolist())
        assert spread is not None
        low, high = spread.band(threshold)
        assert 0 < low < threshold < high
        widths.append(math.log(high / low))
    assert widths == sorted(widths, reverse=True)
    low, high = spread_around(1.0).band(1.0)  # of nothing but a threshold
    assert math.log(high / low) > widths[1]


def test_three_verdicts() -> None:
    band = 1.0, 2.0
    assert [Finding(raw=raw).verdict_at(band) for raw in (0.5, 1.0, 1.5, 2.0, 2.5)] == [
        *("good", "good", "look at it", "look at it", "anomalous")
    ]
    assert Finding(raw=0.5, faults=["It is blurred."]).verdict_at(band) == "look at it"
    assert Finding(raw=2.5, faults=["It is blurred."]).verdict_at(band) == "anomalous"
