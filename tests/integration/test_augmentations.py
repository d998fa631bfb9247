# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""A datamodule's train_augmentations: drawn by the model's seed, anew for each iteration, of files as they are."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data import AnomalibDataModule, Folder, MVTecAD
from anomalib.models.components import AnomalibModule
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset
from torchvision.transforms.v2 import Compose, RandomHorizontalFlip, RandomRotation, Resize, Transform

from anomalib_htdgm import Devnet, Differnet, FewLabelledAnomalies
from anomalib_htdgm.data.augmentation import Augmentation, augmentation_of

from .small import SHORT_DEVNET, SHORT_DIFFERNET, SIDE, fit, make_image, make_small_model

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


def state_of(make: Callable[[], AnomalibModule], data: AnomalibDataModule, root: Path, seed: int = 0) -> dict:
    """Train from global generators in this state."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)
    model = make()
    fit(model, data, root)
    return model.model.state_dict()


def assert_equal(*states: dict[str, torch.Tensor]) -> None:
    for name, tensor in states[0].items():
        assert all(torch.equal(state[name], tensor) for state in states[1:]), name


def test_augmentations_and_seeds_make_a_difference(good: Folder, tmp_path: Path) -> None:
    plain = state_of(make_small_model, good, tmp_path)
    good.train_augmentations = USUAL
    augmented = state_of(make_small_model, good, tmp_path)
    other = state_of(lambda: make_small_model(seed=1), good, tmp_path)
    weight = "votes.discriminators.0.0.hidden.0.weight"
    assert len({state[weight].sum().item() for state in (plain, augmented, other)}) == 3


@pytest.mark.parametrize(
    ("make", "steps", "images"),
    [
        (make_small_model, 4, 2),
        (lambda: make_small_model(tiles=2), 4, 2),
        (lambda: Differnet(**SHORT_DIFFERNET), 2, 2),
        (lambda: Devnet(**SHORT_DEVNET), 3, 4),
    ],
    ids=["whole", "tiles", "Differnet", "Devnet"],
)
def test_every_iteration_sees_others_and_one_seed_gives_one_model(
    make: Callable[[], AnomalibModule], steps: int, images: int, good: Folder, wall: MVTecAD, tmp_path: Path
) -> None:
    noted = good.train_augmentations = wall.train_augmentations = Noted()
    data = FewLabelledAnomalies(wall, n_anomalies=2) if make().name == "Devnet" else good
    assert_equal(*(state_of(make, data, tmp_path, seed) for seed in (0, 1)))
    assert len(noted.shown) == 2 * steps * images
    assert len({image.mean().item() for image in noted.shown}) == steps * images


def test_the_files_are_what_a_training_is_known_by(good: Folder, tmp_path: Path) -> None:
    digests = []
    for good.train_augmentations in (None, USUAL):
        checkpoint = fit(make_small_model(), good, tmp_path)
        digests.append(torch.load(checkpoint, weights_only=True)["trained_on"])
    assert digests[0] == digests[1]


@pytest.mark.parametrize("augmentations", [None, Compose([RandomHorizontalFlip(1.0)])], ids=["none", "flip"])
def test_photographs_of_several_sizes_are_resized_first(
    augmentations: Transform | None, good: Folder, tmp_path: Path
) -> None:
    path = tmp_path / "good" / "0.png"
    with Image.open(path) as image:
        image.resize((90, 70)).save(path)
    good.train_augmentations = augmentations
    assert_equal(*(state_of(make_small_model, good, tmp_path, seed) for seed in (0, 1)))


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
