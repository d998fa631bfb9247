# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""A small checkpoint of format 1, kept so that later versions are held to it, with the scores that it gave.

It was made once, by ``python -m tests.integration.stored``, and is not to be made again: when the format changes, a new
one goes beside it.
"""

import json
import tempfile
from pathlib import Path

import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from PIL import Image

from anomalib_htdgm import Htdgm

CHECKPOINT = Path(__file__).parent / "stored" / "htdgm_format1.ckpt"
SCORES = CHECKPOINT.with_suffix(".json")
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


def make_small_model(**arguments: object) -> Htdgm:
    """Make a model that is trained in a second."""
    small = {"k_shot": 2, "transformations": "rotations", "image_size": 25, "coarsest_size": 19, "width": 4}
    return Htdgm(**{**small, "memory_patches": 30, "iterations": 2, "precision": "float32", **arguments})


def store() -> None:
    """Train, and keep checkpoint and scores."""
    with tempfile.TemporaryDirectory() as folder:
        engine = make_engine(Path(folder))
        engine.fit(make_small_model(iterations=40), datamodule=write_good_images(Path(folder)))
        checkpoint = torch.load(engine.best_model_path, weights_only=True)
        states = checkpoint["callbacks"].items()  # ModelCheckpoint's has paths of the machine
        checkpoint["callbacks"] = {name: state for name, state in states if not name.startswith("ModelCheckpoint")}
        CHECKPOINT.parent.mkdir(exist_ok=True)
        torch.save(checkpoint, CHECKPOINT)
    SCORES.write_text(json.dumps(score(Htdgm.load_from_checkpoint(CHECKPOINT)), indent=1) + "\n")


if __name__ == "__main__":
    store()
