# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What every model of anomalib is put through, with default arguments; and that it finds planted defects."""

from pathlib import Path
from typing import Any

import pytest
import torch
from anomalib.callbacks import TilerConfigurationCallback
from anomalib.data import MVTecAD
from anomalib.engine import Engine
from anomalib.models import get_model

from anomalib_htdgm import FewLabelledAnomalies, FewShot, Htdgm

from .small import SHORT_DEVNET, SHORT_DIFFERNET, SMALL, fit, make_engine, make_small_model
from .walls import open_folder, read

METRICS = {"image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_F1Score", "pixel_AUPRO"}


@pytest.fixture(scope="module")
def checkpoint(mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train by name, in the precision of exported graphs, otherwise with default arguments, and keep the checkpoint."""
    wall = MVTecAD(root=mvtec_root, category="wall", num_workers=0)
    return fit(get_model("htdgm", precision="float32"), wall, tmp_path_factory.mktemp("fit"))


@pytest.mark.training
def test_test_finds_planted_defects(checkpoint: Path, wall: MVTecAD, engine: Engine) -> None:
    (metrics,) = engine.test(Htdgm(), datamodule=wall, ckpt_path=checkpoint)
    assert set(metrics) == METRICS
    assert metrics["image_AUROC"] > 0.9
    assert metrics["pixel_AUROC"] > 0.9
    assert metrics["pixel_AUPRO"] > 0.6
    assert checkpoint.stat().st_size < 5_000_000  # neither training images nor what only a training needs


@pytest.mark.parametrize(
    ("name", "arguments", "size", "largest"),
    [
        ("htdgm", {"settings": SMALL}, 256, 500_000),
        ("differnet", SHORT_DIFFERNET, 64, 20_000_000),
        ("devnet", SHORT_DEVNET, 64, 1_000_000),
    ],
)
def test_train_validate_predict(
    name: str, arguments: dict[str, Any], size: int, largest: int, wall: MVTecAD, engine: Engine, tmp_path: Path
) -> None:
    datamodule = FewLabelledAnomalies(wall, n_anomalies=2) if name == "devnet" else wall
    model = get_model(name, **arguments)
    (trained,) = engine.train(model, datamodule=datamodule)
    assert set(trained) == METRICS
    # Neither training images nor what only a training needs.
    assert engine.export(model, "torch", export_root=tmp_path).stat().st_size < largest
    assert Path(engine.best_model_path).stat().st_size < largest
    folder = f"{type(model).__name__}/{datamodule.name}/wall"
    assert list(tmp_path.glob(f"{folder}/**/images/**/gravel/*.png")), "no heat maps were drawn"
    checkpoint, other = engine.best_model_path, get_model(name, **arguments)
    engine.validate(other, datamodule=datamodule, ckpt_path=checkpoint)
    predictions = engine.predict(other, datamodule=datamodule, ckpt_path=checkpoint)
    assert sum(len(batch.pred_score) for batch in predictions) == (8 if name == "devnet" else 10)
    for batch in predictions:
        assert batch.anomaly_map.shape[-2:] == batch.gt_mask.shape[-2:] == (size, size)
        assert ((batch.pred_score >= 0) & (batch.pred_score <= 1)).all()


def test_a_checkpoint_brings_its_own_arguments_and_scores_bit_identically(wall: MVTecAD, engine: Engine) -> None:
    model = Htdgm(
        k_shot=1,
        preset="semantic",
        settings={"iterations": 1, "num_members": 2},
        pre_processor=Htdgm.configure_pre_processor((128, 160)),
    )
    engine.fit(model, datamodule=wall)
    (expected, *_) = engine.predict(model, datamodule=wall)
    checkpoint = engine.best_model_path
    larger = Htdgm(region=(0, 0, 0.5, 0.5))  # of images of 512x512 pixels
    for other, path in ((larger, checkpoint), (Htdgm.load_from_checkpoint(checkpoint), None)):
        (predicted, *_) = engine.predict(other, datamodule=wall, ckpt_path=path)
        assert predicted.anomaly_map.shape[-2:] == (128, 160)
        assert torch.equal(predicted.pred_score, expected.pred_score)
        assert torch.equal(predicted.anomaly_map, expected.anomaly_map)


def test_anomalibs_tiler_callback_cuts_tiles(wall: MVTecAD, engine: Engine, mvtec_root: Path, tmp_path: Path) -> None:
    def tiled_engine() -> Engine:
        callback = TilerConfigurationCallback(enable=True, tile_size=128, stride=64, remove_border_count=16)
        return make_engine(tmp_path, callbacks=[callback])

    model, trainer = make_small_model(k_shot=1), tiled_engine()
    trainer.fit(model, datamodule=wall)
    image = mvtec_root / "wall" / "test" / "gravel" / "000.png"
    (predicted,) = trainer.predict(model, data_path=image)
    (again,) = tiled_engine().predict(Htdgm(), data_path=image, ckpt_path=trainer.best_model_path)
    (whole,) = engine.predict(Htdgm(), data_path=image, ckpt_path=trainer.best_model_path)
    assert predicted.anomaly_map.shape[-2:] == (256, 256)
    assert predicted.anomaly_map[..., :16, :].eq(0).all()  # the border that is to be removed
    assert torch.equal(again.anomaly_map, predicted.anomaly_map)
    assert torch.equal(again.pred_score, predicted.pred_score)
    assert not torch.equal(whole.pred_score, predicted.pred_score)


@pytest.mark.training
def test_three_good_photographs_are_enough(mvtec_root: Path, tmp_path: Path) -> None:
    model = Htdgm(settings={"iterations": 10})
    fit(model, open_folder(mvtec_root / "wall" / "test", 3), tmp_path)
    assert model.model.num_shots == 3
    scores = [model.eval()(read(mvtec_root / "wall" / "test" / kind)).pred_score for kind in ("good", "gravel")]
    # The training images are below the threshold, 0.5, and so are most that the model has not seen.
    assert (scores[0] < 0.5).sum() >= 3
    assert scores[0].median() < 0.5
    assert scores[1].min() > max(0.5, scores[0].max())


def test_a_few_shot_datamodule_draws_the_same_images(
    wall: MVTecAD, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    datamodule = FewShot(wall, k_shot=2, seed=3)
    datamodule.setup()
    with caplog.at_level("INFO", logger="anomalib_htdgm"):
        engine.fit(make_small_model(seed=3), datamodule=wall)
    (named,) = [record.getMessage() for record in caplog.records if "Training on" in record.getMessage()]
    assert all(path in named for path in datamodule.shot_paths)
    assert named.count(".png") == 2
