# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""HtdgmPublished scores and generates as the paper says, and its transformations are the supplement's."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from anomalib_htdgm import HtdgmPublished
from anomalib_htdgm.models.htdgm.pretext import shift_length
from anomalib_htdgm.models.htdgm_published.torch_model import HtdgmPublishedModel
from anomalib_htdgm.models.htdgm_published.training import Schedule, train
from anomalib_htdgm.models.htdgm_published.transformations import TRANSFORMATION_SETS

from .textures import shingles

pytestmark = pytest.mark.usefixtures("one_thread")
FULL = TRANSFORMATION_SETS["full"]


def make_trained(**arguments: Any) -> HtdgmPublishedModel:
    sizes = {"input_size": (40, 40), "image_size": 20, "coarsest_size": 15, "width": 4}
    model = HtdgmPublishedModel(**{**sizes, "k_shot": 2, **arguments})
    shots = torch.cat([shingles(size=40), shingles(size=40, angle=1.0)])
    with torch.enable_grad():
        list(train(model, shots, Schedule(iterations=2, steps=1, reestimate_statistics=True)))
    return model


@pytest.fixture(scope="module")
def trained() -> HtdgmPublishedModel:
    return make_trained()


@pytest.mark.parametrize(("transformations", "patch_fraction"), [("rotations", 1.0), ("full", 0.05)])
@pytest.mark.usefixtures("float64")  # where no two patches are tied
@torch.no_grad()
def test_scores_and_maps_are_those_of_a_loop_over_patches(transformations: str, patch_fraction: float) -> None:
    model = make_trained(transformations=transformations, patch_fraction=patch_fraction)
    image, number = shingles(angle=0.6, seed=1, size=40), len(model.transformations)
    scores = []
    for scale, reduced in zip(model.scales, model.pyramid(image).values(), strict=True):
        side = scale.size - 10
        anomalies = torch.zeros(number, side, side)
        for index, transformation in enumerate(model.transformations):
            transformed = transformation.apply(reduced)
            for row, column in np.ndindex(side, side):  # every patch by itself
                logits = scale.discriminator(transformed[..., row : row + 11, column : column + 11])[0, :, 0, 0]
                anomalies[index, row, column] = 1 - logits[:number].softmax(dim=0)[index]
        highest = anomalies.flatten(1).sort(dim=1, descending=True).values
        scores.append(highest[:, : math.ceil(patch_fraction * side**2)].mean())
    least_kept = highest[:, math.ceil(0.05 * side**2) - 1]
    kept = torch.where(anomalies >= least_kept[:, None, None] - 1e-9, anomalies, 0)
    upright = [
        each.invert(votes[None], shift_length(20))[0] for each, votes in zip(model.transformations, kept, strict=True)
    ]
    expected = torch.zeros(1, 1, 20, 20)
    expected[0, 0, 5:-5, 5:-5] = torch.stack(upright).mean(dim=0)
    expected = torch.nn.functional.interpolate(expected, (40, 40), mode="bilinear")
    predictions = model(image)
    torch.testing.assert_close(predictions.pred_score, torch.stack(scores).mean()[None], atol=1e-5, rtol=0)
    torch.testing.assert_close(predictions.anomaly_map, expected, atol=1e-5, rtol=0)


def test_it_generates_images_like_its_own(trained: HtdgmPublishedModel) -> None:
    for images, number in ((trained.sample(3), 3), (trained.reconstruct(), 2)):
        assert [each.shape for each in images] == [(number, 3, size, size) for size in trained.pyramid.sizes]
        assert all(-1 <= each.min() <= each.max() <= 1 for each in images)
        assert len(images[-1].unique(dim=0)) == number
    assert torch.equal(trained.sample(3)[-1], trained.sample(3)[-1])
    assert not torch.equal(trained.sample(3)[-1], trained.sample(3, seed=1)[-1])
    picture = trained.picture(num_images=3)
    assert picture.shape[0] == 3
    assert 0 <= picture.min() <= picture.max() <= 1


def test_whoever_forgets_eval_scores_alike(trained: HtdgmPublishedModel) -> None:
    image = shingles(size=40)
    assert torch.equal(trained.train()(image).pred_score, trained.eval()(image).pred_score)


def test_what_is_saved_scores_alike(trained: HtdgmPublishedModel) -> None:
    loaded = HtdgmPublishedModel((40, 40), 2, image_size=20, coarsest_size=15, width=4)
    for use in (lambda: loaded(shingles(size=40)), lambda: loaded.sample(1), loaded.reconstruct):
        with pytest.raises(RuntimeError, match="HtdgmPublished has not been trained, or not to the end: fit it"):
            use()
    loaded.load_state_dict(trained.state_dict())
    assert torch.equal(loaded(shingles(size=40)).anomaly_map, trained(shingles(size=40)).anomaly_map)
    assert torch.equal(loaded.sample(1)[-1], trained.sample(1)[-1])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("k_shot", 0),
        ("seed", -1),
        ("transformations", "sharpness"),
        ("image_size", 10),
        ("coarsest_size", 65),
        ("width", 0),
        ("patch_fraction", 0),
        ("iterations", 0),
        ("steps", 1.5),
        ("fake_weight", -1),
    ],
)
def test_bad_arguments_are_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: got {value!r}; allowed are"):
        HtdgmPublished(**{name: value})


def test_sets_have_the_supplements_groups() -> None:
    numbers = {"full": 54, "grayscale": 42, "rotations": 4, "symmetries": 16}
    assert {name: len(each) for name, each in TRANSFORMATION_SETS.items()} == numbers
    assert all(len(set(each)) == len(each) for each in TRANSFORMATION_SETS.values())
    assert FULL[:42] == TRANSFORMATION_SETS["grayscale"]
    assert not any(each.grayscale for each in FULL[:42])
    assert not any(each.right or each.down for each in TRANSFORMATION_SETS["symmetries"])
    plain = [each for each in FULL if not each.grayscale and not each.quarter_turns]
    assert len({(each.right, each.down) for each in plain}) == 9
