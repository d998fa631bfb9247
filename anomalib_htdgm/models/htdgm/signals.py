# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Signals: what scores. Each is fitted to the training images, and says how far others are from these, and where.

The model knows nothing else of a signal, so that another one is another file.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import nn

Views: TypeAlias = Mapping[int, torch.Tensor]
"""Images, or tiles of them, in several sizes: for each side in pixels, a tensor of shape ``(B, 3, side, side)``."""


class Opinion(NamedTuple):
    """What a signal says of images.

    Attributes:
        score (torch.Tensor): Scores, at least 0, of shape ``(B,)``.
        scales (Sequence[torch.Tensor]): The map by its scales, if there is one: at least 0, of shape ``(B, 1, h, h)``,
            and spanning the whole image. Their mean is the map.
    """

    score: torch.Tensor
    scales: Sequence[torch.Tensor] = ()


class Signal(nn.Module):
    """Scores images by what is remembered of the training images."""

    sizes: Sequence[int]
    """Sides in pixels of the views that it looks at."""
    map_weight = 1
    """How many times its map counts."""

    def fit(self, views: Views, rng: torch.Generator, num_shots: int) -> None:
        """Remember the training images.

        Args:
            views (Views): The training images, or all tiles of one after those of another.
            rng (torch.Generator): Source of randomness, on the CPU.
            num_shots (int): How many training images these are, or are tiles of.
        """
        raise NotImplementedError

    def forward(self, views: Views, unseen: int | None = None) -> Opinion:
        """Score and localise.

        Args:
            views (Views): Images, or tiles.
            unseen (int | None): Number of the training image that they are, which is to count as not remembered; there
                must be others.

        Returns:
            Opinion: Score and map, high where an image is not like the training images.
        """
        raise NotImplementedError
