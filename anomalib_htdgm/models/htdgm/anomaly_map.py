# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""From the votes of the discriminators to a map of where an image is anomalous."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from anomalib_htdgm.validation import check_choice

from .canvases import Canvases
from .networks import MARGIN

Localization = Literal["multi_scale", "finest_scale"]

KEPT_FRACTION = 0.05
"""Fraction of the patches that the paper's map keeps (Sec. 4.2)."""


class AnomalyMapGenerator(nn.Module):
    """Brings the votes on all transformed images back into the image.

    Args:
        localization (Localization): ``multi_scale``, the mean over all scales, or ``finest_scale``, the paper's map: the
            finest scale alone, and of each transformation the 5 % most anomalous patches, the others set to 0.
    """

    def __init__(self, localization: Localization) -> None:
        super().__init__()
        check_choice("localization", localization, get_args(Localization))
        self.localization = localization

    def forward(
        self, anomalies: Sequence[torch.Tensor], canvases: Sequence[Canvases], size: tuple[int, int]
    ) -> torch.Tensor:
        """Compute anomaly maps.

        Args:
            anomalies (Sequence[torch.Tensor]): Patch anomalies of every scale, each of shape ``(B, M, h, h)``.
            canvases (Sequence[Canvases]): The canvases of every scale.
            size (tuple[int, int]): Height and width of the maps in pixels.

        Returns:
            torch.Tensor: Anomaly maps of shape ``(B, 1, *size)``, high where the image is anomalous.
        """
        if self.localization == "finest_scale":
            return self._place(_keep_most_anomalous(anomalies[-1]), canvases[-1], size)
        maps = [self._place(votes, each, size) for votes, each in zip(anomalies, canvases, strict=True)]
        return torch.stack(maps).mean(dim=0)

    @staticmethod
    def _place(votes: torch.Tensor, canvases: Canvases, size: tuple[int, int]) -> torch.Tensor:
        patches = canvases.invert(votes).mean(dim=1, keepdim=True)
        # A vote belongs to the centre of its patch; beyond the outermost centres the nearest vote is continued.
        pixels = F.pad(patches, [MARGIN] * 4, mode="replicate")
        return F.interpolate(pixels, size, mode="bilinear")


def _keep_most_anomalous(votes: torch.Tensor) -> torch.Tensor:
    patches = votes.flatten(2)
    kept = patches.topk(math.ceil(KEPT_FRACTION * patches.shape[-1]), dim=-1)
    return torch.zeros_like(patches).scatter(2, kept.indices, kept.values).view_as(votes)
