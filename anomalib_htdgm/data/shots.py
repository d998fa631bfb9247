# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Reading the training images once, for a model whose training has iterations rather than epochs."""

import copy
import logging
from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, cast

from anomalib.data import AnomalibDataset, ImageBatch, ImageItem
from anomalib.data.utils import split_by_label
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from .augmentation import resize_of, seeded
from .few_shot import draw_shots
from .reading import UnreadableImageError, get_item

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

ORIENTATION, AS_STORED = 0x0112, 1
"""EXIF's tag of how a picture is to be turned, and its value for not at all."""


def read_shots(dataloader: DataLoader[ImageItem], k_shot: int, seed: int, smallest_side: int) -> ImageBatch:
    """Draw k normal images from a training set, and read them, without its augmentations but for resizing.

    They are read here and not by the dataloader, whose order, batches and workers would make a difference.

    Args:
        dataloader (DataLoader): Dataloader of the training set.
        k_shot (int): Number of images. Where there are fewer, all are taken.
        seed (int): Seed of the draw, the same as :class:`~anomalib_htdgm.data.few_shot.FewShot` makes.
        smallest_side (int): Least height and width of an image file in pixels.

    Returns:
        ImageBatch: The images, in [0, 1], in the order of their paths.

    Raises:
        TypeError: If the dataloader has no dataset to draw from.
        ValueError: If there are no images, or if one is corrupt, too small, or of another size than the others.
    """
    dataset = _dataset_of(dataloader)
    if isinstance(dataset, AnomalibDataset) and len(dataset):
        dataset, _ = split_by_label(dataset)
    if not len(dataset):
        msg = "datamodule: its training set has no normal images; at least one is needed"
        raise ValueError(msg)
    return _read(dataloader, dataset, draw_shots(len(dataset), k_shot, seed), smallest_side)


def read_anomalies(dataloader: DataLoader[ImageItem], smallest_side: int) -> ImageBatch | None:
    """Read all labelled anomalies of a training set as :func:`read_shots` does; ``None`` if there are none."""
    dataset = _dataset_of(dataloader)
    if not isinstance(dataset, AnomalibDataset) or not dataset.has_anomalous:
        return None
    _, anomalies = split_by_label(dataset)
    return _read(dataloader, anomalies, range(len(anomalies)), smallest_side)


def digest_images(batch: ImageBatch) -> dict[str, str]:
    """Take digests of training images by their paths, or places among those without one."""
    assert batch.image is not None  # noqa: S101  # for the type checker: a batch may be without images
    names = batch.image_path or [f"number {index} without a path" for index in range(len(batch.image))]
    contents = (image.contiguous().cpu().numpy() for image in batch.image)
    return {str(name): sha256(content).hexdigest() for name, content in zip(names, contents, strict=True)}


def check_same_images(before: dict[str, str], now: dict[str, str]) -> None:
    """Refuse to go on with other training images than those that a training began with; they may have moved.

    Raises:
        ValueError: If the digests differ; the message names the images that do.
    """
    if list(before.values()) == list(now.values()):
        return
    gone = [name for name, digest in before.items() if digest not in now.values()]
    new = [name for name, digest in now.items() if digest not in before.values()]
    msg = (
        "ckpt_path: that training began with other images; gone or changed since then: "
        f"{', '.join(gone) or 'none'}; new or changed: {', '.join(new) or 'none, but their order'}. Bring back the "
        "training set as it was, or train anew, without ckpt_path"
    )
    raise ValueError(msg)


def _dataset_of(dataloader: DataLoader[ImageItem]) -> Any:  # noqa: ANN401  # a dataset with a length has no type
    dataset = getattr(dataloader, "dataset", None)
    if not isinstance(dataset, Dataset) or not isinstance(dataset, Sized):
        given = type(dataloader).__name__
        msg = f"train_dataloaders: got {given}; allowed is a torch DataLoader over a dataset with a length"
        raise TypeError(msg)
    return dataset


def _read(
    dataloader: DataLoader[ImageItem],
    dataset: Any,  # noqa: ANN401
    indices: Sequence[int],
    smallest_side: int,
) -> ImageBatch:
    if isinstance(dataset, AnomalibDataset):
        for path in dataset.samples["image_path"].iloc[list(indices)]:
            _check_file(path, smallest_side)
        dataset = copy.copy(dataset)
        dataset.augmentations = resize_of(dataset.augmentations)
    try:
        with seeded(0):  # a dataset of another make may draw
            items = [get_item(dataset, index) for index in indices]
    except UnreadableImageError as error:
        msg = f"training {error}"
        raise ValueError(msg) from error
    shapes = {tuple(item.image.shape) for item in items}
    if len(shapes) > 1:
        msg = f"train_dataloaders: images of different shapes {sorted(shapes)}; resize them, as a pre_processor would"
        raise ValueError(msg)
    batch: ImageBatch = dataloader.collate_fn(items)
    return batch


def _check_file(path: str, smallest_side: int) -> None:
    """Look at a file's header: at its size, before anything is read, and at what is not applied to it."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            orientation = image.getexif().get(ORIENTATION, AS_STORED)
    except Exception:  # noqa: BLE001  # reading it tells what is wrong
        return
    if min(width, height) < smallest_side:
        msg = (
            f"training image {path} has {height}x{width} pixels; allowed are images of at least "
            f"{smallest_side}x{smallest_side} (the receptive field)"
        )
        raise ValueError(msg)
    if orientation != AS_STORED:
        logger.warning("%s is shown turned by viewers (EXIF), but read as stored, as anomalib does: turn it", path)


@dataclass(frozen=True)
class RepeatedBatch:
    """Serves one batch, and then empty ones, so that an epoch has as many batches as the training has iterations.

    The training keeps the images of the first; to pre-process them for every iteration could take longer than the
    iterations themselves (0.16 s for ten of 1024x1024 pixels).

    Args:
        batch (ImageBatch): The batch.
        times (int): Number of batches in all.
        size (tuple[int, int] | None): Height and width in pixels of the one black image of an empty batch, which a
            pre-processor has no work with; ``None`` is that of the batch.
    """

    batch: ImageBatch
    times: int
    size: tuple[int, int] | None = None

    def __len__(self) -> int:
        """Return the number of batches."""
        return self.times

    def __iter__(self) -> Iterator[ImageBatch]:
        """Serve copies, since a pre-processor writes into what it is given."""
        image = cast("torch.Tensor", self.batch.image)
        empty = ImageBatch(image=image.new_zeros(1, 3, *(self.size or image.shape[-2:])))
        return (copy.copy(empty if index else self.batch) for index in range(self.times))
