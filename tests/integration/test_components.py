# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Pre-processor, post-processor and arguments of a loaded model: what the caller gives wins, else what was saved."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from anomalib.cli.cli import AnomalibCLI
from anomalib.metrics import AUROC, Evaluator
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from torchvision.transforms.v2 import Compose, GaussianBlur, Normalize, Resize
from torchvision.transforms.v2.functional import to_pil_image

from anomalib_htdgm import Htdgm
from anomalib_htdgm.anomalib_fixes.checkpoint import CheckpointError
from anomalib_htdgm.data.reading import read_image

from .small import SMALL, TESTED, fit, make_engine, make_image, make_small_model, write_good_images

IMAGES = torch.stack([make_image(*each) for each in TESTED]) / 255
Load = Callable[..., Htdgm]
Train = Callable[..., tuple[Htdgm, Path]]


class OwnPreProcessor(PreProcessor):
    """A pre-processor of somebody's own."""


class OwnPostProcessor(PostProcessor):
    """A post-processor of somebody's own."""


def load_directly(path: Path, **components: Any) -> Htdgm:
    return Htdgm.load_from_checkpoint(path, **components)


def load_in_engine(path: Path, **components: Any) -> Htdgm:
    model = Htdgm(**components)
    image = path.with_name("image.png")
    to_pil_image(make_image("good")).save(image)
    make_engine(path.parent).predict(model, data_path=image, ckpt_path=path)
    return model


DOORS = pytest.mark.parametrize("load", [load_directly, load_in_engine])


@pytest.fixture
def trained(tmp_path: Path, small_checkpoint: Path) -> Path:
    """Copy the small checkpoint, so that there is a folder to write to."""
    copied = tmp_path / "model.ckpt"
    copied.write_bytes(small_checkpoint.read_bytes())
    return copied


@pytest.fixture
def train(tmp_path: Path) -> Train:
    def train_with(**components: Any) -> tuple[Htdgm, Path]:
        model = make_small_model(**components)
        return model, fit(model, write_good_images(tmp_path), tmp_path)

    return train_with


@DOORS
def test_a_given_post_processor_keeps_its_settings(load: Load, trained: Path) -> None:
    model = load(trained, post_processor=PostProcessor(image_sensitivity=0.9))
    expected = Htdgm.load_from_checkpoint(trained).post_processor
    assert model.post_processor.image_sensitivity == 0.9
    assert model.post_processor.image_threshold == expected.image_threshold
    assert expected.image_sensitivity == 0.5


