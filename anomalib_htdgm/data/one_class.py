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
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args
from zipfile import is_zipfile

import numpy as np
import torchvision
from anomalib import TaskType
from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.data.utils import LabelName, Split, TestSplitMode, ValSplitMode
from numpy.typing import NDArray
from pandas import DataFrame
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.v2 import Transform
from tqdm import tqdm

from anomalib_htdgm.data.writing import write_once
from anomalib_htdgm.validation import check_choice, check_integer

logger = logging.getLogger(__name__)

Dataset = Literal["CIFAR10", "MNIST", "FashionMNIST"]

# In the order of the labels.
CLASSES: dict[str, list[str]] = {
    "CIFAR10": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    "MNIST": ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
    "FashionMNIST": [
        *("t_shirt_top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle_boot"),
    ],
}
SHAPES = {"CIFAR10": (32, 32, 3), "MNIST": (28, 28), "FashionMNIST": (28, 28)}
SPLITS = ("train", "test")
ARRAYS = ("x_train", "y_train", "x_test", "y_test")


class OneClass(AnomalibDataModule):
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
        folders: Path of a directory of images to read in place of torchvision's download, as
            ``<folders>/{train,test}/<class>/<file>``, where a class is an index, a name or both (``6``, ``frog``,
            ``6_frog``). They are read where they are.
        test_images_per_class: Number of test images of each class, at least 1, spread evenly over the class's own: the
            same for every normal class and every run. All if None.
        train_batch_size: Batch size for training.
        eval_batch_size: Batch size for validation and test.
        num_workers: Number of workers of each dataloader.
        train_augmentations: Augmentations of the training images.
        val_augmentations: Augmentations of the validation images.
        test_augmentations: Augmentations of the test images.
        augmentations: Augmentations where none are given for a subset.
        val_split_mode: Where the validation set comes from; by default it is the test set.
        val_split_ratio: Share of the images that a validation set of its own takes.
        seed: Seed of such a split, at least 0.

    Raises:
        ValueError: If an argument is out of its range. The content of ``arrays`` is checked before it is written.

    Example:
        From the command line::

            anomalib train --model Htdgm --model.transformations full --data OneClass --data.normal_class frog
    """

    def __init__(
        self,
        dataset: Dataset = "CIFAR10",
        normal_class: int | str = 0,
        root: str | Path = "./datasets/OneClass",
        arrays: str | Path | None = None,
        folders: str | Path | None = None,
        test_images_per_class: int | None = None,
        train_batch_size: int = 32,
        eval_batch_size: int = 32,
        num_workers: int = 8,
        train_augmentations: Transform | None = None,
        val_augmentations: Transform | None = None,
        test_augmentations: Transform | None = None,
        augmentations: Transform | None = None,
        val_split_mode: ValSplitMode | str = ValSplitMode.SAME_AS_TEST,
        val_split_ratio: float = 0.5,
        seed: int = 0,
    ) -> None:
        check_choice("dataset", dataset, get_args(Dataset))
        normal_index = _class_index(dataset, normal_class)
        if test_images_per_class is not None:
            check_integer("test_images_per_class", test_images_per_class, at_least=1)
        check_integer("seed", seed, at_least=0)
        if arrays is not None and not is_zipfile(arrays):
            what = "is no .npz file" if Path(arrays).is_file() else "does not exist"
            msg = f"arrays: got {str(arrays)!r}, which {what}; allowed are .npz files with {', '.join(ARRAYS)}"
            raise ValueError(msg)
        if folders is not None:
            _check_folders(Path(folders), dataset, also_arrays=arrays is not None)
        super().__init__(
            train_batch_size=train_batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            train_augmentations=train_augmentations,
            val_augmentations=val_augmentations,
            test_augmentations=test_augmentations,
            augmentations=augmentations,
            val_split_mode=val_split_mode,
            val_split_ratio=val_split_ratio,
            test_split_mode=TestSplitMode.FROM_DIR,
            seed=seed,
        )
        self.dataset: Dataset = dataset
        self.normal_index = normal_index
        self.category = CLASSES[dataset][normal_index]
        self.root = Path(root)
        self.arrays = None if arrays is None else Path(arrays)
        self.test_images_per_class = test_images_per_class
        suffix = "" if self.arrays is None else f"-{hashlib.sha256(self.arrays.read_bytes()).hexdigest()[:12]}"
        self._directory = self.root / f"{dataset}{suffix}" if folders is None else Path(folders)

    @property
    def name(self) -> str:  # type: ignore[override]  # anomalib's base class overrides Lightning's attribute alike
        """Name of the data set, under which results are filed."""
        return self.dataset

    def prepare_data(self) -> None:
        """Download the data set, or read its arrays, and write the images, unless they are there."""
        if write_once(self._directory, self._write):
            logger.info("Wrote the images of %s to %s", self.dataset, self._directory)

    def _write(self, directory: Path) -> None:
        if self.arrays is None:
            data = _download(self.dataset, self.root)
        else:
            with np.load(self.arrays) as file:
                data = {key: file[key] for key in ARRAYS if key in file.files}
        _check(data, self.dataset, source=self.arrays or "torchvision's download")
        _write_images(directory, data, self.dataset)

    def _setup(self, _stage: str | None = None) -> None:
        if not self._directory.is_dir():
            msg = f"There is no {self._directory}. Did you call prepare_data?"
            raise FileNotFoundError(msg)
        self.train_data = self._subset(Split.TRAIN)
        self.test_data = self._subset(Split.TEST)

    def _subset(self, split: Split) -> AnomalibDataset:
        samples: list[dict[str, Any]] = []
        folders = {_class_index(self.dataset, each.name): each for each in _class_folders(self._directory, split.value)}
        for index, class_name in enumerate(CLASSES[self.dataset]):
            is_normal = index == self.normal_index
            paths = list_images(folders[index]) if index in folders else []
            if is_normal and not paths:
                msg = f"normal_class: got {class_name!r}, of which {self._directory} has no {split.value} images"
                raise ValueError(msg)
            if split == Split.TRAIN and not is_normal:
                continue
            if split == Split.TEST and self.test_images_per_class is not None:
                paths = spread(paths, self.test_images_per_class)
            samples += describe_images(paths, split, class_name, is_normal=is_normal)
        return make_subset(samples, self.category)


def list_images(folder: Path) -> list[Path]:
    """List the images of a folder, sorted."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMG_EXTENSIONS)


