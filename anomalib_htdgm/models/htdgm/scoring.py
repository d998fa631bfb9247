# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""From what signals say of places to a score and a map for each image."""

import math
from collections.abc import Sequence

import torch
from anomalib.models.components import GaussianBlur2d
from torch import nn
from torch.nn import functional as F

BLUR_SIGMA = 2.0
"""Standard deviation of the smoothing of maps, in pixels of the finest scale."""


def top_mean(anomalies: torch.Tensor, fraction: float) -> torch.Tensor:
    """Average the most anomalous places of each image.

    Args:
        anomalies (torch.Tensor): Anomalies of shape ``(..., h, w)``.
        fraction (float): Fraction of the places, the most anomalous, that are averaged, in (0, 1].

    Returns:
        torch.Tensor: Means of shape ``(...)``.
    """
    places = anomalies.flatten(-2)
    number = max(1, math.ceil(fraction * places.shape[-1] - 1e-9))  # 0.07 * 100 is above 7
    return places.topk(number, dim=-1).values.mean(dim=-1)


def combine(parts: Sequence[torch.Tensor], weights: Sequence[int] | None = None) -> torch.Tensor:
    """Combine scores or maps of several kinds, whose units have nothing to do with each other.

    Their geometric mean orders images alike whatever the units are, so that there is nothing to calibrate: to be twice
    as anomalous in one respect counts as much as in another.

    Args:
        parts (Sequence[torch.Tensor]): Scores or maps, at least 0, all of one shape ``(B, ...)``.
        weights (Sequence[int] | None): How many times each of them counts; ``None`` counts each once.

    Returns:
        torch.Tensor: Their geometric mean, of the same shape; a single part as it is. It is finite where the parts are.
    """
    if len(parts) == 1:
        return parts[0]
    weights = weights or [1] * len(parts)
    # Roots first: a product of all parts is soon above half precision's largest number.
    roots = [part.pow(weight / sum(weights)) for part, weight in zip(parts, weights, strict=True)]
    return math.prod(roots[1:], start=roots[0]).clamp(max=torch.finfo(roots[0].dtype).max)


class AnomalyMapGenerator(nn.Module):
    """Adds up the scales of each signal's map, and combines the signals' maps.

    Args:
        size (int): Side of the finest scale in pixels, at which maps are added up.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = (size, size)
        self.blur = GaussianBlur2d(sigma=(BLUR_SIGMA, BLUR_SIGMA), channels=1)

    def forward(
        self, maps: Sequence[Sequence[torch.Tensor]], weights: Sequence[int], size: tuple[int, int]
    ) -> torch.Tensor:
        """Compute anomaly maps.

        Args:
            maps (Sequence[Sequence[torch.Tensor]]): Maps, each by its scales, see
                :class:`~anomalib_htdgm.models.htdgm.signals.Opinion`.
            weights (Sequence[int]): How many times each map counts.
            size (tuple[int, int]): Height and width of the result in pixels.

        Returns:
            torch.Tensor: Anomaly maps of shape ``(B, 1, *size)``, high where the image is anomalous.
        """
        return F.interpolate(combine([self._add_up(scales) for scales in maps], weights), size, mode="bilinear")

    def _add_up(self, scales: Sequence[torch.Tensor]) -> torch.Tensor:
        placed = torch.stack([F.interpolate(each, self.size, mode="bilinear") for each in scales])
        added: torch.Tensor = self.blur(placed.mean(dim=0))
        return added