def test_the_command_takes_what_is_given(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_good_images(tmp_path)
    monkeypatch.chdir(tmp_path)
    given = ["--model.post_processor", "anomalib.post_processing.PostProcessor"]
    given += ["--model.post_processor.image_sensitivity", "0.9"]
    cli = AnomalibCLI(
        ["predict", "--model", "Htdgm", *given, "--data", str(tmp_path / "good"), "--ckpt_path", str(trained)]
    )
    assert cli.model.post_processor.image_sensitivity == 0.9
    assert cli.model.post_processor.image_threshold.isfinite()


@pytest.mark.parametrize("components", [{"post_processor": False}, {"pre_processor": "own"}], ids=str)
def test_the_model_before_leaves_nothing_in_an_engine(
    components: dict[str, Any], train: Train, tmp_path: Path, trained: Path
) -> None:
    if "pre_processor" in components:
        components = {"pre_processor": OwnPreProcessor(Compose([Resize((64, 64)), Normalize([0.5] * 3, [0.5] * 3)]))}
    model, _ = train(**components)
    used, file = make_engine(tmp_path), tmp_path / "good" / "0.png"
    used.predict(Htdgm(), data_path=file, ckpt_path=trained)
    (batch,) = used.predict(model, data_path=file)
    (expected,) = make_engine(tmp_path).predict(model, data_path=file)
    assert torch.equal(batch.pred_score, expected.pred_score)


@DOORS
@pytest.mark.parametrize("name", ["pre_processor", "post_processor", "evaluator", "visualizer"])
def test_what_the_caller_switches_off_is_off(name: str, load: Load, trained: Path) -> None:
    assert getattr(load(trained, **{name: False}), name) is None


@pytest.mark.parametrize("name", ["pre_processor", "post_processor"])
def test_what_a_checkpoint_has_switched_off_is_off(name: str, train: Train, tmp_path: Path) -> None:
    _, path = train(**{name: False})
    model, engine, file = Htdgm(), make_engine(tmp_path), tmp_path / "good" / "0.png"
    image = read_image(file, as_tensor=True)[None]
    (batch,) = engine.predict(model, data_path=file, ckpt_path=path)
    alone = Htdgm.load_from_checkpoint(path)(image)
    assert torch.equal(batch.pred_score, alone.pred_score)
    assert (batch.pred_label is None) == (name == "post_processor")
    assert not batch.image.min() < 0 or name == "post_processor"


@DOORS
@pytest.mark.parametrize("own", ["off", "evaluator"])
def test_what_is_reported_and_drawn_is_not_the_checkpoints(own: str, load: Load, train: Train, tmp_path: Path) -> None:
    evaluator = Evaluator(test_metrics=[AUROC(fields=["pred_score", "gt_label"])])
    _, path = train(evaluator=False, visualizer=False) if own == "off" else train(evaluator=evaluator)
    model = load(path)
    assert len(model.evaluator.test_metrics) == 5
    assert model.visualizer is not None
    assert len(list(tmp_path.rglob("images/**/image.png"))) == (load is load_in_engine)


@DOORS
def test_labels_follow_the_threshold_without_normalization(load: Load, train: Train, tmp_path: Path) -> None:
    _, path = train(post_processor=PostProcessor(enable_normalization=False))
    model = load(path)
    assert not model.post_processor.enable_normalization
    for given in (model(IMAGES), torch.load(model.to_torch(tmp_path), weights_only=False)["model"](IMAGES)):
        assert torch.equal(given.pred_label, given.pred_score > model.post_processor.image_threshold)
        assert 0 < given.pred_label.sum() < len(IMAGES)


@DOORS
def test_a_post_processor_for_a_checkpoint_without_one_has_yet_to_be_validated(
    load: Load, train: Train, caplog: pytest.LogCaptureFixture
) -> None:
    _, path = train(post_processor=False)
    assert load(path, post_processor=PostProcessor()).post_processor.image_threshold.isnan()
    assert "validate to find them" in caplog.text


@DOORS
@pytest.mark.parametrize("what", ["GaussianBlur", "OwnPreProcessor", "OwnPostProcessor"])
def test_what_no_checkpoint_holds_is_the_callers(what: str, load: Load, train: Train) -> None:
    blurring = Compose([Resize((64, 64)), GaussianBlur(5, 2.0), Normalize([0.5] * 3, [0.5] * 3)])
    own = {
        "GaussianBlur": lambda: PreProcessor(blurring),
        "OwnPreProcessor": lambda: OwnPreProcessor(Resize((64, 64))),
        "OwnPostProcessor": OwnPostProcessor,
    }[what]()
    name = "post_processor" if isinstance(own, PostProcessor) else "pre_processor"
    trained, path = train(**{name: own})
    assert torch.equal(load(path, **{name: own})(IMAGES).pred_score, trained(IMAGES).pred_score)
    with pytest.raises(CheckpointError, match=rf"model.ckpt: {name}.*{what}.*Htdgm\({name}="):
        load(path)


def test_arguments_that_are_given_are_taken_or_named(trained: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = load_directly(trained, settings=SMALL | {"patch_fraction": 0.5})
    assert model.model.votes.patch_fraction == 0.5
    model = load_in_engine(trained, seed=3, settings={"patch_fraction": 0.5})
    assert model.model.votes.patch_fraction == 0.01
    assert "not what was given for seed 3 (0 there), settings {'patch_fraction': 0.5} ({" in caplog.text
    caplog.clear()
    load_in_engine(trained)
    assert not [record for record in caplog.records if record.levelname == "WARNING" and "htdgm" in record.name]


@pytest.mark.thorough
def test_anomalibs_usual_pre_processor_exports_as_it_is(
    train: Train, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    usual = PreProcessor(Compose([Resize((64, 64)), Normalize([0.5] * 3, [0.5] * 3)]))
    one_scale = SMALL | {"coarsest_size": 25, "memory_patches": 0, "energy_cells": 0}  # a short graph
    model, _ = train(pre_processor=usual, settings=one_scale)
    file = tmp_path / "photograph.png"
    to_pil_image(torch.rand(3, 750, 1000, generator=torch.Generator().manual_seed(0))).save(file)
    photograph = read_image(file, as_tensor=True)[None].contiguous()
    expected = make_engine(tmp_path).predict(model, data_path=file)
    pickled = torch.load(model.to_torch(tmp_path), weights_only=False)["model"]
    session = onnxruntime.InferenceSession(model.to_onnx(tmp_path))
    (scores,) = session.run(["pred_score"], {"input": photograph.numpy()})
    assert torch.equal(pickled(photograph).pred_score, expected[0].pred_score)
    assert scores == pytest.approx(expected[0].pred_score.numpy(), abs=1e-4)
    assert "gives other images" not in caplog.text
