# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Parts lie on a tray row by row, and what is found on it is told from what is not."""

from pathlib import Path

import numpy as np
from compared import trays
from PIL import Image


def test_parts_lie_row_by_row() -> None:
    tray = trays.lay([np.full((2, 2, 3), index, np.uint8) for index in range(9)])
    assert np.array_equal(tray[::2, ::2, 0], np.arange(9).reshape(3, 3))
    assert tray.shape == (6, 6, 3)


def test_a_perfect_model_finds_every_defect_and_a_blind_one_none(tmp_path: Path) -> None:
    for kind, value in (("train/good", 100), ("test/good", 100), ("test/hole", 0)):
        (tmp_path / kind).mkdir(parents=True)
        for index in range(3):
            pixels = np.full((16, 16, 3), 100, np.uint8)
            pixels[4:8, 4:8] = value
            Image.fromarray(pixels).save(tmp_path / kind / f"{index:03}.png")
    made = trays.make_trays(tmp_path, trial=0, side=2, num_good=2, num_defective=4)
    darkness = [100.0 - each[..., 0] for each in made.tests]
    assert trays.judge([(each.max(), each) for each in darkness], made.places, side=2) == [100, 100]
    assert trays.judge([(0.0, np.roll(each, 16, axis=1)) for each in darkness], made.places, side=2) == [50, 0]
