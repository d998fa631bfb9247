# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""From what the signals say of places to a map of where an image is anomalous."""

from collections.abc import Sequence

import torch
from anomalib.models.components import GaussianBlur2d
from torch import nn
from torch.nn import functional as F  # noqa: N812

from .score import combine

BLUR_SIGMA = 2.0
"""Standard deviation of the smoothing, in pixels of the finest scale."""


class AnomalyMapGenerator(nn.Module):
    """Adds up the scales of each signal's map, and combines the signals' maps.

    Args:
        size (int): Side of the finest scale in pixels, at which maps are added up.
        smooth (bool): Whether they are smoothed, which the paper's are not.
    """

    def __init__(self, size: int, *, smooth: bool = True) -> None:
        super().__init__()
        self.size = (size, size)
        self.blur = GaussianBlur2d(sigma=(BLUR_SIGMA, BLUR_SIGMA), channels=1) if smooth else nn.Identity()

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
