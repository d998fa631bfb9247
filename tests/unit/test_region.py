# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""A region: what is outside changes nothing, and what is inside is seen as if there were nothing else."""

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from omegaconf import OmegaConf
from PIL import Image
from scipy.ndimage import binary_erosion
from torch.nn import functional as F

from anomalib_htdgm import Htdgm
from anomalib_htdgm.inspection.regions import box_of, outlines_of, parse_region
from anomalib_htdgm.models.htdgm import training
from anomalib_htdgm.models.htdgm.region import Outlines, draw_region
from anomalib_htdgm.models.htdgm.torch_model import HtdgmModel

from .textures import assert_identical, make_model, shingles, train

RECTANGLE = [0.25, 0.125, 0.75, 0.875]
RING = [[[0.1, 0.1], [0.9, 0.15], [0.8, 0.9], [0.2, 0.8]], [[0.4, 0.4], [0.6, 0.4], [0.6, 0.6], [0.4, 0.6]]]
SMALL = {"iterations": 2, "image_size": 25, "coarsest_size": 19, "memory_patches": 30, "energy_cells": 100}
ALL_SIGNALS = {"standardize": True, "votes_from": 14, "memory_patches": 200, "energy_cells": 900, "num_members": 2}

pytestmark = pytest.mark.usefixtures("one_thread")


def trained(region: Outlines | None, side: int = 64, **settings: object) -> tuple[HtdgmModel, torch.Tensor]:
    images = torch.cat([shingles(seed=seed) for seed in range(2)])
    return train(make_model(side, region=region, **ALL_SIGNALS, **settings), images), images


@pytest.mark.parametrize("tiles", [1, 2])
@pytest.mark.parametrize("region", [RECTANGLE, RING], ids=["rectangle", "ring"])
def test_what_is_outside_changes_nothing(region: Outlines, tiles: int) -> None:
    inside = torch.from_numpy(binary_erosion(draw_region(region, (64, 64)), np.ones((3, 3))))
    model, shots = trained(region, tiles=tiles)
    other, _ = trained(region, tiles=tiles)
    train(other, torch.where(inside, shots, shots.mean()))
    image = shingles(seed=5)
    scored = model(image)
    changed = torch.where(inside, image, shingles(angle=2.0, seed=6))
    changed[..., 0, 0] = torch.nan
    assert_identical(model(changed), scored)
    assert (scored.anomaly_map[..., ~inside] == 0).all()
    assert (scored.anomaly_map[..., inside] > 0).all()
    if region is RECTANGLE:  # of a ring's outside the mean of the shots is seen
        assert_identical(other(image), scored)


def test_a_rectangle_is_seen_as_a_picture_of_its_own() -> None:
    model, shots = trained(RECTANGLE)
    alone = make_model(**ALL_SIGNALS)
    alone = HtdgmModel(alone.settings, (46, 30))
    rows, columns = slice(9, 55), slice(17, 47)  # without the pixels at its edge
    train(alone, shots[..., rows, columns])
    for image in (shingles(seed=5), shingles(angle=1.0, seed=6)):
        whole, part = model(image), alone(image[..., rows, columns])
        assert_identical(whole.pred_score, part.pred_score)
        assert_identical(whole.anomaly_map[..., rows, columns], part.anomaly_map)
    assert_identical(model.score_unseen(shots[:1], 0).pred_score, alone.score_unseen(shots[:1, :, rows, columns], 0)[0])


def test_a_region_of_all_is_none() -> None:
    (model, _), (none, _) = trained([0.0, 0.0, 1.0, 1.0]), trained(None)
    torch.testing.assert_close(model(shingles(seed=5)), none(shingles(seed=5)), atol=1e-4, rtol=1e-4)


