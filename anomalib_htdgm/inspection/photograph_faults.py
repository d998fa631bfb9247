# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What is wrong with a photograph, before its verdict: each fault a plain sentence.

Blur, brightness, shape and colour are compared by :mod:`anomalib_htdgm.data.appearance`, as in every prediction. Here
are what that does not look at: pixels that are pure white or black, a smaller photograph, and the one among the good
ones that is unlike the others. All rules are relative to the good photographs, and generous: a false warning is
worse than none.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from anomalib_htdgm.data.appearance import Appearance, appearance_of, differences
from anomalib_htdgm.models.htdgm.threshold import threshold_above_most

CLIPPED = 2 / 255
"""Distance from black or white up to which a pixel has lost what was there."""
MORE_CLIPPED = 0.2
"""Share of pixels that may be lost beyond that of the good photographs."""
SMALLER = 0.5
"""Share of the good photographs' shorter side from which on small defects are lost."""
SLIGHT_SHIFT = 0.02
"""Share of a side below which it is not worth a word that a photograph was moved."""
DEVIATIONS_OF_ODD = 4.0
"""Deviations above the other good photographs from which on one is unlike them."""


class GoodPhotographs(NamedTuple):
    """What photographs are compared with: how the good ones look, and the greatest share of black and white pixels."""

    appearances: list[Appearance]
    dark: float
    bright: float


def compare_with(images: Sequence[torch.Tensor]) -> GoodPhotographs:
    """Measure the good photographs: images in [0, 1] of shape ``(3, H, W)``."""
    dark, bright = zip((0.0, 0.0), *map(clipped_shares, images), strict=True)
    return GoodPhotographs([appearance_of(image) for image in images], max(dark), max(bright))


def clipped_shares(image: torch.Tensor) -> tuple[float, float]:
    """Measure the shares of black and of white pixels of an image in [0, 1] of shape ``(3, H, W)``."""
    image = image.as_subclass(torch.Tensor)
    dark, bright = image.amax(dim=0) <= CLIPPED, image.amin(dim=0) >= 1 - CLIPPED
    return float(dark.float().mean()), float(bright.float().mean())


def faults_of(image: torch.Tensor, good: GoodPhotographs) -> list[str]:
    """Say what is wrong with a photograph itself, in [0, 1] and of shape ``(3, H, W)``: a sentence for each fault."""
    if not good.appearances:
        return []
    new = appearance_of(image)
    found = [f"{clause[0].upper()}{clause[1:]}." for clause in differences(new, good.appearances)]
    dark, bright = clipped_shares(image)
    if bright > good.bright + MORE_CLIPPED:
        found.append(f"It is overexposed: {bright:.0%} of it is white, of the good ones at most {good.bright:.0%}.")
    if dark > good.dark + MORE_CLIPPED:
        found.append(f"It is underexposed: {dark:.0%} of it is black, of the good ones at most {good.dark:.0%}.")
    smallest = min(good.appearances, key=_shorter_side)
    if _shorter_side(new) < SMALLER * _shorter_side(smallest):
        sizes = f"it has {new.width}x{new.height} pixels, the good ones {smallest.width}x{smallest.height}"
        found.append(f"It is much smaller: {sizes}. Small defects may be lost.")
    return found


def describe_shift(shift: tuple[int, int], size: Sequence[int]) -> str:
    """Say how many pixels a photograph of a height and width was moved to be aligned, to the right, and down."""
    if max(abs(shift[0]) / size[1], abs(shift[1]) / size[0]) < SLIGHT_SHIFT:
        return ""
    across = f"{abs(shift[0])} pixels to the {'right' if shift[0] > 0 else 'left'}"
    return f"It was moved by {across} and {abs(shift[1])} {'down' if shift[1] > 0 else 'up'}."


def find_odd(scores: Sequence[float]) -> list[int]:
    """Find the good photographs that are unlike the others, by the raw scores that they had if they were unseen."""
    every = torch.tensor(scores, dtype=torch.float64)
    return [
        index
        for index in range(len(scores))
        if len(scores) > 2  # noqa: PLR2004
        and every[index] > threshold_above_most(torch.cat([every[:index], every[index + 1 :]]), DEVIATIONS_OF_ODD)
    ]


def _shorter_side(appearance: Appearance) -> int:
    return min(appearance.height, appearance.width)
