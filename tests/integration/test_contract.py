# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What every model of anomalib is put through, with default arguments; and that it finds planted defects."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import pytest
import torch
from anomalib.callbacks import TilerConfigurationCallback
from anomalib.data import Folder, MVTecAD
from anomalib.deploy import OpenVINOInferencer, TorchInferencer
from anomalib.engine import Engine
from anomalib.models import get_model
from anomalib.post_processing import PostProcessor
from PIL import Image

from anomalib_htdgm import FewLabelledAnomalies, FewShot, Htdgm

from .conftest import export_in_each_way
from .small import make_engine, make_small_model
from .test_devnet import SHORT as SHORT_DEVNET
from .test_differnet import SMALL as SMALL_DIFFERNET

PRECISE = {"INFERENCE_PRECISION_HINT": "f32"}
"""Left to itself OpenVINO computes in bfloat16 where the processor can."""
METRICS = {"image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_F1Score", "pixel_AUPRO"}


@pytest.fixture(scope="module")
def checkpoint(mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train by name, in the precision of exported graphs, otherwise with default arguments, and keep the checkpoint."""
    engine = make_engine(tmp_path_factory.mktemp("fit"))
    engine.fit(
        get_model("htdgm", precision="float32"), datamodule=MVTecAD(root=mvtec_root, category="wall", num_workers=0)
    )
    return Path(engine.best_model_path)


@pytest.mark.training
def test_test_finds_planted_defects(checkpoint: Path, wall: MVTecAD, engine: Engine) -> None:
    (metrics,) = engine.test(Htdgm(), datamodule=wall, ckpt_path=checkpoint)
    assert set(metrics) == METRICS
    assert metrics["image_AUROC"] > 0.9
    assert metrics["pixel_AUROC"] > 0.9
    assert metrics["pixel_AUPRO"] > 0.6


@pytest.mark.parametrize(
    ("name", "arguments", "size", "largest"),
    [
        ("htdgm", {"settings": {"iterations": 2}}, 256, 5_000_000),
        ("differnet", SMALL_DIFFERNET, 64, 20_000_000),
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


def test_checkpoint_scores_bit_identically(wall: MVTecAD, engine: Engine) -> None:
    model = make_small_model()
    engine.fit(model, datamodule=wall)
    loaded = Htdgm.load_from_checkpoint(engine.best_model_path).eval()
    images = torch.rand(2, 3, 200, 300, generator=torch.Generator().manual_seed(0))
    expected, scored = model.eval()(images), loaded(images)
    assert torch.equal(scored.pred_score, expected.pred_score)
    assert torch.equal(scored.anomaly_map, expected.anomaly_map)


def test_a_checkpoint_brings_its_own_arguments(wall: MVTecAD, engine: Engine, mvtec_root: Path) -> None:
    model = Htdgm(
        k_shot=1,
        preset="semantic",
        settings={"iterations": 1, "num_members": 2},
        pre_processor=Htdgm.configure_pre_processor((128, 160)),
    )
    engine.fit(model, datamodule=wall)
    image = mvtec_root / "wall" / "test" / "gravel" / "000.png"
    (expected,) = engine.predict(model, data_path=image)
    (predicted,) = engine.predict(Htdgm(), data_path=image, ckpt_path=engine.best_model_path)
    assert predicted.anomaly_map.shape[-2:] == (128, 160)
    assert torch.equal(predicted.pred_score, expected.pred_score)
    assert torch.equal(predicted.anomaly_map, expected.anomaly_map)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"coarsest_size": 34, "image_size": 48}, id="two scales"),
        # A graph takes seconds for each scale: half a minute for the seven that there are by default.
        pytest.param({"iterations": 5}, id="all scales", marks=pytest.mark.thorough),
    ],
)
def test_exports_score_as_the_checkpoint_does(
    arguments: dict[str, int],
    wall: MVTecAD,
    engine: Engine,
    mvtec_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine.fit(Htdgm(settings=arguments, precision="float32"), datamodule=wall)
    checkpoint = Path(engine.best_model_path)
    model = Htdgm.load_from_checkpoint(checkpoint).eval()
    photograph = Image.open(mvtec_root / "wall" / "test" / "gravel" / "000.png")
    exported = export_in_each_way(engine, model, tmp_path, checkpoint)
    monkeypatch.chdir(tmp_path)  # OpenVINOInferencer writes its cache into the working directory
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    torch_inferencer = TorchInferencer(exported["torch"], device="cpu")
    openvino_inferencer = OpenVINOInferencer(exported["openvino"], device="CPU", config=PRECISE)
    assert list(exported["onnx"].parent.iterdir()) == [exported["onnx"]]  # nothing that could stay behind
    onnx_session = onnxruntime.InferenceSession(exported["onnx"])
    openvino_model = openvino.compile_model(exported["openvino"], "CPU", PRECISE)

    for height, width in ((256, 256), (300, 200), (700, 900), (40, 60)):
        photograph.resize((width, height)).save("image.png")
        image = np.asarray(Image.open("image.png"))
        (expected,) = engine.predict(model, data_path="image.png", ckpt_path=checkpoint)
        assert 0 < expected.pred_score < 1, "scores that are cut off agree whatever they were"
        batch = image.transpose(2, 0, 1)[None].astype(np.float32) / 255
        names = [output.name for output in onnx_session.get_outputs()]
        predictions = {
            "onnx": dict(zip(names, onnx_session.run(None, {"input": batch}), strict=True)),
            "openvino": {name: openvino_model(batch)[name] for name in ("pred_score", "anomaly_map")},
            "torch inferencer": vars(torch_inferencer.predict("image.png")),
            "openvino inferencer": vars(openvino_inferencer.predict("image.png")),
        }
        for prediction in predictions.values():
            for field in ("pred_score", "anomaly_map"):
                actual = np.asarray(prediction[field]).ravel()
                np.testing.assert_allclose(actual, getattr(expected, field).numpy().ravel(), atol=1e-4, rtol=0)
    model.model.votes.precision = "bfloat16"
    (rounded,) = engine.predict(model, data_path="image.png", ckpt_path=checkpoint)
    np.testing.assert_allclose(rounded.pred_score.numpy(), expected.pred_score.numpy(), atol=0.02, rtol=0)
    two = np.concatenate([batch, batch[:, :, ::-1]])
    assert onnx_session.run(["pred_score"], {"input": two})[0].shape == (2,)


def unscaled() -> PostProcessor:
    """Leave scores as they are: what is far above a threshold gets 1, and would agree whatever it was."""
    return PostProcessor(enable_normalization=False, enable_thresholding=False)


@pytest.mark.parametrize("preset", ["semantic", "semantic_grayscale"])
def test_models_of_whole_images_export(preset: str, wall: MVTecAD, engine: Engine, tmp_path: Path) -> None:
    small = {"iterations": 1, "num_members": 1}
    model = Htdgm(preset=preset, precision="float32", settings=small, post_processor=unscaled())
    engine.fit(model, datamodule=wall)
    session = onnxruntime.InferenceSession(model.to_onnx(tmp_path))
    images = torch.rand(3, 3, 120, 90, generator=torch.Generator().manual_seed(0))
    expected = model(images)
    score, anomaly_map = session.run(["pred_score", "anomaly_map"], {"input": images.numpy()})
    np.testing.assert_allclose(score, expected.pred_score.numpy(), atol=1e-4, rtol=0)
    np.testing.assert_allclose(anomaly_map, expected.anomaly_map.numpy(), atol=1e-4, rtol=0)


TINY: dict[str, Any] = {
    "iterations": 1,
    "image_size": 25,
    "coarsest_size": 18,
    "votes_from": 24,
    "memory_patches": 50,
    "energy_cells": 50,
}


@pytest.mark.thorough
def test_tiles_are_trained_stored_and_exported(wall: MVTecAD, engine: Engine, tmp_path: Path) -> None:
    model = Htdgm(1, settings=TINY, tiles=2, precision="float32", post_processor=unscaled())
    engine.fit(model, datamodule=wall)
    loaded = Htdgm.load_from_checkpoint(engine.best_model_path).eval()
    assert loaded.input_size == loaded.model.input_size == (448, 448)
    images = torch.rand(3, 3, 500, 300, generator=torch.Generator().manual_seed(0))
    expected = model.eval()(images)
    assert expected.anomaly_map.shape == (3, 1, 448, 448)
    assert all(torch.equal(*pair) for pair in zip(loaded(images), expected, strict=True) if pair[0] is not None)

    path = loaded.to_onnx(tmp_path)
    session, compiled = onnxruntime.InferenceSession(path), openvino.compile_model(path, "CPU", PRECISE)
    for batch in (images, images[1:2]):
        outputs = compiled(batch.numpy())
        for name in ("pred_score", "anomaly_map"):
            wanted = getattr(loaded(batch), name).numpy()
            (output,) = session.run([name], {"input": batch.numpy()})
            np.testing.assert_allclose(output, wanted, atol=1e-4, rtol=0)
            np.testing.assert_allclose(outputs[name], wanted, atol=1e-4, rtol=0)
    torch_path = loaded.to_torch(tmp_path)  # after the other export, which leaves nothing behind
    pickled = torch.load(torch_path, weights_only=False)["model"]
    assert torch.equal(pickled(images).anomaly_map, expected.anomaly_map)


def test_anomalibs_tiler_callback_cuts_tiles(wall: MVTecAD, engine: Engine, mvtec_root: Path, tmp_path: Path) -> None:
    def tiled_engine() -> Engine:
        callback = TilerConfigurationCallback(enable=True, tile_size=128, stride=64, remove_border_count=16)
        return Engine(
            callbacks=[callback], logger=False, default_root_dir=tmp_path, accelerator="cpu", enable_progress_bar=False
        )

    model, trainer = Htdgm(1, settings=TINY), tiled_engine()
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
def test_three_good_photographs_are_enough(mvtec_root: Path, engine: Engine) -> None:
    folder = Folder(
        name="three",
        normal_dir=mvtec_root / "wall" / "test" / "good",
        test_split_mode="none",
        val_split_mode="same_as_test",
        num_workers=0,
    )
    model = Htdgm(settings={"iterations": 10})
    engine.fit(model, datamodule=FewShot(folder, k_shot=3))
    assert model.model.num_shots == 3
    shots = engine.predict(model, data_path=mvtec_root / "wall" / "test" / "good", ckpt_path=engine.best_model_path)
    defects = engine.predict(model, data_path=mvtec_root / "wall" / "test" / "gravel", ckpt_path=engine.best_model_path)
    scores = [torch.cat([batch.pred_score for batch in batches]) for batches in (shots, defects)]
    # The training images are below the threshold, 0.5, and so are most that the model has not seen.
    assert (scores[0] < 0.5).sum() >= 3
    assert scores[0].median() < 0.5
    assert scores[1].min() > max(0.5, scores[0].max())


def test_patchcore_trains_on_the_same_images(wall: MVTecAD, engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    datamodule = FewShot(wall, k_shot=2, seed=3)
    datamodule.setup()
    with caplog.at_level("INFO", logger="anomalib_htdgm"):
        engine.fit(Htdgm(k_shot=2, seed=3, settings={"iterations": 1}), datamodule=wall)
    (named,) = [record.getMessage() for record in caplog.records if "Training on" in record.getMessage()]
    assert all(path in named for path in datamodule.shot_paths)
    assert named.count(".png") == 2


def test_predict_before_fit_is_refused(mvtec_root: Path, engine: Engine) -> None:
    with pytest.raises(RuntimeError, match="has not been trained"):
        engine.predict(Htdgm(), data_path=mvtec_root / "wall" / "test" / "good")
