# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Folders of images in MVTec AD's layout, with or without masks."""

from pathlib import Path

from anomalib.data import Folder


def open_folder(root: str | Path, category: str) -> Folder:
    """Open a folder of images in MVTec AD's layout; masks are not read.

    Args:
        root (str | Path): Directory of the folder.
        category (str): Name of the folder.

    Returns:
        Folder: The datamodule; its category is the folder's name.
    """
    folder = Path(root, category)
    datamodule = Folder(
        folder.name,
        normal_dir="train/good",
        root=folder,
        abnormal_dir=[f"test/{each.name}" for each in sorted(folder.glob("test/*")) if each.name != "good"],
        normal_test_dir="test/good",
        val_split_mode="same_as_test",
        num_workers=0,
    )
    datamodule.category = folder.name
    return datamodule
