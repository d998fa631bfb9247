# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Parts lie on a tray row by row, and what is found on it is told from what is not."""

from pathlib import Path

import numpy as np
import pytest
from compared import trays
from PIL import Image


def test_parts_lie_row_by_row() -> None:
    tray = trays.lay([np.full((2, 2, 3), index, np.uint8) for index in range(9)])
    assert np.array_equal(tray[::2, ::2, 0], np.arange(9).reshape(3, 3))
    assert tray.shape == (6, 6, 3)


def test_a_perfect_model_finds_every_defect_and_a_blind_one_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, value in (("train/good", 100), ("test/good", 100), ("test/hole", 0)):
        (tmp_path / kind).mkdir(parents=True)
        for index in range(3):
            pixels = np.full((16, 16, 3), 100, np.uint8)
            pixels[4:8, 4:8] = value
            Image.fromarray(pixels).save(tmp_path / kind / f"{index:03}.png")
    (tmp_path / "ground_truth" / "hole").mkdir(parents=True)
    mask = np.zeros((16, 16), np.uint8)
    mask[4:8, 4:8] = 255
    for index in range(3):
        Image.fromarray(mask).save(tmp_path / "ground_truth" / "hole" / f"{index:03}_mask.png")

    monkeypatch.setattr(trays, "train", lambda *_, **__: (None, 1.0))
    monkeypatch.setattr(trays, "score", lambda _, image: (100.0 - image.min(), 100.0 - image[..., 0]))
    perfect = trays.measure(tmp_path, trial=0, tiles=1, side=2, num_good=2, num_defective=4)
    assert (perfect["image_AUROC"], perfect["pixel_AUROC"], perfect["found"]) == (1, 1, 1)
    monkeypatch.setattr(trays, "score", lambda _, image: (0.0, np.where(image[..., 0] == 100, 1.0, 0.0)))
    blind = trays.measure(tmp_path, trial=0, tiles=1, side=2, num_good=2, num_defective=4)
    assert (blind["image_AUROC"], blind["pixel_AUROC"]) == (0.5, 0)
