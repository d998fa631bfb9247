# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Serving the training images, group by group, again and again."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import torch
from anomalib.data import ImageBatch

from anomalib_htdgm.data.augmentation import Augmentation


@dataclass(frozen=True)
class ShuffledBatches:
    """Serves images in batches, in a new order on each pass over them.

    Args:
        images (torch.Tensor): The images, of shape ``(N, 3, H, W)``.
        batch_size (int): Most images of a batch; no batch goes beyond the end of a pass.
        passes (int): Number of passes.
        seed (int): Seed of the orders.
        augmentation (Augmentation | None): What is done to each batch, drawn anew for each.
    """

    images: torch.Tensor
    batch_size: int
    passes: int
    seed: int
    augmentation: Augmentation | None = None

    def __len__(self) -> int:
        """Return the number of batches in all passes."""
        return self.passes * -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[ImageBatch]:
        """Serve the batches, each time in the same orders."""
        source, draws = torch.Generator().manual_seed(self.seed), count()
        for _ in range(self.passes):
            for indices in torch.randperm(len(self.images), generator=source).split(self.batch_size):
                images = self.images[indices]
                yield ImageBatch(image=images if self.augmentation is None else self.augmentation(images, next(draws)))
