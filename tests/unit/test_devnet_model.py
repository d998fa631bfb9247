# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Scores and maps of DevNet against the obvious slow computation."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from anomalib_htdgm.anomalib_fixes.pre_processor import AntialiasedResize
from anomalib_htdgm.models.devnet.torch_model import TOP_FRACTION, DevnetModel, mean_of_highest

BACKBONE = "test_resnet"
SIZES = (96, 64)


def make_model(**arguments: object) -> DevnetModel:
    """Make a model of random weights, whose batch norms have statistics of their own, in double precision."""
    model = DevnetModel(**{"backbone": BACKBONE, "image_sizes": SIZES} | arguments)
    model.initialize(seed=0)
    with torch.no_grad():
        for _ in range(30):  # running statistics come to those of the images
            model.score(make_images(4), learning=True)
    return model.double().eval()


def make_images(number: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(number, 3, SIZES[0], SIZES[0], generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("fraction", "expected"), [(0.1, 10), (0.005, 1), (0.29, 29), (1.0, 100)])
def test_mean_of_highest_is_a_mean_after_sorting(fraction: float, expected: int) -> None:
    """A fraction of 0.29 is of a hundred places 29, though 0.29 * 100 is below."""
    scores = torch.randn(4, 1, 10, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for image, mean in zip(scores.numpy(), mean_of_highest(scores, fraction), strict=True):
        assert mean == pytest.approx(np.sort(image.ravel())[::-1][:expected].mean(), abs=1e-12)


@pytest.mark.parametrize("ranking", ["signed", "absolute"])
@torch.no_grad()
def test_scores_and_maps_of_two_sizes(ranking: str) -> None:
    model = make_model(ranking=ranking, explanation="scores")
    images = make_images(3).double()
    predictions = model(images)
    weight, bias = model.score_layer.weight[0, :, 0, 0], model.score_layer.bias[0]
    signs = set()
    for index, image in enumerate(images):
        image_scores, maps = [], []
        for size in SIZES:
            resized = image[None] if size == SIZES[0] else AntialiasedResize(size, size)(image[None])
            features = model.backbone(resized)[0]
            places = [
                [features[:, y, x] @ weight + bias for x in range(features.shape[2])] for y in range(len(features[0]))
            ]
            scores = torch.tensor(places, dtype=torch.float64)
            signs |= set(scores.sign().flatten().tolist())
            scores = scores.abs() if ranking == "absolute" else scores
            highest = sorted(scores.flatten().tolist(), reverse=True)[: max(1, int(TOP_FRACTION * scores.numel()))]
            image_scores.append(sum(highest) / len(highest))
            maps.append(F.interpolate(scores[None, None], (SIZES[0], SIZES[0]), mode="bilinear")[0])
        assert predictions.pred_score[index].item() == pytest.approx(sum(image_scores) / 2, abs=1e-9)
        torch.testing.assert_close(predictions.anomaly_map[index], (maps[0] + maps[1]) / 2)
    assert signs == {-1, 1}  # else the two rankings would be the same


def test_gradient_is_that_of_finite_differences() -> None:
    model = make_model()
    model.blur = torch.nn.Identity()
    images = make_images(2).double()
    maps = model(images).anomaly_map
    step = 1e-6
    checked = 0
    for y, x in ((10, 20), (48, 48), (70, 33)):
        expected = torch.zeros(2, dtype=torch.float64)
        for channel in range(3):
            up, down = images.clone(), images.clone()
            up[:, channel, y, x] += step
            down[:, channel, y, x] -= step
            with torch.no_grad():
                expected += ((model.score(up) - model.score(down)) / (2 * step)).abs()
        for anomaly_map, value in zip(maps[:, 0], expected, strict=True):
            if anomaly_map[y, x] < anomaly_map.max():  # not clipped
                assert anomaly_map[y, x].item() == pytest.approx(value.item(), rel=1e-3)
                checked += 1
    assert checked >= 4


def test_gradients_are_clipped_and_smoothed() -> None:
    model = make_model()
    smooth = model(make_images(2).double()).anomaly_map
    blur, model.blur = model.blur, torch.nn.Identity()
    sharp = model(make_images(2).double()).anomaly_map
    torch.testing.assert_close(smooth, blur(sharp))
    for each in sharp:
        assert (each == each.max()).float().mean().item() == pytest.approx(0.01, abs=0.001)


def test_scores_do_not_depend_on_the_map_nor_on_the_mode() -> None:
    model, images = make_model(), make_images(2).double()
    outside = model(images)
    with torch.inference_mode():
        inside = model(images.clone())
    with torch.no_grad():
        model.explanation = "scores"
        scored = model(images)
    assert torch.equal(outside.anomaly_map, inside.anomaly_map)
    assert torch.equal(outside.pred_score, inside.pred_score)
    assert torch.equal(outside.pred_score, scored.pred_score)
    assert not inside.anomaly_map.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    assert scored.anomaly_map.shape == outside.anomaly_map.shape == (2, 1, *images.shape[-2:])
