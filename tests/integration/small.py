# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Small images, a model that learns them in a second, and an engine that says nothing."""

from pathlib import Path

import torch
from anomalib.data import AnomalibDataModule, Folder
from anomalib.engine import Engine
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from PIL import Image

from anomalib_htdgm import Htdgm

SIDE = 64


def make_image(kind: str, index: int = 0) -> torch.Tensor:
    """Make a uint8 image of stripes, good or with something wrong, in whole numbers: every machine makes it alike."""
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    image = 40 + (rows * 9 + columns * 3 + index * 31) % 160
    square = (slice(20, 44), slice(24, 48))
    if kind == "turned":
        image[square] = (40 + (rows * 3 - columns * 11) % 160)[square]
    elif kind == "flat":
        image[square] = 120
    elif kind == "checkered":
        image[square] = (60 + 120 * ((rows // 4 + columns // 4) % 2))[square]
    return image.to(torch.uint8).expand(3, -1, -1)


TESTED = [("good", 2), ("turned", 2), ("flat", 2), ("checkered", 2)]


def score(model: Htdgm) -> dict[str, float]:
    """Score one image of each kind, without the post-processor, which cuts scores off at 1."""
    images = torch.stack([make_image(*each) for each in TESTED]) / 255
    scores = model.eval().model(model.pre_processor(images)).pred_score
    return dict(zip([kind for kind, _ in TESTED], scores.tolist(), strict=True))


def make_engine(root: Path, **arguments: object) -> Engine:
    """Make an engine that trains in a folder, and shows nothing."""
    return Engine(
        logger=False,
        default_root_dir=root,
        devices=1,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        **arguments,
    )


def fit(model: AnomalibModule, data: AnomalibDataModule, root: Path, **arguments: object) -> Path:
    """Train a model in a folder, with these arguments of the engine, and say where its checkpoint is."""
    engine = make_engine(root, **arguments)
    engine.fit(model, datamodule=data)
    return Path(engine.best_model_path or "")


def unscaled() -> PostProcessor:
    """Leave scores as they are: what is far above a threshold gets 1, and would agree whatever it was."""
    return PostProcessor(enable_normalization=False, enable_thresholding=False)


def write_good_images(root: Path, count: int = 2) -> Folder:
    """Write good images to ``root/good``, and make a datamodule of them."""
    (root / "good").mkdir(parents=True)
    for index in range(count):
        Image.fromarray(make_image("good", index).permute(1, 2, 0).numpy()).save(root / "good" / f"{index}.png")
    return Folder(
        name="stripes",
        root=root,
        normal_dir="good",
        test_split_mode="none",
        val_split_mode="same_as_test",
        num_workers=0,
    )


SMALL = {
    "transformations": "rotations",
    "image_size": 25,
    "coarsest_size": 19,
    "width": 4,
    "memory_patches": 30,
    "iterations": 2,
}
"""Settings of a model that is trained in a second."""


def make_small_model(settings: dict[str, object] | None = None, **arguments: object) -> Htdgm:
    """Make a model that is trained in a second."""
    return Htdgm(**{"k_shot": 2, "precision": "float32", "settings": SMALL | (settings or {}), **arguments})


SHORT_DEVNET = {
    "backbone": "test_efficientnet",
    "pre_trained": False,
    "image_sizes": [64, 32],
    "batch_size": 4,
    "epochs": 1,
    "steps_per_epoch": 3,
}
SHORT_DIFFERNET = {
    "pre_trained": False,
    "image_sizes": [64],
    "coupling_blocks": 2,
    "hidden_width": 32,
    "epochs": 2,
    "learning_rate": 0.01,  # random features are small
    "test_rotations": 5,
    "map_rotations": 2,
    "precision": "float32",
}
