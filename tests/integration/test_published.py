# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""HtdgmPublished with anomalib: each scale is an epoch, and a training that was broken off goes on where it ended."""

from pathlib import Path

import onnxruntime
import pytest
import torch
from anomalib.callbacks import ModelCheckpoint
from anomalib.cli import AnomalibCLI
from anomalib.data import MVTecAD
from lightning.pytorch import Callback, Trainer

from anomalib_htdgm import HtdgmPublished
from anomalib_htdgm.configs import find_config

from .conftest import assert_equal_states
from .small import fit, make_engine

SMALL = {"k_shot": 2, "image_size": 20, "coarsest_size": 13, "width": 4, "iterations": 4, "steps": 1}
IMAGES = torch.rand(2, 3, 100, 90, generator=torch.Generator().manual_seed(0))


class BreakOff(Callback):
    """Breaks a training off before an iteration of the whole training."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def on_train_batch_start(self, trainer: Trainer, _model: object, _batch: object, index: int) -> None:
        if trainer.current_epoch * SMALL["iterations"] + index == self.iteration:
            raise RuntimeError("broken off")  # noqa: EM101, TRY003


@pytest.fixture(scope="module")
def trained(mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[HtdgmPublished, Path]:
    model, wall = HtdgmPublished(**SMALL, equalize=True), MVTecAD(mvtec_root, "wall", num_workers=0)
    checkpoint = fit(model, wall, tmp_path_factory.mktemp("whole"))
    return model.eval(), checkpoint


def test_a_training_that_was_broken_off_goes_on(
    trained: tuple[HtdgmPublished, Path], wall: MVTecAD, tmp_path: Path
) -> None:
    """From the scale that was finished last, or in the midst of one, where a checkpoint was asked for."""
    in_the_midst = ModelCheckpoint(tmp_path / "midst", save_on_exception=True)
    for iteration, callbacks, folder in ((6, [], tmp_path / "scales"), (10, [in_the_midst], tmp_path / "midst")):
        model = HtdgmPublished(**SMALL, equalize=True)
        with pytest.raises(RuntimeError, match="broken off"):
            fit(model, wall, tmp_path / "scales", callbacks=[BreakOff(iteration), *callbacks])
        *_, checkpoint = sorted(folder.rglob("*.ckpt"), key=lambda path: path.stat().st_mtime)
        with pytest.raises(RuntimeError, match="HtdgmPublished has not been trained, or not to the end"):
            HtdgmPublished.load_from_checkpoint(checkpoint)(IMAGES)
        with pytest.raises(ValueError, match=r"^seed: got 1; allowed is 0, which the training of ckpt_path began with"):
            make_engine(tmp_path).fit(HtdgmPublished(**SMALL, equalize=True, seed=1), None, None, wall, checkpoint)
        resumed = HtdgmPublished(**SMALL, equalize=True)
        make_engine(tmp_path).fit(resumed, datamodule=wall, ckpt_path=checkpoint)
        assert_equal_states(resumed, trained[0])  # and thresholds
    with pytest.raises(ValueError, match=r"^ckpt_path: its training was finished"):
        make_engine(tmp_path).fit(resumed, datamodule=wall, ckpt_path=trained[1])


@pytest.mark.thorough
def test_what_is_saved_and_exported_scores_alike(trained: tuple[HtdgmPublished, Path], tmp_path: Path) -> None:
    model, checkpoint = trained
    assert not model.post_processor.image_threshold.isnan()
    expected = model(IMAGES)
    loaded = HtdgmPublished.load_from_checkpoint(checkpoint).eval()
    assert torch.equal(loaded(IMAGES).anomaly_map, expected.anomaly_map)
    assert torch.equal(loaded.model.sample(2)[-1], model.model.sample(2)[-1])
    raw = HtdgmPublished.load_from_checkpoint(checkpoint, post_processor=False)
    path = make_engine(tmp_path).export(raw, "onnx", export_root=tmp_path)
    session = onnxruntime.InferenceSession(path)
    scores, maps = session.run(None, {session.get_inputs()[0].name: IMAGES.numpy()})
    expected = raw.eval()(IMAGES)
    torch.testing.assert_close(torch.tensor(scores), expected.pred_score, atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.tensor(maps).mean(), expected.anomaly_map.mean(), atol=1e-4, rtol=0)


def test_without_validation_it_is_saved_and_warns(
    wall: MVTecAD, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = fit(HtdgmPublished(**SMALL | {"iterations": 1}), wall, tmp_path, limit_val_batches=0)
    assert "The model has no threshold, for nothing was validated" in caplog.text
    assert HtdgmPublished.load_from_checkpoint(checkpoint).model.is_trained


def test_augmentations_are_refused(wall: MVTecAD, tmp_path: Path) -> None:
    wall.train_augmentations = torch.nn.Identity()
    with pytest.raises(ValueError, match=r"^train_augmentations: got some; only None goes with generators"):
        fit(HtdgmPublished(**SMALL), wall, tmp_path)


def test_the_stock_command_trains_by_the_published_settings(mvtec_root: Path, tmp_path: Path) -> None:
    small = [f"--model.{name}={value}" for name, value in (SMALL | {"iterations": 1}).items()]
    data = ["--data.root", str(mvtec_root), "--data.category", "wall", "--data.num_workers", "0"]
    where = ["--default_root_dir", str(tmp_path), "--trainer.accelerator", "cpu"]
    AnomalibCLI(["train", "--config", str(find_config("htdgm/paper")), *small, *data, *where])
    assert list(tmp_path.glob("HtdgmPublished/MVTecAD/wall/latest/weights/lightning/model.ckpt"))
