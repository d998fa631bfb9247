# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Devnet and Differnet in anomalib: engine, checkpoints, exports, determinism, the stock command."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import pytest
import torch
from anomalib.data import AnomalibDataModule, MVTecAD
from anomalib.deploy import TorchInferencer
from anomalib.engine import Engine
from anomalib.models import AnomalibModule
from anomalib.post_processing import PostProcessor

from anomalib_htdgm import Devnet, Differnet, FewLabelledAnomalies
from anomalib_htdgm.models.backbone import create_backbone

from .conftest import RunAnomalib, assert_equal_states, export_in_each_way
from .small import make_engine
from .test_devnet import SHORT
from .test_differnet import SMALL as SMALL_DIFFERNET

SMALL: dict[type[AnomalibModule], dict[str, Any]] = {Devnet: SHORT, Differnet: SMALL_DIFFERNET}
OTHER = {Devnet: {"image_sizes": [64, 48]}, Differnet: {"hidden_width": 8, "test_rotations": 1}}
IMAGES = torch.rand(2, 3, 70, 90, generator=torch.Generator().manual_seed(0))


def load_wall(root: Path, batch_size: int = 2) -> FewLabelledAnomalies:
    """Take two of the five defects for training."""
    sizes = {"train_batch_size": batch_size, "eval_batch_size": batch_size, "num_workers": 0}
    return FewLabelledAnomalies(MVTecAD(root, "wall", **sizes), n_anomalies=2)


@dataclass
class Trained:
    """A model that was trained, what its checkpoint is, and what it reaches."""

    model: AnomalibModule
    checkpoint: Path
    metrics: dict[str, float]


def train(kind: type[AnomalibModule], root: Path, directory: Path, batch_size: int = 2, **arguments: Any) -> Trained:
    torch.manual_seed(batch_size)
    datamodule, engine = load_wall(root, batch_size), make_engine(directory)
    model = kind(**SMALL[kind] | {"seed": 1} | arguments)
    engine.fit(model, datamodule=datamodule)
    (metrics,) = engine.test(model, datamodule=datamodule)
    return Trained(model.eval(), Path(engine.best_model_path), metrics)


@pytest.fixture(scope="module", params=SMALL, ids=lambda kind: kind.__name__)
def reference(request: pytest.FixtureRequest, mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(request.param, mvtec_root, tmp_path_factory.mktemp("reference"))


@pytest.fixture
def labelled(mvtec_root: Path) -> FewLabelledAnomalies:
    return load_wall(mvtec_root)


def test_a_checkpoint_is_the_model_with_its_arguments(
    reference: Trained, labelled: AnomalibDataModule, engine: Engine
) -> None:
    kind = type(reference.model)
    expected, scored = reference.model(IMAGES), kind.load_from_checkpoint(reference.checkpoint).eval()(IMAGES)
    assert torch.equal(scored.pred_score, expected.pred_score)
    assert torch.equal(scored.anomaly_map, expected.anomaly_map)
    other = kind(**SMALL[kind] | OTHER[kind])
    assert engine.test(other, datamodule=labelled, ckpt_path=reference.checkpoint) == [reference.metrics]
    assert dict(other.hparams) == dict(reference.model.hparams)
    # Weights and a few thresholds, and no optimiser's state.
    own = sum(each.nbytes for each in reference.model.state_dict().values())
    assert reference.checkpoint.stat().st_size < 1.2 * own + 100_000


def test_batches_and_global_state_make_no_difference(reference: Trained, mvtec_root: Path, tmp_path: Path) -> None:
    again = train(type(reference.model), mvtec_root, tmp_path, batch_size=7)
    assert_equal_states(again.model.model, reference.model.model)
    assert again.metrics == pytest.approx(reference.metrics, abs=1e-4)


def test_the_stock_command_gives_the_same_model(
    reference: Trained, mvtec_root: Path, tmp_path: Path, run_anomalib: RunAnomalib
) -> None:
    kind = type(reference.model)
    arguments = [f"--model.{name}={value}" for name, value in (SMALL[kind] | {"seed": 1}).items()]
    data = ["--data", "FewLabelledAnomalies", "--data.datamodule", "MVTecAD", "--data.n_anomalies", "2"]
    data += ["--data.datamodule.root", mvtec_root, "--data.datamodule.category=wall"]
    data += ["--data.datamodule.num_workers=2"]
    result = run_anomalib("train", "--model", kind.__name__, *arguments, *data, "--trainer.accelerator=cpu")
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    for shown in ("Training on 3 normal", "train_loss", "image_AUROC", "pixel_AUPRO"):
        assert shown in output
    (path,) = tmp_path.glob(f"results/{kind.__name__}/MVTecAD_2anomalies/wall/v0/weights/lightning/model.ckpt")
    assert_equal_states(kind.load_from_checkpoint(path).model, reference.model.model)


def test_training_starts_from_weights_of_a_file_that_a_checkpoint_does_not_need(
    reference: Trained, mvtec_root: Path, tmp_path: Path
) -> None:
    kind, weights = type(reference.model), tmp_path / "weights.pth"
    backbone = create_backbone(reference.model.hparams["backbone"])
    torch.save(backbone.state_dict(), weights)
    given = {"pre_trained": True, "weights": weights, "learning_rate": 1e-12}
    trained = train(kind, mvtec_root, tmp_path, **given)
    found = dict(trained.model.model.backbone.named_parameters())
    for name, tensor in backbone.named_parameters():
        torch.testing.assert_close(found[name], tensor)
    weights.unlink()
    kind.load_from_checkpoint(trained.checkpoint)
    with pytest.raises(FileNotFoundError, match=r"weights\.pth"):
        train(kind, mvtec_root, tmp_path, **given)


@pytest.mark.thorough
def test_exports_score_as_the_checkpoint_does(
    reference: Trained, mvtec_root: Path, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    kind = type(reference.model)
    # Normalised scores of Differnet are clamped, and would then agree whatever they were.
    post_processor = PostProcessor(enable_normalization=kind is Devnet)
    trained = train(kind, mvtec_root, tmp_path, post_processor=post_processor)
    model, before = trained.model, {name: value.clone() for name, value in trained.model.state_dict().items()}
    settings = model.model.explanation if kind is Devnet else model.model.map_rotations
    exported = export_in_each_way(engine, model, tmp_path, trained.checkpoint)
    assert settings == (model.model.explanation if kind is Devnet else model.model.map_rotations)
    assert all(torch.equal(value, before[name]) or value.isnan() for name, value in model.state_dict().items())
    by_torch = TorchInferencer(exported["torch"], device="cpu").model
    session = onnxruntime.InferenceSession(exported["onnx"])
    names = [output.name for output in session.get_outputs()]
    by_openvino = openvino.compile_model(exported["openvino"], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for height, width in ((64, 64), (256, 256), (100, 70)):
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
