# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""DevNet's losses against their formulas, and its batches."""

import math

import numpy as np
import pytest
import torch

from anomalib_htdgm.models.devnet.batches import BalancedBatches
from anomalib_htdgm.models.devnet.loss import FOCAL_ALPHA, FOCAL_GAMMA, deviation_loss, focal_loss

SCORES = torch.tensor([-2.0, 0.0, 0.7, 3.0, -1.0, 4.9, 5.3, 9.0], dtype=torch.float64)
IS_ANOMALOUS = torch.tensor([False, False, False, False, True, True, True, True])


def test_deviation_loss_is_the_formula() -> None:
    reference = torch.randn(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.3
    mean, deviation = np.mean(reference.numpy()), np.std(reference.numpy(), ddof=1)
    losses = []
    for score, is_anomalous in zip(SCORES.tolist(), IS_ANOMALOUS.tolist(), strict=True):
        z = (score - mean) / deviation
        losses.append(max(0.0, 5.0 - z) if is_anomalous else abs(z))
    assert 0 in losses
    assert deviation_loss(SCORES, IS_ANOMALOUS, reference).item() == pytest.approx(np.mean(losses), abs=1e-12)


def test_focal_loss_is_the_formula() -> None:
    losses = []
    for score, is_anomalous in zip(SCORES.tolist(), IS_ANOMALOUS.tolist(), strict=True):
        probability = 1 / (1 + math.exp(-score))
        right = probability if is_anomalous else 1 - probability
        weight = FOCAL_ALPHA if is_anomalous else 1 - FOCAL_ALPHA
        losses.append(-weight * (1 - right) ** FOCAL_GAMMA * math.log(right))
    assert focal_loss(SCORES, IS_ANOMALOUS).item() == pytest.approx(np.mean(losses), abs=1e-12)


def plain_images(values: range, size: int = 8) -> torch.Tensor:
    return torch.tensor(list(values), dtype=torch.uint8)[:, None, None, None].expand(-1, 3, size, size)


def make_batches(num_normal: int = 7, num_anomalous: int = 3, rotation: float = 0.0, **given: int) -> BalancedBatches:
    """Make batches of images of one grey each, which tells which image it is: anomalies are 100 and above."""
    arguments = {"batch_size": 8, "steps": 6, "seed": 0} | given
    normal, anomalous = plain_images(range(num_normal)), plain_images(range(100, 100 + num_anomalous))
    return BalancedBatches(normal, anomalous, rotation=rotation, **arguments)


def greys(batches: BalancedBatches) -> list[list[int]]:
    return [(batch.image[:, 0, 4, 4] * 255).round().int().tolist() for batch in batches]


def test_batches_are_balanced_and_labelled() -> None:
    batches = make_batches()
    served = list(batches)
    assert len(served) == len(batches) == 6
    for batch in served:
        assert batch.image.shape == (8, 3, 8, 8)
        assert batch.gt_label.sum() == 4
        assert torch.equal(batch.gt_label, batch.image[:, 0, 4, 4] * 255 > 99)


@pytest.mark.parametrize(("num_normal", "num_anomalous"), [(7, 3), (3, 9), (1, 1), (4, 4)])
def test_every_image_has_its_turn_before_any_other_has_a_second(num_normal: int, num_anomalous: int) -> None:
    batches = greys(make_batches(num_normal, num_anomalous, steps=12))
    normal = [grey for each in batches for grey in each[:4]]
    anomalous = [grey for each in batches for grey in each[4:]]
    for order, count in ((normal, num_normal), (anomalous, num_anomalous)):
        for start in range(0, len(order) - count + 1, count):
            assert len(set(order[start : start + count])) == count


def test_seeds_and_only_seeds_make_a_difference() -> None:
    first = torch.stack([batch.image for batch in make_batches(rotation=180)])
    torch.manual_seed(1)
    assert torch.equal(torch.stack([batch.image for batch in make_batches(rotation=180)]), first)
    assert greys(make_batches()) != greys(make_batches(seed=1))


def test_images_are_turned_by_all_angles() -> None:
    arrow = torch.zeros(1, 3, 33, 33, dtype=torch.uint8)
    arrow[..., 14:19, 26:31] = 255  # to the right of the centre
    batches = BalancedBatches(arrow, arrow, batch_size=40, steps=2, rotation=180.0, seed=0)
    angles = []
    for image in torch.cat([batch.image for batch in batches]):
        rows, columns = torch.meshgrid(torch.arange(33.0) - 16, torch.arange(33.0) - 16, indexing="ij")
        weight = image[0] / image[0].sum()
        assert math.hypot((rows * weight).sum(), (columns * weight).sum()) == pytest.approx(12, abs=0.5)
        angles.append(math.degrees(math.atan2((rows * weight).sum(), (columns * weight).sum())))
    assert np.histogram(angles, bins=6, range=(-180, 180))[0].min() >= 4
    still = BalancedBatches(arrow, arrow, batch_size=4, steps=1, rotation=0.0, seed=0)
    assert all(torch.equal(image, arrow[0] / 255) for image in next(iter(still)).image)
