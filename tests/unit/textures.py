# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Textures that have something to learn."""

import math

import torch


def shingles(angle: float = 0.3, seed: int = 0, size: int = 64) -> torch.Tensor:
    """Make an image whose texture looks different in each direction."""
    source = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(float(size)), torch.arange(float(size)), indexing="ij")
    phase = (columns * math.cos(angle) + rows * math.sin(angle)) / 16 + torch.rand(1, generator=source)
    colours = torch.tensor([1.0, 0.6, 0.8])[:, None, None]
    return ((phase % 1 * 1.4 - 0.7) * colours + 0.1 * torch.randn(3, size, size, generator=source)).clamp(-1, 1)[None]
