# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The pretext task: which transformation was applied to a patch (Sec. 3.1, and section 1 of the supplement).

A transformation is ``T = gray^g . rot90^d . translate(b, c) . flip^a``, applied from right to left. Translations move
the content by 15 % of the image and reflect it at the border (``dcba|abcd|dcba``); a patch tells them only where it
holds the border. Beyond the paper's, an image may first of all be enlarged or blurred: a patch of a texture without
direction cannot tell which way up it is, but it can tell its size and sharpness.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, NamedTuple

import torch
from kornia.color import rgb_to_grayscale
from torch import nn
from torchvision.transforms.v2.functional import pad

from .discriminator import MARGIN
from .pyramid import Resize
from .signals import Views

Detail = Literal["as it is", "enlarge", "blur"]
TransformationSet = Literal["sharpness", "rotations", "symmetries", "motions"]

SHIFT_FRACTION = 0.15
"""Length of a translation as a fraction of the image's side (supplement, section 1)."""
ENLARGEMENT = 1.5
"""Factor by which enlarged images are larger."""
BLUR = 1.7
"""Factor by which blurred images are reduced before they are brought back to their size."""


def shift_length(size: int) -> int:
    """Return the pixels that a translation moves an image of ``size`` by ``size`` pixels."""
    return int(SHIFT_FRACTION * size)


def enlarged_size(size: int) -> int:
    """Return the side of an enlarged image of ``size`` by ``size`` pixels."""
    return round(ENLARGEMENT * size)


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


def to_grayscale(images: torch.Tensor) -> torch.Tensor:
    """Replace the three channels of ``images``, shape ``(..., 3, H, W)``, by their luminance."""
    return rgb_to_grayscale(images).expand_as(images)


class Transformed(NamedTuple):
    """Transformed images of one size.

    Attributes:
        classes (list[int]): Index of the transformation of each.
        images (torch.Tensor): The images, of shape ``(B, n, 3, h, h)``.
    """

    classes: list[int]
    images: torch.Tensor


@dataclass(frozen=True)
class Transformation:
    """One transformation of an image.

    Args:
        flip (bool): Mirror left and right.
        right (int): Translate the content to the right (1), to the left (-1) or not (0).
        down (int): Translate the content down (1), up (-1) or not (0).
        quarter_turns (int): Rotate counterclockwise by that many times 90 degrees, 0 to 3.
        grayscale (bool): Drop the colour, last of all.
        detail (Detail): ``enlarge`` by :data:`ENLARGEMENT`, ``blur`` as if the image had been smaller by :data:`BLUR`,
            or ``as it is``; before all else.
    """

    flip: bool = False
    right: int = 0
    down: int = 0
    quarter_turns: int = 0
    grayscale: bool = False
    detail: Detail = "as it is"

    def apply(self, images: torch.Tensor) -> torch.Tensor:
        """Transform square images of shape ``(..., 3, H, H)``, whose detail has been changed before."""
        images = images.flip(-1) if self.flip else images
        images = self._translate(images, shift_length(images.shape[-1]))
        images = torch.rot90(images, self.quarter_turns, (-2, -1))
        return to_grayscale(images) if self.grayscale else images

    def invert(self, maps: torch.Tensor, shift: int) -> torch.Tensor:
        """Bring maps of the transformed image back to where their content was in the image.

        What a translation pushed out of the image cannot come back: the strip it leaves is filled by reflection.

        Args:
            maps (torch.Tensor): Square maps of shape ``(..., h, h)``.
            shift (int): Pixels of the map that a translation is long.
        """
        maps = torch.rot90(maps, -self.quarter_turns, (-2, -1))
        maps = self._translate(maps, -shift)
        return maps.flip(-1) if self.flip else maps

    def _translate(self, images: torch.Tensor, length: int) -> torch.Tensor:
        return translate(images, self.down * length, self.right * length) if self.down or self.right else images


