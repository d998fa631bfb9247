# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""A memory bank of what places of good images look like, and how far others are from the most similar of them."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from anomalib_htdgm.models.exporting import chunks

FARTHEST = 30.0
"""What no feature is told from larger values beyond, so that sums of their squares are below 65,504, half precision's
largest number."""
IMAGES_PER_CHUNK = 4
"""Images that are compared at a time: with 4000 places the distances of one fill 16 MB."""


class MemoryBank(nn.Module):
    """Remembers features of places, and measures Euclidean distances to the nearest of them.

    Args:
        capacity (int): Most places that are remembered.
        num_features (int): Features of each place.
    """

    features: torch.Tensor
    half_squares: torch.Tensor
    shots: torch.Tensor

    def __init__(self, capacity: int, num_features: int) -> None:
        super().__init__()
        self.register_buffer("features", torch.zeros(capacity, num_features, 1, 1))
        self.register_buffer("half_squares", torch.full((capacity,), math.inf))  # an empty place is infinitely far
        # Which shot a place is of is asked for at the end of a training only.
        self.register_buffer("shots", torch.zeros(capacity, dtype=torch.long), persistent=False)

    def remember(self, features: torch.Tensor, shots: torch.Tensor) -> None:
        """Remember places, in place of what was remembered before.

        Args:
            features (torch.Tensor): Features of at most as many places as there is room for, of shape ``(n, C)``.
            shots (torch.Tensor): For each of them the number of the training image that it is of, of shape ``(n,)``.
        """
        number = len(features)
        self.features.zero_()[:number] = features[:, :, None, None]
        self.half_squares.fill_(math.inf)[:number] = features.square().sum(dim=1) / 2
        self.shots.zero_()[:number] = shots

    def forward(self, features: torch.Tensor, unseen: int | None = None) -> torch.Tensor:
        """Measure how far places are from the most similar ones that are remembered.

        Args:
            features (torch.Tensor): Features of shape ``(B, C, h, w)``.
            unseen (int | None): Number of the training image whose places are left out; there must be others.

        Returns:
            torch.Tensor: Distances, at least 0, of shape ``(B, 1, h, w)``.
        """
        left_out = self.half_squares
        if unseen is not None:
            left_out = left_out.masked_fill(self.shots == unseen, math.inf)
        return torch.cat([self._measure(each, left_out) for each in chunks(features, IMAGES_PER_CHUNK)])

    def _measure(self, features: torch.Tensor, half_squares: torch.Tensor) -> torch.Tensor:
        # |a - b|^2 / 2 = |a|^2 / 2 + (|b|^2 / 2 - a b), and a b for all b is a convolution.
        nearest = F.conv2d(features, -self.features, half_squares).amin(dim=1, keepdim=True)
        return (features.square().sum(dim=1, keepdim=True) + 2 * nearest).clamp(min=0).sqrt()
