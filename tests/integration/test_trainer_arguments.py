# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Whatever arguments a trainer has, the model is the same, or one sentence says why there is none."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from anomalib.data import AnomalibDataModule, Folder, MVTecAD
from anomalib.data.utils import ValSplitMode
from anomalib.engine import Engine
from anomalib.models.components import AnomalibModule
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging

from anomalib_htdgm import Devnet, Differnet, FewLabelledAnomalies, Htdgm

from .conftest import assert_equal_states
from .small import make_engine, make_small_model
from .test_devnet import SHORT as SHORT_DEVNET
from .test_differnet import SMALL as SMALL_DIFFERNET

SHORT_DIFFERNET = SMALL_DIFFERNET | {"epochs": 2}


def fit(root: Path, data: AnomalibDataModule, model: AnomalibModule, **arguments: Any) -> AnomalibModule:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    engine = Engine(default_root_dir=root, **quiet, **arguments)
    engine.fit(model, datamodule=data)
    return model


def test_the_trainers_precision_makes_no_difference(good: Folder, tmp_path: Path) -> None:
    expected = fit(tmp_path, good, make_small_model())
    for precision in ("16-mixed", "bf16-mixed", "bf16-true", "64-true"):
        model = fit(tmp_path, good, make_small_model(), precision=precision)
        assert_equal_states(model, expected)


@pytest.mark.thorough
def test_the_trainers_precision_makes_no_difference_to_others(wall: MVTecAD, tmp_path: Path) -> None:
    for make in (lambda: Differnet(**SHORT_DIFFERNET), lambda: Devnet(**SHORT_DEVNET)):
        data = FewLabelledAnomalies(wall, n_anomalies=2)
        assert_equal_states(*(fit(tmp_path, data, make(), precision=each) for each in ("bf16-true", "32-true")))


@pytest.mark.parametrize(
    "limit",
    [
        {"max_steps": 1},
        {"limit_train_batches": 3},
        {"limit_val_batches": 1},
        {"limit_val_batches": 0},
        {"check_val_every_n_epoch": 5},
        {"val_check_interval": 2},
        {"fast_dev_run": True},
        {"overfit_batches": 1},
        {"barebones": True},
    ],
    ids=str,
)
def test_a_training_that_is_cut_has_thresholds(limit: dict[str, Any], wall: MVTecAD, tmp_path: Path) -> None:
    expected, model = fit(tmp_path, wall, make_small_model()), fit(tmp_path, wall, make_small_model(), **limit)
    assert_equal_states(model.model, expected.model)
    names = ("image_threshold", "pixel_threshold", "image_min", "image_max", "pixel_min", "pixel_max")
    assert all(getattr(model.post_processor, name).isfinite() for name in names)
    if not {"fast_dev_run", "barebones"} & limit.keys():  # which save nothing
        (last,) = sorted(tmp_path.glob("Htdgm/*/*/v1/**/model.ckpt"))
        assert_equal_states(Htdgm.load_from_checkpoint(last), model)


def test_a_model_that_nothing_was_validated_for_says_so(
    wall: MVTecAD, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fit(tmp_path, wall, Differnet(**SHORT_DIFFERNET), max_steps=1)
    assert "The model has no threshold" in caplog.text


@pytest.mark.thorough
def test_lightnings_own_trainer_does_as_well(wall: MVTecAD, tmp_path: Path) -> None:
    quiet = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu", "default_root_dir": tmp_path}
    model = make_small_model()
    Trainer(max_epochs=1, **quiet).fit(model, datamodule=wall)  # with a sanity check by default
    assert_equal_states(model, fit(tmp_path, wall, make_small_model()))
    refused = {"max_epochs": (2, "1"), "val_check_interval": (2, "1.0"), "precision": ("bf16-true", "'32-true'")}
    for name, (value, allowed) in refused.items():
        with pytest.raises(ValueError, match=rf"^{name}: got {value!r}; allowed is {allowed}"):
            Trainer(**{"max_epochs": 1, name: value}, **quiet).fit(make_small_model(), datamodule=wall)


def test_no_validation_images_to_be_split_off(good: Folder, tmp_path: Path) -> None:
    good.val_split_mode = ValSplitMode.NONE
    with pytest.raises(ValueError, match=r"^val_split_mode: got 'none', .*'same_as_test'"):
        fit(tmp_path, good, make_small_model())


def test_averages_of_weights_are_refused(good: Folder, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"callbacks: got EMAWeightAveraging; allowed are those that leave the weights"
    ):
        fit(tmp_path, good, make_small_model(), callbacks=[EMAWeightAveraging()])


@pytest.mark.parametrize(
    "make",
    [make_small_model, lambda: Differnet(**SHORT_DIFFERNET), lambda: Devnet(**SHORT_DEVNET)],
    ids=["Htdgm", "Differnet", "Devnet"],
)
def test_no_training_is_resumed(make: Callable[[], AnomalibModule], wall: MVTecAD, tmp_path: Path) -> None:
    data, engine = FewLabelledAnomalies(wall, n_anomalies=2), make_engine(tmp_path)
    engine.fit(make(), datamodule=data)
    with pytest.raises(ValueError, match=r"ckpt_path: \w+ does not resume trainings; fit without it"):
        make_engine(tmp_path).fit(make(), datamodule=data, ckpt_path=engine.best_model_path)


def test_a_model_that_is_fitted_again_is_as_a_fresh_one(good: Folder, wall: MVTecAD, tmp_path: Path) -> None:
    without_masks = Folder(
        name="wall",
        root=Path(wall.root) / "wall",
        normal_dir="train/good",
        normal_test_dir="test/good",
        abnormal_dir="test/gravel",
        val_split_mode="same_as_test",
        num_workers=0,
    )
    again = fit(tmp_path, wall, make_small_model())
    for data in (without_masks, good):
        assert_equal_states(fit(tmp_path, data, again), fit(tmp_path, data, make_small_model()))
