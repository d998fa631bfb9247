# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Gist of whole images: what is where, which way edges run, and what colour it has.

Patches tell little of an image whose subject, and not a defect of it, is in question. Its gist (after Oliva and
Torralba, *Modeling the Shape of the Scene*, 2001, and Bosch et al.'s pyramid of oriented gradients, 2007) is compared
with the mean of the training images' gists, and counts for less where these differ from one another.
"""

import math

import torch
from torch.nn import functional as F

from .pretext import to_grayscale
from .pyramid import standardize_images
from .signals import Opinion, Signal, Views

SIZE = 32
"""Side in pixels of the images that are described."""
LAYOUT_CELLS = 8
"""Cells along each side whose mean pixels are the layout, in one brightness and contrast for all images."""
NUM_DIRECTIONS = 8
"""Directions of edges between 0 and 180 degrees; each takes those of up to 22.5 degrees to either side."""
DIRECTION_CELLS = (1, 4)
"""Cells along each side in which edges are counted: the whole image, and sixteen parts of it."""
DIFFERENCE_OF_EDGES = (0.2, 1.5)
"""What the edges of two images differ by (root of the sum of squares), for each of these numbers of cells."""
DIFFERENCE_OF_LAYOUT = math.sqrt(2 * 3 * LAYOUT_CELLS**2) / 2
"""Likewise of the layout: of two independent images whose deviation is a half, as it is brought to."""
DIFFERENCE_OF_COLOUR = 0.27
"""Likewise of the colour. These are of pairs of CIFAR-10's training images, so that no part outweighs another."""
LENGTH = 3 * LAYOUT_CELLS**2 + NUM_DIRECTIONS * sum(cells**2 for cells in DIRECTION_CELLS) + 2
PRIOR_VARIANCE = 1.5 / LENGTH
"""Variance of a number within a class, before any is seen: three quarters of that of all images."""
PRIOR_IMAGES = 20
"""Images that this is worth beside the variance of those that are seen."""


class Gist(Signal):
    """Remembers the gists of a few images, and measures how far others are from them. It has no map."""

    sizes = (SIZE,)

    count: torch.Tensor
    mean: torch.Tensor
    squares: torch.Tensor
    slopes: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.tensor(0.0))
        self.register_buffer("mean", torch.zeros(1, LENGTH))
        self.register_buffer("squares", torch.zeros(1, LENGTH))
        self.register_buffer("slopes", _slopes(), persistent=False)

    @torch.no_grad()
    def fit(self, views: Views, rng: torch.Generator, num_shots: int) -> None:
        """Learn mean and variation of the gists of training images."""
        del rng, num_shots
        gists = self.describe(views[SIZE])
        self.count.fill_(len(gists))
        self.mean.copy_(gists.mean(dim=0, keepdim=True))
        self.squares.copy_((gists - self.mean).square().sum(dim=0, keepdim=True))

    def forward(self, views: Views, unseen: int | None = None) -> Opinion:
        """Score by the distance of the gist, at least 0: about 1.5 between any two photographs."""
        return Opinion(self._measure(self.describe(views[SIZE]), are_unseen=unseen is not None))

    def _measure(self, gists: torch.Tensor, *, are_unseen: bool) -> torch.Tensor:
        count, mean, squares = self.count, self.mean, self.squares
        if are_unseen:
            squares = (squares - (gists - mean).square() * count / (count - 1)).clamp(min=0)
            mean = (count * mean - gists) / (count - 1)
            count = count - 1
        variances = (squares + PRIOR_IMAGES * PRIOR_VARIANCE) / (count - 1 + PRIOR_IMAGES)
        return ((gists - mean).square() / variances).mean(dim=1).sqrt()

    def describe(self, images: torch.Tensor) -> torch.Tensor:
        """Describe images.

        Args:
            images (torch.Tensor): Images in [-1, 1], of shape ``(B, 3, 32, 32)``.

        Returns:
            torch.Tensor: Gists of shape ``(B, 330)``: layout, edges and colour, each divided by what two photographs
            differ by.
        """
        grey = to_grayscale(images)
        edges, colour = self._edges(grey[:, :1]), F.avg_pool2d(images - grey, SIZE)[:, ::2]
        parts = [standardize_images(_pool(images, LAYOUT_CELLS)) / DIFFERENCE_OF_LAYOUT, colour / DIFFERENCE_OF_COLOUR]
        for cells, difference in zip(DIRECTION_CELLS, DIFFERENCE_OF_EDGES, strict=True):
            parts.append(_pool(edges, cells).sqrt() / difference)
        return torch.cat([part.flatten(1) for part in parts], dim=1)

    def _edges(self, grey: torch.Tensor) -> torch.Tensor:
        """Measure the slope of ``(B, 1, H, H)`` along each direction; one between two directions is parted."""
        around = F.pad(grey, [1] * 4, mode="replicate")
        slopes = F.conv2d(around, self.slopes)
        steepness = slopes[:, :: NUM_DIRECTIONS // 2].square().sum(dim=1, keepdim=True).sqrt()  # of two at right angles
        beside = math.cos(math.pi / NUM_DIRECTIONS)
        return (slopes.abs() - beside * steepness).clamp(min=0) / (1 - beside)


def _pool(images: torch.Tensor, cells: int) -> torch.Tensor:
    return F.avg_pool2d(images, SIZE // cells)


def _slopes() -> torch.Tensor:
    """Make the filters that give the slope along each direction, of shape ``(NUM_DIRECTIONS, 1, 3, 3)``."""
    angles = torch.arange(NUM_DIRECTIONS) * (math.pi / NUM_DIRECTIONS)
    filters = torch.zeros(NUM_DIRECTIONS, 1, 3, 3)
    filters[:, 0, 1, 2] = angles.cos()
    filters[:, 0, 2, 1] = angles.sin()
    return filters - filters.flip(2, 3)
