# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The wide residual network that GEOM classifies with; torchvision's and timm's are deeper, and for larger images."""

import math

import torch
from torch import nn
from torch.nn import functional as F

STAGES = ((16, 1), (32, 2), (64, 2))
"""Channels, before they are widened, and stride of each stage of the network, which is one block."""


class _Block(nn.Module):
    """Two convolutions beside a shortcut of one; batch norm and ReLU come before a convolution."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map features of shape ``(B, in_channels, H, W)`` to ``(B, out_channels, H / stride, W / stride)``."""
        activated = F.relu(self.norm1(features), inplace=True)
        residual: torch.Tensor = self.conv2(F.relu(self.norm2(self.conv1(activated)), inplace=True))
        return residual.add_(self.shortcut(activated))


class WideResNet(nn.Module):
    """A wide residual network with pre-activation and ten layers (Zagoruyko and Komodakis, 2016).

    Args:
        num_classes (int): Number of classes.
        widen (int): Factor of the channels, which are 16, 32 and 64.
    """

    def __init__(self, num_classes: int, widen: int = 4) -> None:
        super().__init__()
        channels = STAGES[0][0]
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1, bias=False)]
        for base, stride in STAGES:
            layers.append(_Block(channels, widen * base, stride))
            channels = widen * base
        self.features = nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
        self.head = nn.Linear(channels, num_classes)

    def initialize(self, source: torch.Generator) -> None:
        """Draw all weights anew.

        Args:
            source (torch.Generator): Source of randomness, on the CPU.
        """
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, generator=source)
        bound = 1 / math.sqrt(self.head.in_features)
        nn.init.uniform_(self.head.weight, -bound, bound, generator=source)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Classify.

        Args:
            images (torch.Tensor): Images of shape ``(B, 3, H, W)``.
            dtype (torch.dtype): What all but the last layer compute in.

        Returns:
            torch.Tensor: Logits of shape ``(B, num_classes)``.
        """
        with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
            features = self.features(images.contiguous(memory_format=torch.channels_last))
        logits: torch.Tensor = self.head(features.float().mean(dim=(2, 3)))
        return logits
