# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Scores are finite whatever the image, and images keep their order wherever and however they are scored."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
import openvino
import pytest
import torch
from anomalib.data import Folder, InferenceBatch
from anomalib.data.utils import read_image
from anomalib.deploy import TorchInferencer
from anomalib.engine import Engine
from anomalib.post_processing import PostProcessor
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import spearmanr

from anomalib_htdgm import FewShot, Htdgm, QuickstartTextures
from anomalib_htdgm.models.htdgm import training
from anomalib_htdgm.models.htdgm.settings import Settings
from anomalib_htdgm.models.htdgm.torch_model import HtdgmModel

from .small import make_engine

pytestmark = [pytest.mark.thorough, pytest.mark.usefixtures("one_thread")]

BATCH_SIZES = (1, 2, 7, 32)
SIDE = 64
MOST = torch.finfo(torch.float32).max / 8  # resizing adds up a few pixels, and [0, 1] becomes [-1, 1]


class Trained(NamedTuple):
    """A model, where it was saved, and the photographs that it is tested on: 20 good crops, then 20 with defects."""

    model: Htdgm
    checkpoint: Path
    shots: torch.Tensor
    photographs: torch.Tensor


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Train with votes and memories as by default, but fewer scales: these are what exports take their time for."""
    root = tmp_path_factory.mktemp("numbers")
    bricks = FewShot(QuickstartTextures(root=root / "data"), k_shot=2)
    model = Htdgm(
        k_shot=2,
        settings={"iterations": 10, "image_size": 32, "memory_patches": 500, "energy_cells": 500},
        precision="float32",
        pre_processor=Htdgm.configure_pre_processor((40, 48)),
        # It takes what is far from the threshold for equal, which would hide where such images change places.
        post_processor=PostProcessor(enable_normalization=False, enable_thresholding=False),
    )
    engine = make_engine(root)
    engine.fit(model, datamodule=bricks)
    # Read once more: items of the datamodule are already resized for the model.
    tested = sorted(zip(bricks.test_data.samples["label_index"], bricks.test_data.samples["image_path"], strict=True))
    shots, photographs = (
        torch.stack([read_image(path, as_tensor=True) for path in paths])
        for paths in (bricks.train_data.samples["image_path"], [path for _, path in tested])
    )
    assert photographs.shape == (40, 3, 128, 128)
    return Trained(model.eval(), Path(engine.best_model_path), shots, photographs)


class Exported(NamedTuple):
    """Where the exported models are."""

    onnx: Path
    openvino: Path


@pytest.fixture(scope="module")
def exported(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Export in each way, and trace once: OpenVINO's export starts from ONNX's."""
    root = tmp_path_factory.mktemp("exported")
    onnx = trained.model.to_onnx(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trained.model, "to_onnx", lambda *_: onnx)
        ir = trained.model.to_openvino(root)
    return Exported(onnx, ir)


def score(model: Htdgm, images: torch.Tensor, batch_size: int = 8) -> np.ndarray:
    return torch.cat([model(part).pred_score for part in images.split(batch_size)]).numpy()


def score_raw(model: Htdgm, images: torch.Tensor) -> torch.Tensor:
    """Score without the post-processor, which has no scores above 1."""
    return model.model(model.pre_processor(images)).pred_score


def rank_correlation(scores: np.ndarray, expected: np.ndarray) -> float:
    assert len(expected) == 40
    assert len(np.unique(expected)) == 40, "ties would say nothing about the order"
    assert np.isfinite(scores).all()
    return float(spearmanr(scores, expected).statistic)


