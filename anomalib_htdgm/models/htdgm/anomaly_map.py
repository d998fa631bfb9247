# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""From the votes of the discriminators, and the distances of the memory, to a map of where an image is anomalous."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from anomalib.models.components import GaussianBlur2d
from torch import nn
from torch.nn import functional as F  # noqa: N812

from anomalib_htdgm.validation import check_choice

from .canvases import Canvases
from .memory import PATCH_MARGIN
from .networks import MARGIN
from .score import combine

Localization = Literal["multi_scale", "finest_scale"]

KEPT_FRACTION = 0.05
"""Fraction of the patches that the paper's map keeps (Sec. 4.2)."""
ENERGIES_WEIGHT = 2
"""How many times the map of energies counts beside the memory's."""
BLUR_SIGMA = 2.0
"""Standard deviation of the smoothing, in pixels of the finest scale."""


class AnomalyMapGenerator(nn.Module):
    """Brings the votes on all transformed images back into the image.

    Args:
        localization (Localization): ``finest_scale`` is the paper's map: at the finest scale, the mean over
            transformations of the 5 % most anomalous patches of each, the others set to 0. ``multi_scale`` shows, for
            each patch, the transformation that is told worst, and is a mean over scales, smoothed. With several sets of
            transformations, or a memory, it is the geometric mean of their maps.
        size (int): Side of the finest scale in pixels, at which maps are added up.
        memory_weight (int): How many times the memory's map counts in the geometric mean.
    """

    def __init__(self, localization: Localization, size: int, memory_weight: int = 1) -> None:
        super().__init__()
        check_choice("localization", localization, get_args(Localization))
        self.localization = localization
        self.memory_weight = memory_weight
        self.size = (size, size)
        self.blur = GaussianBlur2d(sigma=(BLUR_SIGMA, BLUR_SIGMA), channels=1)

    def forward(
        self,
        anomalies: Sequence[Sequence[torch.Tensor]],
        canvases: Sequence[Sequence[Canvases]],
        distances: Sequence[torch.Tensor],
        size: tuple[int, int],
        energies: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Compute anomaly maps.

        Args:
            anomalies (Sequence[Sequence[torch.Tensor]]): For each set of transformations, patch anomalies of every
                scale, each of shape ``(B, M, h, h)``.
            canvases (Sequence[Sequence[Canvases]]): Their canvases.
            distances (Sequence[torch.Tensor]): Distances of the memory at every scale that has one, each of shape
                ``(B, 1, h, h)``; they are not in the paper's map.
            size (tuple[int, int]): Height and width of the maps in pixels.
            energies (torch.Tensor | None): Distances of oriented energies, of shape ``(B, 1, h, h)``, if any.

        Returns:
            torch.Tensor: Anomaly maps of shape ``(B, 1, *size)``, high where the image is anomalous.
        """
        pairs = zip(anomalies, canvases, strict=True)
        if self.localization == "finest_scale":
            finest = [each[-1].invert(_keep_most_anomalous(of_set[-1])) for of_set, each in pairs]
            maps = combine([self._place(each.mean(dim=1, keepdim=True), MARGIN) for each in finest])
        else:
            parts = [self._show_worst(of_set, each) for of_set, each in pairs]
            if distances:
                parts += [self._add_up([(each, PATCH_MARGIN) for each in distances])] * self.memory_weight
            if energies is not None:  # they reach to the border, and show defects better than votes do
                remembered = [self._add_up([(_extend(each), 0) for each in distances])] if distances else []
                parts = [*remembered, *[self._add_up([(energies, 0)])] * ENERGIES_WEIGHT]
            maps = combine(parts)
        return F.interpolate(maps, size, mode="bilinear")

    def _show_worst(self, anomalies: Sequence[torch.Tensor], canvases: Sequence[Canvases]) -> torch.Tensor:
        worst = [each.invert(scale).amax(dim=1, keepdim=True) for scale, each in zip(anomalies, canvases, strict=True)]
        return self._add_up([(patches, MARGIN) for patches in worst])

    def _add_up(self, scales: Sequence[tuple[torch.Tensor, int]]) -> torch.Tensor:
        """Take the mean of scales, each of which comes with its margin, see :meth:`_place`."""
        maps: torch.Tensor = self.blur(torch.stack([self._place(*each) for each in scales]).mean(dim=0))
        return maps

    def _place(self, patches: torch.Tensor, margin: int) -> torch.Tensor:
        """Give what is said of a patch to the pixel in its centre; the margin without centres is not anomalous."""
        return F.interpolate(F.pad(patches, [margin] * 4), self.size, mode="bilinear")


def _extend(patches: torch.Tensor) -> torch.Tensor:
    """Give the outermost patches' distances to the margin beside them, too."""
    return F.pad(patches, [PATCH_MARGIN] * 4, mode="replicate")


def _keep_most_anomalous(anomalies: torch.Tensor) -> torch.Tensor:
    patches = anomalies.flatten(2)
    kept = patches.topk(math.ceil(KEPT_FRACTION * patches.shape[-1]), dim=-1)
    return torch.zeros_like(patches).scatter(2, kept.indices, kept.values).view_as(anomalies)
