# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""From gradients of the loss with respect to the pixels to a map of where an image is anomalous (Eq. 6)."""

import torch
from anomalib.models.components import GaussianBlur2d
from torch import nn

from .rotation import rotate

BLUR_SIGMA = 3.0
"""Standard deviation of the smoothing in pixels, as in the authors' code; the paper names none."""


class AnomalyMapGenerator(nn.Module):
    """Smooths gradients, sums them up over the colours, and turns them back."""

    def __init__(self) -> None:
        super().__init__()
        self.blur = GaussianBlur2d(sigma=BLUR_SIGMA, channels=1)  # of three, its buffer could be saved, but not loaded

    def forward(self, gradients: torch.Tensor, degrees: torch.Tensor) -> torch.Tensor:
        """Compute the maps of images as they were before they were turned, at least 0, of shape ``(B, 1, H, W)``.

        Args:
            gradients (torch.Tensor): Gradients with respect to turned images, of shape ``(B, 3, H, W)``.
            degrees (torch.Tensor): By how much each image was turned, of shape ``(B,)``.
        """
        smooth = torch.cat([self.blur(each) for each in gradients.split(1, dim=1)], dim=1)
        return rotate(smooth.abs().sum(dim=1, keepdim=True), -degrees)
