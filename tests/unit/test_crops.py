# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""An iteration of the training sees crops of a few images; all images and places take part."""

import pytest
import torch

from anomalib_htdgm.models.htdgm.discriminator import MARGIN
from anomalib_htdgm.models.htdgm.pretext import Transformed
from anomalib_htdgm.models.htdgm.training import CROP_SIZE, Crops

from .textures import assert_identical


def test_each_is_cut_out_of_its_transformed_image() -> None:
    """Each pixel tells of which image and transformation it is, and where."""
    transformed, number = [], 0
    for size in (50, 75):
        rows = torch.arange(float(size))[:, None].expand(size, size)
        which = (torch.arange(3)[:, None] * 10 + torch.arange(2) + number)[..., None, None]
        images = torch.stack([which.expand(3, 2, size, size), *(each.expand(3, 2, -1, -1) for each in (rows, rows.T))])
        transformed.append(Transformed([number, number + 1], images.permute(1, 2, 0, 3, 4)))
        number += 2
    drawn, classes = Crops(transformed, 3 * CROP_SIZE**2, torch.float32).draw(torch.Generator().manual_seed(0))
    assert drawn.shape == (3 * number, 3, CROP_SIZE, CROP_SIZE)
    of_images, of_classes = drawn[:, 0, 0, 0].int() // 10, drawn[:, 0, 0, 0].int() % 10
    assert of_classes.tolist() == classes.tolist()
    for index in range(number):
        assert sorted(of_images[classes == index].tolist()) == [0, 1, 2]  # in turns
    steps = torch.arange(float(CROP_SIZE))
    for crop in drawn:
        assert_identical(crop[1], (crop[1, 0, 0] + steps)[:, None].expand(-1, CROP_SIZE))
        assert_identical(crop[2], (crop[2, 0, 0] + steps).expand(CROP_SIZE, -1))


@pytest.mark.parametrize(
    ("size", "images", "pixels", "expected", "of_three_times"),
    [(20, 2, 900, 2, 2), (20, 5, 900, 2, 5), (60, 1, 9300, 4, 12), (60, 1, 1, 1, 3)],
)
def test_number(size: int, images: int, pixels: int, expected: int, of_three_times: int) -> None:
    """None is drawn twice where it is the whole image, and there is always one."""
    for times, number in ((1, expected), (3, of_three_times)):
        crops = Crops([Transformed([0, 1], torch.zeros(images, 2, 3, size, size))], pixels, torch.float32)
        drawn, _ = crops.draw(torch.Generator(), times)
        assert drawn.shape == (2 * number, 3, *[min(size, CROP_SIZE)] * 2)


def test_patches_at_the_border_are_seen_as_often_as_others() -> None:
    size, times = 96, 2000
    rows = torch.arange(float(size))[:, None].expand(size, size)
    images = torch.stack([rows, rows.T, rows])[None, None]  # each pixel tells where it is
    crops = Crops([Transformed([0], images)], CROP_SIZE**2, torch.float32)
    drawn, _ = crops.draw(torch.Generator().manual_seed(0), times)
    for channel in range(2):
        seen = torch.zeros(size - 2 * MARGIN)
        for start in drawn[:, channel, 0, 0].int().tolist():
            seen[start : start + CROP_SIZE - 2 * MARGIN] += 1
        assert seen[[0, -1]].min() > 0.8 * seen[len(seen) // 2]
        assert seen.max() < 3 * seen.min()
