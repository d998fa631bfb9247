# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Equalisation of histograms, as the authors' code does it to the training images."""

from typing import Literal

import torch
from kornia.color import hsv_to_rgb, rgb_to_hsv
from kornia.enhance import equalize_clahe

Equalization = Literal["none", "train", "both"]
"""Which images are equalised: none, those of training only (the paper's way), or those of training and test."""


def equalize(images: torch.Tensor) -> torch.Tensor:
    """Equalise the brightness of images: CLAHE, clip limit 2, 8x8 tiles, on the value channel of HSV.

    Images before and after are in [-1, 1], of shape ``(B, 3, H, W)``.
    """
    hue, saturation, value = rgb_to_hsv((images / 2 + 0.5).clamp(0, 1)).unbind(dim=1)
    value = equalize_clahe(value[:, None], clip_limit=2.0, grid_size=(8, 8))[:, 0]
    return hsv_to_rgb(torch.stack([hue, saturation, value], dim=1)) * 2 - 1
