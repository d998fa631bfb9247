# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the quick start's images."""

from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data
from skimage.io import imread
from sklearn.metrics import roc_auc_score

from anomalib_htdgm.data import QuickstartTextures, quickstart

TEXTURES = get_args(quickstart.Texture)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("quickstart")
    for texture in TEXTURES:
        QuickstartTextures(texture, directory).prepare_data()
    return directory


def images(root: Path, texture: str, folder: str, seed: int = 0) -> list[NDArray[np.uint8]]:
    return [imread(path) for path in sorted((root / f"{texture}_seed{seed}" / folder).iterdir())]


def corner(photograph: NDArray[np.uint8], crop: NDArray[np.uint8]) -> tuple[int, int]:
    """Where in the photograph the crop lies, pixel by pixel."""
    _, _, (left, top), _ = cv2.minMaxLoc(cv2.matchTemplate(photograph, crop, cv2.TM_SQDIFF))
    np.testing.assert_array_equal(photograph[top : top + crop.shape[0], left : left + crop.shape[1]], crop)
    return top, left


@pytest.mark.parametrize("texture", TEXTURES)
class TestImages:
    """What is written."""

    def test_training_and_test_crops_share_no_pixel_of_the_photograph(self, root: Path, texture: str) -> None:
        photograph = getattr(data, texture)()
        used = np.zeros((2, *photograph.shape), bool)
        for pixels, folder in zip(used, ("good", "test_good"), strict=True):
            corners = [corner(photograph, crop) for crop in images(root, texture, folder)]
            assert len(set(corners)) == len(corners) >= 14
            for top, left in corners:
                pixels[top : top + 128, left : left + 128] = True
        assert not used.all(axis=0).any()

    def test_defects_lie_where_the_masks_are(self, root: Path, texture: str) -> None:
        crops = [images(root, texture, folder) for folder in ("test_good", "defect", "mask")]
        for good, defective, mask in zip(*crops, strict=True):
            assert set(np.unique(mask)) == {0, 255}
            assert 0.03 <= (mask > 0).mean() <= 0.12
            # The edge is soft: outside of the mask the defect fades out within a few pixels.
            nearby = cv2.dilate(mask, np.ones((17, 17))) > 0
            np.testing.assert_array_equal(good[~nearby], defective[~nearby])
            assert (good != defective)[mask > 0].mean() > 0.8
            # Grey values are matched, up to what the soft edge mixes.
            assert abs(defective[mask > 0].mean() - good[mask > 0].mean()) < 6

    def test_neither_brightness_nor_contrast_gives_defects_away(self, root: Path, texture: str) -> None:
        good, defective = images(root, texture, "test_good"), images(root, texture, "defect")
        labels = [0] * len(good) + [1] * len(defective)
        for score in (np.mean, np.std):
            assert 0.3 < roc_auc_score(labels, [score(image) for image in good + defective]) < 0.7

    def test_datamodule(self, root: Path, texture: Any) -> None:  # noqa: ANN401
        datamodule = QuickstartTextures(texture, root=root)
        datamodule.prepare_data()
        datamodule.setup()
        assert len(datamodule.train_data) == 14
        assert not datamodule.train_data.has_anomalous
        assert list(datamodule.test_data.samples.label_index.value_counts()) == [20, 20]
        assert list(datamodule.val_data.samples.image_path) == list(datamodule.test_data.samples.image_path)
        batch = next(iter(datamodule.test_dataloader()))
        assert batch.image.shape == (32, 3, 128, 128)
        assert batch.gt_mask.flatten(1).any(1).equal(batch.gt_label.bool())
        assert (datamodule.name, datamodule.category) == ("QuickstartTextures", texture)


class TestWriting:
    """How it is written."""

    def test_same_seed_same_files(self, root: Path, tmp_path: Path) -> None:
        np.random.seed(1)  # noqa: NPY002
        QuickstartTextures("brick", root=tmp_path).prepare_data()
        for file in (root / "brick_seed0").rglob("*.png"):
            assert (tmp_path / file.relative_to(root)).read_bytes() == file.read_bytes()

    def test_another_seed_has_other_defects_beside_the_first(self, root: Path) -> None:
        QuickstartTextures("brick", root=root, seed=1).prepare_data()
        for first, second in zip(images(root, "brick", "mask"), images(root, "brick", "mask", seed=1), strict=True):
            assert (first != second).any()


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="texture: got 'sand'; allowed are 'brick', 'grass', 'gravel'"):
        QuickstartTextures("sand")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seed: got -1; allowed are integers of at least 0"):
        QuickstartTextures(seed=-1)
