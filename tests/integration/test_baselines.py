# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Devnet and Differnet are exported: test_models.py puts them through all else."""

from pathlib import Path

import numpy as np
import onnxruntime
import openvino
import pytest
import torch
from anomalib.data import MVTecAD
from anomalib.deploy import TorchInferencer
from anomalib.engine import Engine
from anomalib.models import AnomalibModule
from anomalib.post_processing import PostProcessor

from anomalib_htdgm import Devnet, Differnet, FewLabelledAnomalies

from .conftest import export_in_each_way
from .small import SHORT_DEVNET, SHORT_DIFFERNET, fit


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("kind", "arguments", "setting"),
    [(Devnet, SHORT_DEVNET, "explanation"), (Differnet, SHORT_DIFFERNET, "map_rotations")],
    ids=["Devnet", "Differnet"],
)
def test_exports_score_as_the_checkpoint_does(
    kind: type[AnomalibModule],
    arguments: dict[str, object],
    setting: str,
    wall: MVTecAD,
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    # Normalised scores of Differnet are clamped, and would then agree whatever they were.
    model = kind(**arguments, post_processor=PostProcessor(enable_normalization=kind is Devnet))
    checkpoint = fit(model, FewLabelledAnomalies(wall, n_anomalies=2), tmp_path)
    before = {name: value.clone() for name, value in model.eval().state_dict().items()}
    usual = getattr(model.model, setting)
    exported = export_in_each_way(engine, model, tmp_path, checkpoint)
    assert getattr(model.model, setting) == usual
    assert all(torch.equal(value, before[name]) or value.isnan() for name, value in model.state_dict().items())
    by_torch = TorchInferencer(exported["torch"], device="cpu").model
    session = onnxruntime.InferenceSession(exported["onnx"])
    names = [output.name for output in session.get_outputs()]
    by_openvino = openvino.compile_model(exported["openvino"], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for height, width in ((64, 64), (100, 70)):
        images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(height))
        expected, pickled = model(images), by_torch(images)
        torch.testing.assert_close(pickled.pred_score, expected.pred_score)
        torch.testing.assert_close(pickled.anomaly_map, expected.anomaly_map)
        by_onnx = dict(zip(names, session.run(None, {"input": images.numpy()}), strict=True))
        for prediction in (by_onnx, by_openvino(images.numpy())):
            np.testing.assert_allclose(prediction["pred_score"].ravel(), expected.pred_score.numpy(), rtol=1e-3)
            if kind is Devnet:
                np.testing.assert_allclose(prediction["anomaly_map"], map_of_scores(model, images), atol=1e-3, rtol=0)
    assert kind is Devnet or set(names) == {"pred_score", "pred_label"}


def map_of_scores(model: Devnet, images: torch.Tensor) -> np.ndarray:
    """Compute what Devnet's map is where gradients are impossible; 0.5 is the threshold of the images."""
    model.model.explanation = "scores"
    with torch.no_grad():
        raw = model.model(model.pre_processor(images)).anomaly_map
    model.model.explanation = "gradient"
    least, greatest, threshold = (
        getattr(model.post_processor, name) for name in ("image_min", "image_max", "image_threshold")
    )
    return ((raw - threshold) / (greatest - least) + 0.5).clamp(0, 1).numpy()
