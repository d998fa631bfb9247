# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Alignment of photographs whose parts are alike but shifted: each is moved to where the first good one lies.

This file is also copied beside an exported ``model.onnx``, so it needs numpy and OpenCV alone.
"""

from typing import Any

import cv2
import numpy as np

SIDE = 256
"""Side in pixels that photographs are compared at, squashed to a square as the model does."""
MOST_SHIFT = 0.2
"""Share of width, or height, that a photograph is moved by at most."""
LEAST_ALIKE = 0.75
"""Correlation with the reference, at most 1, from which on there is something to align: parts have more, surfaces
less."""
Array = Any
"""numpy's arrays."""


def reference_of(photograph: Array) -> Array:
    """Make a reference, uint8 of shape ``(256, 256, 3)``, of a photograph in [0, 1] of shape ``(3, H, W)``."""
    return (_squash(photograph) * 255).round().astype(np.uint8)


def find_shift(photograph: Array, reference: Array) -> tuple[int, int]:
    """Find how far a photograph is to be moved to lie as the reference does: where it is most alike.

    Phase correlation finds a bottle, which is round, in half of the cases only.

    Args:
        photograph (Array): Photograph in [0, 1] of shape ``(3, H, W)``.
        reference (Array): As :func:`reference_of` makes it.

    Returns:
        tuple[int, int]: Pixels to the right, and down. Both are 0 where nothing is alike.
    """
    height, width = photograph.shape[1:]
    most = round(MOST_SHIFT * SIDE)
    wider = cv2.copyMakeBorder(_grey(_squash(photograph)), most, most, most, most, cv2.BORDER_REPLICATE)
    alike = cv2.matchTemplate(wider, _grey(reference.astype(np.float32) / 255), cv2.TM_CCOEFF_NORMED)
    _, best, _, (left, top) = cv2.minMaxLoc(alike)
    is_within = 0 < left < 2 * most and 0 < top < 2 * most  # else it would be better still farther away
    if not (best >= LEAST_ALIKE and is_within):
        return 0, 0
    return round((most - left) * width / SIDE), round((most - top) * height / SIDE)


def align(photograph: Array, reference: Array) -> tuple[Array, tuple[int, int]]:
    """Move a photograph to where the reference lies; what is not in it is shown as the reference is.

    Returns:
        tuple[Array, tuple[int, int]]: The photograph, moved by whole pixels, so that it is as sharp as before, and how
        far it was moved to the right, and down.
    """
    shift = find_shift(photograph, reference)
    if shift == (0, 0):
        return photograph, shift
    height, width = photograph.shape[1:]
    below = cv2.resize(reference, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32) / 255
    return move(photograph, *shift, below=below.transpose(2, 0, 1)), shift


def move(arrays: Array, right: int, down: int, below: Array | None = None) -> Array:
    """Move arrays of shape ``(C, H, W)`` by pixels; ``below`` is seen where there is nothing then, or else 0."""
    height, width = arrays.shape[1:]
    moved = np.zeros_like(arrays) if below is None else below.astype(arrays.dtype)
    rows, columns = slice(max(down, 0), height + min(down, 0)), slice(max(right, 0), width + min(right, 0))
    came = slice(max(-down, 0), height - max(down, 0)), slice(max(-right, 0), width - max(right, 0))
    moved[:, rows, columns] = arrays[:, came[0], came[1]]
    return moved


def _squash(photograph: Array) -> Array:
    pixels = np.ascontiguousarray(photograph.transpose(1, 2, 0), dtype=np.float32)
    return cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def _grey(pixels: Array) -> Array:
    return pixels.mean(axis=2)