def test_training_images_are_low_and_noise_and_blank_images_are_high(trained: Trained) -> None:
    good, defects = score_raw(trained.model, trained.photographs).split(20)
    assert score_raw(trained.model, trained.shots).max() < good.min()
    assert good.median() < defects.median()
    noise = torch.rand(3, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    assert score_raw(trained.model, noise).min() > defects.median()
    constant = torch.tensor([0, 0.3, 1])[:, None, None, None].expand(3, 3, 128, 128)
    assert score_raw(trained.model, constant).min() > score_raw(trained.model, trained.shots).max()


def test_the_checkpoint_and_the_torch_export_score_as_the_model(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = score(trained.model, trained.photographs)
    loaded = Htdgm.load_from_checkpoint(trained.checkpoint).eval()
    np.testing.assert_array_equal(score(loaded, trained.photographs), expected)
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    inferencer = TorchInferencer(trained.model.to_torch(tmp_path), device="cpu")
    # Not in the same batches: last bits differ.
    np.testing.assert_allclose(inferencer.predict(trained.photographs).pred_score.numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_batches_do_not_matter(trained: Trained, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained.model.model.votes, "precision", precision)
    expected = score(trained.model, trained.photographs)
    for batch_size in BATCH_SIZES:
        np.testing.assert_allclose(score(trained.model, trained.photographs, batch_size), expected, rtol=1e-4)


def test_the_order_survives_two_threads(trained: Trained) -> None:
    expected = score(trained.model, trained.photographs)
    torch.set_num_threads(2)
    try:
        in_two_threads = score(trained.model, trained.photographs)
    finally:
        torch.set_num_threads(1)
    # Convolutions over many channels are cut up among threads, and sums rounded otherwise.
    np.testing.assert_allclose(in_two_threads, expected, rtol=1e-4)
    assert rank_correlation(in_two_threads, expected) > 0.99


def test_the_order_survives_bfloat16(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = score(trained.model, trained.photographs)
    monkeypatch.setattr(trained.model.model.votes, "precision", "bfloat16")
    rounded = score(trained.model, trained.photographs)
    assert (rounded != expected).any()
    assert rank_correlation(rounded, expected) > 0.99


def test_the_order_survives_onnx_in_batches_of_any_size(trained: Trained, exported: Exported) -> None:
    expected = score(trained.model, trained.photographs)
    session = onnxruntime.InferenceSession(exported.onnx)
    for batch_size in BATCH_SIZES:
        parts = [
            session.run(["pred_score"], {"input": part.numpy()})[0] for part in trained.photographs.split(batch_size)
        ]
        assert rank_correlation(np.concatenate(parts), expected) > 0.99


@pytest.mark.parametrize("config", [{}, {"INFERENCE_PRECISION_HINT": "f32"}], ids=["as it is", "float32"])
def test_the_order_survives_openvino_in_batches_of_any_size(
    trained: Trained, exported: Exported, config: dict[str, str]
) -> None:
    expected = score(trained.model, trained.photographs)
    compiled = openvino.compile_model(exported.openvino, "CPU", config)
    for batch_size in BATCH_SIZES[1:]:
        parts = [compiled(part.numpy())["pred_score"] for part in trained.photographs.split(batch_size)]
        assert rank_correlation(np.concatenate(parts), expected) > 0.99


@pytest.mark.parametrize("size", [(90, 110), (300, 200)])
def test_the_order_survives_resizing_by_the_exported_graph(
    trained: Trained, exported: Exported, size: tuple[int, int]
) -> None:
    images = torch.nn.functional.interpolate(trained.photographs, size, mode="bilinear", antialias=True)
    resized = trained.model.pre_processor.transform(images)  # as the engine does
    expected = trained.model.post_processor(trained.model.model(resized)).pred_score.numpy()
    (inside,) = onnxruntime.InferenceSession(exported.onnx).run(["pred_score"], {"input": images.numpy()})
    np.testing.assert_allclose(inside, expected, rtol=1e-3)
    assert rank_correlation(inside, expected) > 0.99


class Drawn(NamedTuple):
    """How an arbitrary image is made: small enough a description for hypothesis to shrink."""

    kind: str
    height: int
    width: int
    magnitude: float
    seed: int

    def make(self) -> torch.Tensor:
        shape, source = (1, 3, self.height, self.width), torch.Generator().manual_seed(self.seed)
        noise = torch.rand(shape, generator=source) * 2 - 1
        checks = (torch.arange(self.height)[:, None] + torch.arange(self.width)) % 2 * 2.0 - 1
        images = {
            "constant": torch.ones(shape),
            "single bright pixel": torch.zeros(shape).flatten().index_fill(0, torch.tensor(self.seed % 3), 1.0),
            "extreme contrast": noise.sign(),
            "checks": checks.expand(shape),
            "noise": noise,
            "all but constant": 1 + 1e-6 * noise,
            "gradient": torch.linspace(-1, 1, noise.numel()),
            "a few very bright": noise.pow(21),
        }
        return images[self.kind].reshape(shape) * self.magnitude


KINDS = (
    *("constant", "single bright pixel", "extreme contrast", "checks"),
    *("noise", "all but constant", "gradient", "a few very bright"),
)
ARBITRARY = st.builds(
    Drawn,
    kind=st.sampled_from(KINDS),
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    magnitude=st.one_of(st.sampled_from([0.0, 1.0, 255.0, MOST]), st.floats(-1, 1), st.floats(-MOST, MOST)),
    seed=st.integers(0, 2**31),
)
REPEATABLE = settings(max_examples=30, deadline=None, derandomize=True)


SMALL = {"image_size": 24, "coarsest_size": 12, "votes_from": 20, "energy_cells": 300, "iterations": 2}


def train(shots: torch.Tensor, **given: object) -> HtdgmModel:
    model = HtdgmModel(Settings(**{"k_shot": len(shots), **SMALL, **given}), (SIDE, SIDE))
    for step in training.train(model, shots):
        assert step.loss.isfinite()
    # Places of the memory that remain empty are infinitely far, on purpose.
    infinite = {name for name, each in model.state_dict().items() if not each.isfinite().all()}
    assert {name for name in infinite if "half_squares" not in name} == set()
    return model


def assert_finite(prediction: InferenceBatch) -> None:
    for each in (prediction.pred_score, prediction.anomaly_map):
        assert each.isfinite().all()
        assert (each >= 0).all()


SETTINGS = {
    "float32": {"precision": "float32"},
    "bfloat16": {"precision": "bfloat16"},
    "as they are": {"precision": "float32", "standardize": False},
    "probability": {"precision": "float32", "vote": "probability", "patch_fraction": 1},
}


@pytest.fixture(scope="module", params=SETTINGS)
def any_model(request: pytest.FixtureRequest, trained: Trained) -> Htdgm:
    """Make models of several settings, in the post-processor of a trained one."""
    shots = trained.model.pre_processor.transform(trained.shots[:1])[..., :SIDE, :SIDE]
    model = Htdgm(settings=SMALL, pre_processor=Htdgm.configure_pre_processor((SIDE, SIDE))).eval()
    model.model = train(shots, **SETTINGS[request.param])
    return model


@REPEATABLE
@given(drawn=ARBITRARY)
@example(drawn=Drawn("constant", 1, 1, 0.0, 0))
@example(drawn=Drawn("extreme contrast", 64, 64, MOST, 0))
@example(drawn=Drawn("extreme contrast", 64, 64, 1e25, 0))
@example(drawn=Drawn("noise", 1, 90, 1e-38, 0))
@example(drawn=Drawn("a few very bright", 1, 49, 255.0, 85682754))
def test_scores_and_maps_are_finite_and_the_batch_does_not_matter(any_model: Htdgm, drawn: Drawn) -> None:
    image = drawn.make()
    alone = any_model.model(any_model.pre_processor(image))
    assert_finite(alone)
    beside = torch.cat([torch.rand(2, *image.shape[1:]), image, torch.rand(3, *image.shape[1:])])
    together = any_model.model(any_model.pre_processor(beside))
    assert_finite(together)
    if drawn.magnitude <= 255:  # of larger ones rounding is all that is left
        torch.testing.assert_close(together.pred_score[2:3], alone.pred_score, rtol=1e-3, atol=1e-3)
    # Without its pre-processor the model is given images of any size.
    assert_finite(any_model.model(image))


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("kind", ["black", "identical", "one of them black", "single bright pixel", "huge"])
def test_a_model_of_degenerate_images_scores_finitely(kind: str, trained: Trained, *, standardize: bool) -> None:
    brick, black = trained.shots[:1, :, :SIDE, :SIDE] * 2 - 1, torch.full((1, 3, SIDE, SIDE), -1.0)
    dot = Drawn("single bright pixel", SIDE, SIDE, 1.0, 1).make()
    shots = {
        "black": black,
        "identical": brick.repeat(3, 1, 1, 1),
        "one of them black": torch.cat([black, brick]),
        "single bright pixel": dot,
        "huge": brick * 1e30,
    }[kind]
    model = train(shots, standardize=standardize, precision="float32")
    noise = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for image in (shots, black, -black, 0 * black, dot, brick, noise, 1e30 * noise):
        assert_finite(model(image))
    assert model(shots).pred_score.max() < model(1e30 * noise if kind == "huge" else noise).pred_score


def test_black_images_make_a_model_that_takes_all_but_constant_ones_for_anomalous(
    tmp_path: Path, engine: Engine
) -> None:
    for index in range(2):
        Image.new("RGB", (SIDE, SIDE)).save(tmp_path / f"{index}.png")
    folder = Folder(
        name="black", normal_dir=tmp_path, test_split_mode="none", val_split_mode="same_as_test", num_workers=0
    )
    model = Htdgm(settings=SMALL, pre_processor=Htdgm.configure_pre_processor((SIDE, SIDE)))
    engine.fit(model, datamodule=folder)
    black, noise = torch.zeros(1, 3, SIDE, SIDE), torch.rand(1, 3, SIDE, SIDE)
    seen, other = model.eval()(black), model(noise)
    assert seen.pred_score <= 0.5
    assert not seen.pred_label
    assert not seen.pred_mask.any()
    assert other.pred_score > 0.9
    assert other.pred_label
    assert_finite(seen)
    assert_finite(other)
