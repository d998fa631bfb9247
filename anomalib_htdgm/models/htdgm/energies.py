# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Oriented energies: what texture is where, however it is turned, compared by a metric that the shots themselves teach.

Pairs of filters in quadrature, a cosine and a sine of each of eight orientations, go over the image at four octaves.
The root of the squares of both is the energy of an orientation (Adelson and Bergen, *Spatiotemporal energy models*,
1985). Of its logarithms in the cells of a 32x32 grid, the sum over the orientations and the magnitudes of their Fourier
transform do not change when the part is turned.

Cells are remembered, as PatchCore's are. What counts as far is learnt: cells of each shot are matched with those of the
others, and the metric whitens what is left over, so that what good images never agree on counts little. Of a single
shot, cells are matched with distant ones of the same image.
"""

import math
from collections.abc import Sequence

import torch
from torch.nn import functional as F

from anomalib_htdgm.models.exporting import chunks

from .memory import FARTHEST, IMAGES_PER_CHUNK, MemoryBank
from .pretext import to_grayscale
from .pyramid import DEVIATION
from .scoring import top_mean
from .settings import Settings
from .signals import Opinion, Signal, Views

GRID = 32
"""Cells along each side."""
SIZES = [32, 64, 128, 256]
"""Sides in pixels of the images whose energies are measured: one for each octave."""
NUM_ORIENTATIONS = 8
NUM_HARMONICS = 2
"""Waves over the orientations whose magnitudes are kept beside the sum: one and two ups and downs in half a turn."""
FILTER_SIZE = 9
FREQUENCY = 0.3
"""Cycles in a pixel of a filter's wave."""
BANDWIDTH = 0.14
"""Deviation of a filter's frequencies, in cycles in a pixel."""
ASPECT = 0.8
"""Deviation of a filter's window across its wave, over that along it, inverted: it is a little longer than wide."""
LEAST_ENERGY = 0.1
"""Energy that is added before the logarithm, of images of deviation 1: noise of a blank ground is to tell nothing."""
NUM_FEATURES = 3 + len(SIZES) * (1 + NUM_HARMONICS)
CELL_FRACTION = 0.1
"""Fraction of the cells, the farthest ones, whose mean distance is the score."""
NUM_MATCHED = 3000
"""Cells that are matched to learn the metric."""
NUM_ROUNDS = 2
"""Times that cells are matched, each by the metric of the time before."""
APART = 4
"""Cells between one and what it is matched with, where there is no other image."""
RIDGE_OF_CELLS, RIDGE_OF_LEFT = 0.01, 0.1
"""Shares of the mean variance that are added to each direction's, of cells and of what is left over of them."""
LEAST_OF_CELLS, LEAST_OF_LEFT = 1e-4, 1e-2
"""Variance that no direction is taken to be below, where shots are the same or blank."""
SCALE = 0.125
"""Factor of all features, so that :data:`FARTHEST` cuts off no good cell's."""


