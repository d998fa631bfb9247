# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Scores are means over the most anomalous patches, over transformations and over scales."""

import math

import pytest
import torch

from anomalib_htdgm.models.htdgm.score import Vote, anomaly_score, combine, patch_anomaly

VOTES = pytest.mark.parametrize("vote", ["probability", "log_probability"])
FRACTIONS = pytest.mark.parametrize("fraction", [1e-6, 0.01, 0.05, 0.3, 0.999, 1.0])


@pytest.fixture
def anomalies() -> list[torch.Tensor]:
    source = torch.Generator().manual_seed(0)
    return [torch.rand(4, 5, size, size, generator=source) for size in (3, 6, 10)]


def slow_score(anomalies: list[torch.Tensor], fraction: float, image: int) -> float:
    scale_means = []
    for scale in anomalies:
        transformation_means = []
        for patches in scale[image].flatten(1).tolist():
            count = max(1, math.ceil(fraction * len(patches)))
            transformation_means.append(sum(sorted(patches)[-count:]) / count)
        scale_means.append(sum(transformation_means) / len(transformation_means))
    return sum(scale_means) / len(scale_means)


@FRACTIONS
def test_equals_a_slow_loop(anomalies: list[torch.Tensor], fraction: float) -> None:
    expected = [slow_score(anomalies, fraction, image) for image in range(4)]
    assert anomaly_score(anomalies, fraction).tolist() == pytest.approx(expected, rel=1e-5)


def test_five_percent_of_a_hundred_patches_are_the_worst_five() -> None:
    patches = torch.arange(100.0)[torch.randperm(100, generator=torch.Generator().manual_seed(0))]
    assert anomaly_score([patches.view(1, 1, 10, 10)], 0.05).tolist() == [97]  # of 95 to 99
    patches = torch.stack([patches, 2 * patches])
    assert anomaly_score([patches.view(1, 2, 10, 10)], 0.05).tolist() == [97 * 1.5]


@VOTES
def test_less_probable_is_more_anomalous(vote: Vote) -> None:
    probabilities = torch.linspace(0.001, 1, 100)
    anomalies = patch_anomaly(probabilities.log(), vote)
    assert (anomalies.diff() < 0).all()
    assert anomalies[-1] == 0
    expected = 1 - probabilities if vote == "probability" else -probabilities.log()
    torch.testing.assert_close(anomalies, expected, atol=1e-6, rtol=1e-5)
    if vote == "probability":
        assert anomalies.max() <= 1


@VOTES
def test_certainly_wrong_votes_stay_finite(vote: Vote) -> None:
    anomalies = patch_anomaly(torch.tensor([-1e6, -200.0, 0.0]), vote)
    assert anomalies.isfinite().all()
    assert anomalies.tolist() == ([1, 1, 0] if vote == "probability" else [1e6, 200, 0])


def test_combination_is_the_geometric_mean() -> None:
    parts = [torch.tensor([1.0, 4.0, 0.0]), torch.tensor([8.0, 2.0, 5.0]), torch.tensor([1.0, 1.0, 5.0])]
    torch.testing.assert_close(combine(parts), torch.tensor([2.0, 2.0, 0.0]))
    assert combine(parts[:1]) is parts[0]
    torch.testing.assert_close(combine(parts, (2, 1, 1)), combine([parts[0], *parts]))


def test_a_combination_of_finite_parts_is_finite() -> None:
    largest = torch.full((2,), torch.finfo(torch.float32).max)
    assert combine([largest, largest, torch.tensor([1.0, 1e38])]).isfinite().all()
    assert combine([largest[:0]] * 3).shape == (0,)


def test_a_combination_of_many_parts_fits_into_half_precision() -> None:
    parts = [torch.tensor([value, 1.0], dtype=torch.float16) for value in (20.0, 40.0, 60.0, 80.0, 100.0)]
    expected = torch.tensor([(20.0 * 40 * 60 * 80 * 100) ** 0.2, 1.0])
    torch.testing.assert_close(combine(parts).float(), expected, rtol=0.01, atol=0)
