# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The published training with rotations, plain and slow: what would the authors' program give?

    python benchmarks/quality/published.py MVTEC_AD/bottle 000.png
    python benchmarks/quality/published.py MVTEC_AD/grid 100.png --scales 4

Every transformed image is made and seen by itself; networks are PyTorch's modules, gradients autograd's, and the type
is PyTorch's default. Facts are the paper's and, where it leaves them open, those of the authors' code, its way of
resizing images among them; the words are ours. The training alone is the oracle of `test_published_training.py`.

Printed are, after each scale, the image AUROC in percent of each scale and of all so far: of probabilities, the lowest
5 %, as published, and of log-probabilities, the lowest 1 %, both with running averages and with statistics re-estimated
on the training image; last, of all with each scale brought to [0, 1] over the test set, which the authors' code prints
beside the published score. Every hundred iterations it prints the first two of the scale at work: how far do they
swing?
"""

import argparse
import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.optim import Adam
from torch.optim.lr_scheduler import MultiStepLR

from anomalib_htdgm.models.htdgm.score import Vote, anomaly_score, patch_anomaly

SIZES = (26, 32, 41, 51, 64)
FACTOR = (25 / 64) ** (1 / 4)
READ_SIZE = 128
WIDTHS = (32, 32, 32, 32, 64)
SCORES: tuple[tuple[Vote, float], ...] = (("probability", 0.05), ("log_probability", 0.01))
ITERATIONS, SNAPSHOT_EVERY = 1000, 100


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
            for optimizer, milestone in zip(optimizers, (500, 1000), strict=True)
        ]
        for _ in range(iterations):
            noise = self.draw_noise(scale)
            discriminator.requires_grad_(True)  # noqa: FBT003
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
            discriminator.requires_grad_(False)  # noqa: FBT003
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


def resize_matrix(length: int, scale: float) -> np.ndarray:
    """Compute the matrix that resizes a signal as MATLAB does: bicubically, antialiased where it shrinks.

    Other than :func:`anomalib_htdgm.models.htdgm.pyramid.resize_matrix` it resizes by a factor, not to a size, and
    mirrors the signal beyond its end; beyond its start weights are left out, as in the authors' code.

    Args:
        length (int): Length of the signal.
        scale (float): Ratio of new and old distances.

    Returns:
        np.ndarray: Shape ``(ceil(length * scale), length)``.
    """
    narrow = min(scale, 1.0)
    new_length = math.ceil(length * scale)
    centres = (np.arange(new_length) + 0.5) / scale - 0.5
    taps = np.floor(centres[:, None] - 2 / narrow) + np.arange(math.ceil(4 / narrow) + 2)
    distances = np.abs(narrow * (centres[:, None] - taps))
    near, far = distances <= 1, (distances > 1) & (distances <= 2)  # noqa: PLR2004  # Keys' kernel
    weights = near * (1.5 * distances**3 - 2.5 * distances**2 + 1)
    weights += far * (-0.5 * distances**3 + 2.5 * distances**2 - 4 * distances + 2)
    weights[taps < 0] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((new_length, length))
    columns = np.abs(taps).astype(int)
    columns = np.where(columns < length, columns, 2 * length - 1 - columns)
    np.add.at(matrix, (np.arange(new_length)[:, None], columns), weights)
    return matrix


def resize(images: torch.Tensor, scale: float) -> torch.Tensor:
    """Resize images in [-1, 1], shape ``(B, 3, size, size)``, that are first truncated to 8 bits."""
    pixels = (255 * (images + 1) / 2).clamp(0, 255).to(torch.uint8).double()
    if scale != 1:
        matrix = torch.from_numpy(resize_matrix(images.shape[-1], scale))
        pixels = matrix @ pixels @ matrix.T
    return (pixels / 255 * 2 - 1).clamp(-1, 1).to(images.dtype)


def enlarge(images: torch.Tensor, size: int) -> torch.Tensor:
    """Enlarge images by the ratio of scales and cut off what is beyond ``size``."""
    return resize(images, 1 / FACTOR)[:, :, :size, :size]


def read_scales(paths: Sequence[Path]) -> list[torch.Tensor]:
    """Read images and reduce them to every scale: to 128 pixels, to 64, and from there to the others."""
    files = (Image.open(path).convert("RGB").resize((READ_SIZE,) * 2, Image.Resampling.LANCZOS) for path in paths)
    pixels = torch.stack([torch.from_numpy(np.array(file)) for file in files]).permute(0, 3, 1, 2)
    finest = resize(pixels.float() / 255 * 2 - 1, SIZES[-1] / READ_SIZE)
    scales = [resize(finest, FACTOR**step) for step in reversed(range(len(SIZES)))]
    return [images[..., :size, :size] for images, size in zip(scales, SIZES, strict=True)]


@torch.no_grad()
def score(discriminator: nn.Sequential, images: torch.Tensor) -> torch.Tensor:
    """Score images, shape ``(B, 3, size, size)``, in the ways of ``SCORES``: shape ``(len(SCORES), B)``."""
    discriminator.eval()
    parts = []
    for batch in images.split(16):
        votes = discriminator(rotate(batch))[:, :4].log_softmax(dim=1).unflatten(0, (4, len(batch)))
        right = votes[torch.arange(4), :, torch.arange(4)].transpose(0, 1)
        parts.append(torch.stack([anomaly_score([patch_anomaly(right, vote)], part) for vote, part in SCORES]))
    return torch.cat(parts, dim=1)


@torch.no_grad()
def reestimate(discriminator: nn.Sequential, images: torch.Tensor) -> nn.Sequential:
    """Copy a discriminator, with the batch-norm statistics of real images."""
    copied = copy.deepcopy(discriminator).train()
    for module in copied:
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    copied(rotate(images))
    return copied


def normalize(scores: torch.Tensor) -> torch.Tensor:
    """Bring scores of all images, shape ``(..., B)``, to [0, 1], as the authors' code does for a second figure."""
    lowest, highest = scores.aminmax(dim=-1, keepdim=True)
    return (scores - lowest) / (highest - lowest)