class OrientedEnergies(Signal):
    """Remembers the cells of training images, and measures how far others are from the most similar of them.

    Args:
        settings (Settings): The model's. Where there are more than ``energy_cells`` cells, a random choice of them is
            remembered.
    """

    sizes = SIZES
    map_weight = 2  # as its map is the best alone, see benchmarks/FINDINGS.md

    metric: torch.Tensor
    offset: torch.Tensor
    filters: torch.Tensor
    waves: torch.Tensor

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.bank = MemoryBank(min(settings.energy_cells, settings.num_images * GRID**2), NUM_FEATURES)
        self.register_buffer("metric", torch.zeros(NUM_FEATURES, NUM_FEATURES, 1, 1))
        self.register_buffer("offset", torch.zeros(NUM_FEATURES))
        self.register_buffer("filters", _filters(), persistent=False)
        self.register_buffer("waves", _waves(), persistent=False)

    @torch.no_grad()
    def fit(self, views: Views, rng: torch.Generator, num_shots: int) -> None:
        """Learn what counts as far from training images, and remember their cells."""
        octaves = [views[size].split(1) for size in SIZES]
        described = torch.cat([self.describe(each) for each in zip(*octaves, strict=True)])
        features = described.permute(0, 2, 3, 1).flatten(0, 2)
        kept = torch.randperm(len(features), generator=rng)[: len(self.bank.features)].to(features.device)
        some = torch.randperm(len(features), generator=rng)[:NUM_MATCHED].to(features.device)
        shots = torch.arange(len(features), device=features.device) // (len(features) // num_shots)
        is_own = _are_near(some, kept) if num_shots == 1 else shots[some][:, None] == shots[kept]
        mean = features.mean(dim=0)
        metric = _whitening(features - mean, RIDGE_OF_CELLS, LEAST_OF_CELLS)
        for _ in range(NUM_ROUNDS):
            compared = (features - mean) @ metric
            nearest = torch.cdist(compared[some], compared[kept]).masked_fill(is_own, math.inf).argmin(dim=1)
            left = compared[some] - compared[kept][nearest]
            metric = metric @ _whitening(left, RIDGE_OF_LEFT, LEAST_OF_LEFT)
        metric *= SCALE
        self.metric.copy_(metric.T[:, :, None, None])
        self.offset.copy_(-(mean @ metric))
        cells = ((features - mean) @ metric)[kept].clamp(-FARTHEST, FARTHEST)
        self.bank.remember(cells, shots[kept])

    def forward(self, views: Views, unseen: int | None = None) -> Opinion:
        """Score by the mean of the farthest cells, and show how far all are: ``(B, 1, 32, 32)``."""
        octaves = zip(*(chunks(views[size], IMAGES_PER_CHUNK) for size in SIZES), strict=True)
        described = torch.cat([self.describe(each) for each in octaves])
        distances = self.bank(F.conv2d(described, self.metric, self.offset).clamp(-FARTHEST, FARTHEST), unseen)
        return Opinion(top_mean(distances[:, 0], CELL_FRACTION), [distances])

    def describe(self, octaves: Sequence[torch.Tensor]) -> torch.Tensor:
        """Describe cells.

        Args:
            octaves (Sequence[torch.Tensor]): Images of one brightness and contrast, in each of the sizes.

        Returns:
            torch.Tensor: Mean colours, and for each octave the sum of the logarithms of energies and the magnitudes of
            their Fourier transform over the orientations, of shape ``(B, 15, 32, 32)``.
        """
        described = [self._sum_up(self._energies(to_grayscale(each / DEVIATION)[:, :1])) for each in octaves]
        return torch.cat([octaves[0] / DEVIATION, *described], dim=1)

    def _energies(self, grey: torch.Tensor) -> torch.Tensor:
        """Measure energies of ``(B, 1, h, h)`` in each orientation: ``(B, 8, 32, 32)``."""
        around = F.pad(grey, [FILTER_SIZE // 2] * 4, mode="reflect")
        answers = F.conv2d(around, self.filters)
        energies = (answers.square().unflatten(1, (2, NUM_ORIENTATIONS)).sum(dim=1) + 1e-6).sqrt()
        return F.avg_pool2d(energies, grey.shape[-1] // GRID)

    def _sum_up(self, energies: torch.Tensor) -> torch.Tensor:
        waves = F.conv2d((energies + LEAST_ENERGY).log(), self.waves)
        total, cosines, sines = waves.split([1, NUM_HARMONICS, NUM_HARMONICS], dim=1)
        return torch.cat([total, (cosines.square() + sines.square() + 1e-6).sqrt()], dim=1)


def _filters() -> torch.Tensor:
    """Make the filters, cosines of all orientations and then sines: ``(16, 1, 9, 9)``, of length 1, without a mean."""
    y, x = torch.meshgrid(*[torch.arange(FILTER_SIZE) - FILTER_SIZE // 2] * 2, indexing="ij")
    angles = (torch.arange(NUM_ORIENTATIONS) * math.pi / NUM_ORIENTATIONS)[:, None, None]
    along, across = x * angles.cos() + y * angles.sin(), y * angles.cos() - x * angles.sin()
    window = torch.exp(-2 * (math.pi * BANDWIDTH) ** 2 * (along.square() + (ASPECT * across).square()))
    phases = 2 * math.pi * FREQUENCY * along
    cosines = window * phases.cos()
    cosines = cosines - window * (cosines.sum((1, 2), keepdim=True) / window.sum((1, 2), keepdim=True))
    lengths = cosines.square().sum((1, 2), keepdim=True).sqrt()
    return torch.cat([cosines / lengths, window * phases.sin() / lengths])[:, None]


def _waves() -> torch.Tensor:
    """Make what sums over orientations: ones, then cosines and sines of each harmonic, of shape ``(5, 8, 1, 1)``."""
    turns = torch.arange(NUM_HARMONICS + 1)[:, None] * torch.arange(NUM_ORIENTATIONS) / NUM_ORIENTATIONS
    return torch.cat([(2 * math.pi * turns).cos(), (2 * math.pi * turns[1:]).sin()])[:, :, None, None]


def _whitening(centred: torch.Tensor, ridge: float, least: float) -> torch.Tensor:
    """Make a matrix whose product with rows ``(n, C)`` about zero is uncorrelated, of variance 1 but for the ridge."""
    rows = centred.cpu().double()  # not every device has the precision
    variances, directions = torch.linalg.eigh(rows.T @ rows / len(rows))
    variances = variances.clamp(min=0)
    scales = (variances + ridge * variances.mean()).clamp(min=least).rsqrt()
    return (directions * scales).float().to(centred.device)


def _are_near(some: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Tell which cells, by their numbers, lie so near to one another in one image that they are alike anyway."""
    some = some[:, None]
    are_of_one_image = some // GRID**2 == others // GRID**2
    down, across = (some // GRID % GRID - others // GRID % GRID).abs(), (some % GRID - others % GRID).abs()
    return are_of_one_image & (down <= APART) & (across <= APART)
