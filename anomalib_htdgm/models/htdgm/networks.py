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
NEGATIVE_SLOPE = 0.2
MARGIN = NUM_BLOCKS
"""Pixels between the border of an image and the centre of its outermost patch."""
RECEPTIVE_FIELD = 2 * MARGIN + 1
INITIAL_STD = 0.02
CHANNEL_BLOCK = 16
NEGLIGIBLE_LOGIT = -1e4
"""Its exponential is 0 beside any other logit's, and its product with 0 is 0."""


def _convolutions(in_channels: int, width: int, out_channels: int) -> Sequence[nn.Conv2d]:
    channels = [in_channels, *[width] * (NUM_BLOCKS - 1)]
    # Batch norm would subtract any bias of a hidden layer.
    hidden = (nn.Conv2d(*pair, kernel_size=3, bias=False) for pair in pairwise(channels))
    last = nn.Conv2d(width, out_channels, kernel_size=3)
    return nn.ModuleList([*hidden, last])  # type: ignore[return-value]


def _norms(width: int) -> Sequence[nn.BatchNorm2d]:
    return nn.ModuleList(nn.BatchNorm2d(width) for _ in range(NUM_BLOCKS - 1))  # type: ignore[return-value]


def _set_mode(norms: Sequence[nn.BatchNorm2d], *, learning: bool) -> None:
    for norm in norms:
        norm.train(learning)


