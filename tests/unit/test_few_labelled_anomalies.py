# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Drawn anomalies are trained on and never tested; everything else stays as it was."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from anomalib.data import AnomalibDataModule, Folder

from anomalib_htdgm import FewLabelledAnomalies, FewShot

from .conftest import NUM_BROKEN, NUM_HOLE, NUM_TRAIN, bottle, paths


def folder(mvtec: Path, **arguments: Any) -> Folder:
    test = mvtec / "bottle" / "test"
    defects = [test / "broken", test / "hole"]
    settings = {"abnormal_dir": defects, "normal_test_dir": test / "good", "num_workers": 0} | arguments
    return Folder("parts", mvtec / "bottle" / "train" / "good", **settings)


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
    def test_drawn_anomalies_are_trained_on_and_never_tested(
        self,
        mvtec: Path,
        make: Any,  # noqa: ANN401
        val_split_mode: str,
    ) -> None:
        wrapped = make(mvtec, val_split_mode=val_split_mode, seed=1)
        wrapped.setup()
        before = {"train": paths(wrapped.train_dataloader()), "test": paths(wrapped.test_dataloader())}
        datamodule = set_up(FewLabelledAnomalies(make(mvtec, val_split_mode=val_split_mode, seed=1), 5, seed=1))
        drawn = set(datamodule.known_paths)
        assert len(drawn) == 5
        for batch in datamodule.train_dataloader():
            assert [path in drawn for path in batch.image_path] == batch.gt_label.tolist()
            assert batch.gt_mask is None or batch.gt_mask.flatten(1).any(dim=1).equal(batch.gt_label)
        assert set(paths(datamodule.train_dataloader())) == set(before["train"]) | drawn
        assert paths(datamodule.test_dataloader()) == [path for path in before["test"] if path not in drawn]
        assert paths(datamodule.predict_dataloader()) == paths(datamodule.test_dataloader())
        if val_split_mode != "none":
            expected = [path for path in paths(wrapped.val_dataloader()) if path not in drawn]
            assert paths(datamodule.val_dataloader()) == expected

    def test_seeds_draw_different_anomalies_of_all_classes(self, mvtec: Path) -> None:
        draws = [tuple(set_up(FewLabelledAnomalies(bottle(mvtec), 3, seed)).known_paths) for seed in range(6)]
        assert len(set(draws)) > 3
        assert {Path(path).parent.name for draw in draws for path in draw} == {"broken", "hole"}

    def test_the_validation_split_makes_no_difference(self, mvtec: Path) -> None:
        draws = []
        for state, arguments in enumerate([{}, {"val_split_mode": "from_test"}, {"val_split_mode": "from_test"}]):
            torch.manual_seed(state)
            draws.append(set_up(FewLabelledAnomalies(bottle(mvtec, **arguments), 4)).known_paths)
        assert draws[0] == draws[1] == draws[2]

    def test_setting_up_again_changes_nothing(self, mvtec: Path) -> None:
        datamodule = set_up(FewLabelledAnomalies(bottle(mvtec, val_split_mode="from_test"), 4))
        before = [paths(datamodule.val_dataloader()), paths(datamodule.test_dataloader())]
        datamodule.setup("fit")
        datamodule.datamodule.setup()  # splits anew
        assert [paths(datamodule.val_dataloader()), paths(datamodule.test_dataloader())] == before

    @pytest.mark.parametrize("val_split_mode", ["same_as_test", "from_test"])
    def test_open_set_tests_on_unseen_classes_only(self, mvtec: Path, val_split_mode: str) -> None:
        wrapped = bottle(mvtec, val_split_mode=val_split_mode, seed=0)
        datamodule = set_up(FewLabelledAnomalies(wrapped, 3, known_classes=["hole"]))
        assert {Path(path).parent.name for path in datamodule.known_paths} == {"hole"}
        held_out = paths(datamodule.test_dataloader()) + paths(datamodule.val_dataloader())
        assert {Path(path).parent.name for path in held_out} == {"good", "broken"}
        assert len(anomalous(held_out)) == NUM_BROKEN
        assert len(paths(datamodule.train_dataloader())) == NUM_TRAIN + 3

    def test_ten_shots_and_anomalies(self, mvtec: Path) -> None:
        shots = FewShot(bottle(mvtec), k_shot=2, seed=1)
        shots.setup()
        datamodule = set_up(FewLabelledAnomalies(FewShot(bottle(mvtec), k_shot=2, seed=1), 4))
        assert datamodule.name == "MVTecAD_2shot_4anomalies"
        assert set(paths(datamodule.train_dataloader())) == {*shots.shot_paths, *datamodule.known_paths}
        assert not set(paths(datamodule.test_dataloader())) & set(datamodule.known_paths)


class TestErrors:
    """One clear error."""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"n_anomalies": 13}, "n_anomalies: got 13; datamodule has 12 anomalies in its test set"),
            (
                {"n_anomalies": 6, "known_classes": ["hole"]},
                r"n_anomalies: got 6; .* 5 anomalies .* classes \['hole'\]",
            ),
            ({"known_classes": ["crack"]}, r"known_classes: got \['crack'\]; .* classes: broken, hole"),
            ({"n_anomalies": 0}, "n_anomalies: got 0; allowed are"),
            ({"seed": -1}, "seed: got -1; allowed are"),
            ({"known_classes": []}, "n_anomalies: got 10; datamodule has 0 anomalies"),
        ],
    )
    def test_what_cannot_be_drawn_is_named(self, mvtec: Path, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            FewLabelledAnomalies(bottle(mvtec), **arguments).setup()

    def test_a_test_set_without_real_anomalies(self, mvtec: Path) -> None:
        with pytest.raises(ValueError, match="n_anomalies: got 1; datamodule has 0 anomalies in its test set"):
            FewLabelledAnomalies(folder(mvtec, abnormal_dir=None), 1).setup()
        with pytest.raises(ValueError, match=r"datamodule: .* synthetic"):
            FewLabelledAnomalies(bottle(mvtec, test_split_mode="synthetic"))

    def test_none_left_to_test_on(self, mvtec: Path, caplog: pytest.LogCaptureFixture) -> None:
        datamodule = set_up(FewLabelledAnomalies(bottle(mvtec), NUM_BROKEN + NUM_HOLE))
        assert "All 12 anomalies are known: none is left to test on" in caplog.text
        assert not anomalous(paths(datamodule.test_dataloader()))


class TestConfigurations:
    """From the command line and from configurations."""

    def test_names_of_results(self, mvtec: Path) -> None:
        assert FewLabelledAnomalies(bottle(mvtec), 10).name == "MVTecAD_10anomalies"
        assert FewLabelledAnomalies(bottle(mvtec), 2, known_classes=["hole"]).name == "MVTecAD_2anomalies_hole"
        assert FewLabelledAnomalies(bottle(mvtec)).category == "bottle"

    def test_command_line(self, mvtec: Path, parse_data: Callable[..., AnomalibDataModule]) -> None:
        arguments = ["--data", "FewLabelledAnomalies", "--data.datamodule", "MVTecAD", "--data.datamodule.root", mvtec]
        arguments += ["--data.datamodule.num_workers", 0, "--data.n_anomalies", 3, "--data.seed", 2]
        datamodule = set_up(parse_data(*arguments, "--data.known_classes", "[broken]"))
        expected = set_up(FewLabelledAnomalies(bottle(mvtec), 3, 2, ["broken"]))
        assert datamodule.known_paths == expected.known_paths
