# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Anomaly detection on labelled data sets: one class is normal, all others are anomalous.

Example:
    Five frogs to train on, the whole test set of CIFAR-10 to tell frogs from everything else:

    >>> from anomalib_htdgm import FewShot, OneClass
    >>> datamodule = FewShot(OneClass("CIFAR10", normal_class="frog"), k_shot=5)
"""

import hashlib
import logging
import re
from pathlib import Path
from typing import Any, get_args

from anomalib.data import AnomalibDataset
from anomalib.data.utils import Split

from anomalib_htdgm.validation import check_choice

from .arrays import CLASSES, Dataset, write_dataset
from .classes import ClassesDataModule, describe_images, list_images
from .writing import write_once

logger = logging.getLogger(__name__)


class OneClass(ClassesDataModule):
    """One class of a labelled data set is normal, the others are anomalous.

    Trained on the normal class's training images, tested on the official test split of all classes. The images are
    written once, as PNG files that serve every normal class, to ``<root>/<dataset>/<split>/<index>_<class>``; a file is
    named after the image's place in its split. There are no masks: the task is classification.

    Args:
        dataset: The data set, as torchvision names it.
        normal_class: Index or name of the normal class, such as ``6`` or ``"frog"``. The digits of MNIST are named
            ``"zero"`` to ``"nine"``.
        root: Directory for the images.
        arrays: Path of an ``.npz`` file to read in place of torchvision's download. It has the arrays ``x_train`` and
            ``x_test``, uint8 images in the data set's own size, of shape ``(N, 32, 32, 3)`` or ``(N, 28, 28)``, and
            ``y_train`` and ``y_test``, their classes' indices. Its images are written to a directory of their own,
            named after the file's content.
        test_images_per_class: Number of test images of each class, at least 1, spread evenly over the class's own: the
            same for every normal class and every run. All if None.
        **settings: Batch sizes, workers, augmentations, and the split of a validation set, see
            :class:`~anomalib_htdgm.data.classes.ClassesDataModule`; by default the test set is the validation set.

    Raises:
        ValueError: If an argument is out of its range. The content of ``arrays`` is checked before it is written.

    Example:
        From the command line::

            anomalib train --model Htdgm --model.preset semantic --data OneClass --data.normal_class frog
    """

    def __init__(
        self,
        dataset: Dataset = "CIFAR10",
        normal_class: int | str = 0,
        root: str | Path = "./datasets/OneClass",
        arrays: str | Path | None = None,
        test_images_per_class: int | None = None,
        **settings: Any,
    ) -> None:
        check_choice("dataset", dataset, get_args(Dataset))
        category = _find_class(dataset, normal_class)
        if category is None:
            allowed = ", ".join(f"{index} ({class_name})" for index, class_name in enumerate(CLASSES[dataset]))
            msg = f"normal_class: got {normal_class!r}; the classes of {dataset} are {allowed}"
            raise ValueError(msg)
        super().__init__(category, test_images_per_class, **settings)
        self.dataset: Dataset = dataset
        self.root = Path(root)
        self.arrays = None if arrays is None else Path(arrays)
        suffix = "" if self.arrays is None else f"-{hashlib.sha256(self.arrays.read_bytes()).hexdigest()[:12]}"
        self._directory = self.root / f"{dataset}{suffix}"

    @property
    def name(self) -> str:  # type: ignore[override]  # anomalib's base class overrides Lightning's attribute alike
        """Name of the data set, under which results are filed."""
        return self.dataset

    def prepare_data(self) -> None:
        """Download the data set, or read its arrays, and write the images, unless they are there."""
        if write_once(self._directory, lambda directory: write_dataset(directory, self.dataset, self.arrays)):
            logger.info("Wrote the images of %s to %s", self.dataset, self._directory)

    def _setup(self, _stage: str | None = None) -> None:
        self.train_data = self._subset(Split.TRAIN)
        self.test_data = self._subset(Split.TEST)

    def _subset(self, split: Split) -> AnomalibDataset:
        folder = self._directory / split.value
        paths = {name: list_images(folder / f"{index}_{name}") for index, name in enumerate(CLASSES[self.dataset])}
        normal = paths[self.category]
        if not normal:
            msg = f"normal_class: got {self.category!r}, of which {self._directory} has no {split.value} images"
            raise ValueError(msg)
        if split == Split.TRAIN:
            return self.make_subset(describe_images(normal, split, self.category, is_normal=True))
        return self.make_subset([row for name, each in paths.items() for row in self.describe_tested(each, name)])


def _find_class(dataset: Dataset, given: int | str) -> str | None:
    """Find the class that is given by index or name, which may be torchvision's, such as ``T-shirt/top``."""
    spelled = re.sub("[^a-z0-9]+", "_", str(given).lower())
    names = (name for index, name in enumerate(CLASSES[dataset]) if spelled in {str(index), name})
    return next(names, None)
