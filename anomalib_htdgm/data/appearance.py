# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What a photograph looks like as a whole: one that is unlike all good ones is said to be so before its verdict.

A model resizes what it is given, and evens brightness out. What another camera, shape or light makes of a part is then
a score like any other, and may be a good one's.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch.nn import functional as F
from torchvision.transforms.v2.functional import resize

SIDE = 96
"""Side in pixels that photographs are compared at: what the model sees at its finest scale."""
LEAST_CONTRAST = 1e-3
"""Standard deviation of grey that no photograph's is taken to be below, so that a blank one has a sharpness."""

# Among the training images of twelve sets and their test images, one each, hardly any pair lies beyond these ratios.
SQUASHED = 1.1
"""Ratio between shapes from which on a photograph is squashed more than a part may be."""
DARK = 0.3
"""Share of the darkest good photograph's brightness, or of the brightest one's distance from white."""
BLANK = 0.25
"""Share of the least contrast of a good photograph."""
BLURRED = 0.4
"""Share of the least sharpness; smoothing by 1.5 % of the side leaves 0.2 to 0.5 of it."""
COLOURLESS, COLOURED = 0.003, 0.012
"""Mean range of the three channels below which a photograph is grey, and above which it is coloured."""


class Appearance(NamedTuple):
    """What is compared of photographs.

    Args:
        height (int): Height in pixels.
        width (int): Width in pixels.
        brightness (float): Mean grey, in [0, 1].
        contrast (float): Standard deviation of grey, in [0, 0.5].
        sharpness (float): Standard deviation of the Laplacian, over the contrast.
        colour (float): Mean range of the channels, in [0, 1].
    """

    height: int
    width: int
    brightness: float
    contrast: float
    sharpness: float
    colour: float


def appearance_of(image: torch.Tensor) -> Appearance:
    """Measure an image in [0, 1] of shape ``(3, H, W)``."""
    height, width = image.shape[-2:]
    small = resize(image.as_subclass(torch.Tensor), [SIDE, SIDE], antialias=True)
    grey = small.mean(dim=0)
    contrast = grey.std(correction=0)
    laplacian = F.conv2d(grey[None, None], grey.new_tensor([[[[0, 1, 0], [1, -4, 1], [0, 1, 0]]]]))
    sharpness = laplacian.std(correction=0) / contrast.clamp(min=LEAST_CONTRAST)
    colour = (small.amax(dim=0) - small.amin(dim=0)).mean()
    return Appearance(height, width, *(float(each) for each in (grey.mean(), contrast, sharpness, colour)))


def differences(new: Appearance, good: Sequence[Appearance]) -> list[str]:
    """Say how a photograph is unlike all good ones.

    Args:
        new (Appearance): The photograph.
        good (Sequence[Appearance]): The good ones; without any there is nothing to say.

    Returns:
        list[str]: A clause for each difference, such as ``it is blurred beside the good ones``.
    """
    if not good:
        return []
    shapes = [math.log(each.width / each.height) for each in good]
    shape = math.log(new.width / new.height)
    found = {
        f"it is {new.width}x{new.height} pixels, the good ones {good[0].width}x{good[0].height}, so it is squashed": (
            not min(shapes) - math.log(SQUASHED) <= shape <= max(shapes) + math.log(SQUASHED)
        ),
        "it is much darker than the good ones": new.brightness < DARK * min(each.brightness for each in good),
        "it is much brighter than the good ones": (
            1 - new.brightness < DARK * (1 - max(each.brightness for each in good))
        ),
        "it is nearly blank": new.contrast < BLANK * min(each.contrast for each in good),
        "it is blurred beside the good ones": new.sharpness < BLURRED * min(each.sharpness for each in good),
        "it is grey, the good ones are coloured": (
            new.colour < COLOURLESS and min(each.colour for each in good) > COLOURED
        ),
        "it is coloured, the good ones are grey": (
            new.colour > COLOURED and max(each.colour for each in good) < COLOURLESS
        ),
    }
    return [clause for clause, holds in found.items() if holds]


@dataclass
class Inspection:
    """Tells, before its verdict, how an image is unlike all good ones; a class, since workers get it pickled.

    Args:
        good (list[Appearance]): The good ones.
    """

    good: list[Appearance] = field(default_factory=list)

    def __call__(self, image: torch.Tensor) -> list[str]:
        """Inspect an image in [0, 1] of shape ``(3, H, W)``, and give a notice, if there is one."""
        found = differences(appearance_of(image), self.good) if self.good else []
        return [f"{', and '.join(found)}: its score tells little"] if found else []
