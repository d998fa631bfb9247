# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Photographs keep their order in every precision and in exported graphs, whatever the size of the batch."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
import openvino
import pytest
import torch
from anomalib.data.utils import read_image
from anomalib.post_processing import PostProcessor
from scipy.stats import spearmanr

from anomalib_htdgm import FewShot, Htdgm, QuickstartTextures

from .small import make_engine

pytestmark = [pytest.mark.thorough, pytest.mark.usefixtures("one_thread")]


class Trained(NamedTuple):
    """A model, its shots, and the photographs that it is tested on: 20 good crops, then 20 with defects."""

    model: Htdgm
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
    make_engine(root).fit(model, datamodule=bricks)
    # Read once more: items of the datamodule are already resized for the model.
    tested = sorted(zip(bricks.test_data.samples["label_index"], bricks.test_data.samples["image_path"], strict=True))
    shots, photographs = (
        torch.stack([read_image(path, as_tensor=True) for path in paths])
        for paths in (bricks.train_data.samples["image_path"], [path for _, path in tested])
    )
    assert photographs.shape == (40, 3, 128, 128)
    return Trained(model.eval(), shots, photographs)


@pytest.fixture(scope="module")
def graph(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained.model.to_onnx(tmp_path_factory.mktemp("exported"))


def score(model: Htdgm, images: torch.Tensor) -> torch.Tensor:
    return torch.cat([model(part).pred_score for part in images.split(8)])


def test_training_images_are_low_and_noise_and_blank_images_are_high(trained: Trained) -> None:
    good, defects = score(trained.model, trained.photographs).split(20)
    shots = score(trained.model, trained.shots)
    assert shots.max() < good.min()
    assert good.median() < defects.median()
    noise = torch.rand(3, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    assert score(trained.model, noise).min() > defects.median()
    constant = torch.tensor([0, 0.3, 1])[:, None, None, None].expand(3, 3, 128, 128)
    assert score(trained.model, constant).min() > shots.max()


def assert_same_order(scores: np.ndarray, expected: np.ndarray) -> None:
    assert len(np.unique(expected)) == 40, "ties would say nothing about the order"
    assert np.isfinite(scores).all()
    assert spearmanr(scores, expected).statistic > 0.99


def test_the_order_survives_bfloat16(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = score(trained.model, trained.photographs)
    monkeypatch.setattr(trained.model.model.votes, "precision", "bfloat16")
    rounded = score(trained.model, trained.photographs)
    assert not torch.equal(rounded, expected)
    assert_same_order(rounded.numpy(), expected.numpy())


@pytest.mark.parametrize("batch_size", [1, 7, 32])
def test_the_order_survives_onnx_and_openvino(trained: Trained, graph: Path, batch_size: int) -> None:
    expected = score(trained.model, trained.photographs).numpy()
    session = onnxruntime.InferenceSession(graph)
    parts = [part.numpy() for part in trained.photographs.split(batch_size)]
    assert_same_order(np.concatenate([session.run(["pred_score"], {"input": part})[0] for part in parts]), expected)
    for config in ({}, {"INFERENCE_PRECISION_HINT": "f32"}):  # as it is, and in float32
        compiled = openvino.compile_model(graph, "CPU", config)
        assert_same_order(np.concatenate([compiled(part)["pred_score"] for part in parts]), expected)