TRANSFORMATIONS: Mapping[TransformationSet, Sequence[Transformation]] = {
    "sharpness": [Transformation(), Transformation(detail="enlarge"), Transformation(detail="blur")],
    "rotations": [Transformation(quarter_turns=turns) for turns in range(4)],
    "symmetries": [
        Transformation(flip, quarter_turns=turns, grayscale=grayscale)
        for grayscale, flip, turns in product((False, True), (False, True), range(4))
    ],
    "motions": [
        *(Transformation(quarter_turns=turns) for turns in range(4)),
        *(Transformation(right=right) for right in (1, -1)),
        *(Transformation(down=down) for down in (1, -1)),
        Transformation(flip=True),
    ],
}
"""In the order of the discriminator's classes. ``rotations`` is the paper's "Ours2"; ``symmetries`` are the eight of
the square, with and without colour; ``motions`` are single steps of the paper's 42 for images without colour."""


class PretextTask(nn.Module):
    """Makes the transformed images of one scale, and reads what a discriminator says of their patches.

    Args:
        transformations (Sequence[Transformation]): The discriminator's classes, in order.
        size (int): Side of the images at this scale, in pixels.
    """

    nearest: torch.Tensor

    def __init__(self, transformations: Sequence[Transformation], size: int) -> None:
        super().__init__()
        self.transformations, self.size = list(transformations), size
        smaller = max(1, round(size / BLUR))
        self.blur = nn.Sequential(Resize((size, size), smaller), Resize((smaller, smaller), size))
        # For each row of patches of an image, the row of the enlarged image that is nearest to it.
        enlarged = enlarged_size(size)
        centres = (torch.arange(size - 2 * MARGIN) + MARGIN + 0.5) * (enlarged / size)
        nearest = (centres - MARGIN).long().clamp(0, enlarged - 2 * MARGIN - 1)
        self.register_buffer("nearest", nearest, persistent=False)

    @property
    def sizes(self) -> list[int]:
        """Sides in pixels of the views that it looks at."""
        enlarges = any(each.detail == "enlarge" for each in self.transformations)
        return [self.size, enlarged_size(self.size)] if enlarges else [self.size]

    def forward(self, views: Views) -> list[Transformed]:
        """Transform images.

        Args:
            views (Views): Images in the sizes that it looks at. Enlarged ones keep the detail that smaller ones lack.

        Returns:
            list[Transformed]: All transformed images of one size, and then those of another, if there are any.
        """
        by_size: dict[int, tuple[list[int], list[torch.Tensor]]] = {}
        for index, transformation in enumerate(self.transformations):
            size = enlarged_size(self.size) if transformation.detail == "enlarge" else self.size
            images = self.blur(views[size]) if transformation.detail == "blur" else views[size]
            classes, transformed = by_size.setdefault(size, ([], []))
            classes.append(index)
            transformed.append(transformation.apply(images))
        return [Transformed(classes, torch.stack(images, dim=1)) for classes, images in by_size.values()]

    def read(self, classes: Sequence[int], logits: torch.Tensor) -> torch.Tensor:
        """Read what is said of transformed images of one size.

        Args:
            classes (Sequence[int]): Index of the transformation of each.
            logits (torch.Tensor): Discriminators' output on them, of shape ``(..., n, num_classes, h, h)``.

        Returns:
            torch.Tensor: Log-probabilities of the right transformation, for each patch of the scale's own images:
            ``(..., n, size - 10, size - 10)``.
        """
        votes = logits.log_softmax(dim=-3, dtype=torch.promote_types(logits.dtype, torch.float32))
        right = votes[..., list(range(len(classes))), list(classes), :, :]
        is_enlarged = right.shape[-1] != len(self.nearest)
        return right[..., self.nearest, :][..., self.nearest] if is_enlarged else right

    def invert(self, votes: torch.Tensor) -> torch.Tensor:
        """Bring votes, of shape ``(B, num_classes, h, h)``, back to where their patches were (Sec. 4.2)."""
        pairs, shift = zip(self.transformations, votes.unbind(dim=1), strict=True), shift_length(self.size)
        return torch.stack([transformation.invert(each, shift) for transformation, each in pairs], dim=1)
