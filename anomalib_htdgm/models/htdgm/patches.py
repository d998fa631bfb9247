# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Memory of what the patches of the training images look like at the coarse scales.

At coarse scales a patch of 5x5 pixels is a part of the object, and its distance to the most similar patch of a good
image tells a missing or a strange part. Patches are compared as PatchCore's are (Roth et al., *Towards Total Recall in
Industrial Anomaly Detection*, CVPR 2022), but by their whitened pixels, for want of pretrained features.

By their pixels, blank patches are near to many, as they are the mean of all. Where no good patch is blank, they are as
far as they are smoother than the smoothest of these.

Three images or more tell where good ones are never quite alike, as at an edge. A distance counts there for less in a
score; a map shows distances as they are.
"""

import math
from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.transforms.v2.functional import gaussian_blur

from .memory import FARTHEST, MemoryBank
from .scoring import combine, top_mean
from .settings import Settings
from .signals import Opinion, Signal, Views

if TYPE_CHECKING:
    from collections.abc import Sequence

PATCH_SIZE = 5
PATCH_MARGIN = PATCH_SIZE // 2
"""Pixels between the border of an image and the centre of its outermost patch."""
NUM_TURNS = 4
"""Patches are remembered at all quarter turns, so that there are more of them to compare others with."""
COMPONENTS = 32
"""Principal components that patches are compared by, of the 75 pixels' values."""
RIDGE = 0.01
"""Share of the mean variance that is added to that of each component, so that whitening does not blow up noise."""
LEAST_VARIANCE = 1e-6
"""Variance that no component is taken to be below: a fifth of that of rounding to 255 grey levels."""
NEIGHBOURHOOD = 3
"""Patches along each side that the energy around one is the mean over."""
LEAST_ENERGY = 1e-4
"""Energy that no smaller one is told from; patches of the training images have 1 on average."""
LEAST_SHOTS = 3
"""Training images from which on places are compared: each by how far the others are from one another there."""
USUAL_SIGMA = 0.05
"""Standard deviation of the smoothing of usual distances, as a share of the side: parts lie nearly alike."""
LEAST_USUAL = 0.5
"""What the usual distance at a place is at least taken for, as a share of the mean over all places."""
UNFOLDED_PATCHES = 2**17
"""Most patches that are chosen from, 40 MB: all that ten images have, some of more images or of their tiles."""


