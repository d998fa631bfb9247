# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Items of data sets: where each one comes from, how it is read, and how several become a batch.

Mends the data sets of anomalib 2.7, whose way to read files cannot be exchanged: theirs are read here, by
:mod:`anomalib_htdgm.data.reading`, and the data sets stay as they are.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from anomalib import TaskType
from anomalib.data import AnomalibDataset, ImageBatch, ImageItem, PredictDataset
from anomalib.data.datasets.image.mvtec_loco import MVTecLOCODataset
from anomalib.data.utils import LabelName
from anomalib.data.utils.path import contains_non_printable_characters
from torch.utils.data import ConcatDataset, Subset, default_collate
from torchvision.tv_tensors import Mask

from .reading import UnreadableImageError, read_mask, read_with_notices

Collate = Callable[[list[Any]], Any]


def items_of(dataset: Any) -> list[tuple[Any, int]]:  # noqa: ANN401
    """Find where each item comes from: its data set, in ``Subset`` and ``ConcatDataset`` however deep, and its place.

    Classes that are derived from these and get their items in a way of their own are asked for them.
    """
    way = getattr(type(dataset), "__getitem__", None)
    if way is Subset.__getitem__:
        inside = items_of(dataset.dataset)
        return [inside[index] for index in dataset.indices]
    if way is ConcatDataset.__getitem__:
        return [item for part in dataset.datasets for item in items_of(part)]
    return [(dataset, index) for index in range(len(dataset))]


def leaves(items: list[tuple[Any, int]]) -> list[Any]:
    """Find the data sets that items come from, see :func:`items_of`."""
    return list({id(leaf): leaf for leaf, _ in items}.values())


def known_labels(items: list[tuple[Any, int]]) -> list[int | None]:
    """Get the labels of items that are known before these are read, as anomalib's are; ``None`` for other items."""
    known = {
        id(leaf): leaf.samples["label_index"].fillna(LabelName.UNKNOWN).astype(int).tolist()
        for leaf in leaves(items)
        if isinstance(leaf, AnomalibDataset) and "label_index" in leaf.samples
    }
    return [known[id(leaf)][index] if id(leaf) in known else None for leaf, index in items]


class Reading(NamedTuple):
    """An item of a dataset, its image as it was before any augmentation, and what is to be said about its file."""

    item: Any
    image: Any
    notices: list[str]


def read_item(dataset: Any, index: int) -> Reading:  # noqa: ANN401
    """Read an item of a leaf. One that reads in a way of its own is asked for it.

    Raises:
        UnreadableImageError: If a file cannot be read.
    """
    way = type(dataset).__getitem__
    if way in {AnomalibDataset.__getitem__, MVTecLOCODataset.__getitem__}:
        return _read_row(dataset, dataset.samples.iloc[index])
    if way is PredictDataset.__getitem__:
        path = str(dataset.image_filenames[index])
        image, notices = _read_listed(path)
        item = ImageItem(image=dataset.transform(image) if dataset.transform else image, image_path=path)
        return Reading(item, image, notices)
    try:
        item = dataset[index]
    except OSError as error:  # as Pillow's are
        msg = f"item {index} of {type(dataset).__name__} cannot be read: {error}"
        raise UnreadableImageError(msg) from error
    return Reading(item, getattr(item, "image", None), [])


def _read_listed(path: str) -> tuple[torch.Tensor, list[str]]:
    if contains_non_printable_characters(path):
        msg = f"image {path} cannot be read: anomalib takes no letters beyond ASCII in paths; rename the file or folder"
        raise UnreadableImageError(msg)
    return read_with_notices(path)


def _read_row(dataset: AnomalibDataset, row: Any) -> Reading:  # noqa: ANN401
    """Read what a row of samples names, as :meth:`AnomalibDataset.__getitem__` does."""
    image, notices = _read_listed(str(row.image_path))
    augmented, mask = image, Mask(torch.zeros(image.shape[-2:], dtype=torch.uint8))
    has_masks, is_known = dataset.task == TaskType.SEGMENTATION, row.label_index != LabelName.UNKNOWN
    paths = row.mask_path if isinstance(row.mask_path, list) else [row.mask_path]  # MVTec LOCO has one for each defect
    if has_masks and row.label_index == LabelName.ABNORMAL:
        size = (image.shape[-1], image.shape[-2])
        mask = Mask(torch.stack([read_mask(path, row.image_path, size) for path in paths]).amax(dim=0))
    if dataset.augmentations and has_masks:
        augmented, mask = dataset.augmentations(image, mask)
    elif dataset.augmentations:
        augmented = dataset.augmentations(image)
    item = ImageItem(
        image=augmented,
        gt_mask=mask if has_masks and is_known else None,
        gt_label=torch.tensor(int(row.label_index)) if is_known else None,
        image_path=str(row.image_path),
        mask_path=paths[0],
    )
    return Reading(item, image, notices)


def collate_items(collate: Collate, items: list[Any]) -> Any:  # noqa: ANN401
    """Collate items as a dataloader does, but anomalib's items as anomalib does, since PyTorch cannot."""
    is_torchs = collate is default_collate and isinstance(items[0], ImageItem)
    return ImageBatch.collate(items) if is_torchs else collate(items)
