# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""DifferNet in anomalib: engine, checkpoints, exports, determinism, the stock command."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from anomalib.data import MVTecAD
from anomalib.deploy import OpenVINOInferencer, TorchInferencer
from anomalib.engine import Engine
from anomalib.post_processing import PostProcessor
from PIL import Image

from anomalib_htdgm import Differnet, FewShot
from anomalib_htdgm.models.backbone import create_backbone

from .conftest import RunAnomalib, assert_equal_states, export_in_each_way
from .small import make_engine

SMALL: dict[str, Any] = {
    "pre_trained": False,
    "image_sizes": [64],
    "coupling_blocks": 2,
    "hidden_width": 32,
    "epochs": 20,
    "learning_rate": 0.01,  # random features are small
    "test_rotations": 5,
    "map_rotations": 2,
    "precision": "float32",
}
CONFIG = Path(__file__).parents[2] / "configs" / "differnet" / "1shot.yaml"


def fit_and_test(root: Path, directory: Path, batch_size: int) -> tuple[Differnet, dict[str, float]]:
    torch.manual_seed(batch_size)
    sizes = {"train_batch_size": batch_size, "eval_batch_size": batch_size, "num_workers": 0}
    datamodule = MVTecAD(root=root, category="wall", **sizes)
    model, engine = Differnet(**SMALL, seed=1), make_engine(directory)
    engine.fit(model, datamodule=datamodule)
    (metrics,) = engine.test(model, datamodule=datamodule)
    return model, metrics


@pytest.fixture(scope="module")
def reference(mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Differnet, dict[str, float], Path]:
    directory = tmp_path_factory.mktemp("reference")
    model, metrics = fit_and_test(mvtec_root, directory, batch_size=2)
    (path,) = directory.rglob("*.ckpt")
    return model, metrics, path


def test_a_checkpoint_is_the_model_with_its_arguments(
    reference: tuple[Differnet, dict[str, float], Path], wall: MVTecAD, engine: Engine
) -> None:
    model, metrics, path = reference
    images = torch.rand(2, 3, 70, 90, generator=torch.Generator().manual_seed(0))
    expected, scored = model.eval()(images), Differnet.load_from_checkpoint(path).eval()(images)
    assert torch.equal(scored.pred_score, expected.pred_score)
    assert torch.equal(scored.anomaly_map, expected.anomaly_map)
    other = Differnet(**SMALL | {"hidden_width": 8, "test_rotations": 1})
    assert engine.test(other, datamodule=wall, ckpt_path=path) == [metrics]
    assert (other.hparams["seed"], other.hparams["hidden_width"]) == (1, 32)
    # Weights and a few thresholds, and no optimiser's state.
    assert path.stat().st_size < 1.2 * sum(each.nbytes for each in model.state_dict().values())


def test_without_maps_images_are_scored_alike(
    reference: tuple[Differnet, dict[str, float], Path], wall: MVTecAD, engine: Engine
) -> None:
    model = Differnet(**SMALL | {"map_rotations": 0}, seed=1)
    (metrics,) = engine.train(model, datamodule=wall)
    assert metrics["image_AUROC"] == reference[1]["image_AUROC"]
    assert "pixel_AUROC" not in metrics


@pytest.mark.thorough
def test_exports_score_as_the_checkpoint_does(
    wall: MVTecAD, engine: Engine, mvtec_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Normalised scores are clamped, and would then agree whatever they were.
    model = Differnet(**SMALL, post_processor=PostProcessor(enable_normalization=False))
    engine.fit(model, datamodule=wall)
    checkpoint = engine.best_model_path
    exported = export_in_each_way(engine, model, tmp_path, checkpoint)
    assert model.model.map_rotations == SMALL["map_rotations"]
    monkeypatch.chdir(tmp_path)  # OpenVINOInferencer writes its cache into the working directory
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    precise = {"INFERENCE_PRECISION_HINT": "f32"}
    torch_inferencer = TorchInferencer(exported["torch"], device="cpu")
    openvino_inferencer = OpenVINOInferencer(exported["openvino"], device="CPU", config=precise)
    onnx_session = onnxruntime.InferenceSession(exported["onnx"])
    assert {output.name for output in onnx_session.get_outputs()} == {"pred_score", "pred_label"}

    noise = np.random.default_rng(0).integers(0, 255, (200, 130, 3), np.uint8)
    Image.fromarray(noise).save("noise.png")
    predictions = []
    for path in (mvtec_root / "wall" / "test" / "gravel" / "000.png", tmp_path / "noise.png"):
        (expected,) = engine.predict(model, data_path=path, ckpt_path=checkpoint)
        batch = np.asarray(Image.open(path)).transpose(2, 0, 1)[None].astype(np.float32) / 255
        predicted = torch_inferencer.predict(path)
        scores = {
            "torch": predicted.pred_score,
            "onnx": onnx_session.run(["pred_score"], {"input": np.concatenate([batch, batch])})[0],
            "openvino": openvino_inferencer.predict(path).pred_score,
        }
        for kind, score in scores.items():
            np.testing.assert_allclose(score, expected.pred_score.expand(len(score)), rtol=1e-3, err_msg=kind)
        np.testing.assert_allclose(predicted.anomaly_map.ravel(), expected.anomaly_map.ravel(), rtol=1e-3, atol=1e-6)
        predictions.append(expected.pred_score.item())
    assert abs(predictions[0] / predictions[1] - 1) > 0.01, "what is alike shows nothing"


def test_batches_and_global_state_make_no_difference(
    mvtec_root: Path, tmp_path: Path, reference: tuple[Differnet, dict[str, float], Path]
) -> None:
    model, metrics = fit_and_test(mvtec_root, tmp_path, batch_size=7)
    assert_equal_states(model.model, reference[0].model)
    assert metrics == pytest.approx(reference[1], abs=1e-4)


def test_the_configuration_trains_on_a_shot_with_weights_from_a_file(
    mvtec_root: Path, tmp_path: Path, run_anomalib: RunAnomalib
) -> None:
    weights = tmp_path / "weights.pth"
    torch.save(create_backbone("torchvision/alexnet").state_dict(), weights)
    small = SMALL | {"pre_trained": True, "weights": weights}
    arguments = [f"--model.{name}={value}" for name, value in small.items()]
    data = ["--data.datamodule.root", mvtec_root, "--data.datamodule.category=wall", "--data.datamodule.num_workers=2"]
    result = run_anomalib("train", "--config", CONFIG, *arguments, *data, "--trainer.accelerator=cpu")
    assert result.returncode == 0, result.stdout + result.stderr
    output = result.stdout + result.stderr
    for shown in ("Training on 1 normal images", "train_loss", "image_AUROC", "pixel_AUPRO"):
        assert shown in output
    (path,) = tmp_path.rglob("model.ckpt")
    weights.unlink()  # whoever has the checkpoint needs no file

    model = Differnet(**SMALL | {"pre_trained": True, "weights": str(tmp_path / "weights.pth")})
    datamodule = FewShot(MVTecAD(root=mvtec_root, category="wall", num_workers=0), k_shot=1)
    with pytest.raises(ValueError, match=r"weights: got .* cannot be read"):
        make_engine(tmp_path / "again").fit(model, datamodule=datamodule)
    predictions = make_engine(tmp_path / "again").predict(
        model, data_path=mvtec_root / "wall" / "test" / "gravel" / "000.png", ckpt_path=path
    )
    assert predictions[0].anomaly_map.shape[-2:] == (64, 64)
