# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Textures that have something to learn, and models that learn them."""

import math
from dataclasses import replace
from typing import Any

import torch
from torch.optim import Adam

from anomalib_htdgm.models.htdgm import training
from anomalib_htdgm.models.htdgm.settings import Settings
from anomalib_htdgm.models.htdgm.torch_model import HtdgmModel

VOTES_ALONE: dict[str, Any] = {
    "transformations": "rotations",
    "votes_from": 0,
    "num_members": 1,
    "memory_patches": 0,
    "energy_cells": 0,
    "standardize": False,
}
"""Settings of one discriminator at each scale, which sees images as they are and alone scores."""


def shingles(angle: float = 0.3, seed: int = 0, size: int = 64) -> torch.Tensor:
    """Make an image whose texture looks different in each direction."""
    source = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(float(size)), torch.arange(float(size)), indexing="ij")
    phase = (columns * math.cos(angle) + rows * math.sin(angle)) / 16 + torch.rand(1, generator=source)
    colours = torch.tensor([1.0, 0.6, 0.8])[:, None, None]
    return ((phase % 1 * 1.4 - 0.7) * colours + 0.1 * torch.randn(3, size, size, generator=source)).clamp(-1, 1)[None]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    """Draw from [0, 1)."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def make_model(side: int = 64, **settings: Any) -> HtdgmModel:
    """Make a small model of up to two images that votes on rotations alone, unless told otherwise."""
    small = VOTES_ALONE | {"k_shot": 2, "image_size": 16, "coarsest_size": 13, "width": 4, "precision": "float32"}
    return HtdgmModel(Settings(**small | settings), (side, side))


def train(
    model: HtdgmModel, images: torch.Tensor, iterations: int = 2, seed: int = 0, rate: float = training.LEARNING_RATE
) -> HtdgmModel:
    model.settings = replace(model.settings, iterations=iterations)
    optimizer = Adam(model.votes.parameters(), lr=rate, betas=training.BETAS)
    for step in training.train(model, images, seed, optimizer):
        assert step.loss.isfinite()
    return model


def assert_identical(actual: object, expected: object) -> None:
    torch.testing.assert_close(actual, expected, atol=0, rtol=0)
