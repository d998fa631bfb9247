# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The parts of a photograph are disjoint, and spots pasted into them differ in nothing but their texture."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "quality"))

from compared.tiles import MATERIALS, Defect, cut_parts, is_found, paste_spot, paste_spots, tabulate


@pytest.mark.parametrize(("rows", "columns", "side"), [(1, 2, 60), (2, 3, 35), (2, 2, 35)])
def test_parts_are_squares_without_a_pixel_in_common(rows: int, columns: int, side: int) -> None:
    photograph = np.arange(70 * 120).reshape(70, 120, 1).repeat(4, axis=2)
    parts = cut_parts(photograph, rows, columns)
    assert [part.shape for part in parts] == [(side, side, 3)] * (rows * columns)
    assert len(np.unique([part[..., 0] for part in parts])) == rows * columns * side**2


@pytest.mark.parametrize("material", MATERIALS)
@pytest.mark.parametrize("diameter", [10, 20, 80])
def test_a_spot_has_the_brightness_and_contrast_of_what_it_covers(diameter: int, material: str) -> None:
    source = np.random.default_rng(0)
    part = (source.integers(60, 120, (300, 300, 3)) + np.array([0, 40, 80])).astype(np.uint8)
    defect = paste_spot(part, diameter, material, np.random.default_rng(diameter))
    changed = (defect.image != part).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert np.hypot(rows - defect.centre[0], columns - defect.centre[1]).max() < diameter
    assert 2 * np.sqrt(defect.mask.sum() / np.pi) == pytest.approx(diameter, rel=0.15)
    assert changed[defect.mask].mean() > 0.9
    before, after = (image[defect.mask].astype(float) for image in (part, defect.image))
    np.testing.assert_allclose(after.mean(axis=0), before.mean(axis=0), atol=4)
    np.testing.assert_allclose(after.std(axis=0), before.std(axis=0), rtol=0.25)


def test_the_same_spots_for_every_number_of_tiles() -> None:
    parts = [np.random.default_rng(index).integers(0, 255, (200, 200, 3), np.uint8) for index in range(2)]
    first, again, other = (paste_spots(parts, [10, 20], 2, seed) for seed in (0, 0, 1))
    assert [each.diameter for each in first] == [10] * 4 + [20] * 4
    assert all(np.array_equal(one.image, another.image) for one, another in zip(first, again, strict=True))
    assert [each.centre for each in other] != [each.centre for each in first]


def test_found_is_a_maximum_within_a_diameter() -> None:
    defect = Defect(np.zeros((50, 50, 3), np.uint8), np.zeros((50, 50), np.bool_), (20, 30), 10)
    for place, expected in (((20, 30), True), ((26, 38), True), ((20, 41), False), ((30, 20), False)):
        anomaly_map = np.zeros((50, 50), np.float32)
        anomaly_map[place] = 1
        assert is_found(defect, anomaly_map) == expected


def test_table_has_means_and_deviations_over_trials() -> None:
    common = {"photograph": "wall", "diameter": 20, "tiles": 4, "pixel_AUROC": 0.5, "found": 1.0, "fit_seconds": 70}
    rows = pd.DataFrame(
        {**common, "trial": trial, "image_AUROC": value, "seconds_per_image": 0.5}
        for trial, value in enumerate((0.7, 0.9))
    )
    assert tabulate(rows).splitlines()[2:] == [
        "| wall | 20 | 4 | 2 | 80.0 ± 14.1 | 50.0 ± 0.0 | 100.0 ± 0.0 | 70 | 0.50 |"
    ]
