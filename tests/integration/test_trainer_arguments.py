# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Whatever arguments a trainer has, the model is the same, or one sentence says why there is none."""

from pathlib import Path
from typing import Any

import pytest
import torch
from anomalib.data import Folder, MVTecAD
from anomalib.data.utils import ValSplitMode
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging

from anomalib_htdgm import Htdgm

from .conftest import assert_equal_states
from .small import fit, make_small_model


@pytest.fixture(scope="module")
def expected(mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Htdgm:
    """Train without any arguments."""
    model = make_small_model()
    fit(model, MVTecAD(mvtec_root, "wall", num_workers=0), tmp_path_factory.mktemp("expected"))
    return model


@pytest.mark.parametrize(
    "arguments",
    [
        {"precision": "bf16-true"},
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
def test_the_model_is_the_same_and_has_thresholds(
    arguments: dict[str, Any], expected: Htdgm, wall: MVTecAD, tmp_path: Path
) -> None:
    model = make_small_model()
    checkpoint = fit(model, wall, tmp_path, **arguments)
    assert_equal_states(model.model, expected.model)
    names = ("image_threshold", "pixel_threshold", "image_min", "image_max", "pixel_min", "pixel_max")
    assert all(getattr(model.post_processor, name).isfinite() for name in names)
    if not {"fast_dev_run", "barebones"} & arguments.keys():  # which save nothing
        assert_equal_states(Htdgm.load_from_checkpoint(checkpoint), model)


def test_several_devices_and_averages_of_weights_are_refused(good: Folder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"strategy: got DDPStrategy; allowed are 'auto'"):
        fit(make_small_model(), good, tmp_path, strategy="ddp")
    torch.distributed.destroy_process_group()  # else anomalib gathers all pixels of later validations one by one
    with pytest.raises(ValueError, match=r"callbacks: got EMAWeightAveraging; allowed are those that leave the weight"):
        fit(make_small_model(), good, tmp_path, callbacks=[EMAWeightAveraging()])


@pytest.mark.thorough
def test_lightnings_own_trainer_does_as_well(expected: Htdgm, wall: MVTecAD, tmp_path: Path) -> None:
    quiet = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu", "default_root_dir": tmp_path}
    model = make_small_model()
    Trainer(max_epochs=1, **quiet).fit(model, datamodule=wall)  # with a sanity check by default
    assert_equal_states(model, expected)
    refused = {"max_epochs": (2, "1"), "val_check_interval": (2, "1.0"), "precision": ("bf16-true", "'32-true'")}
    for name, (value, allowed) in refused.items():
        with pytest.raises(ValueError, match=rf"^{name}: got {value!r}; allowed is {allowed}"):
            Trainer(**{"max_epochs": 1, name: value}, **quiet).fit(make_small_model(), datamodule=wall)


def test_no_validation_images_to_be_split_off(good: Folder, tmp_path: Path) -> None:
    good.val_split_mode = ValSplitMode.NONE
    with pytest.raises(ValueError, match=r"^val_split_mode: got 'none', .*'same_as_test'"):
        fit(make_small_model(), good, tmp_path)


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
    again = make_small_model()
    fit(again, wall, tmp_path)
    for data in (without_masks, good):
        fresh = make_small_model()
        for model in (again, fresh):
            fit(model, data, tmp_path)
        assert_equal_states(again, fresh)
