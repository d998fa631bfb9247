# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""DifferNet does without maps, which take most of its time."""

from pathlib import Path
from typing import Any

from anomalib.data import MVTecAD

from anomalib_htdgm import Differnet

from .small import make_engine

SMALL: dict[str, Any] = {
    "pre_trained": False,
    "image_sizes": [64],
    "coupling_blocks": 2,
    "hidden_width": 32,
    "epochs": 20,
    "learning_rate": 0.01,  # random features are small
    "test_rotations": 5,
    "map_rotations": 2,
    "precision": "float32",
}


def test_without_maps_images_are_scored_alike(wall: MVTecAD, tmp_path: Path) -> None:
    metrics = [
        make_engine(tmp_path).train(Differnet(**SMALL | {"map_rotations": number}), datamodule=wall)[0]
        for number in (2, 0)
    ]
    assert metrics[0]["image_AUROC"] == metrics[1]["image_AUROC"]
    assert ["pixel_AUROC" in each for each in metrics] == [True, False]
