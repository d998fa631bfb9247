# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the Paris landmarks, on a tiny data set of the published layout."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anomalib.data import AnomalibDataset
from PIL import Image

from anomalib_htdgm import FewShot, Paris
from anomalib_htdgm.data.paris import LANDMARKS

PHOTOGRAPHS = 10  # in the folder of each landmark


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    """Photographs of every landmark, upright and lying; two in "general" show the Louvre partly, one of them hardly."""
    for landmark in (*LANDMARKS, "general"):
        folder = tmp_path / "paris" / landmark
        folder.mkdir(parents=True)
        for index in range(PHOTOGRAPHS):
            shape = (24, 32, 3) if index % 2 else (32, 24, 3)
            Image.fromarray(np.full(shape, 20 * index, np.uint8)).save(folder / f"paris_{landmark}_{index:06}.jpg")
    labels = tmp_path / "labels"
    labels.mkdir()
    for landmark in LANDMARKS:
        for query in range(1, 6):
            (labels / f"{landmark}_{query}_ok.txt").touch()
            (labels / f"{landmark}_{query}_junk.txt").touch()
    for query in range(1, 6):
        (labels / f"louvre_{query}_ok.txt").write_text("paris_louvre_000001\nparis_general_000003\n")
        (labels / f"louvre_{query}_junk.txt").write_text("paris_general_000004\n")
    (tmp_path / "paris" / "louvre" / "paris_louvre_000000.jpg").write_text("<html>302 Found</html>")
    return tmp_path


def prepared(root: Path, **kwargs: Any) -> Paris:
    datamodule = Paris(root, num_workers=0, **kwargs)
    datamodule.setup()
    return datamodule


def names(subset: AnomalibDataset, landmark: str) -> set[str]:
    samples = subset.samples
    return {Path(path).stem for path in samples[samples["label"] == landmark]["image_path"]}


def test_label_files_decide_what_shows_a_landmark(archives: Path) -> None:
    datamodule = prepared(archives, normal_class="louvre")
    train, test = names(datamodule.train_data, "louvre"), names(datamodule.test_data, "louvre")
    own = {f"paris_louvre_{index:06}" for index in range(1, PHOTOGRAPHS)}  # number 0 is no image
    assert train | test == own | {"paris_general_000003"}
    assert not train & test
    assert len(train) == 2  # a fifth


def test_one_landmark_is_normal_and_all_others_are_anomalous(archives: Path) -> None:
    datamodule = prepared(archives, normal_class="eiffel", test_images_per_class=4)
    samples = datamodule.test_data.samples
    assert dict(samples.groupby("label").size()) == dict.fromkeys(LANDMARKS, 4)
    assert set(samples[samples["label_index"] == 0]["label"]) == {"eiffel"}
    assert set(datamodule.train_data.samples["label"]) == {"eiffel"}


def test_photographs_of_all_shapes_come_in_one(archives: Path) -> None:
    datamodule = FewShot(prepared(archives, normal_class="louvre"), k_shot=2)
    datamodule.setup()
    assert {tuple(item.image.shape) for item in datamodule.train_data} == {(3, 256, 256)}


@pytest.mark.parametrize(
    ("removed", "named"), [("paris/louvre", "louvre"), ("paris/general", "general"), ("labels", "defense_1_ok.txt")]
)
def test_an_incomplete_root_is_named(archives: Path, removed: str, named: str) -> None:
    shutil.rmtree(archives / removed)
    with pytest.raises(FileNotFoundError, match=named):
        prepared(archives)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("normal_class", "general"), ("test_images_per_class", 0)],
)
def test_bad_arguments_are_named(tmp_path: Path, argument: str, value: Any) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match=f"{argument}: got {value!r}; allowed are"):
        Paris(tmp_path, **{argument: value})
