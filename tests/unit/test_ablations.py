# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Variants of the paper's Table 1 compute what it says: real against generated patches, and squared distances."""

import pytest
import torch
from anomalib.data import ImageBatch
from compared.ablations import MeanSquaredDistance, RealOrFake
from torch.nn import functional as F

from anomalib_htdgm.models.htdgm_published.training import train

from .textures import shingles

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("transformations", ["identity", "symmetries", "full"])
def test_real_is_told_from_generated_whatever_the_transformation(transformations: str) -> None:
    sizes = {"image_size": 25, "coarsest_size": 20, "width": 4}
    variant = RealOrFake(transformations=transformations, iterations=2, steps=1, patch_fraction=1.0, **sizes)
    model, image = variant.model, shingles(angle=0.3, seed=1)
    first, *_ = list(train(model, shingles(), variant.schedule))
    # Weights are so small at first that each of two classes is as probable as the other.
    torch.testing.assert_close(first["discriminator_loss"], torch.tensor(2.0).log(), atol=0.05, rtol=0)
    torch.testing.assert_close(first["fake_loss"], torch.tensor(2.0).log(), atol=0.05, rtol=0)
    generated = []
    for scale, reduced in zip(model.scales, model.pyramid(image).values(), strict=True):
        logits = scale.discriminator(torch.cat([each.apply(reduced) for each in model.transformations]))
        real = torch.zeros_like(logits[:, 0], dtype=torch.long)
        generated.append(1 - torch.exp(-F.cross_entropy(logits, real, reduction="none")).mean())
    assert logits.shape[1] == 2
    assert model(image).pred_score.item() == pytest.approx(sum(generated).item() / 2, abs=1e-5)


def test_distance_is_the_mean_over_training_images() -> None:
    variant = MeanSquaredDistance(image_size=8, evaluator=False, post_processor=False, visualizer=False)
    shots, images = torch.rand(3, 3, 8, 8), torch.rand(2, 3, 8, 8)
    for part in shots.split(2):
        variant.training_step(ImageBatch(image=part))
    expected = [sum(float((image - shot).square().mean()) for shot in shots) / 3 for image in images]
    torch.testing.assert_close(variant.model(images).pred_score, torch.tensor(expected))
