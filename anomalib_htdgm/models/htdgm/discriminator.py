# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The discriminator of one scale: five 3x3 convolutions without padding, a receptive field of 11x11 (Sec. 3.4)."""

from itertools import pairwise
from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence

NUM_LAYERS = 5
NEGATIVE_SLOPE = 0.2
MARGIN = NUM_LAYERS
"""Pixels between the border of an image and the centre of its outermost patch."""
RECEPTIVE_FIELD = 2 * MARGIN + 1
INITIAL_STD = 0.02


class Discriminator(nn.Module):
    """Tells, for every patch of 11x11 pixels, which transformation was applied to it.

    Args:
        num_classes (int): Number of transformations.
        width (int): Channels of the hidden layers.
    """

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        channels = pairwise([3, *[width] * (NUM_LAYERS - 1)])
        # Batch norm would subtract any bias of a hidden layer.
        hidden = nn.ModuleList(nn.Conv2d(*pair, kernel_size=3, bias=False) for pair in channels)
        norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(NUM_LAYERS - 1))
        self.hidden = cast("Sequence[nn.Conv2d]", hidden)
        self.norms = cast("Sequence[nn.BatchNorm2d]", norms)
        self.last = nn.Conv2d(width, num_classes, kernel_size=3)

    def initialize(self, rng: torch.Generator) -> None:
        """Draw the weights anew: convolutions from N(0, 0.02), batch-norm scales from N(1, 0.02).

        They are drawn on the CPU, whatever their device, so that a seed gives the same weights everywhere.
        """
        layers: list[nn.Conv2d | nn.BatchNorm2d] = [*self.hidden, self.last, *self.norms]
        for layer in layers:
            mean = 1.0 if isinstance(layer, nn.BatchNorm2d) else 0.0
            drawn = torch.empty(layer.weight.shape).normal_(mean, INITIAL_STD, generator=rng)
            with torch.no_grad():
                layer.weight.copy_(drawn)
                if layer.bias is not None:
                    layer.bias.zero_()
        for norm in self.norms:
            norm.reset_running_stats()

    def forward(self, images: torch.Tensor, *, learning: bool = False) -> torch.Tensor:
        """Compute the votes of all patches, in the type of the images.

        Args:
            images (torch.Tensor): Images in [-1, 1] of shape ``(N, 3, H, W)``, float32 or bfloat16.
            learning (bool): Whether the batch norm takes the statistics of these images, and averages them for later.
                Else they are fixed, whatever the module's mode: whoever forgets ``eval()`` scores alike.

        Returns:
            torch.Tensor: Logits of shape ``(N, num_classes, H - 10, W - 10)``.
        """
        images = images.contiguous(memory_format=torch.channels_last)
        for convolution, norm in zip(self.hidden, self.norms, strict=True):
            norm.train(learning)
            if learning:
                images = norm(_convolve(images, convolution.weight))
            else:
                images = _convolve(images, *_fold(convolution, norm))
            images = F.leaky_relu_(images, NEGATIVE_SLOPE)
        return _convolve(images, self.last.weight, self.last.bias)

    @torch.no_grad()
    def reestimate_statistics(self, images: torch.Tensor) -> None:
        """Set the batch-norm statistics to those of given images.

        The running averages of training lag behind the weights.
        """
        momentum = [norm.momentum for norm in self.norms]
        for norm in self.norms:
            norm.momentum = 1.0
        self(images, learning=True)
        for norm, value in zip(self.norms, momentum, strict=True):
            norm.momentum = value


def _convolve(images: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Convolve without padding, in the type of the images."""
    cast = weight.to(images.dtype, memory_format=torch.channels_last)
    return F.conv2d(images, cast, None if bias is None else bias.to(images.dtype))


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """Make weight and bias of one convolution of a convolution and the batch norm after it, whose statistics are fixed.

    PyTorch's ``fuse_conv_bn_weights`` makes parameters, which let no gradient through.
    """
    assert norm.running_var is not None
    assert norm.running_mean is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return convolution.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale
