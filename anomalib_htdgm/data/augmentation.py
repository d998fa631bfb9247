# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""A datamodule's ``train_augmentations`` for models that read their training images once: drawn by the model's seed."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import Compose, Resize, Transform
from torchvision.tv_tensors import Image

from .items import items_of, leaves


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Draw from seeds of one's own: PyTorch's, NumPy's and Python's global random states stay as they are."""
    (seed,) = np.random.SeedSequence([number % 2**64 for number in numbers]).generate_state(1)
    with isolate_rng(include_cuda=False):
        torch.default_generator.manual_seed(int(seed))
        np.random.seed(seed)  # noqa: NPY002  # transforms may draw from it
        random.seed(int(seed))
        yield


@dataclass(frozen=True)
class Augmentation:
    """Augments images, each on its own and each time anew.

    Args:
        transform (Callable): Transform of one image in [0, 1] of shape ``(3, H, W)``.
        seed (int): Seed of what it draws.
    """

    transform: Callable[[torch.Tensor], torch.Tensor]
    seed: int

    def __call__(self, images: torch.Tensor, draw: int) -> torch.Tensor:
        """Augment images in [0, 1] of shape ``(B, 3, H, W)`` to ``(B, 3, h, w)``; one ``draw`` gives the same again.

        Raises:
            ValueError: If they are not all of one shape.
        """
        with seeded(self.seed, draw):
            augmented = [self.transform(Image(image)).as_subclass(torch.Tensor) for image in images]
        shapes = {tuple(image.shape) for image in augmented}
        if len(shapes) > 1:
            msg = f"train_augmentations: got images of different shapes {sorted(shapes)}; allowed is one shape for all"
            raise ValueError(msg)
        return torch.stack(augmented)


def resize_of(transform: Transform | None) -> Resize | None:
    """Find the resizing that anomalib's datamodules add to their augmentations, which is the pre-processor's.

    It is the last transform of all, if it resizes.
    """
    last = _list(transform)[-1:]
    return last[0] if last and isinstance(last[0], Resize) else None


def augmentation_of(dataloader: DataLoader[Any], seed: int) -> Augmentation | None:
    """Find the augmentations of a training set; ``None`` if there is none but :func:`resize_of` it.

    Raises:
        ValueError: If its parts have different ones.
    """
    transforms: list[Any] = [getattr(leaf, "augmentations", None) for leaf in leaves(items_of(dataloader.dataset))]
    augmented = [each for each in transforms if len(_list(each)) > (resize_of(each) is not None)]
    if augmented and len(set(map(repr, transforms))) > 1:
        msg = f"train_augmentations: got different ones {transforms} in one training set; allowed are the same for all"
        raise ValueError(msg)
    return Augmentation(augmented[0], seed) if augmented else None


def _list(transform: Transform | None) -> list[Any]:
    if isinstance(transform, Compose):
        return list(transform.transforms)
    return [] if transform is None else [transform]
