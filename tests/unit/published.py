# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The published training with rotations, plain and slow: an oracle for the model's.

Every transformed image is made and seen by itself; networks are PyTorch's modules, gradients autograd's, and the type
is PyTorch's default. Facts are the paper's and, where it leaves them open, those of the authors' code; the words are
ours.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, pairwise

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import Adam
from torch.optim.lr_scheduler import MultiStepLR


def make_network(in_channels: int, width: int, out_channels: int) -> nn.Sequential:
    """Make five convolutions; batch norm and LeakyReLU follow all but the last."""
    channels = [in_channels, width, width, width, width]
    blocks = (
        (nn.Conv2d(*pair, 3, bias=False), nn.BatchNorm2d(pair[1]), nn.LeakyReLU(0.2)) for pair in pairwise(channels)
    )
    return nn.Sequential(*chain.from_iterable(blocks), nn.Conv2d(width, out_channels, 3))


def draw_weights(network: nn.Sequential, source: torch.Generator) -> None:
    """Draw weights: convolutions from N(0, 0.02), batch-norm scales from N(1, 0.02)."""
    for kind, mean in ((nn.Conv2d, 0.0), (nn.BatchNorm2d, 1.0)):
        for module in network:
            if isinstance(module, kind):
                nn.init.normal_(module.weight, mean, 0.02, generator=source)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def rotate(images: torch.Tensor) -> torch.Tensor:
    """Apply the four rotations to images, shape ``(k, 3, size, size)``: shape ``(4 * k, 3, size, size)``."""
    return torch.cat([torch.rot90(images, turns, (2, 3)) for turns in range(4)])


class PublishedTraining:
    """Training of all scales on up to k images.

    Random numbers come in this order. Each scale: the discriminator's weights and the generator's, unless they are
    handed on (convolutions, then batch norms), and the fixed noise. Each iteration: the noise of the scale and, for
    each step of the discriminator, that of the coarser scales.

    Args:
        reals (Sequence[torch.Tensor]): The training images at each scale, coarse to fine, each of shape
            ``(k, 3, size, size)`` and in [-1, 1].
        widths (Sequence[int]): Channels of the networks of each scale.
        enlarge (Callable[[torch.Tensor, int], torch.Tensor]): Enlarges images of a scale to the size of the next.
        seed (int): Seed of weights and noise.
    """

    milestones = (500, 1000)
    """Iterations of a scale after which discriminator and generator learn at a tenth of their rate."""

    def __init__(
        self,
        reals: Sequence[torch.Tensor],
        widths: Sequence[int],
        enlarge: Callable[[torch.Tensor, int], torch.Tensor],
        seed: int = 0,
    ) -> None:
        self.reals, self.widths, self.enlarge = reals, widths, enlarge
        self.discriminators = [make_network(3, width, 4 + 1) for width in widths]
        self.generators = [make_network(3 + 1, width, 3) for width in widths]
        self.source = torch.Generator().manual_seed(seed)
        self.fixed_noises: list[torch.Tensor] = []
        self.amplitudes: list[torch.Tensor] = []

    def run(self, iterations: int) -> Iterator[dict[str, float]]:
        """Train, and yield the losses of each iteration's last steps."""
        for scale, real in enumerate(self.reals):
            for networks in (self.discriminators, self.generators):
                if scale and self.widths[scale] == self.widths[scale - 1]:
                    networks[scale].load_state_dict(networks[scale - 1].state_dict())
                else:
                    draw_weights(networks[scale], self.source)
            self.fixed_noises.append(self.draw_noise(scale)[:1, :1].expand_as(real))
            enlarged = self.generate_coarser(scale, self.fixed_noises)
            distance = (enlarged - real).abs().mean(dim=(1, 2, 3))
            self.amplitudes.append(0.1 * distance if scale else torch.ones(len(real)))
            yield from self.train_scale(scale, real, enlarged, iterations)
            self.generators[scale].eval()

    def train_scale(
        self, scale: int, real: torch.Tensor, enlarged: torch.Tensor, iterations: int
    ) -> Iterator[dict[str, float]]:
        """Train one scale on its images, shape ``(k, 3, size, size)``, from the reconstructions of the one before."""
        discriminator, generator = self.discriminators[scale], self.generators[scale]
        optimizers = [Adam(each.parameters(), lr=5e-4, betas=(0.5, 0.999)) for each in (discriminator, generator)]
        schedulers = [
            MultiStepLR(optimizer, [milestone], 0.1)
            for optimizer, milestone in zip(optimizers, self.milestones, strict=True)
        ]
        for _ in range(iterations):
            noise = self.draw_noise(scale)
            discriminator.requires_grad_(True)
            for _ in range(3):
                coarser = [self.draw_noise(each) for each in range(scale)]
                previous = self.generate_coarser(scale, coarser)
                optimizers[0].zero_grad()
                real_loss = self.cross_entropy(discriminator, real, [0, 1, 2, 3])
                with torch.no_grad():
                    fake = self.generate(scale, noise, previous)
                fake_loss = self.cross_entropy(discriminator, fake, [4, 4, 4, 4])
                (real_loss + fake_loss).backward()
                optimizers[0].step()
            discriminator.requires_grad_(False)
            for _ in range(3):
                optimizers[1].zero_grad()
                loss = self.cross_entropy(discriminator, self.generate(scale, noise, previous), [0, 1, 2, 3])
                reconstruction = F.mse_loss(self.generate(scale, self.fixed_noises[scale], enlarged), real)
                (loss + 100 * reconstruction).backward()
                optimizers[1].step()
            for scheduler in schedulers:
                scheduler.step()
            losses = (real_loss, fake_loss, loss, reconstruction)
            names = ("discriminator_loss", "fake_loss", "generator_loss", "reconstruction_loss")
            yield {name: each.item() for name, each in zip(names, losses, strict=True)}

    def draw_noise(self, scale: int) -> torch.Tensor:
        """Draw noise of one scale, shape ``(k, 3, size, size)``; at the coarsest all channels are the same."""
        num_images, channels, height, width = self.reals[scale].shape
        channels = channels if scale else 1
        return torch.randn(num_images, channels, height, width, generator=self.source).expand(-1, 3, -1, -1)

    def generate(self, scale: int, noise: torch.Tensor, previous: torch.Tensor) -> torch.Tensor:
        """Generate images of one scale, of the shape of ``noise`` and of the enlarged images of the scale before."""
        image = F.pad(noise * self.amplitudes[scale][:, None, None, None] + previous, (5, 5, 5, 5))
        index = torch.arange(len(image)).to(image)[:, None, None, None].expand(-1, 1, *image.shape[2:])
        return torch.tanh(self.generators[scale](torch.cat([image, index], dim=1))) + previous

    @torch.no_grad()
    def generate_coarser(self, scale: int, noises: Sequence[torch.Tensor]) -> torch.Tensor:
        """Generate images of the scales before ``scale``, and enlarge the last ones; zeros at the coarsest scale."""
        image = torch.zeros_like(self.reals[0])
        for coarser in range(scale):
            image = self.generate(coarser, noises[coarser], image).clamp(-1, 1)
            image = self.enlarge(image, self.reals[coarser + 1].shape[-1])
        return image

    @staticmethod
    def cross_entropy(discriminator: nn.Module, images: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        """Compute the mean cross entropy of all patches of all rotations of ``images`` to the rotations' classes."""
        votes = discriminator(rotate(images))
        targets = torch.tensor(classes).repeat_interleave(len(images))[:, None, None].expand(-1, *votes.shape[2:])
        return F.cross_entropy(votes, targets)
