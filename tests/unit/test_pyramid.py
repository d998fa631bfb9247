# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The pyramid has the published sizes, its matrices resize as PyTorch does, and images get one brightness."""

from collections.abc import Callable
from io import BytesIO
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from anomalib_htdgm.models.htdgm.pyramid import Pyramid, Resize, pyramid_sizes, standardize_images

from .textures import noise


def test_sizes() -> None:
    assert pyramid_sizes(64) == [25, 32, 40, 51, 64]
    assert pyramid_sizes(25) == [25]


def test_sizes_grow_from_coarsest_to_finest() -> None:
    for finest in range(25, 257, 7):
        sizes = pyramid_sizes(finest, 25)
        assert sizes[-1] == finest
        assert sizes == sorted(set(sizes))
        assert sizes[0] == 25
        # Sizes are rounded up: the exact finer size is above fine - 1.
        assert all(coarse >= 0.75 * (fine - 1) for coarse, fine in pairwise(sizes))


@pytest.mark.parametrize(("size", "new_size"), [((256, 256), 64), ((256, 200), 25), ((25, 25), 32), ((51, 51), 64)])
def test_resizes_as_pytorch_does(size: tuple[int, int], new_size: int) -> None:
    images = noise(2, 3, *size)
    expected = F.interpolate(images, (new_size, new_size), mode="bicubic", antialias=True)
    torch.testing.assert_close(Resize(size, new_size)(images), expected, atol=1e-5, rtol=0)


def test_a_pickled_pyramid_goes_where_it_is_loaded_to() -> None:
    file = BytesIO()
    torch.save(Pyramid([11, 16], (32, 32)), file)
    assert len(file.getvalue()) < 10_000  # without its matrices
    file.seek(0)
    loaded: nn.Module = torch.load(file, map_location="meta", weights_only=False)
    assert {tensor.device.type for tensor in loaded.buffers()} == {"meta"}


def test_images_of_another_size_are_legal() -> None:
    pyramid = Pyramid([25, 32], (64, 64))
    images = noise(1, 3, 90, 70)
    resized = F.interpolate(images, (64, 64), mode="bicubic", antialias=True)
    torch.testing.assert_close(pyramid(images), pyramid(resized))


def test_images_get_mean_and_deviation(make_images: Callable[..., torch.Tensor]) -> None:
    images = make_images(3, 20) * torch.tensor([1.0, 0.1, 0.5]).view(3, 1, 1, 1) + 0.3
    standardized = standardize_images(images)
    torch.testing.assert_close(standardized.mean(dim=(1, 2, 3)), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(standardized.std(dim=(1, 2, 3), correction=0), torch.full((3,), 0.5))
    assert standardize_images(torch.full((1, 3, 8, 8), 0.7)).abs().max() < 1e-5  # nothing is blown up
