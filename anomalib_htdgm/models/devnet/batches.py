# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Training batches: half normal, half anomalous, each image turned at random."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from anomalib.data import ImageBatch
from torch.utils.data import RandomSampler
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import rotate

from anomalib_htdgm.data.augmentation import Augmentation


@dataclass(frozen=True)
class BalancedBatches:
    """Serves batches of a few images again and again, so that an epoch has as many as the training has steps.

    All images of a kind are served in random order before one of them is served again. So every anomaly has its
    turn, several times in a batch if there are fewer than half a batch.

    Args:
        normal (torch.Tensor): Normal images, uint8 of shape ``(N, 3, H, W)``.
        anomalous (torch.Tensor): Anomalous images, uint8 of shape ``(M, 3, H, W)``.
        batch_size (int): Images in a batch, an even number.
        steps (int): Number of batches.
        rotation (float): Greatest angle, in degrees, by which images are turned to either side.
        seed (int): Seed of order and angles.
        augmentation (Augmentation | None): What is done to each batch, drawn anew for each.
    """

    normal: torch.Tensor
    anomalous: torch.Tensor
    batch_size: int
    steps: int
    rotation: float
    seed: int
    augmentation: Augmentation | None = None

    def __len__(self) -> int:
        """Return the number of batches."""
        return self.steps

    def __iter__(self) -> Iterator[ImageBatch]:
        """Serve batches of images in [0, 1] and their labels; the first half is normal."""
        source = torch.Generator().manual_seed(self.seed)
        half = self.batch_size // 2
        kinds = (self.normal, self.anomalous)
        orders = [iter(RandomSampler(kind, num_samples=self.steps * half, generator=source)) for kind in kinds]
        for step in range(self.steps):
            images = [kind[next(order)] for kind, order in zip(kinds, orders, strict=True) for _ in range(half)]
            turned = torch.stack([self._turn(image, source) for image in images])
            yield ImageBatch(
                image=turned if self.augmentation is None else self.augmentation(turned, step),
                gt_label=torch.arange(self.batch_size) >= half,
            )

    def _turn(self, image: torch.Tensor, source: torch.Generator) -> torch.Tensor:
        """Turn an image around its centre by a random angle; what comes in at the corners is black."""
        angle = self.rotation * (2 * torch.rand((), generator=source).item() - 1)
        turned: torch.Tensor = rotate(image / 255, angle, InterpolationMode.BILINEAR)
        return turned
