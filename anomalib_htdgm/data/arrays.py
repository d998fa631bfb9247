# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Labelled data sets of small images, as arrays, and as files that are written of them."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torchvision
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

Dataset = Literal["CIFAR10", "MNIST", "FashionMNIST"]

# In the order of the labels.
CLASSES: dict[str, list[str]] = {
    "CIFAR10": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    "MNIST": ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
    "FashionMNIST": [
        *("t_shirt_top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle_boot"),
    ],
}
SHAPES = {"CIFAR10": (32, 32, 3), "MNIST": (28, 28), "FashionMNIST": (28, 28)}
SPLITS = ("train", "test")
ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def write_dataset(directory: Path, dataset: Dataset, arrays: Path | None) -> None:
    """Write a data set as PNG files, ``<directory>/<split>/<index>_<class>/<place in its split>.png``.

    Args:
        directory: The directory, which is made.
        dataset: The data set.
        arrays: The ``.npz`` file to read; torchvision's download if None.

    Raises:
        ValueError: If the arrays are not those of the data set, before anything is written.
    """
    if arrays is None:
        data = _download(dataset, directory.parent)
    else:
        with np.load(arrays) as file:
            data = {key: file[key] for key in ARRAYS}
        for split in SPLITS:
            data[f"y_{split}"] = data[f"y_{split}"].reshape(-1)  # Keras' are columns
    _check(data, dataset, source=arrays or "torchvision's download")
    total = len(data["y_train"]) + len(data["y_test"])
    with tqdm(total=total, desc=f"Writing the images of {dataset}", unit="image", delay=1) as progress:
        for split in SPLITS:
            folders = [directory / split / f"{index}_{name}" for index, name in enumerate(CLASSES[dataset])]
            for folder in folders:
                folder.mkdir(parents=True)
            for index, (image, label) in enumerate(zip(data[f"x_{split}"], data[f"y_{split}"], strict=True)):
                Image.fromarray(image).save(folders[label] / f"{index:05}.png", compress_level=1)
                progress.update()


def _download(dataset: Dataset, directory: Path) -> dict[str, NDArray[Any]]:
    data = {}
    with TemporaryDirectory(dir=directory) as scratch:  # torchvision takes a half unpacked archive for a complete one
        for split in SPLITS:
            downloaded = getattr(torchvision.datasets, dataset)(scratch, train=split == "train", download=True)
            data[f"x_{split}"] = np.asarray(downloaded.data)
            data[f"y_{split}"] = np.asarray(downloaded.targets)
    return data


def _check(data: dict[str, NDArray[Any]], dataset: Dataset, source: Path | str) -> None:
    """Refuse images and labels of another data set, which could be written nevertheless; others cannot."""
    for split in SPLITS:
        images, labels = data[f"x_{split}"], data[f"y_{split}"]
        if images.dtype != np.uint8 or images.shape[1:] != SHAPES[dataset]:
            expected = ", ".join(map(str, SHAPES[dataset]))
            msg = f"arrays: {source} has x_{split} of {images.dtype} {images.shape}; allowed are uint8 (N, {expected})"
            raise ValueError(msg)
        if not np.isin(labels, range(len(CLASSES[dataset]))).all():
            msg = f"arrays: {source} has labels in y_{split} that are not from 0 to {len(CLASSES[dataset]) - 1}"
            raise ValueError(msg)
