# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Why a photograph is not like the good ones: where, and what a good one looks like there.

Places are in shares of width and height, as maps, photographs and thumbnails have different sizes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 256
"""Side in pixels that photographs are compared at, squashed to a square as the model does."""
MOST_REGIONS = 3
"""Regions that are outlined at most, the strangest ones."""
BELOW_PEAK = 0.9
"""Share of a map's peak that the outline is at where nothing is above the threshold."""
LEAST_BOX, MOST_BOX = 0.15, 0.5
"""Least and greatest side of the box around the strangest place."""
MARGIN = 0.03
"""Share of the side that a box is wider than the region in it, to each side."""
DIMMED = 0.35
"""Brightness that is left of what does not count."""

Picture = NDArray[np.uint8]
"""RGB, of shape ``(H, W, 3)``."""
Contour = NDArray[np.float32]
"""Of a region: shares of width and height, of shape ``(n, 2)``."""


class Box(NamedTuple):
    """A square of the squashed photograph, in shares of width and height, in [0, 1]."""

    left: float
    top: float
    side: float


def limit_of(heat: NDArray[np.floating], threshold: float) -> float:
    """Give the value that outlines are at: the threshold; where nothing is above it, a little below the peak."""
    return min(threshold, BELOW_PEAK * float(heat.max()))


def outline_regions(heat: NDArray[np.floating], threshold: float, most: int = MOST_REGIONS) -> list[Contour]:
    """Outline the strangest regions of a raw map, of shape ``(h, w)`` and at least 0, above a raw threshold of pixels.

    Returns:
        list[Contour]: The strangest first; at least one, unless the map is the same everywhere.
    """
    _, numbers = cv2.connectedComponents((heat > limit_of(heat, threshold)).astype(np.uint8))
    regions = [(numbers == number) for number in range(1, int(numbers.max()) + 1)]
    contours = []
    for region in sorted(regions, key=lambda each: float(heat[each].max()), reverse=True)[:most]:
        found, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        contour = max(found, key=cv2.contourArea)[:, 0].astype(np.float32)
        contours.append((contour + 0.5) / np.asarray(heat.shape[::-1], np.float32))
    return contours


def box_around(contour: Contour) -> Box:
    """Put a square around a region, within the photograph."""
    low, high = contour.min(axis=0), contour.max(axis=0)
    side = float(np.clip((high - low).max() + 2 * MARGIN, LEAST_BOX, MOST_BOX))
    left, top = np.clip((low + high) / 2 - side / 2, 0, 1 - side)
    return Box(float(left), float(top), side)


def find_similar(picture: Picture, box: Box, good: Sequence[Picture]) -> tuple[int, Box] | None:
    """Find the place of a good photograph that looks most like a box of another one.

    Returns:
        tuple[int, Box] | None: Index of the good one, and the place of the least squared difference; ``None`` without
        good photographs.
    """
    template = crop(_square(picture), box)
    found: list[tuple[float, int, Box]] = []
    for index, each in enumerate(good):
        differences = cv2.matchTemplate(_square(each), template, cv2.TM_SQDIFF)
        least, _, (left, top), _ = cv2.minMaxLoc(differences)
        found.append((least, index, Box(left / SIDE, top / SIDE, box.side)))
    return min(found)[1:] if found else None


def crop(picture: Picture, box: Box) -> Picture:
    """Cut a box out of a photograph."""
    height, width = picture.shape[:2]
    top, left = round(box.top * height), round(box.left * width)
    return picture[top : top + max(1, round(box.side * height)), left : left + max(1, round(box.side * width))]


def draw_outlines(picture: Picture, regions: Sequence[Contour], colour: str) -> Picture:
    """Draw regions on a photograph: a line in a colour such as ``#d1495b`` on a wider white one, seen on any ground."""
    drawn = np.ascontiguousarray(picture).copy()
    height, width = picture.shape[:2]
    thickness = max(1, round(min(height, width) / 100))
    contours = [np.round(each * (width, height)).astype(np.int32)[:, None] for each in regions]
    rgb = tuple(bytes.fromhex(colour.removeprefix("#")))
    for line, wide in (((255, 255, 255), 3 * thickness), (rgb, thickness)):
        cv2.drawContours(drawn, contours, -1, line, wide, cv2.LINE_AA)
    return drawn


def dim(picture: Picture, counts: NDArray[np.bool_]) -> Picture:
    """Darken what does not count in a photograph: ``counts`` is of shape ``(h, w)``, of whatever size."""
    height, width = picture.shape[:2]
    share = cv2.resize(counts.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)[:, :, None]
    return np.asarray(picture * (DIMMED + (1 - DIMMED) * share), dtype=np.uint8)


def shrink(picture: Picture, longest: int) -> Picture:
    """Reduce a photograph to a longest side in pixels, if it is longer."""
    height, width = picture.shape[:2]
    share = longest / max(height, width)
    if share >= 1:
        return picture
    size = max(1, round(width * share)), max(1, round(height * share))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _square(picture: Picture) -> Picture:
    return np.asarray(cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA), dtype=np.uint8)
