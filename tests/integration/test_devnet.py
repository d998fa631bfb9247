# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""DevNet in anomalib: what every model is put through; that it finds defects; and that a seed gives one model."""

from pathlib import Path

import numpy as np
import onnxruntime
import openvino
import pandas as pd
import pytest
import torch
from anomalib.data import AnomalibDataModule, Folder, MVTecAD
from anomalib.data.utils import split_by_label
from anomalib.deploy import TorchInferencer
from anomalib.engine import Engine
from anomalib.models import get_model

from anomalib_htdgm import Devnet, FewLabelledAnomalies, Htdgm
from anomalib_htdgm.models.backbone import create_backbone

from .conftest import RunAnomalib, assert_equal_states, export_in_each_way
from .small import make_engine

TINY = {"backbone": "test_efficientnet", "pre_trained": False, "image_sizes": (64, 32), "batch_size": 4}
SHORT = TINY | {"epochs": 1, "steps_per_epoch": 3}


@pytest.fixture
def labelled(wall: MVTecAD) -> FewLabelledAnomalies:
    """Take two of the five defects for training."""
    return FewLabelledAnomalies(wall, n_anomalies=2)


@pytest.fixture(scope="module")
def checkpoint(mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    engine = make_engine(tmp_path_factory.mktemp("fit"))
    datamodule = FewLabelledAnomalies(MVTecAD(root=mvtec_root, category="wall", num_workers=0), n_anomalies=2)
    model = get_model("devnet", **TINY, epochs=3, steps_per_epoch=20, learning_rate=2e-3, rotation=0.0)
    engine.fit(model, datamodule=datamodule)
    return Path(engine.best_model_path)


@pytest.mark.training
def test_test_finds_unseen_defects(checkpoint: Path, labelled: FewLabelledAnomalies, engine: Engine) -> None:
    (metrics,) = engine.test(Devnet(**TINY), datamodule=labelled, ckpt_path=checkpoint)
    assert metrics["image_AUROC"] > 0.9
    assert metrics["pixel_AUROC"] > 0.6


def test_one_trained_model_has_both_maps(
    checkpoint: Path, labelled: FewLabelledAnomalies, engine: Engine, mvtec_root: Path
) -> None:
    image = mvtec_root / "wall" / "test" / "gravel" / "000.png"
    model = Devnet.load_from_checkpoint(checkpoint)
    maps, scores = {}, {}
    for explanation in ("gradient", "scores"):
        model.model.explanation = explanation
        engine.validate(model, datamodule=labelled)  # threshold and range of the pixels are the map's
        (metrics,) = engine.test(model, datamodule=labelled)
        assert metrics["pixel_AUROC"] > 0.6, explanation
        (prediction,) = engine.predict(model, data_path=image)
        maps[explanation], scores[explanation] = prediction.anomaly_map, prediction.pred_score
    assert maps["gradient"].shape == maps["scores"].shape == (1, 64, 64)
    assert not torch.allclose(maps["gradient"], maps["scores"], atol=0.01)
    assert torch.equal(scores["gradient"], scores["scores"])


@pytest.mark.parametrize("loss", ["deviation", "focal"])
def test_checkpoint_scores_bit_identically(labelled: FewLabelledAnomalies, engine: Engine, loss: str) -> None:
    arguments = {"image_sizes": (96,), "top_fraction": 0.5, "ranking": "absolute", "explanation": "scores"}
    model = Devnet(**SHORT | arguments, loss=loss)
    engine.fit(model, datamodule=labelled)
    images = torch.rand(2, 3, 200, 300, generator=torch.Generator().manual_seed(0))
    expected = model.eval()(images)
    scored = Devnet.load_from_checkpoint(engine.best_model_path).eval()(images)
    assert torch.equal(scored.pred_score, expected.pred_score)
    assert torch.equal(scored.anomaly_map, expected.anomaly_map)
    # A model of other arguments becomes the one that was saved.
    other = Devnet(**TINY | {"image_sizes": (96, 32)})
    (tested,) = engine.test(model, datamodule=labelled)
    (again,) = engine.test(other, datamodule=labelled, ckpt_path=engine.best_model_path)
    assert again == tested


@pytest.mark.thorough
def test_exports_score_as_the_checkpoint_does(
    checkpoint: Path, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Devnet.load_from_checkpoint(checkpoint).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    exported = export_in_each_way(engine, model, tmp_path, checkpoint)
    assert model.model.explanation == "gradient"
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    torch_inferencer = TorchInferencer(exported["torch"], device="cpu")
    onnx_session = onnxruntime.InferenceSession(exported["onnx"])
    openvino_model = openvino.compile_model(exported["openvino"], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = [output.name for output in onnx_session.get_outputs()]
    for height, width in ((64, 64), (256, 256), (100, 70)):
        images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(height))
        expected = model(images)
        by_torch = torch_inferencer.model(images)
        torch.testing.assert_close(by_torch.pred_score, expected.pred_score)
        torch.testing.assert_close(by_torch.anomaly_map, expected.anomaly_map)
        # Where gradients are impossible, the map is that of the scores, and 0.5 the threshold of the images.
        maps = model.model.eval()
        maps.explanation = "scores"
        with torch.no_grad():
            raw = maps(model.pre_processor(images)).anomaly_map
        maps.explanation = "gradient"
        processor = model.post_processor
        score_map = processor._normalize(  # noqa: SLF001
            raw, processor.image_min, processor.image_max, processor.image_threshold
        )
        by_onnx = dict(zip(names, onnx_session.run(None, {"input": images.numpy()}), strict=True))
        by_openvino = openvino_model(images.numpy())
        for prediction in (by_onnx, by_openvino):
            np.testing.assert_allclose(prediction["pred_score"].ravel(), expected.pred_score.numpy(), atol=1e-3, rtol=0)
            np.testing.assert_allclose(prediction["anomaly_map"], score_map.numpy(), atol=1e-3, rtol=0)


@pytest.fixture(scope="module")
def reference(mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Devnet:
    return fit(mvtec_root, tmp_path_factory.mktemp("reference"), batch_size=2)


def fit(root: Path, directory: Path, batch_size: int) -> Devnet:
    torch.manual_seed(batch_size)
    datamodule = MVTecAD(root, "wall", train_batch_size=batch_size, num_workers=0)
    engine = make_engine(directory)
    model = Devnet(**SHORT, seed=1)
    engine.fit(model, datamodule=FewLabelledAnomalies(datamodule, n_anomalies=2))
    return model


def test_batches_and_global_state_make_no_difference(mvtec_root: Path, tmp_path: Path, reference: Devnet) -> None:
    assert_equal_states(fit(mvtec_root, tmp_path, batch_size=7).model, reference.model)


def test_the_stock_command_gives_the_same_model(
    mvtec_root: Path, tmp_path: Path, run_anomalib: RunAnomalib, reference: Devnet
) -> None:
    data = ["--data", "FewLabelledAnomalies", "--data.datamodule", "MVTecAD", "--data.n_anomalies", "2"]
    data += ["--data.datamodule.root", str(mvtec_root), "--data.datamodule.category", "wall"]
    model = ["--model", "Devnet", "--model.seed", "1", "--model.image_sizes", "[64, 32]"]
    for name in ("backbone", "pre_trained", "batch_size", "epochs", "steps_per_epoch"):
        model += [f"--model.{name}", str(SHORT[name]).lower()]
    logger = ["--trainer.logger", "lightning.pytorch.loggers.CSVLogger", "--trainer.logger.save_dir", "logs"]
    trainer = [*logger, "--trainer.log_every_n_steps", "1", "--trainer.accelerator", "cpu"]
    result = run_anomalib("train", *model, *data, "--data.datamodule.num_workers", "2", *trainer)
    assert result.returncode == 0, result.stderr
    (path,) = tmp_path.glob("results/Devnet/MVTecAD_2anomalies/wall/v0/weights/lightning/model.ckpt")
    assert_equal_states(Devnet.load_from_checkpoint(path).model, reference.model)
    assert "Training on 3 normal and 2 anomalous images" in result.stdout + result.stderr
    (log,) = tmp_path.glob("logs/**/metrics.csv")
    assert len(pd.read_csv(log).dropna(subset="train_loss")) == 3


def test_learning_rate_falls_every_ten_epochs(labelled: FewLabelledAnomalies, engine: Engine) -> None:
    model = Devnet(**TINY | {"batch_size": 2}, epochs=21, steps_per_epoch=1)
    engine.fit(model, datamodule=labelled)
    assert engine.trainer.global_step == 21
    assert engine.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(2e-6)


def test_training_starts_from_the_given_weights(labelled: FewLabelledAnomalies, engine: Engine, tmp_path: Path) -> None:
    backbone = create_backbone("test_efficientnet")
    torch.save(backbone.state_dict(), tmp_path / "weights.pth")
    model = Devnet(
        **SHORT | {"pre_trained": True}, weights=tmp_path / "weights.pth", learning_rate=1e-12, weight_decay=0.0
    )
    engine.fit(model, datamodule=labelled)
    for name, tensor in backbone.named_parameters():
        torch.testing.assert_close(dict(model.model.backbone.named_parameters())[name], tensor)
    (tmp_path / "weights.pth").unlink()
    Devnet.load_from_checkpoint(engine.best_model_path)  # needs neither file nor download
    with pytest.raises(ValueError, match=r"weights: got .*weights\.pth.* cannot be read"):
        engine.fit(model, datamodule=labelled)


def test_both_kinds_of_images_are_needed(
    wall: MVTecAD, labelled: FewLabelledAnomalies, engine: Engine, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"no labelled anomalies.*FewLabelledAnomalies"):
        engine.fit(Devnet(**SHORT), datamodule=wall)
    labelled.setup()
    _, labelled.train_data = split_by_label(labelled.train_data)
    with pytest.raises(ValueError, match="datamodule: its training set has no normal images"):
        engine.fit(Devnet(**SHORT), datamodule=labelled)
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize(
    "arguments",
    [
        {"batch_size": 3},
        {"batch_size": 0},
        {"loss": "hinge"},
        {"margin": 0},
        {"num_reference": 1},
        {"epochs": 0},
        {"steps_per_epoch": 0},
        {"learning_rate": 0},
        {"weight_decay": -1},
        {"rotation": 181},
        {"seed": -1},
    ],
    ids=str,
)
def test_bad_arguments_are_named(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(arguments))}: got .*; allowed are"):
        Devnet(**TINY | arguments)


class TestKnownDefectsOfHtdgm:
    """Htdgm does not train on known defects, but they choose its threshold where there are no validation images."""

    def fit(self, wrapped: AnomalibDataModule, directory: Path, n_anomalies: int) -> Htdgm:
        datamodule = FewLabelledAnomalies(wrapped, n_anomalies) if n_anomalies else wrapped
        model = Htdgm(
            k_shot=3, precision="float32", settings={"iterations": 5, "image_size": 48, "memory_patches": 500}
        )
        engine = make_engine(directory)
        engine.fit(model, datamodule=datamodule)
        return model

    def test_weights_are_the_same_and_the_threshold_separates(
        self, mvtec_root: Path, engine: Engine, tmp_path: Path
    ) -> None:
        def folder(**arguments: object) -> Folder:
            # Three good photographs, five of defects, all of them known: nothing is left to validate on.
            splits = {"test_split_mode": "none", "val_split_mode": "same_as_test", "num_workers": 0}
            return Folder("wall", "train/good", root=mvtec_root / "wall", **splits, **arguments)

        without = self.fit(folder(), tmp_path, n_anomalies=0)
        for mask_dir in ("ground_truth/gravel", None):
            model = self.fit(folder(abnormal_dir="test/gravel", mask_dir=mask_dir), tmp_path, n_anomalies=5)
            assert_equal_states(model.model, without.model)
            for kind, directory in (("good", "train/good"), ("defects", "test/gravel")):
                batches = engine.predict(model, data_path=mvtec_root / "wall" / directory)
                labels = torch.cat([batch.pred_label for batch in batches])
                assert (labels == (kind == "defects")).all()
            same_pixels = model.post_processor.pixel_threshold == without.post_processor.pixel_threshold
            assert same_pixels == (mask_dir is None)

    def test_validation_images_decide(self, wall: MVTecAD, engine: Engine, tmp_path: Path) -> None:
        model = self.fit(wall, tmp_path, n_anomalies=2)
        threshold = model.post_processor.image_threshold.clone()
        engine.validate(model, datamodule=FewLabelledAnomalies(wall, 2))
        assert model.post_processor.image_threshold == threshold
