# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Exported models score as the model that they were exported from, by themselves and in anomalib's inferencers."""

from pathlib import Path

import numpy as np
import onnxruntime
import openvino
import pytest
import torch
from anomalib.data import MVTecAD
from anomalib.deploy import OpenVINOInferencer, TorchInferencer
from anomalib.engine import Engine
from anomalib.post_processing import PostProcessor
from PIL import Image

from anomalib_htdgm import Htdgm

from .conftest import export_in_each_way

PRECISE = {"INFERENCE_PRECISION_HINT": "f32"}
"""Left to itself OpenVINO computes in bfloat16 where the processor can."""
ONE_SCALE = {"iterations": 1, "image_size": 25, "coarsest_size": 25, "votes_from": 25, "num_members": 1}


def test_exports_score_as_the_checkpoint_does(
    wall: MVTecAD, engine: Engine, mvtec_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two scales: a graph takes seconds for each."""
    settings = {"coarsest_size": 34, "image_size": 48, "iterations": 5}
    engine.fit(Htdgm(settings=settings, precision="float32"), datamodule=wall)
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


@pytest.mark.thorough
def test_models_of_whole_images_export(wall: MVTecAD, engine: Engine, tmp_path: Path) -> None:
    """Of one scale and nine transformations; test_half_precision.py exports the sixteen of images with colour."""
    settings = {"iterations": 1, "num_members": 1, "image_size": 14, "coarsest_size": 14}
    model = Htdgm(preset="semantic_grayscale", precision="float32", settings=settings, post_processor=unscaled())
    engine.fit(model, datamodule=wall)
    session = onnxruntime.InferenceSession(model.to_onnx(tmp_path))
    images = torch.rand(3, 3, 120, 90, generator=torch.Generator().manual_seed(0))
    expected = model(images)
    score, anomaly_map = session.run(["pred_score", "anomaly_map"], {"input": images.numpy()})
    np.testing.assert_allclose(score, expected.pred_score.numpy(), atol=1e-4, rtol=0)
    np.testing.assert_allclose(anomaly_map, expected.anomaly_map.numpy(), atol=1e-4, rtol=0)


@pytest.mark.thorough
def test_tiles_are_trained_stored_and_exported(wall: MVTecAD, engine: Engine, tmp_path: Path) -> None:
    model = Htdgm(
        1,
        settings=ONE_SCALE | {"memory_patches": 50, "energy_cells": 50},
        tiles=2,
        precision="float32",
        post_processor=unscaled(),
    )
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
