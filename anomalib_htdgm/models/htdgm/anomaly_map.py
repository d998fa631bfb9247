# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""From the votes of the discriminators to a map of where an image is anomalous."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from anomalib.models.components import GaussianBlur2d
from torch import nn
from torch.nn import functional as F  # noqa: N812

from anomalib_htdgm.validation import check_choice

from .canvases import Canvases
from .networks import MARGIN

Localization = Literal["multi_scale", "finest_scale"]

KEPT_FRACTION = 0.05
"""Fraction of the patches that the paper's map keeps (Sec. 4.2)."""
BLUR_SIGMA = 2.0
"""Standard deviation of the smoothing, in pixels of the finest scale."""


class AnomalyMapGenerator(nn.Module):
    """Brings the votes on all transformed images back into the image.

    Args:
        localization (Localization): ``finest_scale`` is the paper's map: at the finest scale, the mean over
            transformations of the 5 % most anomalous patches of each, the others set to 0. ``multi_scale`` shows, for
            each patch, the transformation that is told worst, and is a mean over scales, smoothed.
        size (int): Side of the finest scale in pixels, at which maps are added up.
    """

    def __init__(self, localization: Localization, size: int) -> None:
        super().__init__()
        check_choice("localization", localization, get_args(Localization))
        self.localization = localization
        self.size = (size, size)
        self.blur = GaussianBlur2d(sigma=(BLUR_SIGMA, BLUR_SIGMA), channels=1)

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
            kept = canvases[-1].invert(_keep_most_anomalous(anomalies[-1]))
            maps = self._place(kept.mean(dim=1, keepdim=True))
        else:
            pairs = zip(anomalies, canvases, strict=True)
            worst = [each.invert(votes).amax(dim=1, keepdim=True) for votes, each in pairs]
            maps = self.blur(torch.stack([self._place(patches) for patches in worst]).mean(dim=0))
        return F.interpolate(maps, size, mode="bilinear")

    def _place(self, patches: torch.Tensor) -> torch.Tensor:
        """Give the vote of a patch to the pixel in its centre; the margin without votes is not anomalous."""
        return F.interpolate(F.pad(patches, [MARGIN] * 4), self.size, mode="bilinear")


def _keep_most_anomalous(votes: torch.Tensor) -> torch.Tensor:
    patches = votes.flatten(2)
    kept = patches.topk(math.ceil(KEPT_FRACTION * patches.shape[-1]), dim=-1)
    return torch.zeros_like(patches).scatter(2, kept.indices, kept.values).view_as(votes)
