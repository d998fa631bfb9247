# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Which files are images: by their content, and not, as for anomalib, by the ends of their names."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from anomalib.data import AnomalibDataset, PredictDataset
from anomalib.data.datasets.image.datumaro import DatumaroDataset
from anomalib.data.datasets.image.tabular import TabularDataset
from anomalib.data.utils.image import is_image_file
from lightning_utilities.core.apply_func import apply_to_collection
from PIL import Image, UnidentifiedImageError
from torch.utils.data import DataLoader

from .nesting import leaves

logger = logging.getLogger(__name__)

HEIC = (b"ftyphe", b"ftypmif1", b"ftypmsf1")
"""What a HEIC file begins with, after four bytes."""
MOST_NAMED = 10
"""Files that a warning names; the others become a number."""


class HeicError(ValueError):
    """A HEIC file, and nothing to read it with."""


def open_image(path: str | Path) -> Image.Image:
    """Open an image file as Pillow does, or HEIC if pillow-heif is installed.

    Raises:
        HeicError: If it is HEIC, and pillow-heif is not installed.
    """
    try:
        image = Image.open(path)
    except UnidentifiedImageError as error:
        with Path(path).open("rb") as file:
            if not file.read(12)[4:].startswith(HEIC):
                raise
        try:
            from pillow_heif import register_heif_opener  # noqa: PLC0415  # nothing else needs it
        except ImportError:
            msg = (
                "it is HEIC, as iPhones make it; install pillow-heif (pip install pillow-heif), or set the camera to "
                "JPEG, which iPhones call Most Compatible"
            )
            raise HeicError(msg) from error
        register_heif_opener()
        image = Image.open(path)
    image.filename = ""  # else Pillow maps grey TIFFs to memory, and garbles those that EXIF turns
    return image


def warn_of_unlisted(dataloaders: Any) -> None:  # noqa: ANN401
    """Name image files in the folders of data sets that anomalib has left out, in one warning for all.

    Args:
        dataloaders (Any): Dataloaders, in any collection.
    """
    beside: set[Path] = set()

    def look(dataloader: DataLoader[Any]) -> None:
        for leaf in leaves(dataloader.dataset):
            beside.update(_files_beside(leaf))

    apply_to_collection(dataloaders, DataLoader, look)
    unlisted = sorted(path for path in beside if not is_image_file(path) and path.is_file() and _is_image(path))
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


def _is_image(path: Path) -> bool:
    try:
        open_image(path).close()
    except HeicError:
        return True
    except Exception:  # noqa: BLE001  # Pillow raises nearly anything for what is none
        return False
    return True
