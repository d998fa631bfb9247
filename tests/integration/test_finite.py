# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Scores and maps are finite whatever the image, and whatever the images that were trained on."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from anomalib.data import Folder, InferenceBatch
from anomalib.engine import Engine
from PIL import Image
from skimage import data as photographs

from anomalib_htdgm import Htdgm
from anomalib_htdgm.models.htdgm import training
from anomalib_htdgm.models.htdgm.settings import Settings
from anomalib_htdgm.models.htdgm.torch_model import HtdgmModel

pytestmark = [pytest.mark.thorough, pytest.mark.usefixtures("one_thread")]

SIDE = 64
MOST = torch.finfo(torch.float32).max / 8  # resizing adds up a few pixels, and [0, 1] becomes [-1, 1]
BRICK = torch.from_numpy(photographs.brick()[:SIDE, :SIDE].copy()).expand(1, 3, -1, -1) / 127.5 - 1


KINDS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "constant": torch.ones_like,
    "single bright pixel": lambda noise: torch.zeros_like(noise).index_put_((torch.tensor(0),) * 4, torch.tensor(1.0)),
    "extreme contrast": torch.sign,
    "checks": lambda noise: (
        (torch.arange(noise.shape[2])[:, None] + torch.arange(noise.shape[3])) % 2 * 2.0 - 1
    ).expand_as(noise),
    "noise": torch.clone,
    "all but constant": lambda noise: 1 + 1e-6 * noise,
    "gradient": lambda noise: torch.linspace(-1, 1, noise.numel()).view_as(noise),
    "a few very bright": lambda noise: noise.pow(21),
}


def make_images(height: int = SIDE, width: int = SIDE) -> torch.Tensor:
    """Make an image of each kind, in [-1, 1]."""
    noise = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return torch.cat([make(noise) for make in KINDS.values()])


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
def any_model(request: pytest.FixtureRequest) -> Htdgm:
    """Make models of several settings, in the pre-processor that a user's has."""
    model = Htdgm(settings=SMALL, pre_processor=Htdgm.configure_pre_processor((SIDE, SIDE))).eval()
    model.model = train(BRICK, **SETTINGS[request.param])
    return model


@pytest.mark.parametrize(
    ("height", "width", "magnitude"),
    [(1, 1, 0.0), (64, 64, MOST), (64, 64, 1e25), (1, 90, 1e-38), (1, 49, 255.0), (80, 33, -1.0)],
)
def test_scores_and_maps_are_finite_and_the_batch_does_not_matter(
    any_model: Htdgm, height: int, width: int, magnitude: float
) -> None:
    images = make_images(height, width) * magnitude
    together = any_model.model(any_model.pre_processor(images))
    assert_finite(together)
    alone = [any_model.model(any_model.pre_processor(image)) for image in images.split(1)]
    for each in alone:
        assert_finite(each)
    if magnitude <= 255:  # of larger ones rounding is all that is left
        scores = torch.cat([each.pred_score for each in alone])
        torch.testing.assert_close(together.pred_score, scores, rtol=1e-3, atol=1e-3)
    # Without its pre-processor the model is given images of any size.
    assert_finite(any_model.model(images))


@pytest.mark.parametrize("kind", ["black", "identical", "one of them black", "single bright pixel", "huge"])
def test_a_model_of_degenerate_images_scores_finitely(kind: str) -> None:
    black, images = torch.full((1, 3, SIDE, SIDE), -1.0), dict(zip(KINDS, make_images().split(1), strict=True))
    dot, noise = images["single bright pixel"], images["noise"]
    shots = {
        "black": black,
        "identical": BRICK.repeat(3, 1, 1, 1),
        "one of them black": torch.cat([black, BRICK]),
        "single bright pixel": dot,
        "huge": BRICK * 1e30,
    }[kind]
    for standardize in (True, False):
        model = train(shots, standardize=standardize, precision="float32")
        for image in (shots, black, -black, 0 * black, dot, BRICK, noise, 1e30 * noise):
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
