# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Labelled images are written whole or not at all, once for all classes, from arrays or a download of torchvision."""

import os
import pickle
import re
from errno import ENOSPC
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision
from PIL import Image

from anomalib_htdgm.data import OneClass, one_class

from .labelled import SHAPES, TEST, TRAIN, make_data, prepared


def written(datamodule: OneClass) -> list[Path]:
    """The directories of image files, and whatever else is beside them."""
    return sorted(datamodule.root.iterdir()) if datamodule.root.is_dir() else []


def test_written_once_for_all_classes(cifar10: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_data("CIFAR10")
    np.savez(cifar10, **data | {"y_train": data["y_train"][:, None]})  # a column, as Keras has them
    datamodule = prepared(cifar10, 0)
    assert len(list(datamodule.root.rglob("*.png"))) == 3 * (TRAIN + TEST)
    monkeypatch.delattr(one_class, "write_dataset")
    prepared(cifar10, 1)


def test_an_interruption_leaves_nothing(cifar10: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = Image.Image.save

    def disk_full(image: Image.Image, path: Path, **kwargs: object) -> None:
        if path.name == "00007.png":
            raise OSError(ENOSPC, os.strerror(ENOSPC))
        save(image, path, **kwargs)

    datamodule = OneClass(arrays=cifar10, root=cifar10.parent / "images")
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", disk_full)
        with pytest.raises(OSError, match="No space left"):
            datamodule.prepare_data()
    assert not written(datamodule)
    with pytest.raises(FileNotFoundError, match="0_airplane"):
        datamodule.setup()
    assert len(prepared(cifar10).test_data) == 3 * TEST


def test_two_writers_at_once(cifar10: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (OneClass(arrays=cifar10, root=cifar10.parent / "images") for _ in range(2))
    save = Image.Image.save

    def overtaken(*args: object, **kwargs: object) -> None:
        monkeypatch.undo()
        second.prepare_data()
        save(*args, **kwargs)

    monkeypatch.setattr(Image.Image, "save", overtaken)
    first.prepare_data()
    assert len(written(first)) == 1
    assert len(list(first.root.rglob("*.png"))) == 3 * (TRAIN + TEST)


def test_other_arrays_have_images_of_their_own(cifar10: Path) -> None:
    first = prepared(cifar10)
    np.savez(cifar10, **make_data("CIFAR10", seed=1))  # under the same name
    second = prepared(cifar10)
    assert len(written(first)) == 2
    assert (first.train_data[0].image != second.train_data[0].image).any()
    copy = cifar10.with_name("copy.npz")
    copy.write_bytes(cifar10.read_bytes())
    prepared(copy)
    assert len(written(first)) == 2


def save_idx(self: torchvision.datasets.MNIST) -> None:
    """Write files of the format that torchvision reads, in place of a download."""
    data = make_data(type(self).__name__)
    Path(self.raw_folder).mkdir(parents=True, exist_ok=True)
    for key, name in (("train", "train"), ("test", "t10k")):
        for prefix, kind in (("x", "images-idx3"), ("y", "labels-idx1")):
            array = data[f"{prefix}_{key}"]
            header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
            (Path(self.raw_folder) / f"{name}-{kind}-ubyte").write_bytes(header + array.tobytes())


def save_batches(self: torchvision.datasets.CIFAR10) -> None:
    data, folder = make_data("CIFAR10"), Path(self.root) / self.base_folder
    folder.mkdir(exist_ok=True)
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": []}))
    parts = [(name, "train", part) for part, (name, _) in enumerate(self.train_list)] + [("test_batch", "test", 0)]
    for name, split, part in parts:
        images, labels = data[f"x_{split}"], data[f"y_{split}"]
        if split == "train":
            images, labels = np.array_split(images, 5)[part], np.array_split(labels, 5)[part]
        rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        (folder / name).write_bytes(pickle.dumps({"data": rows, "labels": labels.tolist()}))


@pytest.mark.parametrize("dataset", SHAPES)
def test_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: Any) -> None:  # noqa: ANN401
    monkeypatch.setattr(torchvision.datasets.MNIST, "download", save_idx)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", save_batches)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, _: Path(path).is_file())
    data, datamodule = make_data(dataset), prepared(None, 1, dataset=dataset, root=tmp_path)
    assert [path.name for path in written(datamodule)] == [dataset]
    for subset, split in ((datamodule.train_data, "train"), (datamodule.test_data, "test")):
        for path in map(Path, subset.samples["image_path"]):
            np.testing.assert_array_equal(np.asarray(Image.open(path)), data[f"x_{split}"][int(path.stem)])
            assert path.parent.name.startswith(f"{data[f'y_{split}'][int(path.stem)]}_")
    assert (len(datamodule.train_data), len(datamodule.test_data)) == (TRAIN, 3 * TEST)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x_test": np.zeros((18, 32, 32, 3))}, "has x_test of float64 (18, 32, 32, 3); allowed are uint8"),
        ({"x_train": np.zeros((12, 28, 28), np.uint8)}, "allowed are uint8 (N, 32, 32, 3)"),
        ({"y_test": np.full(18, -1)}, "has labels in y_test that are not from 0 to 9"),
    ],
)
def test_bad_arrays_before_anything_is_written(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "data.npz", **make_data("CIFAR10") | changed)
    datamodule = OneClass(arrays=tmp_path / "data.npz", root=tmp_path / "images")
    with pytest.raises(ValueError, match=re.escape(message)):
        datamodule.prepare_data()
    assert not written(datamodule)
