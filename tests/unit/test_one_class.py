# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""One class of a labelled data set is normal: which images are in which subset, and how it is asked for."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anomalib import TaskType
from anomalib.data import AnomalibDataModule, AnomalibDataset

from anomalib_htdgm import OneClass

from .labelled import SHAPES, TEST, make_data, prepared


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
        places = [int(Path(path).stem) for path in batch.image_path]
        assert sorted(places) == list(range(60))
        expected = data["x_test"][places].reshape(60, *SHAPES[dataset][:2], -1).transpose(0, 3, 1, 2)
        pixels = (batch.image * 255).round().numpy()
        np.testing.assert_array_equal(pixels, np.broadcast_to(expected, pixels.shape))  # grey ones in three channels
        assert batch.gt_label.tolist() == (data["y_test"][places] != 3).tolist()
        assert [Path(path).parent.name.split("_")[0] for path in batch.image_path] == [
            *map(str, data["y_test"][places])
        ]
        assert batch.gt_mask is None

    @pytest.mark.parametrize(("count", "expected"), [(1, [0]), (4, [0, 1, 3, 4]), (99, [0, 1, 2, 3, 4, 5])])
    def test_a_part_of_the_test_set_is_even_and_the_same_for_every_class(
        self, cifar10: Path, count: int, expected: list[int]
    ) -> None:
        (part,) = {tuple(names(prepared(cifar10, i, test_images_per_class=count, seed=i).test_data)) for i in range(3)}
        for index, name in enumerate(("airplane", "automobile", "bird")):
            files = [f"{index}_{name}/{3 * place + index:05}.png" for place in expected]
            assert [file for file in part if file.startswith(f"{index}_")] == files

    def test_validation_set_of_its_own(self, cifar10: Path) -> None:
        first, second = (prepared(cifar10, val_split_mode="from_test", val_split_ratio=0.5) for _ in range(2))
        assert len(first.val_data) == len(first.test_data) == 9
        assert not set(names(first.val_data)) & set(names(first.test_data))
        assert names(first.val_data) == names(second.val_data)

    def test_a_class_without_images(self, cifar10: Path) -> None:
        with pytest.raises(ValueError, match=r"normal_class: got 'truck', of which .* has no train images"):
            prepared(cifar10, "truck")


class TestUse:
    """How it is asked for."""

    @pytest.mark.parametrize(
        ("dataset", "given", "expected"),
        [
            ("CIFAR10", "frog", "frog"),
            ("CIFAR10", "6", "frog"),
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
        arguments = [f"--data.datamodule.{name}={value}" for name, value in (given | {"eval_batch_size": 5}).items()]
        datamodule = parse_data("--data", "FewShot", "--data.k_shot", 2, "--data.datamodule", "OneClass", *arguments)
        assert {Path(path).parent.name for path in datamodule.shot_paths} == {"3_three"}
        assert (datamodule.name, datamodule.category) == ("MNIST_2shot", "three")
        assert datamodule.eval_batch_size == 5
        assert len(next(iter(datamodule.train_dataloader())).image) == 2
        assert len(datamodule.test_data) == 4 * TEST

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"dataset": "SVHN"}, "dataset: got 'SVHN'; allowed are 'CIFAR10', 'MNIST', 'FashionMNIST'"),
            ({"normal_class": "cow"}, "normal_class: got 'cow'; the classes of CIFAR10 are 0 (airplane), 1 "),
            ({"normal_class": 10}, "normal_class: got 10"),
            ({"test_images_per_class": 0}, "test_images_per_class: got 0; allowed are integers of at least 1"),
        ],
    )
    def test_bad_arguments(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=re.escape(message)):
            OneClass(**arguments)
