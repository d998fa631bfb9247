# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Networks, images and data sets that the tests share."""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.cli import AnomalibCLI
from anomalib.data import AnomalibDataModule, MVTecAD
from PIL import Image
from skimage.io import imsave
from torch.utils.data import DataLoader

from anomalib_htdgm.demo.part import Part, name_project
from anomalib_htdgm.inspection import preparing
from anomalib_htdgm.inspection.learning import learn as learn_project
from tests.integration.checked import SMALL
from tests.unit.textures import shingles

from .labelled import make_data
from .parts import open_again

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "quality"))  # where benchmarks find one another

NUM_TRAIN, NUM_BROKEN, NUM_HOLE = 12, 7, 5


@pytest.fixture(scope="session")
def mvtec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of two categories with two kinds of defects, in the layout of MVTec AD."""
    root = tmp_path_factory.mktemp("mvtec")
    numbers = {"train/good": NUM_TRAIN, "test/good": 4, "test/broken": NUM_BROKEN, "test/hole": NUM_HOLE}
    numbers |= {"ground_truth/broken": NUM_BROKEN, "ground_truth/hole": NUM_HOLE}
    for folder in (root / category / name for category in ("bottle", "cable") for name in numbers):
        folder.mkdir(parents=True)
        for index in range(numbers["/".join(folder.parts[-2:])]):
            is_mask = folder.parent.name == "ground_truth"
            image = np.full((24, 24, 3), 255 if is_mask else 128, np.uint8)
            imsave(folder / f"{index:03}{'_mask' if is_mask else ''}.png", image, check_contrast=False)
    return root


def bottle(root: Path, **arguments: Any) -> MVTecAD:
    return MVTecAD(root, "bottle", **{"num_workers": 0, **arguments})


def paths(loader: DataLoader[Any]) -> list[str]:
    return [path for batch in loader for path in batch.image_path]


@pytest.fixture
def parse_data(tmp_path: Path) -> Callable[..., AnomalibDataModule]:
    """Set up the datamodule that arguments of the stock command ask for."""

    def parse(*arguments: object) -> AnomalibDataModule:
        common = ["train", "--model", "Padim", "--model.pre_trained", "false", "--default_root_dir", tmp_path]
        datamodule = AnomalibCLI(list(map(str, [*common, *arguments])), run=False).datamodule
        datamodule.prepare_data()
        datamodule.setup()
        return datamodule

    return parse


@pytest.fixture
def float64() -> Iterator[None]:
    """Compute in float64: in float32 Adam and batch norm grow the last bits into 1e-3 within a few iterations."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(default)


@pytest.fixture
def make_images() -> Callable[..., torch.Tensor]:
    """Make images of noise in [-1, 1]."""

    def make(num_images: int, size: int, seed: int = 0) -> torch.Tensor:
        return torch.rand(num_images, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1

    return make


@pytest.fixture
def part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Part:
    small = {"settings": SMALL | {"iterations": 2}, "precision": "float32"}
    monkeypatch.setattr(preparing, "learn", partial(learn_project, **small))
    name = name_project(tmp_path / "projects", "Jürgen 日")
    return open_again(tmp_path / "projects", name)


@pytest.fixture
def photographs(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"part {index}.png" for index in range(7)]
    for index, path in enumerate(paths):
        pixels = (shingles(seed=index)[0] * 0.5 + 0.5) * 255
        Image.fromarray(pixels.round().byte().permute(1, 2, 0).numpy()).save(path)
    return paths


@pytest.fixture
def cifar10(tmp_path: Path) -> Path:
    """Write arrays of three classes of CIFAR-10."""
    np.savez(tmp_path / "cifar10.npz", **make_data("CIFAR10"))
    return tmp_path / "cifar10.npz"
