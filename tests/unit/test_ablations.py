# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Variants of the paper's Table 1 compute what it says: real against generated patches, and squared distances."""

import math

import pytest
import torch
from anomalib.data import ImageBatch
from compared.ablations import MeanSquaredDistance, RealOrFake
from torch.nn import functional as F  # noqa: N812

from anomalib_htdgm.models.htdgm.loss import transformation_loss

from .textures import VOTES_ALONE, shingles, train

pytestmark = pytest.mark.usefixtures("one_thread")


SMALL = VOTES_ALONE | {"image_size": 25, "coarsest_size": 20, "width": 8, "precision": "float32"}
SMALL |= {"fake_weight": 1.0, "vote": "probability", "patch_fraction": 1.0}


def untied(variant: RealOrFake, scale: int, images: torch.Tensor) -> list[torch.Tensor]:
    """Logits of "real" and "generated" on every transformed image, one image after the other: the slow way."""
    model, (discriminator,) = variant.model, variant.model.votes.discriminators[scale][0]
    each = [transformation.apply(images) for transformation in model.votes.transformation_sets[0]]
    return [super(type(discriminator), discriminator).forward([transformed])[0][:, :2] for transformed in each]


@pytest.fixture(params=["identity", "symmetries", "full"])
def trained(request: pytest.FixtureRequest) -> RealOrFake:
    variant = RealOrFake(transformations=request.param, **SMALL)
    train(variant.model, shingles(), iterations=3, fake_weight=1.0)
    return variant


def test_the_score_is_the_mean_probability_of_generated_patches(trained: RealOrFake) -> None:
    image = shingles(angle=0.3, seed=1)
    scales = trained.model.reduce(image).values()
    generated = [
        torch.stack([logits.softmax(dim=1)[:, 1].mean() for logits in untied(trained, scale, reduced)]).mean()
        for scale, reduced in enumerate(scales)
    ]
    assert trained.model(image).pred_score.item() == pytest.approx(float(torch.stack(generated).mean()), abs=1e-5)


def test_the_losses_are_those_of_two_classes(trained: RealOrFake) -> None:
    model = trained.model
    canvases, (discriminator,) = model.votes.canvases[0][0], model.votes.discriminators[0][0]
    reduced = model.reduce(shingles(angle=0.3, seed=1))[model.pyramid.sizes[0]]
    targets = [each[None] for each in canvases.targets()]
    logits = discriminator(canvases.draw(reduced))
    plain = untied(trained, 0, reduced)
    shared = math.log(canvases.num_transformations)
    for label, offset in enumerate((shared, 0.0)):
        ours = transformation_loss(logits, targets, fake=label == 1) - offset
        target = torch.full_like(plain[0][:, 0], label, dtype=torch.long)
        expected = torch.stack([F.cross_entropy(each, target) for each in plain]).mean()
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


def test_distance_is_the_mean_over_training_images() -> None:
    variant = MeanSquaredDistance(image_size=8, evaluator=False, post_processor=False, visualizer=False)
    shots, images = torch.rand(3, 3, 8, 8), torch.rand(2, 3, 8, 8)
    for part in shots.split(2):
        variant.training_step(ImageBatch(image=part))
    expected = [sum(float((image - shot).square().mean()) for shot in shots) / 3 for image in images]
    torch.testing.assert_close(variant.model(images).pred_score, torch.tensor(expected))