class Patches(Signal):
    """Memories of patches of several scales.

    Args:
        settings (Settings): The model's.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.sizes, self.patch_fraction = settings.remembered_sizes, settings.patch_fraction
        memories = (PatchMemory(size, settings.num_images, settings.memory_patches) for size in self.sizes)
        self.memories = cast("Sequence[PatchMemory]", nn.ModuleList(memories))

    def fit(self, views: Views, rng: torch.Generator, num_shots: int) -> None:
        """Remember patches of all scales."""
        for size, memory in zip(self.sizes, self.memories, strict=True):
            memory.remember(views[size], rng, num_shots)

    def forward(self, views: Views, unseen: int | None = None) -> Opinion:
        """Score by the farthest patches over what is usual at their places; show how far all are."""
        distances = self.distances(views, unseen)
        pairs = zip(self.memories, distances, strict=True)
        over_usual = [memory.over_usual(scale, are_of_unseen=unseen is not None) for memory, scale in pairs]
        score = combine([top_mean(scale[:, 0], self.patch_fraction) for scale in over_usual])
        # No patch has its centre in the margin: what is nearest to it tells of it.
        return Opinion(score, [F.pad(scale, [PATCH_MARGIN] * 4, mode="replicate") for scale in distances])

    def distances(self, views: Views, unseen: int | None = None) -> list[torch.Tensor]:
        """Measure how far every patch is from the remembered ones: for each scale, see :class:`PatchMemory`."""
        return [memory(views[size], unseen) for size, memory in zip(self.sizes, self.memories, strict=True)]


class PatchMemory(nn.Module):
    """Remembers patches of one scale, and measures how far others are from the most similar of them.

    Args:
        size (int): Side of the images at this scale, in pixels; at least 5.
        k_shot (int): Most training images, or tiles of them.
        num_patches (int): Most patches that are remembered; where there are more, a random choice of them is.
    """

    whitening: torch.Tensor
    offset: torch.Tensor
    usual: torch.Tensor
    least_energy: torch.Tensor
    total: torch.Tensor

    def __init__(self, size: int, k_shot: int, num_patches: int) -> None:
        super().__init__()
        capacity = min(num_patches, NUM_TURNS * k_shot * (size - PATCH_SIZE + 1) ** 2)
        self.bank = MemoryBank(capacity, COMPONENTS)
        self.register_buffer("whitening", torch.zeros(COMPONENTS, 3, PATCH_SIZE, PATCH_SIZE))
        self.register_buffer("offset", torch.zeros(COMPONENTS))
        self.register_buffer("least_energy", torch.tensor(0.0))
        self.register_buffer("usual", torch.ones(1, 1, *[size - PATCH_SIZE + 1] * 2))
        # The sum of the shots' distances is asked for at the end of a training only.
        self.register_buffer("total", torch.zeros(1, 1, *[size - PATCH_SIZE + 1] * 2), persistent=False)

    @torch.no_grad()
    def remember(self, images: torch.Tensor, rng: torch.Generator, num_shots: int | None = None) -> None:
        """Learn to whiten the patches of images, and remember them.

        Args:
            images (torch.Tensor): The training images, or all tiles of one after those of another, at this scale, of
                shape ``(n, 3, size, size)``.
            rng (torch.Generator): Source of randomness, on the CPU.
            num_shots (int | None): How many training images these are tiles of; ``None`` if they are whole.
        """
        turned = torch.cat([torch.rot90(images, turns, (2, 3)) for turns in range(NUM_TURNS)])
        places = _choose_places(turned, rng)
        pairs = list(zip(turned.split(1), places, strict=True))
        self._whiten(torch.cat([F.unfold(image, PATCH_SIZE)[0, :, some].T for image, some in pairs]))
        described = torch.cat([self._describe(image)[0].flatten(1)[:, some] for image, some in pairs], dim=1).T
        self.least_energy.copy_(
            torch.stack([_energy_around(self._describe(each)).min() for each in images.split(1)]).min()
        )
        chosen = torch.randperm(len(described), generator=rng)[: len(self.bank.features)].to(described.device)
        tiles = len(images) // (num_shots or len(images))
        image_of = torch.arange(len(turned), device=images.device).repeat_interleave(len(places[0])) % len(images)
        self.bank.remember(described[chosen], image_of[chosen] // tiles)
        self._compare_places(images if tiles == 1 else images[:0])

    def _compare_places(self, images: torch.Tensor) -> None:
        """Learn the usual distance at each place: of each image to the others. Tiles are places of their own."""
        self.total.zero_()
        self.usual.fill_(1)
        if len(images) < LEAST_SHOTS:
            return
        for shot, image in enumerate(images.split(1)):
            self.total += self(image, shot)
        self.usual.copy_(_smooth(self.total))

    def forward(self, images: torch.Tensor, unseen: int | None = None) -> torch.Tensor:
        """Measure how far every patch is from the most similar one that is remembered.

        Args:
            images (torch.Tensor): Images at this scale, of shape ``(B, 3, size, size)``.
            unseen (int | None): Number of the training image whose patches are to count as not remembered; there must
                be others.

        Returns:
            torch.Tensor: Distances of patches, at least 0, of shape ``(B, 1, size - 4, size - 4)``.
        """
        described = self._describe(images)
        # What is blank is the mean of all patches, and near to many: where no good one is, far as it is smooth.
        blankness = (self.least_energy.clamp(min=LEAST_ENERGY) / _energy_around(described)).log2().clamp(min=0)
        return self.bank(described, unseen) + blankness

    def over_usual(self, distances: torch.Tensor, *, are_of_unseen: bool = False) -> torch.Tensor:
        """Divide distances by those that are usual at their places.

        Args:
            distances (torch.Tensor): What :meth:`forward` gives.
            are_of_unseen (bool): Whether they are those of a training image that counts as not remembered, and so
                does not tell what is usual either.

        Returns:
            torch.Tensor: The same shape. Where fewer than three images, or tiles, were remembered, the distances.
        """
        if are_of_unseen:
            return distances / _smooth(self.total - distances) if self.total.any() else distances
        return distances / self.usual

    def _describe(self, images: torch.Tensor) -> torch.Tensor:
        """Whiten every patch."""
        return F.conv2d(images, self.whitening, self.offset).clamp(-FARTHEST, FARTHEST)

    def _whiten(self, pixels: torch.Tensor) -> None:
        """Learn from the pixels of patches, of shape ``(n, 75)``, to whiten them; all components' squares add to 1."""
        mean = pixels.mean(dim=0)
        variances, components = torch.linalg.eigh(torch.cov(pixels.T, correction=0))  # in ascending order
        scales = (variances + RIDGE * variances.mean()).clamp(min=LEAST_VARIANCE).rsqrt()
        whitening = (components * scales)[:, -COMPONENTS:].T / math.sqrt(COMPONENTS)
        self.whitening.copy_(whitening.view_as(self.whitening))
        self.offset.copy_(-(whitening @ mean))


def _energy_around(described: torch.Tensor) -> torch.Tensor:
    """Take the mean of whitened patches' squared lengths around each: of ``(B, 32, h, h)``, shape ``(B, 1, h, h)``."""
    around = F.pad(described.square().sum(dim=1, keepdim=True), [NEIGHBOURHOOD // 2] * 4, mode="replicate")
    return F.avg_pool2d(around, NEIGHBOURHOOD, stride=1).clamp(min=LEAST_ENERGY)


def _smooth(distances: torch.Tensor) -> torch.Tensor:
    """Smooth distances by place, of shape ``(1, 1, h, h)``, over their mean."""
    sigma = max(USUAL_SIGMA * distances.shape[-1], 0.5)
    radius = min(math.ceil(2 * sigma), distances.shape[-1] - 1)
    padded = F.pad(distances, [radius] * 4, mode="replicate")
    smooth = gaussian_blur(padded, [2 * radius + 1] * 2, [sigma] * 2)[..., radius:-radius, radius:-radius]
    return (smooth / smooth.mean().clamp(min=torch.finfo(smooth.dtype).tiny)).clamp(min=LEAST_USUAL)


def _choose_places(images: torch.Tensor, rng: torch.Generator) -> list[torch.Tensor]:
    """Choose patches of each image, as many of each: all, or at random if those would be too many."""
    share, of_each = max(UNFOLDED_PATCHES // len(images), 1), (images.shape[-1] - PATCH_SIZE + 1) ** 2
    if share >= of_each:
        return [torch.arange(of_each, device=images.device)] * len(images)
    return [torch.randperm(of_each, generator=rng)[:share].to(images.device) for _ in images]
