# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Serving the training images, group by group, again and again."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from anomalib.data import ImageBatch


@dataclass(frozen=True)
class ShuffledBatches:
    """Serves images in batches, in a new order on each pass over them.

    Args:
        images (torch.Tensor): The images, of shape ``(N, 3, H, W)``.
        batch_size (int): Most images of a batch; no batch goes beyond the end of a pass.
        passes (int): Number of passes.
        seed (int): Seed of the orders.
    """

    images: torch.Tensor
    batch_size: int
    passes: int
    seed: int

    def __len__(self) -> int:
        """Return the number of batches in all passes."""
        return self.passes * -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[ImageBatch]:
        """Serve the batches, each time in the same orders."""
        source = torch.Generator().manual_seed(self.seed)
        for _ in range(self.passes):
            for indices in torch.randperm(len(self.images), generator=source).split(self.batch_size):
                yield ImageBatch(image=self.images[indices])
