# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Tiles: a large photograph is cut into overlapping ones, each scored as an image of its own, and the maps are joined.

No patch has its centre at the very border of an image (10 % of the side at the coarsest voting scale, of 48 pixels), so
tiles that only adjoined would be blind at their seams. These share a quarter of their side with the next one, and each
pixel of the map is that of the tile in which it lies deeper.

Example:
    >>> import torch
    >>> whole_size(1), whole_size(2), whole_size(8)
    ((256, 256), (448, 448), (1600, 1600))
    >>> tiler = OverlappingTiler((448, 448), tiles=2)
    >>> images = torch.rand(3, 1, 448, 448)
    >>> tiles = tiler.tile(images)
    >>> tiles.shape
    torch.Size([12, 1, 256, 256])
    >>> torch.equal(tiler.untile(tiles), images)
    True
"""

import copy
from collections.abc import Callable, Sequence

import torch
from anomalib.data.utils.tiler import ImageUpscaleMode, Tiler
from torch.nn import functional as F

from anomalib_htdgm.models.exporting import chunks

from .discriminator import RECEPTIVE_FIELD

TILE_SIZE = 256
"""Side in pixels of a tile of an image that the default pre-processor resizes: that of a whole image without tiles."""
TILES_PER_CHUNK = 16
"""Tiles that are scored at a time: so many make the most of the networks' own chunks, and take some 100 MB."""


def whole_size(tiles: int) -> tuple[int, int]:
    """Choose height and width of images whose tiles, so many along each side, have 256x256 pixels."""
    side = TILE_SIZE + (tiles - 1) * (TILE_SIZE * 3 // 4)
    return side, side


class OverlappingTiler(Tiler):
    """anomalib's tiler, with tiles that share a quarter of their side, and maps that reach to the border of the image.

    A tiler of anomalib's own cuts what it removes from the border of a tile off the outer border of the whole map, too.

    Args:
        input_size (Sequence[int]): Height and width in pixels of the images it is to cut.
        tiles (int): Number of tiles along each side.

    Raises:
        ValueError: If there are so many tiles that no patch fits into one; the message names ``tiles``.
    """

    def __init__(self, input_size: Sequence[int], tiles: int) -> None:
        stride = [3 * side // (3 * tiles + 1) for side in input_size]
        size = [side - (tiles - 1) * step for side, step in zip(input_size, stride, strict=True)]
        if min(stride) < 1 or min(size) < RECEPTIVE_FIELD:
            height, width = input_size
            images = f"images of {height}x{width} pixels"
            msg = f"tiles: got {tiles} for {images}; allowed are so few that each tile has at least 11x11 pixels"
            raise ValueError(msg)
        self.tiles = tiles
        # Strides are whole pixels and tiles are what is left, so images of this size are cut as they are; whatever the
        # mode, none is padded with black pixels, which would be anomalous.
        super().__init__(size, stride, mode=ImageUpscaleMode.INTERPOLATION)

    def untile(self, tiles: torch.Tensor) -> torch.Tensor:
        """Join the maps of tiles.

        Args:
            tiles (torch.Tensor): Maps in the order of :meth:`tile`, of the size of a tile: ``(B * n * n, C, h, w)``.

        Returns:
            torch.Tensor: Maps of whole images, ``(B, C, H, W)``.
        """
        grid = tiles.unflatten(0, (-1, self.tiles, self.tiles))
        rows = self._kept(self.tile_size_h, self.stride_h)
        columns = self._kept(self.tile_size_w, self.stride_w)
        strips = [
            torch.cat([grid[:, i, j, :, kept][..., across] for j, across in enumerate(columns)], dim=-1)
            for i, kept in enumerate(rows)
        ]
        return torch.cat(strips, dim=-2)

    def _kept(self, size: int, stride: int) -> list[slice]:
        """Choose what is kept of each tile along one side: all up to the middle of what it shares with the next one."""
        border = (size - stride) // 2
        inner = [slice(border, border + stride)] * (self.tiles - 2)
        return [slice(border + stride), *inner, slice(border, size)]


def cut(images: torch.Tensor, tiler: Tiler, size: Sequence[int]) -> torch.Tensor:
    """Bring images to the size that is expected, and cut them into tiles.

    Args:
        images (torch.Tensor): Images of shape ``(B, C, H, W)``. Those of another size than ``size`` are legal too, but
            cannot be traced for an export.
        tiler (Tiler): The tiler, which then knows how to join the tiles' maps.
        size (Sequence[int]): Height and width that are expected, in pixels.

    Returns:
        torch.Tensor: Tiles of shape ``(B * number of tiles, C, h, w)``: those of an image one after the other.
    """
    if images.shape[-2:] != tuple(size):
        images = F.interpolate(images, tuple(size), mode="bicubic", antialias=True)
    tiles: torch.Tensor = tiler.tile(images)
    return tiles


def by_tiles(
    images: torch.Tensor,
    tiler: Tiler,
    size: Sequence[int],
    score: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Score images by their most anomalous tiles, and join the tiles' maps.

    Args:
        images (torch.Tensor): Images of shape ``(B, 3, H, W)``.
        tiler (Tiler): The tiler.
        size (Sequence[int]): As :func:`cut`'s.
        score (Callable): Makes scores and maps of tiles.

    Returns:
        tuple[torch.Tensor, torch.Tensor]: Scores of shape ``(B,)``, and maps of shape ``(B, 1, H, W)``.
    """
    tiler = copy.copy(tiler)  # it takes notes while it cuts, which are not for other threads' images
    tiles = chunks(cut(images, tiler, size), TILES_PER_CHUNK)
    scores, maps = zip(*(score(each) for each in tiles), strict=True)
    joined = tiler.untile(torch.cat(maps))
    if joined.shape[-2:] != images.shape[-2:]:
        joined = F.interpolate(joined, images.shape[-2:], mode="bilinear")
    return torch.cat(scores).view(images.shape[0], -1).amax(dim=1), joined
