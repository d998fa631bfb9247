# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""A datamodule's train_augmentations: drawn by the model's seed, anew for each iteration, of files as they are."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data import Folder, MVTecAD
from anomalib.models.components import AnomalibModule
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset
from torchvision.transforms.v2 import Compose, RandomHorizontalFlip, RandomRotation, Resize, Transform

from anomalib_htdgm import Devnet, Differnet, FewLabelledAnomalies
from anomalib_htdgm.data.augmentation import Augmentation, augmentation_of

from .small import SIDE, make_engine, make_image, make_small_model
from .test_devnet import SHORT as SHORT_DEVNET
from .test_differnet import SMALL as SMALL_DIFFERNET

USUAL = Compose([RandomHorizontalFlip(0.5), RandomRotation(20)])


class Noted(Transform):
    """Keeps what it makes of images, in draws from all global generators."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[torch.Tensor] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        drawn = torch.rand(()) * np.random.rand() * random.random()  # noqa: NPY002, S311
        self.shown.append(image * float(drawn))
        return self.shown[-1]


def states_of(make: Callable[[], AnomalibModule], data: object, root: Path, number: int = 2) -> list[dict]:
    states = []
    for index in range(number):
        torch.manual_seed(index)
        np.random.seed(index)  # noqa: NPY002
        random.seed(index)
        model = make()
        make_engine(root).fit(model, datamodule=data)
        states.append(model.model.state_dict())
    return states


def assert_equal(*states: dict[str, torch.Tensor]) -> None:
    for name, tensor in states[0].items():
        assert all(torch.equal(state[name], tensor) for state in states[1:]), name


def test_one_seed_gives_one_model(good: Folder, wall: MVTecAD, tmp_path: Path) -> None:
    (plain,) = states_of(make_small_model, good, tmp_path, 1)
    good.train_augmentations = USUAL
    augmented = states_of(make_small_model, good, tmp_path)
    assert_equal(*augmented)
    weight = "votes.discriminators.0.0.hidden.0.weight"
    (other,) = states_of(lambda: make_small_model(seed=1), good, tmp_path, 1)
    assert len({state[weight].sum().item() for state in (plain, augmented[0], other)}) == 3
    wall.train_augmentations = USUAL
    labelled = FewLabelledAnomalies(wall, n_anomalies=2)
    assert_equal(*states_of(lambda: Differnet(**SMALL_DIFFERNET | {"epochs": 2}), labelled, tmp_path))
    assert_equal(*states_of(lambda: Devnet(**SHORT_DEVNET), labelled, tmp_path))


@pytest.mark.parametrize(
    ("make", "steps", "images"),
    [
        (make_small_model, 4, 2),
        (lambda: make_small_model(tiles=2), 4, 2),
        (lambda: Differnet(**SMALL_DIFFERNET | {"epochs": 3}), 3, 2),
    ],
    ids=["whole", "tiles", "Differnet"],
)
def test_every_iteration_sees_others(
    make: Callable[[], AnomalibModule], steps: int, images: int, good: Folder, tmp_path: Path
) -> None:
    good.train_augmentations = Noted()
    states = states_of(make, good, tmp_path)
    assert_equal(*states)
    shown = good.train_augmentations.shown
    assert len(shown) == 2 * steps * images
    assert len({image.mean().item() for image in shown}) == steps * images


def test_the_files_are_what_a_training_is_known_by(good: Folder, tmp_path: Path) -> None:
    digests = []
    for good.train_augmentations in (None, USUAL):
        engine = make_engine(tmp_path)
        engine.fit(make_small_model(), datamodule=good)
        digests.append(torch.load(engine.best_model_path, weights_only=True)["trained_on"])
    assert digests[0] == digests[1]


@pytest.mark.parametrize("augmentations", [None, Compose([RandomHorizontalFlip(1.0)])], ids=["none", "flip"])
def test_photographs_of_several_sizes_are_resized_first(
    augmentations: Transform | None, good: Folder, tmp_path: Path
) -> None:
    path = tmp_path / "good" / "0.png"
    with Image.open(path) as image:
        image.resize((90, 70)).save(path)
    good.train_augmentations = augmentations
    assert_equal(*states_of(make_small_model, good, tmp_path))


def test_resizing_is_no_augmentation() -> None:
    for transform in (None, Resize(64), Compose([Resize(64)])):
        dataset = TensorDataset(torch.zeros(1))
        dataset.augmentations = transform
        assert augmentation_of(DataLoader(dataset), seed=0) is None
    dataset.augmentations = USUAL
    assert augmentation_of(DataLoader(dataset), seed=0) is not None


def test_parts_of_a_training_set_have_to_be_augmented_alike(good: Folder) -> None:
    good.setup()
    data, other = good.train_data, good.train_data.subsample([0])
    data.augmentations = Compose([RandomHorizontalFlip(1.0), Resize((12, 12))])
    parts = [Subset(data, [0]), Subset(data, [1])]
    image = torch.rand(1, 3, 20, 24)
    augmented = augmentation_of(DataLoader(ConcatDataset(parts)), seed=0)(image, 0)
    assert torch.equal(augmented, Resize((12, 12))(image.flip(-1)))
    other.augmentations = Resize((12, 12))
    with pytest.raises(ValueError, match=r"^train_augmentations: got different ones"):
        augmentation_of(DataLoader(ConcatDataset([*parts, other])), seed=0)


def test_what_is_augmented_has_to_be_of_one_shape() -> None:
    images = torch.stack([make_image("good"), make_image("flat")]) / 255
    sizes = iter([SIDE, SIDE - 1])
    with pytest.raises(ValueError, match=r"train_augmentations: got images of different shapes"):
        Augmentation(lambda image: image[:, : next(sizes)], seed=0)(images, 0)
