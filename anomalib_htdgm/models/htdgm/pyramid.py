# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The pyramid of scales: an image, bicubically reduced to each of a list of sizes.

Resizing between fixed sizes is a multiplication by two constant matrices, which every exporter understands, where the
antialiased resizing of PyTorch is not exportable to all runtimes.

Example:
    >>> pyramid_sizes(64)
    [25, 32, 40, 51, 64]
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from anomalib_htdgm.validation import check_integer, check_number

from .discriminator import RECEPTIVE_FIELD


def pyramid_sizes(finest: int, coarsest: int = 25, factor: float = 0.75) -> list[int]:
    """Compute the sizes of a pyramid's scales, coarse to fine.

    Args:
        finest (int): Side of the finest scale in pixels.
        coarsest (int): Side of the coarsest scale in pixels; at least the receptive field of 11 pixels.
        factor (float): Ratio ``r`` between a scale and the next finer one, in (0, 1). It is raised a little so that the
            coarsest scale has exactly ``coarsest`` pixels, as the authors' code does.

    Returns:
        list[int]: Sizes in pixels, strictly increasing, the last one ``finest``.

    Raises:
        ValueError: If these numbers make no pyramid.
    """
    check_integer("image_size", finest, at_least=RECEPTIVE_FIELD)
    check_integer("coarsest_size", coarsest, at_least=RECEPTIVE_FIELD)
    check_number("scale_factor", factor, above=0, below=1)
    if coarsest > finest:
        msg = f"coarsest_size: got {coarsest}; allowed are at most image_size, {finest}, pixels"
        raise ValueError(msg)
    num_steps = math.ceil(math.log(coarsest / finest) / math.log(factor) - 1e-9)
    ratio = (coarsest / finest) ** (1 / max(num_steps, 1))
    # The tolerance keeps 40.000000000000007 from becoming 41 on one machine and 40 on another.
    sizes = [math.ceil(finest * ratio**step - 1e-6) for step in range(num_steps, -1, -1)]
    if len(set(sizes)) < len(sizes):
        msg = f"scale_factor: got {factor!r}, so close to 1 that scales have equal sizes; allowed are smaller numbers"
        raise ValueError(msg)
    return sizes


DEVIATION = 0.5
"""Standard deviation of the pixels of a standardised image, about that of good photographs in [-1, 1]."""
LEAST_DEVIATION = 0.02
"""Standard deviation below which an image is not stretched in full: that of noise, 2.5 of 255 grey levels."""
LARGEST_PIXEL = 1e6
"""Largest value of a pixel that is told from larger ones, far beyond what any image file gives. Squares and products of
what follows from it stay finite."""


def standardize_images(images: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Bring images to one brightness and contrast, so that one dark training image does not make all others anomalous.

    Args:
        images (torch.Tensor): Images of shape ``(B, C, H, W)``.
        mask (torch.Tensor | None): Which pixels count, true or false, of shape ``(H, W)``; ``None`` counts all.

    Returns:
        torch.Tensor: Images of the same shape. Pixels that count have mean 0 in each and, unless they are all but
        constant, deviation 0.5.
    """
    centred = images - _mean(images, mask)
    deviations = _mean(centred.square(), mask).sqrt()
    return centred * (DEVIATION / deviations.clamp(min=LEAST_DEVIATION))


def _mean(images: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    if mask is None:
        return images.mean(dim=(1, 2, 3), keepdim=True)
    return torch.where(mask, images, 0.0).mean(dim=(1, 2, 3), keepdim=True) / mask.float().mean()


def resize_matrix(size: int, new_size: int) -> torch.Tensor:
    """Compute the matrix that resizes a signal bicubically, antialiased where it shrinks.

    Returns:
        torch.Tensor: Matrix of shape ``(new_size, size)``; its rows sum to 1.
    """
    identity = torch.eye(size)[None, None]
    return F.interpolate(identity, (new_size, size), mode="bicubic", antialias=True)[0, 0]


class Resize(nn.Module):
    """Bicubic, antialiased resizing of images of one fixed size.

    Args:
        size (Sequence[int]): Height and width of the images.
        new_size (int): Side of the square that they become.
    """

    rows: torch.Tensor
    columns: torch.Tensor

    def __init__(self, size: Sequence[int], new_size: int) -> None:
        super().__init__()
        height, width = size
        self.register_buffer("rows", resize_matrix(height, new_size), persistent=False)
        self.register_buffer("columns", resize_matrix(width, new_size).T.contiguous(), persistent=False)

    def __reduce__(self) -> tuple[Callable[..., nn.Module], tuple[Any, ...]]:
        """Be pickled, with a whole model, as what it is made of: the matrices are more than all weights."""
        # An empty tensor in place of the device, since `torch.load` may be told of another one.
        return _remake, (self.columns.new_empty(0), (len(self.rows.T), len(self.columns)), len(self.rows))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Resize ``images``, shape ``(B, C, H, W)``, to ``(B, C, new_size, new_size)``."""
        return self.rows @ images @ self.columns


def _remake(place: torch.Tensor, size: Sequence[int], new_size: int) -> Resize:
    return Resize(size, new_size).to(place)


class Pyramid(nn.Module):
    """Reduces images to every scale.

    Args:
        sizes (Sequence[int]): Sizes of the scales, coarse to fine, in pixels.
        input_size (Sequence[int]): Height and width of the images that are expected.
    """

    def __init__(self, sizes: Sequence[int], input_size: Sequence[int]) -> None:
        super().__init__()
        self.sizes = list(sizes)
        self.input_size = tuple(input_size)
        self.reduce = nn.ModuleList(
            nn.Identity() if self.input_size == (size, size) else Resize(input_size, size) for size in sizes
        )

    def forward(self, images: torch.Tensor) -> dict[int, torch.Tensor]:
        """Reduce images to every scale.

        Args:
            images (torch.Tensor): Images of shape ``(B, C, H, W)``. Images of another size than ``input_size`` are
                legal too, but cannot be traced for an export.

        Returns:
            dict[int, torch.Tensor]: For each side in pixels a tensor of shape ``(B, C, side, side)``.
        """
        if images.shape[-2:] != self.input_size:
            images = F.interpolate(images, self.input_size, mode="bicubic", antialias=True)
        return {size: reduce(images) for size, reduce in zip(self.sizes, self.reduce, strict=True)}