def initialize(network: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of a network anew: convolutions from N(0, 0.02), batch-norm scales from N(1, 0.02).

    It draws on the CPU, whatever the device of the weights, so that a seed gives the same weights everywhere.
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


def count_outputs(num_classes: int) -> int:
    """Compute how many channels a discriminator of ``num_classes`` computes: more than 16 in multiples of 16.

    At some sizes of image oneDNN's convolutions in bfloat16 are far slower for 54 channels than for 64.
    """
    return num_classes if num_classes <= CHANNEL_BLOCK else -(-num_classes // CHANNEL_BLOCK) * CHANNEL_BLOCK


def _add_outputs(last: nn.Conv2d) -> tuple[torch.Tensor, torch.Tensor]:
    """Make weight and bias of the last convolution as :func:`count_outputs` says."""
    assert last.bias is not None  # noqa: S101  # for the type checker
    extra = count_outputs(len(last.weight)) - len(last.weight)
    if not extra:
        return last.weight, last.bias
    weight, bias = last.weight.new_zeros(extra, *last.weight.shape[1:]), last.bias.new_full((extra,), NEGLIGIBLE_LOGIT)
    return torch.cat([last.weight, weight]), torch.cat([last.bias, bias])


def _convolve(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Convolve without padding, in the type of the inputs."""
    dtype = inputs.dtype
    cast = weight.to(dtype, memory_format=torch.channels_last)
    return F.conv2d(inputs, cast, None if bias is None else bias.to(dtype))


def _normalize_activate(tensors: Sequence[torch.Tensor], norm: nn.BatchNorm2d) -> list[torch.Tensor]:
    """Apply batch norm, for which tensors of several sizes are one batch, and LeakyReLU."""
    if len(tensors) == 1:
        return [F.leaky_relu_(norm(tensors[0]), NEGATIVE_SLOPE)]
    pixels = [tensor.permute(0, 2, 3, 1) for tensor in tensors]
    # One image of one column: batch norm looks at the channels of pixels, wherever these are.
    column = torch.cat([each.reshape(-1, each.shape[-1]) for each in pixels]).T[None, :, :, None]
    activated = F.leaky_relu_(norm(column), NEGATIVE_SLOPE)[0, :, :, 0].T
    parts = activated.split([each[..., 0].numel() for each in pixels])
    return [part.view_as(each).permute(0, 3, 1, 2) for part, each in zip(parts, pixels, strict=True)]


def _vote(tensor: torch.Tensor, layers: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    for weight, bias in layers[:-1]:
        tensor = F.leaky_relu_(F.conv2d(tensor, weight, bias), NEGATIVE_SLOPE)
    return F.conv2d(tensor, *layers[-1])


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """Make one convolution of a convolution and the batch norm after it, whose statistics are fixed."""
    # PyTorch's `fuse_conv_bn_weights` makes parameters, which let no gradient through.
    assert norm.running_var is not None and norm.running_mean is not None  # noqa: S101, PT018  # for the type checker
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return convolution.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale


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

    def forward(self, canvases: Sequence[torch.Tensor], *, learning: bool = False) -> list[torch.Tensor]:
        """Compute the votes of all patches, in the type of the canvases.

        Args:
            canvases (Sequence[torch.Tensor]): Images in [-1, 1] of shape ``(N, 3, H, W)``, float32 or bfloat16, one
                tensor for each size.
            learning (bool): Whether the batch norm takes the statistics of all canvases together, and averages them
                for later. Else they are fixed, whatever the module's mode: whoever forgets ``eval()`` scores alike.

        Returns:
            list[torch.Tensor]: Logits of shape ``(N, num_outputs, H - 10, W - 10)``, one tensor for each size. There
            are :func:`count_outputs` of them, those beyond the classes so low that their probability is 0.
        """
        *hidden, last = self.convolutions
        if learning:
            _set_mode(self.norms, learning=True)
            tensors = list(canvases)
            for convolution, norm in zip(hidden, self.norms, strict=True):
                tensors = _normalize_activate([_convolve(tensor, convolution.weight) for tensor in tensors], norm)
            return [_convolve(tensor, *_add_outputs(last)) for tensor in tensors]
        folded = [*(_fold(*layer) for layer in zip(hidden, self.norms, strict=True)), _add_outputs(last)]
        dtype = canvases[0].dtype
        cast = [(weight.to(dtype, memory_format=torch.channels_last), bias.to(dtype)) for weight, bias in folded]
        return [_vote(tensor, cast) for tensor in canvases]

    @torch.no_grad()
    def reestimate_statistics(self, canvases: Sequence[torch.Tensor]) -> None:
        """Set the batch-norm statistics to those of the given canvases, of real training images.

        The running averages of training lag behind the weights and mix real with generated images, while the votes at
        test time are on real images only.
        """
        momentum = [norm.momentum for norm in self.norms]
        for norm in self.norms:
            norm.momentum = 1.0
        self(canvases, learning=True)
        for norm, value in zip(self.norms, momentum, strict=True):
            norm.momentum = value


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

    def forward(
        self,
        noise: torch.Tensor,
        previous: torch.Tensor,
        shots: torch.Tensor,
        dtype: torch.dtype = torch.float32,
        *,
        learning: bool = False,
    ) -> torch.Tensor:
        """Generate images.

        Args:
            noise (torch.Tensor): Noise of shape ``(N, 3, H, W)``.
            previous (torch.Tensor): The scale before, upsampled, shape ``(N, 3, H, W)``; zeros at the coarsest scale.
            shots (torch.Tensor): Index of the training image that each is modelled on, shape ``(N,)``. It fills one
                more input channel, padding included.
            dtype (torch.dtype): Type to compute in.
            learning (bool): Whether the batch norm takes the statistics of these images, as :class:`Discriminator`.

        Returns:
            torch.Tensor: Images of shape ``(N, 3, H, W)``; details in [-1, 1] are added to ``previous``.
        """
        padded = F.pad(noise + previous, [MARGIN] * 4)
        index = shots.to(padded.dtype)[:, None, None, None].expand(-1, 1, *padded.shape[-2:])
        inputs = torch.cat([padded, index], dim=1).to(dtype, memory_format=torch.channels_last)
        _set_mode(self.norms, learning=learning)
        first, *others = self.convolutions
        details = _convolve(inputs, first.weight)
        for convolution, norm in zip(others, self.norms, strict=True):
            details = _convolve(F.leaky_relu_(norm(details), NEGATIVE_SLOPE), convolution.weight, convolution.bias)
        return torch.tanh(details.to(noise.dtype)) + previous
