# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The transformations that a discriminator learns to tell apart (Sec. 3.1; supplement, Sec. 1).

A transformation is ``T = gray^g . rot90^d . translate(b, c) . flip^a``, applied from right to left. A translation moves
the content by 15 % of the image's side, and the border is reflected (``dcba|abcd|dcba``).

Example:
    >>> {name: len(each) for name, each in TRANSFORMATION_SETS.items()}
    {'full': 54, 'grayscale': 42, 'rotations': 4, 'symmetries': 16}
"""

from dataclasses import dataclass
from itertools import product

import torch
from kornia.color import rgb_to_grayscale
from torchvision.transforms.v2.functional import pad

SHIFT_FRACTION = 0.15
"""Length of a translation as a fraction of the image's side (supplement, Sec. 1)."""


def shift_length(size: int) -> int:
    """Return the pixels that a translation moves an image of ``size`` by ``size`` pixels."""
    return int(SHIFT_FRACTION * size)


def translate(images: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """Move the content of images by whole pixels, and fill what it leaves by reflection, edge included.

    Args:
        images (torch.Tensor): Images or maps of shape ``(..., H, W)``.
        down (int): Pixels to move it down; negative ones move it up.
        right (int): Pixels to move it to the right; negative ones move it to the left.

    Returns:
        torch.Tensor: Images of the same shape.
    """
    height, width = images.shape[-2:]
    margin = max(abs(down), abs(right))
    padded = pad(images, [margin], padding_mode="symmetric")
    return padded[..., margin - down : margin - down + height, margin - right : margin - right + width]


@dataclass(frozen=True)
class Transformation:
    """One transformation of an image.

    Args:
        flip (bool): Mirror left and right, first of all.
        right (int): Translate the content to the right (1), to the left (-1) or not (0).
        down (int): Translate the content down (1), up (-1) or not (0).
        quarter_turns (int): Rotate counterclockwise by that many times 90 degrees, 0 to 3.
        grayscale (bool): Drop the colour, last of all.
    """

    flip: bool = False
    right: int = 0
    down: int = 0
    quarter_turns: int = 0
    grayscale: bool = False

    def apply(self, images: torch.Tensor) -> torch.Tensor:
        """Transform square images of shape ``(..., 3, H, H)``."""
        images = images.flip(-1) if self.flip else images
        shift = shift_length(images.shape[-1])
        images = translate(images, self.down * shift, self.right * shift)
        images = torch.rot90(images, self.quarter_turns, (-2, -1))
        return rgb_to_grayscale(images).expand_as(images) if self.grayscale else images

    def invert(self, maps: torch.Tensor, shift: int) -> torch.Tensor:
        """Bring maps of the transformed image back to where their content was in the image (Sec. 4.2).

        What a translation pushed out of the image cannot come back: the strip that it leaves is filled by reflection.

        Args:
            maps (torch.Tensor): Square maps of shape ``(..., h, h)``.
            shift (int): Pixels of the map that correspond to a translation.

        Returns:
            torch.Tensor: Maps of the same shape, in the image's own orientation.
        """
        maps = torch.rot90(maps, -self.quarter_turns, (-2, -1))
        maps = translate(maps, -self.down * shift, -self.right * shift)
        return maps.flip(-1) if self.flip else maps


# The groups of the supplement's table: indices 1-32, 33-38 and 39-42 ...
_COLOUR = (
    [Transformation(*steps) for steps in product((False, True), (0, 1), (0, 1), range(4))]
    + [Transformation(*steps, -1) for steps in product((False, True), (-1, 0, 1))]
    + [Transformation(*steps) for steps in product((False, True), (-1,), (0, 1))]
)
# ... and, without colour, 43-50, 51-52 and 53-54.
_GRAY = (
    [Transformation(flip, 0, 0, turns, True) for flip, turns in product((False, True), range(4))]  # noqa: FBT003
    + [Transformation(right=right, grayscale=True) for right in (-1, 1)]
    + [Transformation(down=down, grayscale=True) for down in (-1, 1)]
)

TRANSFORMATION_SETS: dict[str, list[Transformation]] = {
    "full": _COLOUR + _GRAY,
    "grayscale": _COLOUR,
    "rotations": [Transformation(quarter_turns=turns) for turns in range(4)],
    "symmetries": [each for each in _COLOUR + _GRAY if not each.right and not each.down],
}
"""All 54 for colour images, 42 for grey ones, and the four rotations that DifferNet has, too (Sec. 4.2, "Ours2"). Not
the paper's: ``symmetries``, the 54 without translations, for a training that is a third as long."""
