# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Memory of what the patches of the training images look like at one scale: appearance beside orientation.

At coarse scales a patch of 5x5 pixels is a part of the object, and its distance to the most similar patch of a good
image tells a missing or a strange part. Patches are compared as PatchCore's are (Roth et al., *Towards Total Recall in
Industrial Anomaly Detection*, CVPR 2022), but by their whitened pixels, for want of pretrained features.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from .networks import convolve_alike

PATCH_SIZE = 5
PATCH_MARGIN = PATCH_SIZE // 2
"""Pixels between the border of an image and the centre of its outermost patch."""
NUM_TURNS = 4
"""Patches are remembered at all quarter turns: the votes see which way up a part is, so the memory need not."""
COMPONENTS = 32
"""Principal components that patches are compared by, of the 75 pixels' values."""
RIDGE = 0.01
"""Share of the mean variance that is added to that of each component, so that whitening does not blow up noise."""
LEAST_VARIANCE = 1e-6
"""Variance that no component is taken to be below: a fifth of that of rounding to 255 grey levels."""
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
    """

    whitening: torch.Tensor
    offset: torch.Tensor
    patches: torch.Tensor
    half_squares: torch.Tensor

    def __init__(self, size: int, k_shot: int, num_patches: int) -> None:
        super().__init__()
        capacity = min(num_patches, NUM_TURNS * k_shot * (size - PATCH_SIZE + 1) ** 2)
        self.register_buffer("whitening", torch.zeros(COMPONENTS, 3, PATCH_SIZE, PATCH_SIZE))
        self.register_buffer("offset", torch.zeros(COMPONENTS))
        self.register_buffer("patches", torch.zeros(capacity, COMPONENTS, 1, 1))
        self.register_buffer("half_squares", torch.full((capacity,), math.inf))  # an empty place is infinitely far

    @torch.no_grad()
    def remember(self, images: torch.Tensor, source: torch.Generator) -> None:
        """Learn to whiten the patches of images, and remember them.

        Args:
            images (torch.Tensor): The training images at this scale, of shape ``(k, 3, size, size)``.
            source (torch.Generator): Source of randomness, on the CPU.
        """
        turned = torch.cat([torch.rot90(images, turns, (2, 3)) for turns in range(NUM_TURNS)])
        pixels = _unfold(turned, source)
        mean = pixels.mean(dim=0)
        variances, components = torch.linalg.eigh(torch.cov(pixels.T, correction=0))  # in ascending order
        scales = (variances + RIDGE * variances.mean()).clamp(min=LEAST_VARIANCE).rsqrt()
        whitening = (components * scales)[:, -COMPONENTS:].T / math.sqrt(COMPONENTS)
        self.whitening.copy_(whitening.view_as(self.whitening))
        self.offset.copy_(-(whitening @ mean))
        chosen = torch.randperm(len(pixels), generator=source)[: len(self.patches)].to(pixels.device)
        patches = pixels[chosen] @ whitening.T + self.offset
        self.patches.zero_()[: len(patches)] = patches[:, :, None, None]
        self.half_squares.fill_(math.inf)[: len(patches)] = patches.square().sum(dim=1) / 2

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Measure how far every patch is from the most similar one that is remembered.

        Args:
            images (torch.Tensor): Images at this scale, of shape ``(B, 3, size, size)``.

        Returns:
            torch.Tensor: Distances of whitened patches, at least 0, of shape ``(B, 1, size - 4, size - 4)``.
        """
        # An exported graph takes batches of any size, so it cannot be cut into pieces.
        pieces = [images] if torch.compiler.is_compiling() else images.split(IMAGES_PER_PIECE)
        return torch.cat([self._distances(piece) for piece in pieces])

    def _distances(self, images: torch.Tensor) -> torch.Tensor:
        whitened = convolve_alike(images, self.whitening, self.offset)
        # Half the squared distance, less half the patch's own square: |a - b|^2 / 2 = |a|^2 / 2 + (|b|^2 / 2 - a b).
        nearest = convolve_alike(whitened, -self.patches, self.half_squares).amin(dim=1, keepdim=True)
        return (whitened.square().sum(dim=1, keepdim=True) + 2 * nearest).clamp(min=0).sqrt()


def _unfold(images: torch.Tensor, source: torch.Generator) -> torch.Tensor:
    """List the pixels of all patches, or of a random choice that is the same number from each image: ``(n, 75)``."""
    share, of_each = UNFOLDED_PATCHES // len(images), (images.shape[-1] - PATCH_SIZE + 1) ** 2
    if share >= of_each:
        return F.unfold(images, PATCH_SIZE).transpose(1, 2).flatten(0, 1)
    chosen = (torch.randperm(of_each, generator=source)[: max(share, 1)].to(images.device) for _ in images)
    return torch.cat([F.unfold(each, PATCH_SIZE)[:, some].T for each, some in zip(images, chosen, strict=True)])
