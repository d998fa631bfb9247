# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Scores are means over the most anomalous places; maps are high where these are, and parts are multiplied."""

import math

import pytest
import torch

from anomalib_htdgm.models.htdgm.scoring import AnomalyMapGenerator, combine, top_mean

from .textures import make_model, shingles, train


@pytest.mark.parametrize("fraction", [1e-6, 0.01, 0.05, 0.3, 0.999, 1.0])
def test_top_mean_equals_a_slow_loop(fraction: float) -> None:
    anomalies = torch.rand(3, 4, 6, 10, generator=torch.Generator().manual_seed(0))
    count = max(1, math.ceil(fraction * 60))
    expected = [[sum(sorted(each.flatten().tolist())[-count:]) / count for each in row] for row in anomalies]
    torch.testing.assert_close(top_mean(anomalies, fraction), torch.tensor(expected))


def test_seven_percent_of_a_hundred_places_are_seven() -> None:
    places = torch.arange(100.0)[torch.randperm(100, generator=torch.Generator().manual_seed(0))]
    assert top_mean(places.view(1, 10, 10), 0.07).tolist() == [96]  # of 93 to 99


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


@pytest.mark.parametrize("output", [(41, 41), (256, 256), (37, 123)], ids=str)
@pytest.mark.parametrize("position", [(6, 6), (9, 15), (18, 19)], ids=str)
@pytest.mark.parametrize("size", [25, 32, 41])
def test_a_place_is_found_at_every_scale(size: int, position: tuple[int, int], output: tuple[int, int]) -> None:
    scales = [torch.zeros(1, 1, each, each) for each in (25, 32, 41)]
    ((scale,),) = ([each] for each in scales if each.shape[-1] == size)
    scale[0, 0, position[0], position[1]] = 1
    anomaly_map = AnomalyMapGenerator(41)([scales], [1], output)
    assert anomaly_map.shape == (1, 1, *output)
    found = divmod(int(anomaly_map.argmax()), output[1])
    for place, length, expected in zip(found, output, position, strict=True):
        # Half a pixel of the finest scale, where maps are added up, and half a pixel of the map.
        tolerance = 0.5 / 41 + 0.5 / length + 1e-6
        assert (place + 0.5) / length == pytest.approx((expected + 0.5) / size, abs=tolerance)


def test_scales_are_averaged_and_maps_multiplied_by_their_weights() -> None:
    values = torch.rand(3, 2, generator=torch.Generator().manual_seed(0)) + 0.1  # constant maps, which no blur changes
    maps = [
        [torch.full((1, 1, size, size), float(value)) for size, value in zip((7, 9), row, strict=True)]
        for row in values
    ]
    anomaly_map = AnomalyMapGenerator(9)(maps, (1, 1, 4), (5, 5))
    expected = (values.mean(dim=1).log() * torch.tensor([1, 1, 4])).sum() / 6
    torch.testing.assert_close(anomaly_map, torch.full((1, 1, 5, 5), float(expected.exp())))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_float32_is_the_same_on_a_gpu() -> None:
    signals = {"votes_from": 48, "memory_patches": 2000, "energy_cells": 4000, "standardize": True}
    model = make_model(image_size=32, width=8, transformations="sharpness", num_members=2, **signals)
    train(model, shingles(), iterations=3)
    images = torch.cat([shingles(), shingles(angle=0.3, seed=1)])
    expected, scored = model(images), model.to("cuda")(images.to("cuda"))
    torch.testing.assert_close(scored.pred_score.cpu(), expected.pred_score, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scored.anomaly_map.cpu(), expected.anomaly_map, rtol=1e-3, atol=1e-4)
