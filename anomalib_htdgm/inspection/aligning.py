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
MOST_SHIFT = 0.25
"""Share of width, or height, that a photograph is moved by at most."""
LESS = 0.9
"""What is left of the difference to the reference, at most, where moving a photograph is worth it."""
Array = Any
"""numpy's arrays."""


def reference_of(photograph: Array) -> Array:
    """Make a reference, uint8 of shape ``(256, 256, 3)``, of a photograph in [0, 1] of shape ``(3, H, W)``."""
    return (_squash(photograph) * 255).round().astype(np.uint8)


def find_shift(photograph: Array, reference: Array) -> tuple[int, int]:
    """Find how far a photograph is to be moved to lie as the reference does, by phase correlation.

    Args:
        photograph (Array): Photograph in [0, 1] of shape ``(3, H, W)``.
        reference (Array): As :func:`reference_of` makes it.

    Returns:
        tuple[int, int]: Pixels to the right, and down. Both are 0 unless it then differs less from the reference.
    """
    height, width = photograph.shape[1:]
    here, there = _grey(_squash(photograph)), _grey(reference.astype(np.float32) / 255)
    (left, up), _ = cv2.phaseCorrelate(here, there, cv2.createHanningWindow((SIDE, SIDE), cv2.CV_32F))
    if max(abs(left), abs(up)) > MOST_SHIFT * SIDE:
        return 0, 0
    shift = round(left), round(up)
    covered = move(np.ones((1, SIDE, SIDE), np.float32), *shift)[0] > 0
    moved = move(here[None], *shift)[0]
    difference, before = (np.abs(each - there)[covered].mean() for each in (moved, here))
    if difference > LESS * before:
        return 0, 0
    return round(left * width / SIDE), round(up * height / SIDE)


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
    grey = pixels.mean(axis=2)
    return grey - grey.mean()  # brightness is no difference
