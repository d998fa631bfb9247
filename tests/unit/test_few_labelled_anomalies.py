# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Drawn anomalies are trained on and never tested; everything else stays as it was."""

from pathlib import Path
from typing import Any

import anomalib.data
import numpy as np
import pytest
import torch
from anomalib.cli import AnomalibCLI
from anomalib.data import AnomalibDataModule, Folder, MVTecAD, get_datamodule
from omegaconf import OmegaConf
from skimage.io import imsave
from torch.utils.data import DataLoader

from anomalib_htdgm import FewLabelledAnomalies, FewShot

NUM_TRAIN, NUM_GOOD, NUM_BROKEN, NUM_HOLE = 6, 4, 7, 5


def write_images(directory: Path, count: int, value: int = 128) -> None:
    directory.mkdir(parents=True)
    for index in range(count):
        name = f"{index:03}_mask.png" if "ground_truth" in directory.parts else f"{index:03}.png"
        imsave(directory / name, np.full((24, 24, 3), value, np.uint8), check_contrast=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Root of a category with two classes of defects, in the layout of MVTec AD."""
    write_images(tmp_path / "bottle" / "train" / "good", NUM_TRAIN)
    write_images(tmp_path / "bottle" / "test" / "good", NUM_GOOD)
    for name, count in (("broken", NUM_BROKEN), ("hole", NUM_HOLE)):
        write_images(tmp_path / "bottle" / "test" / name, count, value=200)
        write_images(tmp_path / "bottle" / "ground_truth" / name, count, value=255)
    return tmp_path


def bottle(root: Path, **arguments: Any) -> MVTecAD:  # noqa: ANN401
    return MVTecAD(root, "bottle", num_workers=0, **arguments)


def folder(root: Path, **arguments: Any) -> Folder:  # noqa: ANN401
    test = root / "bottle" / "test"
    defects = [test / "broken", test / "hole"]
    settings = {"abnormal_dir": defects, "normal_test_dir": test / "good", "num_workers": 0} | arguments
    return Folder("parts", root / "bottle" / "train" / "good", **settings)


def paths(loader: DataLoader[Any]) -> list[str]:
    return [path for batch in loader for path in batch.image_path]


def anomalous(names: list[str]) -> set[str]:
    return {name for name in names if Path(name).parent.name != "good"}


def set_up(datamodule: AnomalibDataModule) -> FewLabelledAnomalies:
    assert isinstance(datamodule, FewLabelledAnomalies)
    datamodule.setup()
    return datamodule


class TestDraw:
    """Which anomalies are drawn, and from where."""

    @pytest.mark.parametrize("make", [bottle, folder])
    @pytest.mark.parametrize("val_split_mode", ["same_as_test", "from_test", "none"])
    @pytest.mark.parametrize("seed", [0, 1])
    def test_drawn_anomalies_are_trained_on_and_never_tested(
        self,
        root: Path,
        make: Any,  # noqa: ANN401
        val_split_mode: str,
        seed: int,
    ) -> None:
        wrapped = make(root, val_split_mode=val_split_mode, seed=1)
        wrapped.setup()
        before = {"train": paths(wrapped.train_dataloader()), "test": paths(wrapped.test_dataloader())}
        datamodule = set_up(FewLabelledAnomalies(make(root, val_split_mode=val_split_mode, seed=1), 5, seed))
        drawn = set(datamodule.known_paths)
        assert len(drawn) == 5
        assert set(paths(datamodule.train_dataloader())) == set(before["train"]) | drawn
        assert paths(datamodule.test_dataloader()) == [path for path in before["test"] if path not in drawn]
        assert paths(datamodule.predict_dataloader()) == paths(datamodule.test_dataloader())
        if val_split_mode != "none":
            expected = [path for path in paths(wrapped.val_dataloader()) if path not in drawn]
            assert paths(datamodule.val_dataloader()) == expected

    def test_labels_and_masks_come_along(self, root: Path) -> None:
        datamodule = set_up(FewLabelledAnomalies(bottle(root), n_anomalies=3))
        (batch,) = datamodule.train_dataloader()
        for path, label, mask in zip(batch.image_path, batch.gt_label, batch.gt_mask, strict=True):
            assert label == mask.any() == (path in datamodule.known_paths)
        assert batch.gt_label.sum() == 3
        assert set_up(FewLabelledAnomalies(folder(root))).task == "classification"

    def test_fewer_are_among_more(self, root: Path) -> None:
        draws = [set(set_up(FewLabelledAnomalies(bottle(root), n, seed=3)).known_paths) for n in (1, 4, 9)]
        assert draws[0] < draws[1] < draws[2]

    def test_seeds_draw_different_anomalies_of_all_classes(self, root: Path) -> None:
        draws = [tuple(set_up(FewLabelledAnomalies(bottle(root), 3, seed)).known_paths) for seed in range(6)]
        assert len(set(draws)) > 3
        assert {Path(path).parent.name for draw in draws for path in draw} == {"broken", "hole"}

    def test_the_validation_split_makes_no_difference(self, root: Path) -> None:
        draws = []
        for state, arguments in enumerate([{}, {"val_split_mode": "from_test"}, {"val_split_mode": "from_test"}]):
            torch.manual_seed(state)
            draws.append(set_up(FewLabelledAnomalies(bottle(root, **arguments), 4)).known_paths)
        assert draws[0] == draws[1] == draws[2]

    def test_setting_up_again_changes_nothing(self, root: Path) -> None:
        datamodule = set_up(FewLabelledAnomalies(bottle(root, val_split_mode="from_test"), 4))
        before = [paths(datamodule.val_dataloader()), paths(datamodule.test_dataloader())]
        datamodule.setup("fit")
        datamodule.datamodule.setup()  # splits anew
        assert [paths(datamodule.val_dataloader()), paths(datamodule.test_dataloader())] == before

    @pytest.mark.parametrize("val_split_mode", ["same_as_test", "from_test"])
    def test_open_set_tests_on_unseen_classes_only(self, root: Path, val_split_mode: str) -> None:
        wrapped = bottle(root, val_split_mode=val_split_mode, seed=0)
        datamodule = set_up(FewLabelledAnomalies(wrapped, 3, known_classes=["hole"]))
        assert {Path(path).parent.name for path in datamodule.known_paths} == {"hole"}
        held_out = paths(datamodule.test_dataloader()) + paths(datamodule.val_dataloader())
        assert {Path(path).parent.name for path in held_out} == {"good", "broken"}
        assert len(anomalous(held_out)) == NUM_BROKEN
        assert len(paths(datamodule.train_dataloader())) == NUM_TRAIN + 3

    def test_ten_shots_and_anomalies(self, root: Path) -> None:
        shots = FewShot(bottle(root), k_shot=2, seed=1)
        shots.setup()
        datamodule = set_up(FewLabelledAnomalies(FewShot(bottle(root), k_shot=2, seed=1), 4))
        assert datamodule.name == "MVTecAD_2shot_4anomalies"
        assert set(paths(datamodule.train_dataloader())) == {*shots.shot_paths, *datamodule.known_paths}
        assert not set(paths(datamodule.test_dataloader())) & set(datamodule.known_paths)


class TestErrors:
    """One clear error."""

    def test_too_many(self, root: Path) -> None:
        with pytest.raises(ValueError, match="n_anomalies: got 13; datamodule has 12 anomalies in its test set"):
            FewLabelledAnomalies(bottle(root), 13).setup()
        with pytest.raises(ValueError, match=r"n_anomalies: got 6; .* 5 anomalies .* classes \['hole'\]"):
            FewLabelledAnomalies(bottle(root), 6, known_classes=["hole"]).setup()

    def test_unknown_class(self, root: Path) -> None:
        with pytest.raises(ValueError, match=r"known_classes: got \['crack'\]; .* classes: broken, hole"):
            FewLabelledAnomalies(bottle(root), 1, known_classes=["crack"]).setup()

    def test_no_anomalies(self, root: Path) -> None:
        with pytest.raises(ValueError, match="n_anomalies: got 1; datamodule has 0 anomalies in its test set"):
            FewLabelledAnomalies(folder(root, abnormal_dir=None), 1).setup()

    def test_synthetic_anomalies(self, root: Path) -> None:
        with pytest.raises(ValueError, match=r"datamodule: .* synthetic"):
            FewLabelledAnomalies(bottle(root, test_split_mode="synthetic"))

    @pytest.mark.parametrize("arguments", [{"n_anomalies": 0}, {"seed": -1}, {"known_classes": []}], ids=str)
    def test_bad_arguments(self, root: Path, arguments: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=rf"{next(iter(arguments))}: got .*; allowed are"):
            FewLabelledAnomalies(bottle(root), **arguments)

    def test_not_a_datamodule(self) -> None:
        with pytest.raises(TypeError, match="must be an AnomalibDataModule of images"):
            FewLabelledAnomalies("MVTecAD")  # type: ignore[arg-type]

    def test_no_draw_before_setup(self, root: Path) -> None:
        with pytest.raises(AttributeError, match="Did you call setup"):
            _ = FewLabelledAnomalies(bottle(root)).known_paths

    def test_none_left_to_test_on(self, root: Path, caplog: pytest.LogCaptureFixture) -> None:
        datamodule = set_up(FewLabelledAnomalies(bottle(root), NUM_BROKEN + NUM_HOLE))
        assert "All 12 anomalies are known: none is left to test on" in caplog.text
        assert not anomalous(paths(datamodule.test_dataloader()))


class TestConfigurations:
    """From the command line and from configurations."""

    def test_names_of_results(self, root: Path) -> None:
        assert FewLabelledAnomalies(bottle(root), 10).name == "MVTecAD_10anomalies"
        assert FewLabelledAnomalies(bottle(root), 2, known_classes=["hole"]).name == "MVTecAD_2anomalies_hole"
        assert FewLabelledAnomalies(bottle(root)).category == "bottle"

    def test_command_line(self, root: Path, tmp_path: Path) -> None:
        arguments = ["--data", "FewLabelledAnomalies", "--data.datamodule", "MVTecAD"]
        arguments += ["--data.datamodule.root", str(root), "--data.datamodule.num_workers", "0"]
        arguments += ["--data.n_anomalies", "3", "--data.seed", "2", "--data.known_classes", "[broken]"]
        datamodule = set_up(self.parsed(arguments, tmp_path))
        expected = set_up(FewLabelledAnomalies(bottle(root), 3, 2, ["broken"]))
        assert datamodule.known_paths == expected.known_paths

    def test_yaml_with_few_shots_inside(self, root: Path, tmp_path: Path) -> None:
        OmegaConf.save({"data": self.config(root)}, tmp_path / "config.yaml")
        datamodule = set_up(self.parsed(["--config", str(tmp_path / "config.yaml")], tmp_path))
        assert datamodule.name == "MVTecAD_2shot_3anomalies"
        assert len(paths(datamodule.train_dataloader())) == 5

    @pytest.mark.parametrize("container", [dict, OmegaConf.create])
    def test_get_datamodule(
        self,
        root: Path,
        container: Any,  # noqa: ANN401
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        for cls in (FewShot, FewLabelledAnomalies):  # the tests also run from a checkout
            monkeypatch.setattr(anomalib.data, cls.__name__, cls, raising=False)
        datamodule = set_up(get_datamodule(container(self.config(root))))
        assert len(paths(datamodule.train_dataloader())) == 5

    @staticmethod
    def config(root: Path) -> dict[str, Any]:
        wrapped = {"class_path": "MVTecAD", "init_args": {"root": str(root), "category": "bottle", "num_workers": 0}}
        shots = {"class_path": "FewShot", "init_args": {"datamodule": wrapped, "k_shot": 2}}
        return {"class_path": "FewLabelledAnomalies", "init_args": {"datamodule": shots, "n_anomalies": 3}}

    @staticmethod
    def parsed(arguments: list[str], results: Path) -> AnomalibDataModule:
        common = ["train", "--model", "Padim", "--model.pre_trained", "false", "--default_root_dir", str(results)]
        return AnomalibCLI([*common, *arguments], run=False).datamodule
