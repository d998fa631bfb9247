# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Generator and discriminator of one scale: five 3x3 convolutions each, a receptive field of 11x11 (section 3.4).

Neither pads between its layers. A discriminator's output has one vote for each patch that lies wholly inside its
input, so it commutes with cropping, which is what lets canvases stand in for transformed images.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

NUM_BLOCKS = 5
MARGIN = NUM_BLOCKS
"""Pixels between the border of an image and the centre of its outermost patch."""
RECEPTIVE_FIELD = 2 * MARGIN + 1
NEGATIVE_SLOPE = 0.2
INITIAL_STD = 0.02


def _convolutions(in_channels: int, width: int, out_channels: int) -> nn.ModuleList:
    channels = [in_channels, *[width] * (NUM_BLOCKS - 1), out_channels]
    return nn.ModuleList(nn.Conv2d(a, b, kernel_size=3) for a, b in pairwise(channels))


def _norms(width: int) -> Sequence[nn.BatchNorm2d]:
    return nn.ModuleList(nn.BatchNorm2d(width) for _ in range(NUM_BLOCKS - 1))  # type: ignore[return-value]


def initialize(network: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of a network anew: convolutions from N(0, 0.02), batch-norm scales from N(1, 0.02).

    Args:
        network (nn.Module): Generator or discriminator.
        generator (torch.Generator): Source of randomness, on the CPU whatever the device of the weights, so that a seed
            gives the same weights everywhere.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            mean = 1.0 if isinstance(module, nn.BatchNorm2d) else 0.0
            weight = torch.empty(module.weight.shape).normal_(mean, INITIAL_STD, generator=generator)
            with torch.no_grad():
                module.weight.copy_(weight)
                if module.bias is not None:
                    module.bias.zero_()
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()


def _normalize_together(norm: nn.Module, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Batch-normalise tensors of several sizes as one batch, so that they share their statistics."""
    if len(inputs) == 1 or not norm.training:
        return [norm(tensor) for tensor in inputs]
    pixels = [tensor.permute(0, 2, 3, 1).reshape(-1, tensor.shape[1], 1, 1) for tensor in inputs]
    normalized = norm(torch.cat(pixels)).split([len(tensor) for tensor in pixels])
    return [
        tensor.view(x.shape[0], x.shape[2], x.shape[3], x.shape[1]).permute(0, 3, 1, 2)
        for tensor, x in zip(normalized, inputs, strict=True)
    ]


class Discriminator(nn.Module):
    """Tells, for every patch of 11x11 pixels, which transformation was applied to it, or that it is generated.

    Args:
        num_classes (int): Number of transformations, plus one if there is a fake class (then the last one).
        width (int): Channels of the hidden layers.
    """

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.convolutions = _convolutions(3, width, num_classes)
        self.norms = _norms(width)

    def forward(self, canvases: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Compute the votes of all patches.

        Args:
            canvases (Sequence[torch.Tensor]): Images in [-1, 1] of shape ``(N, 3, H, W)``, one tensor for each size.
                In training mode all of them make one batch for the batch norm.

        Returns:
            list[torch.Tensor]: Logits of shape ``(N, num_classes, H - 10, W - 10)``, one tensor for each size.
        """
        votes = list(canvases)
        for convolution, norm in zip(self.convolutions[:-1], self.norms, strict=True):
            votes = _normalize_together(norm, [convolution(tensor) for tensor in votes])
            votes = [F.leaky_relu(tensor, NEGATIVE_SLOPE) for tensor in votes]
        return [self.convolutions[-1](tensor) for tensor in votes]

    @torch.no_grad()
    def reestimate_statistics(self, canvases: Sequence[torch.Tensor]) -> None:
        """Set the batch-norm statistics to those of the given canvases.

        The running averages of training lag behind the weights and mix real with generated images, while the votes at
        test time are on real images only.

        Args:
            canvases (Sequence[torch.Tensor]): Canvases of the real training images, as in :meth:`forward`.
        """
        was_training = self.training
        self.train()
        momentum = [norm.momentum for norm in self.norms]
        for norm in self.norms:
            norm.momentum = 1.0
        self(canvases)
        for norm, value in zip(self.norms, momentum, strict=True):
            norm.momentum = value
        self.train(was_training)


class Generator(nn.Module):
    """Adds the details of one scale to the image of the scale before (Eqs. 1-2, 13-14).

    Args:
        width (int): Channels of the hidden layers.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.convolutions = _convolutions(3 + 1, width, 3)
        self.norms = _norms(width)

    def forward(self, noise: torch.Tensor, previous: torch.Tensor, shots: torch.Tensor) -> torch.Tensor:
        """Generate images.

        Args:
            noise (torch.Tensor): Noise of shape ``(N, 3, H, W)``.
            previous (torch.Tensor): The scale before, upsampled, shape ``(N, 3, H, W)``; zeros at the coarsest scale.
            shots (torch.Tensor): Index of the training image that each is modelled on, shape ``(N,)``. It fills one
                more input channel.

        Returns:
            torch.Tensor: Images of shape ``(N, 3, H, W)``; details in [-1, 1] are added to ``previous``.
        """
        index = shots.to(noise.dtype)[:, None, None, None].expand(-1, 1, *noise.shape[-2:])
        details = F.pad(torch.cat([noise + previous, index], dim=1), [MARGIN] * 4)
        for convolution, norm in zip(self.convolutions[:-1], self.norms, strict=True):
            details = F.leaky_relu(norm(convolution(details)), NEGATIVE_SLOPE)
        return torch.tanh(self.convolutions[-1](details)) + previous
