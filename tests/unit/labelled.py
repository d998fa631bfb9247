# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Small labelled data sets, as arrays."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomalib_htdgm import OneClass

TRAIN, TEST = 4, 6  # images of each class
SHAPES = {"CIFAR10": (32, 32, 3), "MNIST": (28, 28), "FashionMNIST": (28, 28)}


def make_data(dataset: str, classes: int = 3, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Noise, with the classes in turn."""
    generator = np.random.default_rng(seed)
    data: dict[str, NDArray[Any]] = {}
    for split, count in (("train", TRAIN), ("test", TEST)):
        data[f"x_{split}"] = generator.integers(0, 256, (count * classes, *SHAPES[dataset]), np.uint8)
        data[f"y_{split}"] = np.tile(np.arange(classes, dtype=np.uint8), count)
    return data


def prepared(arrays: Path | None, normal_class: int | str = 0, **given: object) -> OneClass:
    arguments = {"num_workers": 0} | ({"root": arrays.parent / "images"} if arrays else {}) | given
    datamodule = OneClass(normal_class=normal_class, arrays=arrays, **arguments)
    datamodule.prepare_data()
    datamodule.setup()
    return datamodule
