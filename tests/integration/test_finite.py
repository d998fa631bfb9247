# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Scores and maps are finite whatever the image, and whatever the images that were trained on."""

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from anomalib.data import Folder, InferenceBatch
from anomalib.engine import Engine
from hypothesis import example, given, settings
from hypothesis import strategies as st
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
def any_model(request: pytest.FixtureRequest) -> Htdgm:
    """Make models of several settings, in the pre-processor that a user's has."""
    model = Htdgm(settings=SMALL, pre_processor=Htdgm.configure_pre_processor((SIDE, SIDE))).eval()
    model.model = train(BRICK, **SETTINGS[request.param])
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


@pytest.mark.parametrize("kind", ["black", "identical", "one of them black", "single bright pixel", "huge"])
def test_a_model_of_degenerate_images_scores_finitely(kind: str) -> None:
    black, dot = torch.full((1, 3, SIDE, SIDE), -1.0), Drawn("single bright pixel", SIDE, SIDE, 1.0, 1).make()
    shots = {
        "black": black,
        "identical": BRICK.repeat(3, 1, 1, 1),
        "one of them black": torch.cat([black, BRICK]),
        "single bright pixel": dot,
        "huge": BRICK * 1e30,
    }[kind]
    noise = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
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
