# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Memory of what the patches of the training images look like at one scale.

At coarse scales a patch of 5x5 pixels is a part of the object, and its distance to the most similar patch of a good
image tells a missing or a strange part. Patches are compared as PatchCore's are (Roth et al., *Towards Total Recall in
Industrial Anomaly Detection*, CVPR 2022), but by their whitened pixels, for want of pretrained features.

Pixels alone take what is blank for good, since the mean of all patches lies near to many of them. So a patch is
compared by its bands, too: how much there is of each band of frequencies around it, on a logarithmic scale.

Three images or more tell where good ones are never quite alike, as at an edge. A distance counts there for less in a
score; a map shows distances as they are.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torchvision.transforms.v2.functional import gaussian_blur

from anomalib_htdgm.models.tracing import pieces

from .networks import convolve_alike

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
BANDS = (0, 1, 2, 4, 8, 16, 32)
"""Numbers of bands that components can be divided into."""
BAND_POOL = 3
"""Patches along each side of the neighbourhood that the energy in a band is the mean over: of one it is noise."""
BAND_WEIGHT = 3.0
"""How many times the standard deviation of a component that of a band is."""
LEAST_ENERGY = 0.01
"""Energy that is added to that in a band, of which patches of the training images have 1 on average."""
LEAST_DEVIATION = 0.05
"""Standard deviation that no band's logarithm is taken to be below, where all training images are the same."""
FARTHEST = 30.0
"""What no component and no band is told from larger values beyond, so that sums of their squares are below 65,504, half
precision's largest number. The standard deviation of a component of good patches is 0.2, that of a band 0.5."""
LEAST_SHOTS = 3
"""Training images from which on places are compared: each by how far the others are from one another there."""
USUAL_SIGMA = 0.05
"""Standard deviation of the smoothing of usual distances, as a share of the side: parts lie nearly alike."""
LEAST_USUAL = 0.5
"""What the usual distance at a place is at least taken for, as a share of the mean over all places."""
UNFOLDED_PATCHES = 2**17
"""Most patches that are chosen from, 40 MB: all that ten images have, some of more images or of their tiles."""
IMAGES_PER_PIECE = 4
"""Images that are compared at a time: with 2000 patches the distances of one fill 13 MB."""


