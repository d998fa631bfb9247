# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the draw of k shots and of the datamodule that trains on them."""

import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anomalib.data
import numpy as np
import pytest
import torch
from anomalib.data import AnomalibDataModule, Avenue, Folder, MVTecAD, get_datamodule
from anomalib.data.utils import split_by_label
from anomalib.engine import Engine
from anomalib.models import Padim
from lightning.pytorch import seed_everything
from lightning.pytorch.trainer.states import TrainerFn
from omegaconf import OmegaConf
from torch.utils.data import DataLoader

from anomalib_htdgm.data.few_shot import FewShot, draw_shots, sorted_slice

from .conftest import NUM_BROKEN, NUM_HOLE, NUM_TRAIN, bottle, paths


def shots(datamodule: AnomalibDataModule) -> list[str]:
    assert isinstance(datamodule, FewShot)
    datamodule.setup()
    return datamodule.shot_paths


class TestDrawShots:
    """The random draw."""

    def test_known_draws(self) -> None:
        """Published results stay repeatable only if these draws never change."""
        assert draw_shots(209, 5, seed=0) == [6, 25, 41, 178, 206]
        assert draw_shots(10, 3, seed=1) == [4, 7, 8]

    def test_distinct_ascending_and_in_range_and_fewer_are_among_more(self) -> None:
        for seed in range(10):
            few, some, many = (draw_shots(50, number, seed) for number in (1, 5, 10))
            assert many == sorted(set(many))
            assert len(many) == 10
            assert set(few) < set(some) < set(many) <= set(range(50))

    def test_neither_reads_nor_moves_global_random_states(self) -> None:
        for state in (1, 2):
            following = []
            for draws in (True, False):
                seed_everything(state, verbose=False)
                assert not draws or draw_shots(10, 3, seed=1) == [4, 7, 8]
                following.append((random.random(), np.random.rand(), torch.rand(1).item()))  # noqa: NPY002, S311
            assert following[0] == following[1]

    def test_every_image_has_its_turn(self) -> None:
        first = [draw_shots(8, 1, seed)[0] for seed in range(400)]
        counts = np.bincount(first, minlength=8)
        assert counts.min() > 25  # 50 expected, standard deviation 6.6
        assert counts.max() < 80

    def test_takes_all_where_there_are_fewer(self) -> None:
        assert draw_shots(3, 5, seed=0) == [0, 1, 2]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((10, 0, 0), "k_shot: got 0; allowed are integers of at least 1"),
            ((10, True, 0), "k_shot: got True; allowed are integers"),
            ((0, 1, 0), "num_images: got 0; allowed are integers of at least 1"),
            ((10, 1, -1), "seed: got -1; allowed are integers of at least 0"),
        ],
    )
    @pytest.mark.parametrize("function", [draw_shots, sorted_slice])
    def test_bad_arguments(self, function: Any, arguments: tuple[Any, ...], message: str) -> None:  # noqa: ANN401
        with pytest.raises(ValueError, match=message):
            function(*arguments)


class TestSortedSlice:
    """AnomalyDINO's protocol."""

    @pytest.mark.parametrize(("k_shot", "seed"), [(1, 0), (1, 9), (2, 4), (3, 2), (10, 0)])
    def test_is_the_slice_of_anomaly_dino(self, k_shot: int, seed: int) -> None:
        files = list(range(10))
        assert sorted_slice(10, k_shot, seed) == files[seed * k_shot : (seed + 1) * k_shot]

    def test_a_slice_beyond_the_last_image(self) -> None:
        with pytest.raises(ValueError, match=r"seed is 2: .* images 8 to 11, but there are only 10\. .* seeds: 0 to 1"):
            sorted_slice(10, 4, seed=2)
        with pytest.raises(ValueError, match="Allowed seeds: none, k_shot is too large"):
            sorted_slice(3, 4, seed=0)


