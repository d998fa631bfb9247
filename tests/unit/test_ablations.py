# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Variants compute what they say: real against generated patches, squared distances, one signal alone."""

from pathlib import Path

import pytest
import torch
from anomalib.data import ImageBatch
from compared.ablations import MeanSquaredDistance, RealOrFake
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch.nn import functional as F

from anomalib_htdgm.models.htdgm.training import train as train_htdgm
from anomalib_htdgm.models.htdgm_published.training import train

from .textures import shingles

SIGNALS = Path(__file__).parents[2] / "benchmarks" / "quality" / "conf" / "model" / "htdgm_signals.yaml"

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


def test_each_signal_scores_alone_and_at_last_all_of_them() -> None:
    small = {"image_size": 32, "iterations": 1, "width": 4, "memory_patches": 50, "energy_cells": 50}
    config = OmegaConf.merge({"shots": 1, "trial": 0}, {"model": OmegaConf.load(SIGNALS)}).model
    model = instantiate(config.arguments, settings=small, precision="float32").model
    list(train_htdgm(model, shingles()))
    image, scores = shingles(angle=0.9), []
    for model.alone in config.tested_with.alone:
        scores.append(model(image).pred_score)
        assert len(model.signals) == (1 if model.alone else 3)
    torch.testing.assert_close(torch.cat(scores[:-1]).log().mean().exp(), scores[-1].squeeze())