def main() -> None:
    """Train, score and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="directory of a category, in MVTec AD's layout")
    parser.add_argument("files", nargs="+", help="names of the training images")
    parser.add_argument("--scales", type=int, default=len(SIZES), help="train only so many, from the coarsest")
    options = parser.parse_args()
    torch.set_num_threads(1)
    paths = sorted((options.root / "test").glob("*/*.png"))
    labels = [path.parent.name != "good" for path in paths]
    tests = read_scales(paths)[: options.scales]
    reals = read_scales([options.root / "train" / "good" / name for name in options.files])[: options.scales]
    training = PublishedTraining(reals, WIDTHS[: options.scales], enlarge)
    scores: dict[str, list[torch.Tensor]] = {"running averages": [], "re-estimated": []}

    def rate(values: torch.Tensor) -> list[float]:
        return [round(100 * float(roc_auc_score(labels, each)), 1) for each in values]

    start = time.perf_counter()
    for step, losses in enumerate(training.run(ITERATIONS)):
        scale, iteration = step // ITERATIONS, step % ITERATIONS + 1
        discriminator = training.discriminators[scale]
        if iteration % SNAPSHOT_EVERY == 0:
            rounded = {name: round(value, 4) for name, value in losses.items()}
            aurocs = rate(score(discriminator, tests[scale]))
            print(SIZES[scale], iteration, *aurocs, rounded, f"{time.perf_counter() - start:.0f} s", flush=True)
            discriminator.train()
        if iteration == ITERATIONS:
            scores["running averages"].append(score(discriminator, tests[scale]))
            scores["re-estimated"].append(score(reestimate(discriminator, reals[scale]), tests[scale]))
            for statistics, values in scores.items():
                of_scales = zip(*map(rate, values), strict=True)
                of_all = rate(torch.stack(values).mean(dim=0))
                of_normalized = rate(torch.stack([normalize(each) for each in values]).mean(dim=0))
                for (vote, part), each, *totals in zip(SCORES, of_scales, of_all, of_normalized, strict=True):
                    print(f"{statistics}, {vote} {part}:", *each, "all, all normalised:", *totals, flush=True)


if __name__ == "__main__":
    main()
