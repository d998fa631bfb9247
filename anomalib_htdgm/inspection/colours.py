# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Colours of heat maps that are tied to the threshold, and of verdicts: told apart without red and green, and in grey.

Blue is below the threshold, yellow above it. The scale is cividis (Nunez, Anderton, Renslow, 2018), which is even to
the eye. Its middle is left out, so that there is a step at the threshold; its end is twice that.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

OF_VERDICTS = {"good": "#2c7fb8", "look at it": "#e6a700", "anomalous": "#d1495b", "cannot be read": "#777777"}
"""Frames and bars: the only red is that of an anomalous photograph. Blue, amber and red differ in lightness, too."""
BLUE_UP_TO, YELLOW_FROM = 0.4, 0.7
"""Places in the scale of what is hardly below, and hardly above the threshold."""
FAINTEST = 0.5
"""Share of the threshold up to which a photograph is shown as it is."""
STRONGEST = 0.65
"""How much of a photograph is covered at the threshold and above it."""
STEPS = 10
"""Colours of a legend."""


def colours_of(relative: NDArray[Any]) -> NDArray[np.uint8]:
    """Colour values over the threshold, at least 0, of shape ``(H, W)``: RGB of shape ``(H, W, 3)``."""
    places = np.interp(relative, [0, 1, 1 + 1e-6, 2], [0, BLUE_UP_TO, YELLOW_FROM, 1])
    levels = (places * 255).round().astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(levels, cv2.COLORMAP_CIVIDIS)[..., ::-1])


def overlay(picture: NDArray[np.uint8], relative: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Lay a heat map, values over the threshold of any size, over a photograph: nothing where it is far below."""
    height, width = picture.shape[:2]
    resized = np.asarray(cv2.resize(relative.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR))
    cover = np.clip((resized - FAINTEST) / (1 - FAINTEST), 0, 1)[..., None] * STRONGEST
    return (picture * (1 - cover) + colours_of(resized) * cover).round().astype(np.uint8)


def legend() -> list[str]:
    """List the colours from 0 to twice the threshold, as CSS has them."""
    return ["#{:02x}{:02x}{:02x}".format(*colour) for colour in colours_of(np.linspace(0, 2, STEPS)[None])[0]]
