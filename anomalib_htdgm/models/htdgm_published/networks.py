# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Generator and discriminator of one scale: five 3x3 convolutions each, a receptive field of 11x11 (Sec. 3.4).

As in the authors' code no convolution pads: a discriminator's output has one vote for each patch that lies wholly
inside its input, and a generator's input is padded with zeros instead.
"""

from itertools import chain, pairwise

import torch
from torch import nn
from torch.nn import functional as F

NUM_BLOCKS = 5
MARGIN = NUM_BLOCKS
"""Pixels between the border of an image and the centre of its outermost patch."""
RECEPTIVE_FIELD = 2 * MARGIN + 1
NEGATIVE_SLOPE = 0.2
INITIAL_STD = 0.02


def make_network(in_channels: int, width: int, out_channels: int) -> nn.Sequential:
    """Make five convolutions; batch norm and LeakyReLU follow all but the last."""
    channels = [in_channels, *[width] * (NUM_BLOCKS - 1)]
    # Batch norm would subtract any bias of a hidden layer.
    blocks = (
        (nn.Conv2d(*pair, 3, bias=False), nn.BatchNorm2d(width), nn.LeakyReLU(NEGATIVE_SLOPE))
        for pair in pairwise(channels)
    )
    return nn.Sequential(*chain.from_iterable(blocks), nn.Conv2d(width, out_channels, 3))


@torch.no_grad()
def draw_weights(network: nn.Sequential, rng: torch.Generator) -> None:
    """Draw weights anew: convolutions from N(0, 0.02), batch-norm scales from N(1, 0.02) (authors' code).

    They are drawn on the CPU, whatever the device of the network, so that a seed gives the same weights everywhere.
    """
    for kind, mean in ((nn.Conv2d, 0.0), (nn.BatchNorm2d, 1.0)):
        for module in (each for each in network if isinstance(each, kind)):
            module.reset_parameters()
            module.weight.copy_(torch.normal(mean, INITIAL_STD, module.weight.shape, generator=rng))
            if module.bias is not None:
                module.bias.zero_()


class Scale(nn.Module):
    """All that belongs to one scale ``n``: discriminator, generator, and the noise that the generator starts from.

    Args:
        size (int): Side of its images in pixels.
        width (int): Channels of the hidden layers.
        num_outputs (int): Classes of the discriminator, the fake class included.
        k_shot (int): Most training images.
        has_generator (bool): Whether there is a generator.
    """

    fixed_noise: torch.Tensor
    noise_amplitudes: torch.Tensor

    def __init__(self, size: int, width: int, num_outputs: int, k_shot: int, *, has_generator: bool) -> None:
        super().__init__()
        self.size, self.width = size, width
        self.discriminator = make_network(3, width, num_outputs)
        self.generator = make_network(3 + 1, width, 3) if has_generator else nn.Sequential()
        # z* of Eq. 7. As in the authors' code every scale has one, the same for all channels and all training images.
        self.register_buffer("fixed_noise", torch.zeros(1, 1, size, size))
        # sigma^n of Sec. 3.1, one for each training image.
        self.register_buffer("noise_amplitudes", torch.zeros(k_shot))

    def generate(self, noise: torch.Tensor, previous: torch.Tensor, shots: torch.Tensor) -> torch.Tensor:
        """Add the details of this scale to the enlarged image of the scale before (Eqs. 1-2, 13-14).

        Args:
            noise (torch.Tensor): Noise from N(0, 1) of shape ``(B, 3, size, size)``; its amplitude is applied here.
            previous (torch.Tensor): The enlarged image of the scale before, of the same shape; zeros at the coarsest.
            shots (torch.Tensor): Index of the training image that each is modelled on, shape ``(B,)``.

        Returns:
            torch.Tensor: Images of the same shape; details in [-1, 1] are added to ``previous``.
        """
        amplitudes = self.noise_amplitudes[shots][:, None, None, None]
        padded = F.pad(amplitudes * noise + previous, [MARGIN] * 4)
        index = shots.to(padded.dtype)[:, None, None, None].expand(-1, 1, *padded.shape[-2:])
        details: torch.Tensor = self.generator(torch.cat([padded, index], dim=1))  # cat(z, i) of Sec. 3.2
        return torch.tanh(details) + previous
