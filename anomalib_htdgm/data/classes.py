# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What data sets have in common of which one class is normal, and all others are anomalous."""

from abc import ABC
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from anomalib import TaskType
from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.data.utils import LabelName, Split, TestSplitMode, ValSplitMode
from pandas import DataFrame
from torchvision.datasets.folder import IMG_EXTENSIONS

from anomalib_htdgm.validation import check_integer


class ClassesDataModule(AnomalibDataModule, ABC):
    """One class is normal, the others are anomalous; there are no masks: the task is classification.

    Args:
        category: The normal class.
        test_images_per_class: Number of test images of each class, at least 1, spread evenly over the class's own: the
            same for every normal class and every run. All if None.
        train_batch_size: Batch size for training.
        eval_batch_size: Batch size for validation and test.
        num_workers: Number of workers of each dataloader.
        val_split_mode: Where the validation set comes from; by default it is the test set.
        val_split_ratio: Share of the images that a validation set of its own takes.
        seed: Seed of such a split.
        **settings: Augmentations, as :class:`anomalib.data.AnomalibDataModule` takes them.

    Raises:
        ValueError: If ``test_images_per_class`` is out of its range.
    """

    def __init__(
        self,
        category: str,
        test_images_per_class: int | None,
        *,
        train_batch_size: int = 32,
        eval_batch_size: int = 32,
        num_workers: int = 8,
        val_split_mode: ValSplitMode | str = ValSplitMode.SAME_AS_TEST,
        val_split_ratio: float = 0.5,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        if test_images_per_class is not None:
            check_integer("test_images_per_class", test_images_per_class, at_least=1)
        super().__init__(
            train_batch_size=train_batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            val_split_mode=val_split_mode,
            val_split_ratio=val_split_ratio,
            test_split_mode=TestSplitMode.FROM_DIR,
            seed=seed,
            **settings,
        )
        self.category = category
        self.test_images_per_class = test_images_per_class

    def describe_tested(self, paths: Sequence[Path], class_name: str) -> list[dict[str, Any]]:
        """Describe the images of a class that are tested: all, or so many of them, spread evenly."""
        count = min(self.test_images_per_class or len(paths), len(paths))
        spread = (paths[index * len(paths) // count] for index in range(count))
        return describe_images(spread, Split.TEST, class_name, is_normal=class_name == self.category)

    def make_subset(self, samples: list[dict[str, Any]]) -> AnomalibDataset:
        """Make a dataset without masks of rows as :func:`describe_images` makes them."""
        subset = AnomalibDataset()
        subset.samples = DataFrame(samples)
        subset.samples.attrs["task"] = TaskType.CLASSIFICATION.value
        subset.category = self.category
        return subset


def describe_images(paths: Iterable[Path], split: Split, class_name: str, *, is_normal: bool) -> list[dict[str, Any]]:
    """Describe images of one class as the samples of a dataset, one row for each, without a mask."""
    label = LabelName.NORMAL if is_normal else LabelName.ABNORMAL
    shared = {"split": split.value, "label": class_name, "label_index": label.value, "mask_path": ""}
    return [{"image_path": str(path), **shared} for path in paths]


def list_images(folder: Path) -> list[Path]:
    """List the images of a folder, sorted."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMG_EXTENSIONS)