def spread(paths: Sequence[Path], number: int) -> list[Path]:
    """Take a number of images, spread evenly; where there are fewer, all."""
    count = min(number, len(paths))
    return [paths[index * len(paths) // count] for index in range(count)]


def describe_images(paths: Iterable[Path], split: Split, class_name: str, *, is_normal: bool) -> list[dict[str, Any]]:
    """Describe images of one class as the samples of a dataset, one row for each, without a mask."""
    label = LabelName.NORMAL if is_normal else LabelName.ABNORMAL
    shared = {"split": split.value, "label": class_name, "label_index": label.value, "mask_path": ""}
    return [{"image_path": str(path), **shared} for path in paths]


def make_subset(samples: list[dict[str, Any]], category: str) -> AnomalibDataset:
    """Make a dataset without masks of rows as :func:`describe_images` makes them; ``category`` is the normal class."""
    subset = AnomalibDataset()
    subset.samples = DataFrame(samples)
    subset.samples.attrs["task"] = TaskType.CLASSIFICATION.value
    subset.category = category
    return subset


def _class_folders(directory: Path, split: str) -> list[Path]:
    return sorted(path for path in (directory / split).glob("*") if path.is_dir())


def _check_folders(directory: Path, dataset: Dataset, *, also_arrays: bool) -> None:
    if also_arrays:
        msg = f"folders: got {str(directory)!r} beside arrays; allowed is one of them"
        raise ValueError(msg)
    for split in SPLITS:
        folders = _class_folders(directory, split)
        if not folders:
            msg = f"folders: got {str(directory)!r}; allowed are directories with {split}/<class>/<image>"
            raise ValueError(msg)
        known = [_find_class(dataset, folder.name) for folder in folders]
        if None in known or len(set(known)) < len(known):
            names, classes = ", ".join(folder.name for folder in folders), ", ".join(CLASSES[dataset])
            msg = f"folders: {directory / split} has {names}; allowed is one for each class of {dataset}: {classes}"
            raise ValueError(msg)


def _find_class(dataset: Dataset, given: int | str) -> int | None:
    # Spelled as the directories are, which allows for torchvision's "T-shirt/top", too.
    name = re.sub("[^a-z0-9]+", "_", str(given).lower())
    for index, class_name in enumerate(CLASSES[dataset]):
        if name in {str(index), class_name, f"{index}_{class_name}"}:
            return index
    return None


def _class_index(dataset: Dataset, given: int | str) -> int:
    index = _find_class(dataset, given)
    if index is not None:
        return index
    allowed = ", ".join(f"{index} ({class_name})" for index, class_name in enumerate(CLASSES[dataset]))
    msg = f"normal_class: got {given!r}; the classes of {dataset} are {allowed}"
    raise ValueError(msg)


def _download(dataset: Dataset, root: Path) -> dict[str, NDArray[Any]]:
    data = {}
    with TemporaryDirectory(dir=root) as scratch:  # torchvision takes a half unpacked archive for a complete one
        for split in SPLITS:
            downloaded = getattr(torchvision.datasets, dataset)(scratch, train=split == "train", download=True)
            data[f"x_{split}"] = np.asarray(downloaded.data)
            data[f"y_{split}"] = np.asarray(downloaded.targets)
    return data


def _check(data: dict[str, NDArray[Any]], dataset: Dataset, source: Path | str) -> None:
    wrong = [f"has no {key}" for key in ARRAYS if key not in data]
    for split in () if wrong else SPLITS:
        images, labels = data[f"x_{split}"], data[f"y_{split}"]
        if images.dtype != np.uint8 or images.shape[1:] != SHAPES[dataset]:
            expected = ", ".join(map(str, SHAPES[dataset]))
            wrong.append(f"has x_{split} of {images.dtype} {images.shape} where {dataset} has uint8 (N, {expected})")
        if not np.issubdtype(labels.dtype, np.integer) or labels.shape != images.shape[:1]:
            wrong.append(f"has y_{split} of {labels.dtype} {labels.shape}, not an integer for each image")
        elif not np.isin(labels, range(len(CLASSES[dataset]))).all():
            wrong.append(f"has labels in y_{split} that are not from 0 to {len(CLASSES[dataset]) - 1}")
    if wrong:
        msg = f"arrays: {source} {', '.join(wrong)}"
        raise ValueError(msg)


def _write_images(directory: Path, data: dict[str, NDArray[Any]], dataset: Dataset) -> None:
    total = len(data["y_train"]) + len(data["y_test"])
    with tqdm(total=total, desc=f"Writing the images of {dataset}", unit="image", delay=1) as progress:
        for split in SPLITS:
            folders = [directory / split / f"{index}_{name}" for index, name in enumerate(CLASSES[dataset])]
            for folder in folders:
                folder.mkdir(parents=True)
            for index, (image, label) in enumerate(zip(data[f"x_{split}"], data[f"y_{split}"], strict=True)):
                Image.fromarray(image).save(folders[label] / f"{index:05}.png", compress_level=1)
                progress.update()
