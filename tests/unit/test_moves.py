# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The copies of training images that choose the threshold show the same, a little turned and shifted."""

import pytest
import torch

from anomalib_htdgm.models.htdgm.calibration import MOVES, move_images

from .textures import shingles


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
