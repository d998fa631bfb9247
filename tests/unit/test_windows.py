# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Windows are crops of the canvases, with the targets of these crops; all images and places take part."""

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from anomalib_htdgm.models.htdgm.canvases import Canvases
from anomalib_htdgm.models.htdgm.networks import MARGIN
from anomalib_htdgm.models.htdgm.transformations import enlarged_size, get_transformations
from anomalib_htdgm.models.htdgm.windows import WINDOW_SIZE, Windows

MakeImages = Callable[..., torch.Tensor]


def make_windows(transformations: str, images: torch.Tensor, pixels: int) -> tuple[Canvases, torch.Tensor, Windows]:
    size = images.shape[-1]
    canvases = Canvases(get_transformations(transformations), size)
    enlarged = F.interpolate(images, (enlarged_size(size),) * 2, mode="bicubic")
    windows = Windows(canvases, pixels)
    windows.show(images, torch.float32, enlarged)
    return canvases, enlarged, windows


def draw(windows: Windows, seed: int = 0, times: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    return windows.draw(torch.Generator().manual_seed(seed), times)


def find(window: torch.Tensor, canvases: torch.Tensor) -> tuple[int, int, int]:
    """Find the one image, row and column of a window, ``(3, h, w)``, in canvases of images, ``(k, 3, H, W)``."""
    crops = canvases.unfold(2, window.shape[1], 1).unfold(3, window.shape[2], 1)
    ((image, row, column),) = (crops == window[:, None, None]).all(dim=1).all(dim=-1).all(dim=-1).nonzero().tolist()
    return image, row, column


@pytest.mark.parametrize("transformations", ["rotations", "sharpness", "full"])
def test_windows_are_crops_of_canvases_and_so_are_their_targets(transformations: str, make_images: MakeImages) -> None:
    images = make_images(3, 50)
    canvases, enlarged, windows = make_windows(transformations, images, pixels=3 * WINDOW_SIZE**2)
    canvases.images_per_chunk = len(images)
    drawn, targets = draw(windows)
    groups = canvases.draw(images, enlarged=enlarged)
    whole = [
        (group.unflatten(0, (3, -1))[:, index], target)
        for group, of_group in zip(groups, canvases.targets(), strict=True)
        for index, target in enumerate(of_group)
    ]
    votes = WINDOW_SIZE - 2 * MARGIN
    by_canvas = zip(drawn.unflatten(0, (3, -1)).transpose(0, 1), targets.transpose(0, 1), whole, strict=True)
    for of_canvas, their_targets, (canvas, expected) in by_canvas:
        images_seen = set()
        for window, target in zip(of_canvas, their_targets, strict=True):
            image, row, column = find(window, canvas)
            assert torch.equal(target, expected[row : row + votes, column : column + votes])
            images_seen.add(image)
        assert images_seen == {0, 1, 2}  # in turns


@pytest.mark.parametrize(
    ("size", "images", "pixels", "expected", "of_three_times"),
    [(20, 2, 900, 2, 2), (20, 5, 900, 2, 5), (60, 1, 9300, 4, 12)],
)
def test_number_of_windows(
    size: int, images: int, pixels: int, expected: int, of_three_times: int, make_images: MakeImages
) -> None:
    """No window is drawn twice where it is the whole canvas, and there is always one."""
    for given, number in ((pixels, expected), (1, 1)):
        _, _, windows = make_windows("rotations", make_images(images, size), given)
        drawn, _ = draw(windows)
        assert len(drawn) == 4 * number
        assert drawn.shape[-1] == min(size, WINDOW_SIZE)
    _, _, windows = make_windows("rotations", make_images(images, size), pixels)
    assert len(draw(windows, times=3)[0]) == 4 * of_three_times


def test_patches_at_the_border_are_seen_as_often_as_others() -> None:
    size, times = 96, 2000
    rows = torch.arange(float(size))[:, None].expand(size, size)
    images = torch.stack([rows, rows.T, rows])[None]  # each pixel tells where it is
    _, _, windows = make_windows("rotations", images, WINDOW_SIZE**2)
    drawn, _ = draw(windows, times=times)
    votes = WINDOW_SIZE - 2 * MARGIN
    for channel in range(2):
        seen = torch.zeros(size - 2 * MARGIN)
        for start in drawn[::4, channel, 0, 0].int().tolist():
            seen[start : start + votes] += 1
        share = seen / times
        assert share[[0, -1]].min() > 0.9 * share[len(share) // 2]
        assert share.max() < 3 * share.min()
    assert torch.equal(draw(windows, times=times)[0], drawn)
    assert not torch.equal(draw(windows, seed=1, times=times)[0], drawn)
