# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the datamodule that trains on k shots."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anomalib.data
import pytest
from anomalib.data import AnomalibDataModule, Avenue, Folder, MVTecAD, get_datamodule
from anomalib.data.utils import split_by_label
from anomalib.engine import Engine
from anomalib.models import Padim
from lightning.pytorch.trainer.states import TrainerFn
from omegaconf import OmegaConf
from torch.utils.data import DataLoader

from anomalib_htdgm.data.few_shot import FewShot, draw_shots

from .conftest import NUM_BROKEN, NUM_HOLE, NUM_TRAIN, bottle, paths


def shots(datamodule: AnomalibDataModule) -> list[str]:
    assert isinstance(datamodule, FewShot)
    datamodule.setup()
    return datamodule.shot_paths


class TestFewShot:
    """The datamodule, used from Python."""

    def test_reduces_only_the_training_set(self, mvtec: Path) -> None:
        files = sorted(str(path) for path in (mvtec / "bottle/train/good").iterdir())
        wrapped = bottle(mvtec)
        wrapped.setup()
        datamodule = FewShot(bottle(mvtec), k_shot=4, seed=2)
        assert shots(datamodule) == [files[index] for index in draw_shots(NUM_TRAIN, 4, 2)]
        assert sorted(paths(datamodule.train_dataloader())) == datamodule.shot_paths
        for loader in ("val_dataloader", "test_dataloader", "predict_dataloader"):
            assert paths(getattr(datamodule, loader)()) == paths(getattr(wrapped, loader)())
        assert (datamodule.task, datamodule.category) == (wrapped.task, "bottle")
        assert datamodule.name == "MVTecAD_4shot"
        assert FewShot(Folder("parts", mvtec / "bottle")).name == "parts_1shot"

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

    def test_warns_of_a_split_without_seed_and_of_too_few_images(
        self, mvtec: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        FewShot(bottle(mvtec, val_split_mode="from_train")).setup()
        assert "the shots will differ from run to run" in caplog.text
        assert len(shots(FewShot(bottle(mvtec), k_shot=20))) == NUM_TRAIN
        assert "k_shot is 20, but there are only 12 images" in caplog.text

    def test_settings_made_later_reach_every_loader(self, mvtec: Path) -> None:
        """Anomalib's export sets batch sizes on the datamodule it is given."""
        datamodule = FewShot(bottle(mvtec, train_batch_size=2, eval_batch_size=3, num_workers=1), k_shot=5)
        datamodule.setup()
        for sizes in ([2, 3, 3], [1, 2, 2]):
            datamodule.train_batch_size, datamodule.eval_batch_size, _ = sizes
            loaders = datamodule.train_dataloader(), datamodule.val_dataloader(), datamodule.test_dataloader()
            assert [loader.batch_size for loader in loaders] == sizes
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

    @pytest.mark.parametrize("arguments", [{"k_shot": 0}, {"k_shot": 1.5}, {"seed": -1}])
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
        datamodule = parse_data(*arguments, "--data.k_shot", 3, "--data.seed", 2)
        assert datamodule.category == "cable"
        assert shots(datamodule) == shots(FewShot(MVTecAD(mvtec, "cable"), k_shot=3, seed=2))

    @pytest.mark.parametrize("container", [dict, OmegaConf.create])
    def test_get_datamodule(self, mvtec: Path, container: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
        # What the plugin does in an installation; the tests also run from a checkout.
        monkeypatch.setattr(anomalib.data, "FewShot", FewShot, raising=False)
        wrapped = {"class_path": "MVTecAD", "init_args": {"root": str(mvtec), "category": "bottle", "num_workers": 0}}
        config = {"class_path": "FewShot", "init_args": {"datamodule": wrapped, "k_shot": 5, "seed": 3}}
        assert shots(get_datamodule(container(config))) == shots(FewShot(bottle(mvtec), 5, 3))