class PatchMemory(nn.Module):
    """Remembers patches of one scale, and measures how far others are from the most similar of them.

    Args:
        size (int): Side of the images at this scale, in pixels; at least 5.
        k_shot (int): Most training images, or tiles of them.
        num_patches (int): Most patches that are remembered; where there are more, a random choice of them is.
        num_bands (int): Bands of frequencies whose energies patches are compared by beside their pixels; a divisor of
            32, or 0.
    """

    whitening: torch.Tensor
    offset: torch.Tensor
    band_means: torch.Tensor
    band_scales: torch.Tensor
    patches: torch.Tensor
    half_squares: torch.Tensor
    shots: torch.Tensor
    usual: torch.Tensor
    total: torch.Tensor

    def __init__(self, size: int, k_shot: int, num_patches: int, num_bands: int = 0) -> None:
        super().__init__()
        self.num_bands = num_bands
        capacity = min(num_patches, NUM_TURNS * k_shot * (size - PATCH_SIZE + 1) ** 2)
        self.register_buffer("whitening", torch.zeros(COMPONENTS, 3, PATCH_SIZE, PATCH_SIZE))
        self.register_buffer("offset", torch.zeros(COMPONENTS))
        if num_bands:
            self.register_buffer("band_means", torch.zeros(num_bands, 1, 1))
            self.register_buffer("band_scales", torch.zeros(num_bands, 1, 1))
            self.register_buffer("usual", torch.ones(1, 1, *[size - PATCH_SIZE + 1] * 2))
        self.register_buffer("patches", torch.zeros(capacity, COMPONENTS + num_bands, 1, 1))
        self.register_buffer("half_squares", torch.full((capacity,), math.inf))  # an empty place is infinitely far
        # Which shot a patch is of, and the sum of the shots' distances, are asked for at the end of a training only.
        self.register_buffer("shots", torch.zeros(capacity, dtype=torch.long), persistent=False)
        self.register_buffer("total", torch.zeros(1, 1, *[size - PATCH_SIZE + 1] * 2), persistent=False)

    @torch.no_grad()
    def remember(self, images: torch.Tensor, source: torch.Generator, num_shots: int | None = None) -> None:
        """Learn to whiten the patches of images, and remember them.

        Args:
            images (torch.Tensor): The training images, or all tiles of one after those of another, at this scale, of
                shape ``(n, 3, size, size)``.
            source (torch.Generator): Source of randomness, on the CPU.
            num_shots (int | None): How many training images these are tiles of; ``None`` if they are whole.
        """
        turned = torch.cat([torch.rot90(images, turns, (2, 3)) for turns in range(NUM_TURNS)])
        places = _choose_places(turned, source)
        pairs = list(zip(turned.split(1), places, strict=True))
        self._whiten(torch.cat([F.unfold(image, PATCH_SIZE)[0, :, some].T for image, some in pairs]))
        features = [self._describe(image)[0].flatten(1)[:, some] for image, some in pairs]
        described = torch.cat(features, dim=1).T
        if self.num_bands:
            self._scale_bands(described[:, COMPONENTS:])
            described[:, COMPONENTS:] = self._scaled(described[:, COMPONENTS:].T[:, :, None])[:, :, 0].T
        chosen = torch.randperm(len(described), generator=source)[: len(self.patches)].to(described.device)
        patches = described[chosen]
        self.patches.zero_()[: len(patches)] = patches[:, :, None, None]
        self.half_squares.fill_(math.inf)[: len(patches)] = patches.square().sum(dim=1) / 2
        tiles = len(images) // (num_shots or len(images))
        image_of = torch.arange(len(turned), device=images.device).repeat_interleave(len(places[0])) % len(images)
        self.shots.zero_()[: len(patches)] = image_of[chosen] // tiles
        if self.num_bands:
            self._compare_places(images if tiles == 1 else images[:0])

    def _compare_places(self, images: torch.Tensor) -> None:
        """Learn the usual distance at each place: of each image to the others. Tiles are places of their own."""
        self.total.zero_()
        self.usual.fill_(1)
        if len(images) < LEAST_SHOTS:
            return
        for shot, image in enumerate(images.split(1)):
            self.total += self._distances(image, self._half_squares_without(shot))
        self.usual.copy_(_smooth(self.total))

    def _half_squares_without(self, shot: int) -> torch.Tensor:
        return self.half_squares.masked_fill(self.shots == shot, math.inf)

    def forward(self, images: torch.Tensor, unseen: int | None = None) -> torch.Tensor:
        """Measure how far every patch is from the most similar one that is remembered.

        Args:
            images (torch.Tensor): Images at this scale, of shape ``(B, 3, size, size)``.
            unseen (int | None): Number of the training image whose patches are to count as not remembered; there must
                be others.

        Returns:
            torch.Tensor: Distances of patches, at least 0, of shape ``(B, 1, size - 4, size - 4)``.
        """
        if unseen is not None:
            return self._distances(images, self._half_squares_without(unseen))
        return torch.cat([self._distances(piece, self.half_squares) for piece in pieces(images, IMAGES_PER_PIECE)])

    def over_usual(self, distances: torch.Tensor, *, are_of_unseen: bool = False) -> torch.Tensor:
        """Divide distances by those that are usual at their places.

        Args:
            distances (torch.Tensor): What :meth:`forward` gives.
            are_of_unseen (bool): Whether they are those of a training image that counts as not remembered, and so
                does not tell what is usual either.

        Returns:
            torch.Tensor: The same shape. Where fewer than three images, or tiles, were remembered, the distances.
        """
        if not self.num_bands:
            return distances
        if are_of_unseen:
            return distances / _smooth(self.total - distances) if self.total.any() else distances
        return distances / self.usual

    def _distances(self, images: torch.Tensor, half_squares: torch.Tensor) -> torch.Tensor:
        described = self._describe(images)
        if self.num_bands:
            components, bands = described.split([COMPONENTS, self.num_bands], dim=1)
            described = torch.cat([components, self._scaled(bands)], dim=1)
        # Half the squared distance, less half the patch's own square: |a - b|^2 / 2 = |a|^2 / 2 + (|b|^2 / 2 - a b).
        nearest = convolve_alike(described, -self.patches, half_squares).amin(dim=1, keepdim=True)
        return (described.square().sum(dim=1, keepdim=True) + 2 * nearest).clamp(min=0).sqrt()

    def _describe(self, images: torch.Tensor) -> torch.Tensor:
        """Whiten every patch, and list the logarithms of the energies around it behind its components."""
        whitened = convolve_alike(images, self.whitening, self.offset).clamp(-FARTHEST, FARTHEST)
        if not self.num_bands:
            return whitened
        energies = (whitened.square() * COMPONENTS).unflatten(1, (self.num_bands, -1)).mean(dim=2)
        around = F.pad(energies, [BAND_POOL // 2] * 4, mode="replicate")
        return torch.cat([whitened, (F.avg_pool2d(around, BAND_POOL, stride=1) + LEAST_ENERGY).log()], dim=1)

    def _whiten(self, pixels: torch.Tensor) -> None:
        """Learn from the pixels of patches, of shape ``(n, 75)``, to whiten them; all components' squares add to 1."""
        mean = pixels.mean(dim=0)
        variances, components = torch.linalg.eigh(torch.cov(pixels.T, correction=0))  # in ascending order
        scales = (variances + RIDGE * variances.mean()).clamp(min=LEAST_VARIANCE).rsqrt()
        whitening = (components * scales)[:, -COMPONENTS:].T / math.sqrt(COMPONENTS)
        self.whitening.copy_(whitening.view_as(self.whitening))
        self.offset.copy_(-(whitening @ mean))

    def _scale_bands(self, bands: torch.Tensor) -> None:
        """Learn mean and deviation of bands, of shape ``(n, num_bands)``."""
        deviations = bands.std(dim=0, correction=0).clamp(min=LEAST_DEVIATION)
        self.band_means.copy_(bands.mean(dim=0)[:, None, None])
        self.band_scales.copy_((BAND_WEIGHT / math.sqrt(COMPONENTS) / deviations)[:, None, None])

    def _scaled(self, bands: torch.Tensor) -> torch.Tensor:
        return ((bands - self.band_means) * self.band_scales).clamp(-FARTHEST, FARTHEST)


def _smooth(distances: torch.Tensor) -> torch.Tensor:
    """Smooth distances by place, of shape ``(1, 1, h, h)``, over their mean."""
    sigma = max(USUAL_SIGMA * distances.shape[-1], 0.5)
    radius = min(math.ceil(2 * sigma), distances.shape[-1] - 1)
    padded = F.pad(distances, [radius] * 4, mode="replicate")
    smooth = gaussian_blur(padded, [2 * radius + 1] * 2, [sigma] * 2)[..., radius:-radius, radius:-radius]
    return (smooth / smooth.mean().clamp(min=torch.finfo(smooth.dtype).tiny)).clamp(min=LEAST_USUAL)


def _choose_places(images: torch.Tensor, source: torch.Generator) -> list[torch.Tensor]:
    """Choose patches of each image, as many of each: all, or at random if those would be too many."""
    share, of_each = max(UNFOLDED_PATCHES // len(images), 1), (images.shape[-1] - PATCH_SIZE + 1) ** 2
    if share >= of_each:
        return [torch.arange(of_each, device=images.device)] * len(images)
    return [torch.randperm(of_each, generator=source)[:share].to(images.device) for _ in images]