class TestFewShot:
    """The datamodule, used from Python."""

    def test_reduces_only_the_training_set(self, mvtec: Path) -> None:
        wrapped = bottle(mvtec)
        wrapped.setup()
        datamodule = FewShot(bottle(mvtec), k_shot=5, seed=3)
        datamodule.setup()
        assert len(wrapped.train_data) == NUM_TRAIN
        assert set(paths(datamodule.train_dataloader())) == set(datamodule.shot_paths)
        assert len(datamodule.shot_paths) == 5
        assert set(datamodule.shot_paths) < set(wrapped.train_data.samples.image_path)
        for loader in ("val_dataloader", "test_dataloader", "predict_dataloader"):
            assert paths(getattr(datamodule, loader)()) == paths(getattr(wrapped, loader)())
        assert datamodule.task == wrapped.task

    def test_draws_the_indices_of_the_draw_from_the_sorted_files(self, mvtec: Path) -> None:
        files = sorted(str(path) for path in (mvtec / "bottle/train/good").iterdir())
        assert shots(FewShot(bottle(mvtec), 4, seed=2)) == [files[i] for i in draw_shots(NUM_TRAIN, 4, 2)]
        assert shots(FewShot(bottle(mvtec), 4, seed=2, sampling="sorted")) == files[8:12]

    def test_labelled_anomalies_are_never_drawn(self, mvtec: Path) -> None:
        class WithTrainingAnomalies(MVTecAD):
            def _setup(self, _stage: str | None = None) -> None:
                super()._setup(_stage)
                _, anomalous = split_by_label(self.test_data)
                self.train_data += anomalous

        normal = {str(path) for path in (mvtec / "bottle/train/good").iterdir()}
        for seed in range(8):
            assert set(shots(FewShot(WithTrainingAnomalies(mvtec, "bottle"), 4, seed))) < normal
        wrapped = WithTrainingAnomalies(mvtec, "bottle")
        assert set(shots(FewShot(wrapped, k_shot=NUM_TRAIN + 1))) == normal
        assert len(wrapped.train_data) == NUM_TRAIN + NUM_BROKEN + NUM_HOLE

    def test_setting_up_again_changes_nothing(self, mvtec: Path, caplog: pytest.LogCaptureFixture) -> None:
        # Without a seed the wrapped datamodule would split differently at every call.
        datamodule = FewShot(bottle(mvtec, val_split_mode="from_test"), k_shot=3)
        sets = []
        with caplog.at_level(logging.INFO, logger="anomalib_htdgm"):
            for stage in (None, "fit", TrainerFn.FITTING, TrainerFn.TESTING, "test"):
                datamodule.setup(stage)
                loaders = datamodule.val_dataloader(), datamodule.test_dataloader()
                sets.append([datamodule.shot_paths, *map(paths, loaders)])
        assert all(each == sets[0] for each in sets)
        (drawn,) = [record.getMessage() for record in caplog.records if "Drew" in record.getMessage()]
        assert drawn == f"Drew 3 of 12 normal training images: {', '.join(datamodule.shot_paths)}"

    def test_draws_from_what_the_validation_split_leaves(self, mvtec: Path, caplog: pytest.LogCaptureFixture) -> None:
        datamodules = [FewShot(bottle(mvtec, val_split_mode="from_train", seed=5), k_shot=4) for _ in range(2)]
        assert shots(datamodules[0]) == shots(datamodules[1])
        validation = paths(datamodules[0].val_dataloader())
        assert len(validation) == NUM_TRAIN // 2
        assert not set(validation) & set(datamodules[0].shot_paths)
        assert "without a seed" not in caplog.text

    def test_warns_of_a_split_without_seed(self, mvtec: Path, caplog: pytest.LogCaptureFixture) -> None:
        FewShot(bottle(mvtec, val_split_mode="from_train")).setup()
        assert "the shots will differ from run to run" in caplog.text

    def test_warns_of_too_few_images(self, mvtec: Path, caplog: pytest.LogCaptureFixture) -> None:
        assert len(shots(FewShot(bottle(mvtec), k_shot=20))) == NUM_TRAIN
        assert "k_shot is 20, but there are only 12 images" in caplog.text

    def test_no_shots_before_setup(self, mvtec: Path) -> None:
        with pytest.raises(AttributeError, match="Did you call setup"):
            _ = FewShot(bottle(mvtec)).shot_paths

    def test_names_of_results(self, mvtec: Path) -> None:
        datamodule = FewShot(bottle(mvtec), k_shot=5)
        assert (datamodule.name, datamodule.category) == ("MVTecAD_5shot", "bottle")
        assert FewShot(Folder("parts", mvtec / "bottle")).name == "parts_1shot"

    def test_settings_made_later_reach_every_loader(self, mvtec: Path) -> None:
        """Anomalib's export sets batch sizes on the datamodule it is given."""
        datamodule = FewShot(bottle(mvtec, train_batch_size=2, eval_batch_size=3, num_workers=1), k_shot=5)
        datamodule.setup()
        loaders = datamodule.train_dataloader(), datamodule.val_dataloader(), datamodule.test_dataloader()
        assert [loader.batch_size for loader in loaders] == [2, 3, 3]
        datamodule.train_batch_size, datamodule.eval_batch_size = 1, 2
        loaders = datamodule.train_dataloader(), datamodule.val_dataloader(), datamodule.test_dataloader()
        assert [loader.batch_size for loader in loaders] == [1, 2, 2]
        assert [loader.num_workers for loader in loaders] == [1, 1, 1]

    def test_tests_on_what_the_wrapped_datamodule_tests_on(self, mvtec: Path) -> None:
        """Some datamodules choose among test sets when they are asked for the dataloader."""

        class TestsOnTrain(MVTecAD):
            def test_dataloader(self) -> Any:  # noqa: ANN401
                return DataLoader(self.train_data, batch_size=4, collate_fn=self.train_data.collate_fn)

        datamodule = FewShot(TestsOnTrain(mvtec, "bottle", num_workers=0))
        datamodule.setup()
        assert len(paths(datamodule.test_dataloader())) == NUM_TRAIN
        assert len(paths(datamodule.predict_dataloader())) == NUM_TRAIN

    def test_trains_and_tests_in_the_engine(self, mvtec: Path, tmp_path: Path) -> None:
        model = Padim(
            layers=["layer1"],
            pre_trained=False,
            n_features=8,
            pre_processor=Padim.configure_pre_processor((32, 32)),
            visualizer=False,
        )
        datamodule = FewShot(bottle(mvtec), k_shot=2)
        datamodule.setup()  # as one does to look at the shots; there is no trainer yet
        engine = Engine(accelerator="cpu", devices=1, logger=False, default_root_dir=tmp_path / "results")
        engine.fit(model, datamodule=datamodule)
        drawn = datamodule.shot_paths
        (result,) = engine.test(model, datamodule=datamodule)
        assert 0 <= result["image_AUROC"] <= 1
        assert datamodule.shot_paths == drawn
        # The model's resize, which the datamodule learns from the trainer, is applied before batching.
        for loader in (datamodule.train_dataloader(), datamodule.val_dataloader(), datamodule.test_dataloader()):
            assert next(iter(loader)).image.shape[-2:] == (32, 32)
        assert (tmp_path / "results" / "Padim" / "MVTecAD_2shot" / "bottle").is_dir()

    @pytest.mark.parametrize("arguments", [{"k_shot": 0}, {"k_shot": 1.5}, {"seed": -1}, {"sampling": "first"}])
    def test_bad_arguments_are_named_at_construction(self, tmp_path: Path, arguments: dict[str, Any]) -> None:
        ((name, value),) = arguments.items()
        with pytest.raises(ValueError, match=f"{name}: got {value!r}; allowed are"):
            FewShot(bottle(tmp_path / "missing"), **arguments)

    @pytest.mark.parametrize("datamodule", ["MVTecAD", None, {"category": "bottle"}, Avenue(num_workers=0)])
    def test_not_a_datamodule_of_images(self, datamodule: Any) -> None:  # noqa: ANN401
        with pytest.raises(TypeError, match="must be an AnomalibDataModule of images"):
            FewShot(datamodule)


