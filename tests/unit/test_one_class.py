# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of labelled data sets of which one class is normal."""

import os
import pickle
import re
from collections.abc import Callable
from errno import ENOSPC
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision
from anomalib import TaskType
from anomalib.data import AnomalibDataModule, AnomalibDataset
from numpy.typing import NDArray
from PIL import Image

from anomalib_htdgm.data import OneClass, one_class

TRAIN, TEST = 4, 6  # images of each class
SHAPES = {"CIFAR10": (32, 32, 3), "MNIST": (28, 28), "FashionMNIST": (28, 28)}


def make_data(dataset: str, classes: int = 3, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Noise, with the classes in turn."""
    generator = np.random.default_rng(seed)
    data: dict[str, NDArray[Any]] = {}
    for split, count in (("train", TRAIN), ("test", TEST)):
        data[f"x_{split}"] = generator.integers(0, 256, (count * classes, *SHAPES[dataset]), np.uint8)
        data[f"y_{split}"] = np.tile(np.arange(classes, dtype=np.uint8), count)
    return data


@pytest.fixture
def cifar10(tmp_path: Path) -> Path:
    np.savez(tmp_path / "cifar10.npz", **make_data("CIFAR10"))
    return tmp_path / "cifar10.npz"


def prepared(arrays: Path, normal_class: int | str = 0, **kwargs: Any) -> OneClass:  # noqa: ANN401
    arguments: dict[str, Any] = {"root": arrays.parent / "images", "num_workers": 0, **kwargs}
    datamodule = OneClass(normal_class=normal_class, arrays=arrays, **arguments)
    datamodule.prepare_data()
    datamodule.setup()
    return datamodule


def written(datamodule: OneClass) -> list[Path]:
    """The directories of image files, and whatever else is beside them."""
    return sorted(datamodule.root.iterdir()) if datamodule.root.is_dir() else []


def names(subset: AnomalibDataset) -> list[str]:
    """Class and name of each file, ascending."""
    return ["/".join(Path(path).parts[-2:]) for path in subset.samples["image_path"]]


class TestSubsets:
    """Which images are in which subset, with which label."""

    def test_train_on_the_normal_class_and_test_on_all(self, cifar10: Path) -> None:
        datamodule = prepared(cifar10, "automobile")
        assert names(datamodule.train_data) == [f"1_automobile/{index:05}.png" for index in (1, 4, 7, 10)]
        assert set(datamodule.train_data.samples["label_index"]) == {0}
        assert len(datamodule.test_data) == 3 * TEST
        normal = datamodule.test_data.samples.query("label_index == 0")
        assert set(normal["label"]) == {"automobile"}
        assert len(normal) == TEST
        assert names(datamodule.val_data) == names(datamodule.test_data)
        assert datamodule.task == datamodule.test_data.task == TaskType.CLASSIFICATION
        assert (datamodule.name, datamodule.category) == ("CIFAR10", "automobile")

    @pytest.mark.parametrize("dataset", SHAPES)
    def test_pixels_and_labels_are_those_of_the_arrays(self, tmp_path: Path, dataset: Any) -> None:  # noqa: ANN401
        data = make_data(dataset, classes=10)
        np.savez_compressed(tmp_path / "data.npz", **data)
        datamodule = prepared(tmp_path / "data.npz", 3, dataset=dataset, eval_batch_size=100)
        (batch,) = datamodule.test_dataloader()
        assert batch.image.shape == (60, 3, *SHAPES[dataset][:2])
        assert batch.gt_mask is None
        seen = {}
        for path, image, label in zip(batch.image_path, batch.image, batch.gt_label, strict=True):
            index = int(Path(path).stem)
            expected = data["x_test"][index]
            # Grey images have three equal channels.
            expected = expected if expected.ndim == 3 else np.stack([expected] * 3, axis=-1)
            np.testing.assert_array_equal((image * 255).round().numpy().transpose(1, 2, 0), expected)
            assert Path(path).parent.name.startswith(f"{data['y_test'][index]}_")
            assert label == (data["y_test"][index] != 3)
            seen[index] = path
        assert len(seen) == 60

    @pytest.mark.parametrize(("count", "expected"), [(1, [0]), (4, [0, 1, 3, 4]), (99, [0, 1, 2, 3, 4, 5])])
    def test_a_part_of_the_test_set_is_even_and_the_same_for_every_class(
        self, cifar10: Path, count: int, expected: list[int]
    ) -> None:
        parts = {tuple(names(prepared(cifar10, i, test_images_per_class=count, seed=i).test_data)) for i in range(3)}
        (part,) = parts
        for index, name in enumerate(("airplane", "automobile", "bird")):
            files = [f"{index}_{name}/{3 * place + index:05}.png" for place in expected]
            assert [file for file in part if file.startswith(f"{index}_")] == files

    def test_validation_set_of_its_own(self, cifar10: Path) -> None:
        first, second = (prepared(cifar10, val_split_mode="from_test", val_split_ratio=0.5) for _ in range(2))
        assert len(first.val_data) == len(first.test_data) == 9
        assert not set(names(first.val_data)) & set(names(first.test_data))
        assert names(first.val_data) == names(second.val_data)


class TestWriting:
    """How the images are written."""

    def test_written_once_for_all_classes(self, cifar10: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        datamodule = prepared(cifar10, 0)
        times = {file: file.stat().st_mtime_ns for file in datamodule.root.rglob("*")}
        monkeypatch.delattr(one_class, "write_dataset")
        prepared(cifar10, 1)
        assert {file: file.stat().st_mtime_ns for file in datamodule.root.rglob("*")} == times
        assert len([file for file in times if file.suffix == ".png"]) == 3 * (TRAIN + TEST)

    def test_an_interruption_leaves_nothing(self, cifar10: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        save = Image.Image.save

        def disk_full(image: Image.Image, path: Path, **kwargs: Any) -> None:  # noqa: ANN401
            if path.name == "00007.png":
                raise OSError(ENOSPC, os.strerror(ENOSPC))
            save(image, path, **kwargs)

        datamodule = OneClass(arrays=cifar10, root=cifar10.parent / "images")
        with monkeypatch.context() as patch:
            patch.setattr(Image.Image, "save", disk_full)
            with pytest.raises(OSError, match="No space left"):
                datamodule.prepare_data()
        assert not written(datamodule)
        with pytest.raises(FileNotFoundError, match="Did you call prepare_data"):
            datamodule.setup()
        datamodule.prepare_data()
        datamodule.setup()
        assert len(datamodule.test_data) == 3 * TEST

    def test_two_writers_at_once(self, cifar10: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first, second = (OneClass(arrays=cifar10, root=cifar10.parent / "images") for _ in range(2))
        save = Image.Image.save

        def overtaken(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401
            monkeypatch.undo()
            second.prepare_data()
            save(*args, **kwargs)

        monkeypatch.setattr(Image.Image, "save", overtaken)
        first.prepare_data()
        assert len(written(first)) == 1
        assert len(list(first.root.rglob("*.png"))) == 3 * (TRAIN + TEST)

    def test_other_arrays_have_images_of_their_own(self, cifar10: Path) -> None:
        first = prepared(cifar10)
        np.savez(cifar10, **make_data("CIFAR10", seed=1))  # under the same name
        second = prepared(cifar10)
        assert len(written(first)) == 2
        assert (first.train_data[0].image != second.train_data[0].image).any()
        copy = cifar10.with_name("copy.npz")
        copy.write_bytes(cifar10.read_bytes())
        prepared(copy)
        assert len(written(first)) == 2

    @pytest.mark.parametrize("dataset", SHAPES)
    def test_download(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: Any) -> None:  # noqa: ANN401
        """Files of the formats that torchvision reads come from here in place of the internet."""
        data = make_data(dataset)

        def save_idx(self: torchvision.datasets.MNIST) -> None:
            Path(self.raw_folder).mkdir(parents=True, exist_ok=True)
            for key, name in (("train", "train"), ("test", "t10k")):
                for prefix, kind in (("x", "images-idx3"), ("y", "labels-idx1")):
                    array = data[f"{prefix}_{key}"]
                    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
                    (Path(self.raw_folder) / f"{name}-{kind}-ubyte").write_bytes(header + array.tobytes())

        def save_batches(self: torchvision.datasets.CIFAR10) -> None:
            folder = Path(self.root) / self.base_folder
            folder.mkdir(exist_ok=True)
            (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": []}))
            parts = np.array_split(np.arange(len(data["y_train"])), 5)
            for part, (name, _) in zip(parts, self.train_list, strict=True):
                save_batch(folder / name, data["x_train"][part], data["y_train"][part])
            save_batch(folder / "test_batch", data["x_test"], data["y_test"])

        def save_batch(path: Path, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
            rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
            path.write_bytes(pickle.dumps({"data": rows, "labels": labels.tolist()}))

        monkeypatch.setattr(torchvision.datasets.MNIST, "download", save_idx)
        monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", save_batches)
        monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, _: Path(path).is_file())
        datamodule = OneClass(dataset, 1, root=tmp_path)
        datamodule.prepare_data()
        datamodule.setup()
        assert [path.name for path in written(datamodule)] == [dataset]
        for subset, split in ((datamodule.train_data, "train"), (datamodule.test_data, "test")):
            for path in subset.samples["image_path"]:
                index = int(Path(path).stem)
                np.testing.assert_array_equal(np.asarray(Image.open(path)), data[f"x_{split}"][index])
                assert Path(path).parent.name.startswith(f"{data[f'y_{split}'][index]}_")
        assert (len(datamodule.train_data), len(datamodule.test_data)) == (TRAIN, 3 * TEST)


class TestUse:
    """How it is asked for."""

    @pytest.mark.parametrize(
        ("dataset", "given", "expected"),
        [
            ("CIFAR10", "frog", "frog"),
            ("CIFAR10", "6", "frog"),
            ("MNIST", 3, "three"),
            ("MNIST", np.int64(3), "three"),
            ("FashionMNIST", "T-shirt/top", "t_shirt_top"),
            ("FashionMNIST", "Ankle boot", "ankle_boot"),
        ],
    )
    def test_spellings_of_the_normal_class(self, dataset: Any, given: Any, expected: str) -> None:  # noqa: ANN401
        assert OneClass(dataset, given).category == expected

    def test_command_line(self, tmp_path: Path, parse_data: Callable[..., AnomalibDataModule]) -> None:
        np.savez(tmp_path / "mnist.npz", **make_data("MNIST", classes=4))
        given = {"dataset": "MNIST", "normal_class": 3, "arrays": tmp_path / "mnist.npz", "root": tmp_path / "images"}
        arguments = [f"--data.datamodule.{name}={value}" for name, value in given.items()]
        datamodule = parse_data("--data", "FewShot", "--data.k_shot", 2, "--data.datamodule", "OneClass", *arguments)
        assert {Path(path).parent.name for path in datamodule.shot_paths} == {"3_three"}
        assert (datamodule.name, datamodule.category) == ("MNIST_2shot", "three")
        assert len(next(iter(datamodule.train_dataloader())).image) == 2
        assert len(datamodule.test_data) == 4 * TEST

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"dataset": "SVHN"}, "dataset: got 'SVHN'; allowed are 'CIFAR10', 'MNIST', 'FashionMNIST'"),
            ({"normal_class": "cow"}, "normal_class: got 'cow'; the classes of CIFAR10 are 0 (airplane), 1 "),
            ({"normal_class": 10}, "normal_class: got 10"),
            ({"normal_class": True}, "normal_class: got True"),
            ({"test_images_per_class": 0}, "test_images_per_class: got 0; allowed are integers of at least 1"),
            ({"seed": -1}, "seed: got -1"),
            ({"arrays": "none.npz"}, "arrays: got 'none.npz', which does not exist"),
            ({"arrays": __file__}, "which is no .npz file; allowed are .npz files with x_train, y_train"),
        ],
    )
    def test_bad_arguments(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=re.escape(message)):
            OneClass(**arguments)

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"y_train": None, "x_test": None}, "data.npz has no y_train, has no x_test"),
            ({"x_test": np.zeros((18, 32, 32, 3))}, "has x_test of float64 (18, 32, 32, 3) where CIFAR10 has uint8"),
            ({"x_train": np.zeros((12, 28, 28), np.uint8)}, "has uint8 (N, 32, 32, 3)"),
            ({"y_train": np.zeros(11, int)}, "has y_train of int64 (11,), not an integer for each image"),
            ({"y_test": np.zeros(18)}, "has y_test of float64 (18,)"),
            ({"y_test": np.full(18, 10)}, "has labels in y_test that are not from 0 to 9"),
        ],
    )
    def test_bad_arrays_before_anything_is_written(self, tmp_path: Path, changed: dict[str, Any], message: str) -> None:
        data = {key: array for key, array in {**make_data("CIFAR10"), **changed}.items() if array is not None}
        np.savez(tmp_path / "data.npz", **data)
        datamodule = OneClass(arrays=tmp_path / "data.npz", root=tmp_path / "images")
        with pytest.raises(ValueError, match=re.escape(message)):
            datamodule.prepare_data()
        assert not written(datamodule)

    def test_a_class_without_images(self, cifar10: Path) -> None:
        with pytest.raises(ValueError, match=r"normal_class: got 'truck', of which .* has no train images"):
            prepared(cifar10, "truck")


class TestFolders:
    """Images in folders in place of arrays or a download."""

    @pytest.fixture
    def folders(self, tmp_path: Path) -> Path:
        """Three classes of CIFAR-10, their folders named in the three legal ways."""
        for split in ("train", "test"):
            for folder in ("airplane", "1", "2_bird"):
                (tmp_path / "folders" / split / folder).mkdir(parents=True)
                for index in range(4):
                    image = Image.fromarray(np.full((32, 32, 3), index, np.uint8))
                    image.save(tmp_path / "folders" / split / folder / f"{index}.png")
        return tmp_path / "folders"

    def test_are_read_where_they_are(self, folders: Path) -> None:
        datamodule = OneClass(normal_class="automobile", folders=folders, root=folders.parent / "root", num_workers=0)
        datamodule.prepare_data()
        datamodule.setup()
        assert names(datamodule.train_data) == [f"1/{index}.png" for index in range(4)]
        assert len(datamodule.test_data) == 12
        assert set(datamodule.test_data.samples.query("label_index == 0")["label"]) == {"automobile"}
        assert not (folders.parent / "root").exists()

    def test_agree_with_the_arrays_that_were_written(self, cifar10: Path) -> None:
        arrays = prepared(cifar10, "bird", test_images_per_class=2)
        folders = OneClass(normal_class="bird", folders=arrays._directory, test_images_per_class=2)  # noqa: SLF001
        folders.prepare_data()
        folders.setup()
        assert folders.train_data.samples.equals(arrays.train_data.samples)
        assert folders.test_data.samples.equals(arrays.test_data.samples)

    @pytest.mark.parametrize("made", ["test/dragon", "test/0", "nothing"])
    def test_bad_ones_are_named(self, folders: Path, made: str) -> None:
        if made == "nothing":
            folders = folders / made
        else:
            (folders / made).mkdir(parents=True)
        with pytest.raises(ValueError, match="folders: "):
            OneClass(folders=folders)

    def test_beside_arrays_are_refused(self, folders: Path, cifar10: Path) -> None:
        with pytest.raises(ValueError, match=r"folders: got .* beside arrays"):
            OneClass(folders=folders, arrays=cifar10)
