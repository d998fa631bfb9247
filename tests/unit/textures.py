# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Textures that have something to learn, and models that learn them."""

import math
from typing import Any

import torch

from anomalib_htdgm.models.htdgm.torch_model import HtdgmModel
from anomalib_htdgm.models.htdgm.training import Training

VOTES_ALONE: dict[str, Any] = {
    "votes_from": 0,
    "members": 1,
    "memory_patches": 0,
    "energy_cells": 0,
    "standardize": False,
}
"""Arguments of the published model: one discriminator at each scale, which sees images as they are."""


def shingles(angle: float = 0.3, seed: int = 0, size: int = 64) -> torch.Tensor:
    """Make an image whose texture looks different in each direction."""
    source = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(float(size)), torch.arange(float(size)), indexing="ij")
    phase = (columns * math.cos(angle) + rows * math.sin(angle)) / 16 + torch.rand(1, generator=source)
    colours = torch.tensor([1.0, 0.6, 0.8])[:, None, None]
    return ((phase % 1 * 1.4 - 0.7) * colours + 0.1 * torch.randn(3, size, size, generator=source)).clamp(-1, 1)[None]


def train(model: HtdgmModel, images: torch.Tensor, iterations: int = 2, seed: int = 0, **arguments: Any) -> HtdgmModel:  # noqa: ANN401
    for step in Training(iterations=iterations, **arguments).run(model, images, seed):
        assert all(loss.isfinite() for loss in step.losses.values())
    return model


def assert_identical(actual: object, expected: object) -> None:
    torch.testing.assert_close(actual, expected, atol=0, rtol=0)
