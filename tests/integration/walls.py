# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Crops of a brick wall, with and without patches of gravel, and models of them: what thresholds are tested on."""

import logging
from collections.abc import Callable
from functools import cache
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from anomalib.data import Folder
from anomalib.data.utils import read_image
from PIL import Image
from skimage import data as photographs

from anomalib_htdgm import FewShot, Htdgm

from .small import fit

SMALL = {"iterations": 8, "image_size": 48, "memory_patches": 300, "energy_cells": 300}
FROM_FOLDER = {"test_split_mode": "from_dir", "val_split_mode": "same_as_test"}


class Trained(NamedTuple):
    """A model, where it was saved, and what was said meanwhile."""

    model: Htdgm
    checkpoint: Path
    said: str


Train = Callable[[int], Trained]


@pytest.fixture(scope="session")
def walls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Crops of a brick wall: good ones, unlabelled ones of which two are defective, and ones to test on."""
    root = tmp_path_factory.mktemp("walls")
    brick, gravel, source = photographs.brick(), photographs.gravel(), np.random.default_rng(0)
    for folder, number, defective in (("good", 4, 0), ("unlabelled", 10, 2), ("new", 6, 3)):
        (root / folder).mkdir()
        for index in range(number):
            top, left = source.integers(0, 384, 2)
            image = brick[top : top + 128, left : left + 128].copy()
            if index < defective:
                image[30:90, 30:90] = gravel[:60, :60]
            Image.fromarray(image).save(root / folder / f"{index}.png")
    return root


def make_model(**arguments: object) -> Htdgm:
    return Htdgm(**{"precision": "float32", "settings": SMALL, **arguments})


@pytest.fixture(scope="session")
def train_on_walls(walls: Path, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Train on that many shots alone, once for all tests that only read the model or its checkpoint."""

    @cache
    def train(k_shot: int) -> Trained:
        model = make_model(k_shot=k_shot)
        logger, said = logging.getLogger("anomalib_htdgm"), BufferingHandler(1000)
        logger.addHandler(said)
        checkpoint = fit(model, open_folder(walls, k_shot), tmp_path_factory.mktemp("trained"))
        logger.removeHandler(said)
        return Trained(model, checkpoint, "\n".join(each.getMessage() for each in said.buffer))

    return train


def open_folder(walls: Path, k_shot: int, **arguments: object) -> FewShot:
    usual = {"normal_dir": "good", "test_split_mode": "none", "val_split_mode": "same_as_test", "num_workers": 0}
    return FewShot(Folder("wall", root=walls, **usual | arguments), k_shot=k_shot)


def unlabelled(walls: Path, k_shot: int) -> FewShot:
    """Shots, and photographs that nobody has looked at, all of which anomalib has to take for good ones."""
    return open_folder(walls, k_shot, normal_test_dir="unlabelled", **FROM_FOLDER)


def verdicts(model: Htdgm, folder: Path) -> list[bool]:
    return model.eval()(read(folder)).pred_label.tolist()


def read(folder: Path) -> torch.Tensor:
    return torch.stack([read_image(path, as_tensor=True) for path in sorted(folder.iterdir())])
