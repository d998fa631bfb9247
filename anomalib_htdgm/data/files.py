# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Files that are images by their content, but not by the ends of their names, by which anomalib 2.7 lists them."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from anomalib.data import AnomalibDataset, PredictDataset
from anomalib.data.datasets.image.datumaro import DatumaroDataset
from anomalib.data.datasets.image.tabular import TabularDataset
from anomalib.data.utils.image import is_image_file
from lightning_utilities.core.apply_func import apply_to_collection
from torch.utils.data import DataLoader

from .items import items_of, leaves
from .loading import has_items
from .reading import is_image

logger = logging.getLogger(__name__)

MOST_NAMED = 10
"""Files that a warning names; the others become a number."""


def warn_of_unlisted(dataloaders: Any) -> None:  # noqa: ANN401
    """Name image files in the folders of data sets that anomalib has left out, in one warning for all.

    Args:
        dataloaders (Any): Dataloaders, in any collection.
    """
    beside: set[Path] = set()

    def look(dataloader: DataLoader[Any]) -> None:
        for leaf in leaves(items_of(dataloader.dataset)) if has_items(dataloader) else ():
            beside.update(_files_beside(leaf))

    apply_to_collection(dataloaders, DataLoader, look)
    unlisted = sorted(path for path in beside if not is_image_file(path) and path.is_file() and is_image(path))
    if unlisted:
        others = f" and {len(unlisted) - MOST_NAMED} more" if len(unlisted) > MOST_NAMED else ""
        logger.warning(
            "Left out, since anomalib knows images by the ends of their names: %s%s. Rename them, for example to .png; "
            "what a file is, its content tells",
            ", ".join(map(str, unlisted[:MOST_NAMED])),
            others,
        )


def _files_beside(dataset: Any) -> Iterator[Path]:  # noqa: ANN401
    """Find all files of the folders that a data set was listed from."""
    if isinstance(dataset, PredictDataset):
        listed = [Path(path) for path in dataset.image_filenames]
        beside = listed[0].parent.glob("*") if len(listed) == 1 else ()
        if any(is_image_file(path) and path.name != listed[0].name for path in beside):
            return  # it was asked for alone
    elif isinstance(dataset, AnomalibDataset) and not isinstance(dataset, TabularDataset | DatumaroDataset):
        listed = [Path(path) for path in dataset.samples["image_path"]]
    else:
        return
    folders = {path.parent for path in listed}
    for folder in folders:
        if folders.isdisjoint(folder.parents):
            yield from folder.glob("*" if len(listed) == 1 else "**/*")
