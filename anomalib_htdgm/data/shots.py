# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Reading the training images once, for a model whose training has iterations rather than epochs."""

import copy
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import torch
from anomalib.data import AnomalibDataset, ImageBatch, ImageItem
from anomalib.data.utils import LabelName
from torch.utils.data import DataLoader

from .appearance import appearance_of
from .augmentation import resize_of, seeded
from .few_shot import shuffle
from .items import Reading, collate_items, items_of, known_labels, read_item
from .reading import UnreadableImageError, digest_image

logger = logging.getLogger(__name__)


def read_shots(dataloader: DataLoader[ImageItem], k_shot: int, seed: int) -> ImageBatch:
    """Draw k normal images from a training set, and read them, without its augmentations but for resizing.

    They are read here and not by the dataloader, whose order, batches and workers would make a difference. Images are
    normal that are not labelled as anomalous, whatever holds them. Labels of other data sets than anomalib's are known
    when an item is read.

    Args:
        dataloader (DataLoader): Dataloader of the training set.
        k_shot (int): Number of images. Where there are fewer, all are taken.
        seed (int): Seed of the draw, the same as :class:`~anomalib_htdgm.data.few_shot.FewShot` makes.

    Returns:
        ImageBatch: The images, in [0, 1], in the order of their paths.

    Raises:
        TypeError: If its items are no items of anomalib.
        ValueError: If there are no images, or if one is corrupt, or of another size than the others.
    """
    items = items_of(dataloader.dataset)
    candidates = [index for index, label in enumerate(known_labels(items)) if label in {None, LabelName.NORMAL}]
    order = (candidates[place] for place in shuffle(len(candidates), seed))
    with seeded(0):  # a dataset of another make may draw
        readings = ((index, _read(*items[index])) for index in order)
        normal = dict(islice((each for each in readings if not _is_anomalous(each[1].item)), k_shot))
    if not normal:
        msg = "datamodule: its training set has no normal images; at least one is needed"
        raise ValueError(msg)
    places = sorted(normal)
    batch = _collate(dataloader, [normal[index] for index in places], is_anomalous=False)
    vars(batch)["places"] = places
    return batch


def read_anomalies(dataloader: DataLoader[ImageItem], shots: ImageBatch | None = None) -> ImageBatch | None:
    """Read all labelled anomalies of a training set as :func:`read_shots` does; ``None`` if there are none.

    Of data sets of other makes than anomalib's all items are read for their labels, but for those of ``shots``.
    """
    known = set() if shots is None else {*vars(shots)["places"]}
    items = items_of(dataloader.dataset)
    candidates = [
        items[index]
        for index, label in enumerate(known_labels(items))
        if label in {None, LabelName.ABNORMAL} and index not in known
    ]
    with seeded(0):
        readings = (_read(*item) for item in candidates)
        found = [each for each in readings if _is_anomalous(each.item)]
    return _collate(dataloader, found, is_anomalous=True) if found else None


def digest_images(batch: ImageBatch) -> dict[str, str]:
    """Get the digests of training images by their paths, or places among those without one or whose path is taken."""
    digests: dict[str, str] = {}
    for index, digest in enumerate(vars(batch)["digests"]):
        name = str(batch.image_path[index]) if batch.image_path else f"number {index} without a path"
        digests[f"{name} (number {index})" if name in digests else name] = digest
    return digests


def _read(dataset: Any, index: int) -> Reading:  # noqa: ANN401  # of any make
    if isinstance(dataset, AnomalibDataset):
        dataset = copy.copy(dataset)  # the given one stays as it is
        dataset.augmentations = resize_of(dataset.augmentations)
    try:
        reading = read_item(dataset, index)
    except UnreadableImageError as error:
        msg = f"training {error}"
        raise ValueError(msg) from error
    if not isinstance(getattr(reading.item, "image", None), torch.Tensor):
        given = type(reading.item).__name__
        msg = f"train_dataloaders: got items of type {given}; allowed are those of type anomalib.data.ImageItem"
        raise TypeError(msg)
    return reading


def _is_anomalous(item: ImageItem) -> bool:
    """Tell whether an item is labelled as anomalous, by its label or, if it has none, by its mask."""
    label = item.gt_mask if item.gt_label is None else item.gt_label
    return label is not None and bool(label.any())


def _collate(dataloader: DataLoader[ImageItem], readings: list[Reading], *, is_anomalous: bool) -> ImageBatch:
    shapes = {tuple(each.item.image.shape) for each in readings}
    if len(shapes) > 1:
        msg = f"train_dataloaders: images of different shapes {sorted(shapes)}; resize them, as a pre_processor would"
        raise ValueError(msg)
    items = [copy.copy(each.item) for each in readings]
    for item in items:
        item.gt_label = torch.tensor(is_anomalous)
        if item.gt_mask is None and not is_anomalous:
            item.gt_mask = torch.zeros(item.image.shape[-2:], dtype=torch.bool)
    for name in ("gt_mask", "image_path", "mask_path"):
        if any(getattr(item, name) is None for item in items):  # of different data sets some may lack it
            for item in items:
                setattr(item, name, None)
    batch = collate_items(dataloader.collate_fn, items)
    for reading in readings:
        for notice in reading.notices:
            logger.warning("%s: %s", reading.item.image_path, notice)
    vars(batch)["digests"] = [digest_image(each.image) for each in readings]
    vars(batch)["appearances"] = [appearance_of(each.image) for each in readings]
    return cast("ImageBatch", batch)


@dataclass(frozen=True)
class RepeatedBatch:
    """Serves one batch once or again and again; Lightning would take a list for several dataloaders."""

    batch: ImageBatch
    times: int = 1

    def __len__(self) -> int:
        """Return the number of batches."""
        return self.times

    def __iter__(self) -> Iterator[ImageBatch]:
        """Serve copies, since a pre-processor writes into what it is given."""
        return (copy.copy(self.batch) for _ in range(self.times))
