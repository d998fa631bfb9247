# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The obvious way does the same work as the model; every way of scoring gives a number."""

from dataclasses import replace

import explore
import pytest
import torch

from anomalib_htdgm.models.htdgm.torch_model import HtdgmModel
from anomalib_htdgm.models.htdgm.training import Training

from .naive import NaiveTraining, naive_score, naive_votes
from .textures import VOTES_ALONE, shingles, train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("transformations", ["full", "rotations"])
@pytest.mark.parametrize("fake_weight", [0.0, 1.0])
def test_naive_scores_and_maps_are_ours(transformations: str, fake_weight: float) -> None:
    sizes = VOTES_ALONE | {"image_size": 32, "width": 8, "precision": "float32"}
    model = HtdgmModel((64, 64), transformations=transformations, adversarial=fake_weight > 0, **sizes)
    train(model, shingles(), iterations=5, fake_weight=fake_weight)
    image = shingles(angle=0.3, seed=1)
    expected = model(image)
    score, anomaly_map = naive_score(model, image)
    for votes, expected_votes in zip(naive_votes(model, image), *model.votes.average(model.reduce(image)), strict=True):
        torch.testing.assert_close(votes, expected_votes, atol=1e-4, rtol=0)
    torch.testing.assert_close(score, expected.pred_score, atol=1e-4, rtol=0)
    torch.testing.assert_close(anomaly_map, expected.anomaly_map, atol=1e-4, rtol=0)


def test_naive_training_starts_from_the_loss_of_ours_and_learns() -> None:
    schedule = Training(iterations=1, discriminator_steps=1, generator_steps=1, fake_weight=1.0, learning_rate=1e-12)
    sizes = VOTES_ALONE | {"image_size": 25, "coarsest_size": 25, "width": 8, "precision": "float32"}
    model = HtdgmModel((64, 64), transformations="full", adversarial=True, **sizes)
    (step,) = schedule.run(model, shingles())  # learns nothing at this rate
    naive = NaiveTraining(replace(schedule, learning_rate=5e-4), model, 0, shingles())
    first = naive.step()
    # Not the same bits: here batch norm counts a pixel once for each image that shows it, there once a canvas.
    torch.testing.assert_close(first["discriminator_loss"], step.losses["discriminator_loss"], rtol=1e-4, atol=0)
    for _ in range(20):
        last = naive.step()
    assert last["discriminator_loss"] < 0.95 * first["discriminator_loss"]


def test_images_are_scored_by_each_signal() -> None:
    model = train(HtdgmModel((64, 64), image_size=24, width=8), shingles(), iterations=1)
    scores = explore.score(model, torch.cat([shingles(), shingles(angle=0.3, seed=1)]))
    assert list(scores) == ["as the model", "votes 0", "patches 0", "orientedenergies 0"]
    assert all(values.isfinite().all() and values[0] != values[1] for values in scores.values())
