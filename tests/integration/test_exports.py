# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Exported models score as the model that they were exported from, by themselves and in anomalib's inferencers.

Tracing a graph takes most of the time, and more with each scale, member and memory: each is traced once.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
import openvino
import pytest
import torch
from anomalib.data import MVTecAD
from anomalib.data.utils import read_image
from anomalib.deploy import OpenVINOInferencer, TorchInferencer
from anomalib.engine import Engine
from PIL import Image
from scipy.stats import spearmanr

from anomalib_htdgm import FewShot, Htdgm, QuickstartTextures

from .conftest import export_in_each_way
from .small import fit, make_engine, unscaled

pytestmark = pytest.mark.usefixtures("one_thread")

PRECISE = {"INFERENCE_PRECISION_HINT": "f32"}
"""Left to itself OpenVINO computes in bfloat16 where the processor can."""


class Exported(NamedTuple):
    """A model in each format, its shots, and the photographs that it is tested on: 20 good crops, then 20 defects."""

    checkpoint: Path
    files: dict[str, Path]
    shots: torch.Tensor
    photographs: torch.Tensor

    def load(self) -> Htdgm:
        return Htdgm.load_from_checkpoint(self.checkpoint).eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Train with votes and memories as by default, but on two scales."""
    root = tmp_path_factory.mktemp("exported")
    bricks = FewShot(QuickstartTextures(root=root / "data"), k_shot=2)
    settings = {"iterations": 10, "image_size": 32, "memory_patches": 500, "energy_cells": 500}
    pre_processor = Htdgm.configure_pre_processor((40, 48))
    model = Htdgm(k_shot=2, settings=settings, precision="float32", pre_processor=pre_processor)
    checkpoint = fit(model, bricks, root)
    files = export_in_each_way(make_engine(root), model, root, checkpoint)
    assert list(files["onnx"].parent.iterdir()) == [files["onnx"]]  # nothing that could stay behind
    # Read once more: items of the datamodule are already resized for the model.
    tested = sorted(zip(bricks.test_data.samples["label_index"], bricks.test_data.samples["image_path"], strict=True))
    shots, photographs = (
        torch.stack([read_image(path, as_tensor=True) for path in paths])
        for paths in (bricks.train_data.samples["image_path"], [path for _, path in tested])
    )
    assert photographs.shape == (40, 3, 128, 128)
    return Exported(checkpoint, files, shots, photographs)


def score(model: Htdgm, images: torch.Tensor) -> torch.Tensor:
    return torch.cat([model(part).pred_score for part in images.split(8)])


def test_exports_score_as_the_checkpoint_does(
    exported: Exported, engine: Engine, mvtec_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # OpenVINOInferencer writes its cache into the working directory
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    torch_inferencer = TorchInferencer(exported.files["torch"], device="cpu")
    openvino_inferencer = OpenVINOInferencer(exported.files["openvino"], device="CPU", config=PRECISE)
    onnx_session = onnxruntime.InferenceSession(exported.files["onnx"])
    openvino_model = openvino.compile_model(exported.files["openvino"], "CPU", PRECISE)
    names = [output.name for output in onnx_session.get_outputs()]
    photograph = Image.open(mvtec_root / "wall" / "test" / "good" / "000.png")
    for size in ((256, 256), (700, 900), (40, 60)):
        photograph.resize(size).save("image.png")
        (expected,) = engine.predict(Htdgm(), data_path="image.png", ckpt_path=exported.checkpoint)
        assert 0 < expected.pred_score < 1, "scores that are cut off agree whatever they were"
        batch = np.asarray(Image.open("image.png")).transpose(2, 0, 1)[None].astype(np.float32) / 255
        predictions = {
            "onnx": dict(zip(names, onnx_session.run(None, {"input": batch}), strict=True)),
            "openvino": openvino_model(batch),
            "torch inferencer": vars(torch_inferencer.predict("image.png")),
            "openvino inferencer": vars(openvino_inferencer.predict("image.png")),
        }
        for prediction in predictions.values():
            for field in ("pred_score", "anomaly_map"):
                actual = np.asarray(prediction[field]).ravel()
                np.testing.assert_allclose(actual, getattr(expected, field).numpy().ravel(), atol=1e-4, rtol=0)


def test_photographs_keep_their_scores_in_batches_and_their_order_when_rounded(exported: Exported) -> None:
    model, batches = exported.load(), exported.photographs.split(7)  # and five remain
    expected = score(model, exported.photographs).numpy()
    assert len(np.unique(expected)) == 40, "ties would say nothing about the order"
    session = onnxruntime.InferenceSession(exported.files["onnx"])
    compiled = openvino.compile_model(exported.files["openvino"], "CPU")
    scores = np.concatenate([session.run(["pred_score"], {"input": batch.numpy()})[0] for batch in batches])
    np.testing.assert_allclose(scores, expected, atol=1e-4, rtol=0)
    model.model.votes.precision = "bfloat16"
    rounded = score(model, exported.photographs).numpy()
    assert not np.array_equal(rounded, expected)
    for scores in (rounded, np.concatenate([compiled(batch.numpy())["pred_score"] for batch in batches])):
        np.testing.assert_allclose(scores, expected, atol=0.02, rtol=0)
        assert spearmanr(scores, expected).statistic > 0.99


def test_training_images_are_low_and_noise_and_blank_images_are_high(exported: Exported) -> None:
    model = exported.load()
    good, defects = score(model, exported.photographs).split(20)
    shots = score(model, exported.shots)
    assert shots.max() < good.min()
    assert good.median() < defects.median()
    noise = torch.rand(3, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    assert score(model, noise).min() > defects.median()
    constant = torch.tensor([0, 0.3, 1])[:, None, None, None].expand(3, 3, 128, 128)
    assert score(model, constant).min() > shots.max()


@pytest.mark.thorough
def test_models_of_whole_images_export(wall: MVTecAD, tmp_path: Path) -> None:
    """Of one scale and nine transformations; test_half_precision.py exports the sixteen of images with colour."""
    settings = {"iterations": 1, "num_members": 1, "image_size": 14, "coarsest_size": 14}
    model = Htdgm(preset="semantic_grayscale", precision="float32", settings=settings, post_processor=unscaled())
    fit(model, wall, tmp_path)
    session = onnxruntime.InferenceSession(model.to_onnx(tmp_path))
    images = torch.rand(3, 3, 120, 90, generator=torch.Generator().manual_seed(0))
    expected = model(images)
    score, anomaly_map = session.run(["pred_score", "anomaly_map"], {"input": images.numpy()})
    np.testing.assert_allclose(score, expected.pred_score.numpy(), atol=1e-4, rtol=0)
    np.testing.assert_allclose(anomaly_map, expected.anomaly_map.numpy(), atol=1e-4, rtol=0)


@pytest.mark.thorough
def test_tiles_are_trained_stored_and_exported(wall: MVTecAD, tmp_path: Path) -> None:
    """Of one scale with votes and a memory of patches: tiles are images to all that scores them."""
    one_scale = {"iterations": 1, "image_size": 25, "coarsest_size": 25, "votes_from": 25, "num_members": 1}
    settings = one_scale | {"memory_patches": 50, "energy_cells": 0}
    model = Htdgm(1, settings=settings, tiles=2, precision="float32", post_processor=unscaled())
    loaded = Htdgm.load_from_checkpoint(fit(model, wall, tmp_path)).eval()
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