def test_nor_does_it_when_large_photographs_are_resized() -> None:
    model = Htdgm(k_shot=2, region=RECTANGLE, precision="float32", settings=SMALL)
    large = [F.interpolate(shingles(seed=seed), (700, 900), mode="bilinear") / 2 + 0.5 for seed in range(3)]
    for _ in training.train(model.model, model.pre_processor(torch.cat(large[:2]))):
        pass
    inside = torch.from_numpy(draw_region(RECTANGLE, (700, 900)))
    scored = [model.model(model.pre_processor(torch.where(inside, large[2], grey))) for grey in (0.0, 1.0)]
    torch.testing.assert_close(*scored)


def test_a_checkpoint_has_its_region_in_plain_lists_and_no_other(tmp_path: Path) -> None:
    given = OmegaConf.create(RING)
    model = Htdgm(k_shot=2, region=given, precision="float32", settings=SMALL)
    for _ in training.train(model.model, torch.cat([shingles(seed=seed) for seed in range(2)])):
        pass
    trainer = Trainer(logger=False, barebones=True)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "model.ckpt", weights_only=False)
    image = shingles(seed=5) / 2 + 0.5
    for arguments in ({}, {"region": RECTANGLE}, {"region": None}):
        loaded = Htdgm.load_from_checkpoint(tmp_path / "model.ckpt", **arguments)
        assert loaded.model.settings.region == RING
        assert_identical(loaded.model(loaded.pre_processor(image)), model.eval().model(model.pre_processor(image)))


def test_a_region_has_the_pixels_that_a_whole_image_would_have() -> None:
    model = Htdgm(region=[0.5, 0.25, 1.0, 0.75])
    assert model.model.input_size == (512, 512)
    assert model.model.looked_at == (254, 255)
    assert model.pre_processor(torch.rand(1, 3, 90, 120)).shape[-2:] == (512, 512)
    assert Htdgm(region=[0.0, 0.0, 0.1, 1.0]).model.input_size == (256, 1024)


@pytest.mark.parametrize(
    "region",
    [
        [0.5, 0.1, 0.4, 0.9],
        [0.1, 0.1, 0.15, 0.9],
        [0.0, 0.0, 1.0, 1.1],
        [-0.1, 0.0, 1.0, 1.0],
        [0.0, 0.0, float("nan"), 1.0],
        [0.1, 0.2, 0.3],
        [],
        [[[0.1, 0.1], [0.9, 0.9]]],
        [[[0.1, 0.1, 0.1], [0.9, 0.9, 0.9], [0.1, 0.9, 0.9]]],
        "abcd",
        {"left": 0.1, "top": 0.1, "right": 0.9, "bottom": 0.9},
        5,
    ],
    ids=str,
)
def test_what_is_no_region_is_refused(region: object) -> None:
    with pytest.raises(ValueError, match=r"^region: got .*; allowed are"):
        Htdgm(region=region)


@pytest.mark.parametrize("region", [RECTANGLE, RING], ids=["rectangle", "ring"])
def test_what_was_painted_is_outlined(region: Outlines, tmp_path: Path) -> None:
    painted = draw_region(region, (300, 400))
    assert (draw_region(outlines_of(painted), (300, 400)) != painted).mean() < 0.01
    assert box_of(outlines_of(painted)) == pytest.approx(box_of(region), abs=0.005)
    Image.fromarray(painted).save(tmp_path / "mask.png")
    assert parse_region(str(tmp_path / "mask.png")) == outlines_of(painted)
    assert parse_region("0.25,0.125,0.75,0.875") == RECTANGLE


@pytest.mark.parametrize("text", ["0.1,0.2,0.3", "a,b,c,d", "0.5,0,0.4,1", "nowhere.png", "black.png", "grey.png"])
def test_what_is_no_region_on_the_command_line_is_refused(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((40, 40), np.uint8)).save("black.png")
    Image.fromarray(np.tile(np.arange(0, 240, 4, dtype=np.uint8), (40, 1))).save("grey.png")
    with pytest.raises(ValueError, match=r"^--region: got .*; allowed are left,top,right,bottom"):
        parse_region(text)
