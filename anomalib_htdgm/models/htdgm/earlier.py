# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Checkpoints of earlier versions: what their models did, and what their weights are called today."""

from collections.abc import Sequence
from typing import Any

import torch

EARLIER: dict[str, Any] = {
    "votes_from": 0,
    "memory_patches": 0,
    "members": 1,
    "memory_bands": 0,
    "memory_weight": 1,
    "energy_cells": 0,
    "standardize": False,
    "pixels_per_iteration": None,
    "tiles": 1,
}
"""What models did that were saved before there were these arguments."""


def drop_untrained(state_dict: dict[str, Any], prefix: str, number: int, untrained: int) -> None:
    """Leave out discriminators that voted at no scale, in place: the finer ones once started from these.

    Args:
        state_dict (dict[str, Any]): The weights.
        prefix (str): What their names begin with.
        number (int): Number of the discriminators that the model has.
        untrained (int): Number of those that models of earlier versions have before them.
    """
    beginning = f"{prefix}discriminators."
    names = [name for name in state_dict if name.startswith(beginning)]
    numbers = {int(name.removeprefix(beginning).partition(".")[0]) for name in names}
    if len(numbers) - number != untrained:
        return
    saved = {name: state_dict.pop(name) for name in names}
    for name, weights in saved.items():
        index, _, rest = name.removeprefix(beginning).partition(".")
        if int(index) >= untrained:
            state_dict[f"{beginning}{int(index) - untrained}.{rest}"] = weights


def name_noise(state_dict: dict[str, Any], prefix: str, noises: Sequence[torch.Tensor]) -> None:
    """Let the fixed noise be that of the coarsest scale, and zero at the finer ones, as it once was."""
    coarsest = state_dict.pop(f"{prefix}fixed_noise", None)
    if coarsest is not None:
        for scale, noise in enumerate(noises):
            state_dict[f"{prefix}fixed_noise_{scale}"] = torch.zeros_like(noise) if scale else coarsest
