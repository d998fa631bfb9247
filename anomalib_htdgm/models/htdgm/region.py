# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Region: where in an image to look. What is outside changes neither score nor map, whatever it is.

Images are cut to the box around the region, so that all pixels that signals look at are spent on it. Within the box,
what is outside the region becomes the mean of the training images: what is the same in all images tells nothing, and
no signal needs to know of it. Maps are put back into whole images.

That holds for photographs that have as many pixels as the images that they are resized to, or more. Pixels of smaller
ones are blurred over the edge.

Example:
    >>> import torch
    >>> region = Region([0.25, 0.5, 0.75, 1.0], (64, 64))
    >>> region.size
    (31, 30)
    >>> region.paste(region.cut(torch.rand(1, 3, 64, 64)).amax(dim=1, keepdim=True), (64, 64)).shape
    torch.Size([1, 1, 64, 64])
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion
from skimage.draw import polygon2mask
from torch import nn
from torch.nn import functional as F

Outline: TypeAlias = list[list[float]]
"""A polygon: its corners, each a share of the width from the left, and of the height from the top."""
Outlines: TypeAlias = list[float] | list[Outline]
"""A rectangle (left, top, right, bottom), in shares of width and height in [0, 1], or polygons, of which one within
another is a hole."""
LEAST_SIDE = 0.1
"""Least share of width, and of height, that a region spans: of less, no pixels are left to look at."""
MOST_PIXELS = 1024
"""Side in pixels that images are enlarged to at most, so that their region has as many as a whole image otherwise."""


def check_region(region: Outlines | None) -> Outlines | None:
    """Refuse what is no region.

    Returns:
        Outlines | None: The same in plain lists, which checkpoints hold, whatever sequences it was given in.

    Raises:
        ValueError: If it is no rectangle and no polygons, reaches beyond the image, or is too small.
    """
    if region is None:
        return None
    try:
        corners = np.concatenate(list_polygons(region))
        plain = [each.tolist() for each in list_polygons(region)] if np.ndim(region[0]) else [*map(float, region)]  # type: ignore[arg-type]
    except (TypeError, ValueError, LookupError) as error:
        msg = (
            f"region: got {region!r}; allowed are four numbers, left < right and top < bottom in the order left, top, "
            "right, bottom, or a list of polygons, each of three and more corners [x, y]"
        )
        raise ValueError(msg) from error
    sides = corners.max(axis=0) - corners.min(axis=0)
    # Not a number is no share either.
    if not (corners.min() >= 0 and corners.max() <= 1 and sides.min() >= LEAST_SIDE - 1e-6):
        allowed = f"shares of width and height from 0 to 1, and at least {LEAST_SIDE} from side to side"
        msg = f"region: got {region!r}; allowed are {allowed}"
        raise ValueError(msg)
    return plain


def frame_size(region: Outlines, size: Sequence[int]) -> tuple[int, int]:
    """Choose height and width of whole images whose region has ``size`` pixels, if they are not too many for that."""
    corners = np.concatenate(list_polygons(region))
    width, height = corners.max(axis=0) - corners.min(axis=0)
    most = max(MOST_PIXELS, *size)
    return min(round(size[0] / height), most), min(round(size[1] / width), most)


def draw_region(region: Outlines, size: Sequence[int]) -> NDArray[np.bool_]:
    """Draw a region: which pixels have their centre in it, of shape ``size``, height and width in pixels."""
    # Centres of pixels are whole numbers there, and rows come first.
    drawn = [polygon2mask(size, each[:, ::-1] * size - 0.5) for each in list_polygons(region)]
    mask: NDArray[np.bool_] = np.logical_xor.reduce(drawn)
    return mask


class Region(nn.Module):
    """Cuts images to a region, and puts their maps back.

    Args:
        region (Outlines): The region.
        frame (Sequence[int]): Height and width in pixels of whole images.

    Raises:
        ValueError: If no pixel lies in the region.
    """

    mask: torch.Tensor
    outside: torch.Tensor | None

    def __init__(self, region: Outlines, frame: Sequence[int]) -> None:
        super().__init__()
        self.frame = frame[0], frame[1]
        # Pixels of a resized photograph are mixed of neighbours, so those at the edge have some of what is outside.
        mask = binary_erosion(draw_region(region, self.frame), np.ones((3, 3)), border_value=1)
        if not mask.any():
            msg = f"region: got {region!r}, in which no pixel lies; allowed are wider ones"
            raise ValueError(msg)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        self.top, self.bottom = int(rows[0]), int(rows[-1]) + 1
        self.left, self.right = int(columns[0]), int(columns[-1]) + 1
        self.size = self.bottom - self.top, self.right - self.left
        inside = torch.from_numpy(mask[self.top : self.bottom, self.left : self.right])
        self.register_buffer("mask", inside, persistent=False)
        # A box has no outside, and nothing to remember of it.
        self.register_buffer("outside", None if inside.all() else torch.zeros(3, *self.size))

    def cut(self, images: torch.Tensor) -> torch.Tensor:
        """Cut images of shape ``(B, C, H, W)`` to the box; those of another size than ``frame`` are resized first."""
        if images.shape[-2:] != self.frame:
            images = F.interpolate(images, self.frame, mode="bicubic", antialias=True)
        return images[..., self.top : self.bottom, self.left : self.right]

    def remember(self, images: torch.Tensor) -> None:
        """Remember what the training images, cut to the box, are on average: it is shown outside."""
        if self.outside is not None:
            self.outside.copy_(images.mean(dim=0))

    def fill(self, images: torch.Tensor) -> torch.Tensor:
        """Show images, cut to the box, with what is outside the same in all."""
        return images if self.outside is None else torch.where(self.mask, images, self.outside)

    def paste(self, maps: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """Put maps of the box back into those of whole images.

        Args:
            maps (torch.Tensor): Maps of shape ``(B, 1, *self.size)``.
            size (Sequence[int]): Height and width of the images as they were given.

        Returns:
            torch.Tensor: Maps of shape ``(B, 1, *size)``, 0 outside the region.
        """
        inside = torch.where(self.mask, maps, 0.0)
        margins = [self.left, self.frame[1] - self.right, self.top, self.frame[0] - self.bottom]
        whole = F.pad(inside, margins)
        return whole if whole.shape[-2:] == tuple(size) else F.interpolate(whole, tuple(size), mode="bilinear")


def list_polygons(region: Outlines) -> list[NDArray[np.float64]]:
    """List a region's polygons, each of shape ``(corners, 2)``."""
    if len(region) == 4 and np.ndim(region[0]) == 0:  # noqa: PLR2004
        left, top, right, bottom = np.asarray(region, float)
        polygons = [np.asarray([[left, top], [right, top], [right, bottom], [left, bottom]])]
        encloses = bool(left < right and top < bottom)
    else:
        polygons = [np.asarray(each, float) for each in region]
        encloses = bool(polygons) and all(each.shape == (max(len(each), 3), 2) for each in polygons)
    if not encloses:
        msg = "it encloses nothing"
        raise ValueError(msg)
    return polygons