class TestConfigurations:
    """The datamodule, used from the command line and from configurations."""

    def test_command_line(self, mvtec: Path, parse_data: Callable[..., AnomalibDataModule]) -> None:
        arguments = ["--data", "FewShot", "--data.datamodule", "MVTecAD", "--data.datamodule.root", mvtec]
        arguments += ["--data.datamodule.category", "cable", "--data.datamodule.num_workers", 0]
        datamodule = parse_data(*arguments, "--data.k_shot", 3, "--data.seed", 2, "--data.sampling", "sorted")
        assert datamodule.category == "cable"
        assert shots(datamodule) == shots(FewShot(MVTecAD(mvtec, "cable"), k_shot=3, seed=2, sampling="sorted"))

    @pytest.mark.parametrize("container", [dict, OmegaConf.create])
    def test_get_datamodule(self, mvtec: Path, container: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
        # What the plugin does in an installation; the tests also run from a checkout.
        monkeypatch.setattr(anomalib.data, "FewShot", FewShot, raising=False)
        wrapped = {"class_path": "MVTecAD", "init_args": {"root": str(mvtec), "category": "bottle", "num_workers": 0}}
        config = {"class_path": "FewShot", "init_args": {"datamodule": wrapped, "k_shot": 5, "seed": 3}}
        assert shots(get_datamodule(container(config))) == shots(FewShot(bottle(mvtec), 5, 3))
