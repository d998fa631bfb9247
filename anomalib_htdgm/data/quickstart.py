# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""A small data set of real photographs that needs no download, to try a model on.

Example:
    >>> from anomalib_htdgm import FewShot, QuickstartTextures
    >>> datamodule = FewShot(QuickstartTextures("brick"), k_shot=1)
"""

import logging
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
from anomalib.data import Folder
from anomalib.data.utils import ValSplitMode
from numpy.typing import NDArray
from skimage import data
from skimage.io import imsave
from torchvision.transforms.v2 import Transform

from anomalib_htdgm.data.writing import write_once
from anomalib_htdgm.validation import check_choice, check_integer

logger = logging.getLogger(__name__)

Texture = Literal["brick", "grass", "gravel"]

CROP = 128
# The photographs are 512 x 512. Training and test crops lie in strips of their own that alternate, because the bricks
# lean ever more to the right along the photograph.
TRAIN_CROPS = [(top, left) for left in (0, 256) for top in range(0, 385, 64)]
TEST_CROPS = [(top, left) for left in (128, 384) for top in range(0, 385, 42)]


class QuickstartTextures(Folder):
    """Crops of one photograph; the defects are patches of two other materials.

    This is a demonstration, not a benchmark: one photograph per texture, few images that overlap, and defects that
    were pasted in. Numbers on it say that an installation works, and nothing about how good a model is.

    The photographs of brick, grass and gravel come with scikit-image (CC0). Normal images are 14 training crops and 20
    test crops of 128 x 128 pixels. Defective images are the same 20 test crops with a soft-edged irregular patch of
    one of the other two materials over 3 to 12 % of the crop, mean and deviation of its grey values matched to what it
    covers, so that neither brightness nor contrast gives it away. Crops overlap by up to two thirds within training
    and test set, never between them. The test set is the validation set too.

    Args:
        texture: The normal material.
        root: Directory for the images, written on first use to ``<root>/<texture>_seed<seed>``.
        seed: Seed of the defects, at least 0.
        train_batch_size: Batch size for training.
        eval_batch_size: Batch size for validation and test.
        num_workers: Number of workers of each dataloader; images as small as these load fastest without.
        train_augmentations: Augmentations of the training images.

    Raises:
        ValueError: If ``texture`` is unknown or ``seed`` is negative.
    """

    def __init__(
        self,
        texture: Texture = "brick",
        root: str | Path = "./datasets/quickstart",
        seed: int = 0,
        train_batch_size: int = 32,
        eval_batch_size: int = 32,
        num_workers: int = 0,
        train_augmentations: Transform | None = None,
    ) -> None:
        check_choice("texture", texture, get_args(Texture))
        check_integer("seed", seed, at_least=0)
        self._directory = Path(root) / f"{texture}_seed{seed}"
        super().__init__(
            name="QuickstartTextures",
            root=self._directory,
            normal_dir="good",
            normal_test_dir="test_good",
            abnormal_dir="defect",
            mask_dir="mask",
            train_batch_size=train_batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            train_augmentations=train_augmentations,
            val_split_mode=ValSplitMode.SAME_AS_TEST,
            seed=seed,
        )
        self.seed: int = seed
        self.texture: Texture = texture
        self.category = texture

    def prepare_data(self) -> None:
        """Write the images, unless they are there."""
        if write_once(self._directory, lambda directory: _write_images(directory, self.texture, self.seed)):
            logger.info("Wrote the quick start's images to %s", self._directory)


def _write_images(directory: Path, texture: Texture, seed: int) -> None:
    photograph: NDArray[np.uint8] = getattr(data, texture)()
    others = [getattr(data, other)() for other in get_args(Texture) if other != texture]
    generator = np.random.Generator(np.random.PCG64(seed))
    for folder in ("good", "test_good", "defect", "mask"):
        (directory / folder).mkdir(parents=True)
    for index, corner in enumerate(TRAIN_CROPS):
        imsave(directory / "good" / f"{index:03}.png", _crop(photograph, *corner))
    for index, corner in enumerate(TEST_CROPS):
        good = _crop(photograph, *corner)
        other = others[index % len(others)]
        defective, mask = paste_defect(good, _crop(other, *generator.integers(0, 512 - CROP, 2)), generator)
        imsave(directory / "test_good" / f"{index:03}.png", good)
        imsave(directory / "defect" / f"{index:03}.png", defective)
        imsave(directory / "mask" / f"{index:03}.png", mask, check_contrast=False)


def _crop(photograph: NDArray[np.uint8], top: int, left: int) -> NDArray[np.uint8]:
    return photograph[top : top + CROP, left : left + CROP]


def paste_defect(
    good: NDArray[np.uint8],
    other: NDArray[np.uint8],
    generator: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Blend an irregular patch of another image into a good one, both grey, of shape ``(H, W)``.

    Returns:
        The defective image and its mask (255 in the defect, 0 elsewhere).
    """
    height, width = good.shape
    rows, columns = np.mgrid[:height, :width]
    centre_row, centre_column = generator.uniform(0.3, 0.7, 2) * good.shape
    distance = np.hypot((rows - centre_row) / height, (columns - centre_column) / width)
    # Smooth noise bends the circle around the centre into an irregular outline; the quantile sets its area.
    noise = cv2.GaussianBlur(generator.standard_normal(good.shape), (0, 0), sigmaX=6)
    bent = distance + 0.05 * noise / noise.std()
    patch = (bent < np.quantile(bent, generator.uniform(0.04, 0.11))).astype(np.uint8)
    # Specks are removed: blurred, they would be too faint for the mask.
    patch = cv2.morphologyEx(patch, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9)))
    opacity = cv2.GaussianBlur(patch.astype(float), (0, 0), sigmaX=1.5)
    inside = patch > 0
    standardised = (other - other[inside].mean()) / other[inside].std()
    material = np.clip(standardised * good[inside].std() + good[inside].mean(), 0, 255)
    defective = good + opacity * (material - good)
    return np.rint(defective).astype(np.uint8), np.rint(opacity).astype(np.uint8) * 255
