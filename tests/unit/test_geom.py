# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""GEOM tells the transformations of what it was trained on, and of nothing else; a generator's samples do as well."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.engine import Engine
from compared import geom
from compared.geom import Geom, draw_samples
from compared.geom_model import TRANSFORMATIONS, GeomModel, train
from compared.wide_resnet import WideResNet
from numpy.typing import NDArray

from anomalib_htdgm import FewShot, HtdgmPublished

from .conftest import bottle
from .textures import shingles

pytestmark = pytest.mark.usefixtures("one_thread")
MakeImages = Callable[..., torch.Tensor]


SMALL: dict[str, Any] = {"image_size": 16, "widen": 1}
GENERATOR = {"image_size": 25, "coarsest_size": 25, "width": 8, "iterations": 2}


def fit_model(images: torch.Tensor, steps: int = 100, seed: int = 0) -> tuple[GeomModel, list[float]]:
    model = GeomModel(**SMALL)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = train(model, images, optimizer, seed, epochs=1, min_steps=steps, batch_size=48)
    return model, [float(loss) for loss in losses]


def fit(root: Path, directory: Path, **arguments: Any) -> Geom:
    model = Geom(k_shot=2, **SMALL, **{"min_steps": 2, "evaluator": False, "visualizer": False, **arguments})
    engine = Engine(logger=False, default_root_dir=directory, enable_progress_bar=False, limit_val_batches=0)
    engine.fit(model, datamodule=FewShot(bottle(root), k_shot=2))
    return model.eval()


@pytest.fixture(scope="module")
def trained() -> tuple[GeomModel, list[float]]:
    return fit_model(shingles())


def slowly_transformed(image: NDArray[np.float32], step: tuple[bool, int, int, int]) -> NDArray[np.float32]:
    """Look up every pixel in the image that continues by reflection: ``dcba|abcd|dcba``."""
    flip, down, right, quarter_turns = step
    size = len(image)
    plane = np.pad(image[:, ::-1] if flip else image, [(size, size), (size, size), (0, 0)], mode="symmetric")
    top, left = size - down * (size // 4), size - right * (size // 4)
    return np.rot90(plane[top : top + size, left : left + size], quarter_turns)


@pytest.mark.parametrize("size", [13, 32])
def test_the_transformations_are_what_their_steps_say(make_images: MakeImages, size: int) -> None:
    images, model = make_images(2, size), GeomModel(size, widen=1)
    transformed = model.transform(images)
    expected = [
        slowly_transformed(image.permute(1, 2, 0).numpy(), step).transpose(2, 0, 1)
        for image in images
        for step in TRANSFORMATIONS
    ]
    np.testing.assert_array_equal(transformed.numpy(), np.stack(expected))
    assert len(TRANSFORMATIONS) == len(transformed[:72].unique(dim=0)) == 72
    which = torch.tensor([143, 0, 71, 72, 5])
    assert torch.equal(model.transform(images, which), transformed[which])


def test_it_learns_to_tell_the_transformations_of_its_image_and_of_no_noise(
    trained: tuple[GeomModel, list[float]], make_images: MakeImages
) -> None:
    model, losses = trained
    image = model.reduce(shingles())
    assert sum(losses[-10:]) < 0.2 * sum(losses[:10])
    with torch.inference_mode():
        told = model.classify(model.transform(image)).argmax(dim=1)
        scores = model(torch.cat([shingles(), make_images(3, 64)])).pred_score
    assert (told == torch.arange(72)).float().mean() > 0.9
    assert scores[0] < 0.4 < scores[1:].min()
    assert 0 <= scores.min() <= scores.max() <= 1


def test_the_score_is_one_minus_the_mean_probability_of_the_right_transformation(
    trained: tuple[GeomModel, list[float]], make_images: MakeImages
) -> None:
    model, images = trained[0], make_images(3, 16)
    scores = model(images).pred_score
    for image, score in zip(images, scores, strict=True):
        probabilities = model.classify(model.transform(image[None])).softmax(dim=1)
        torch.testing.assert_close(score, 1 - sum(probabilities[index, index] for index in range(72)) / 72)


def test_a_seed_gives_one_model(trained: tuple[GeomModel, list[float]], make_images: MakeImages) -> None:
    images = make_images(3, 16)
    first, again, other = (fit_model(shingles(), 3, seed)[0](images).pred_score for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.testing.assert_close(trained[0](images.flip(0)).pred_score.flip(0), trained[0](images).pred_score)


@pytest.mark.parametrize(("number", "min_steps", "expected"), [(1, 0, 2 * 2), (3, 0, 2 * 5), (1, 7, 7)])
def test_there_are_so_many_passes_or_more_for_the_least_number_of_steps(
    make_images: MakeImages, number: int, min_steps: int, expected: int
) -> None:
    model = GeomModel(8, widen=1)
    optimizer = torch.optim.Adam(model.parameters())
    steps = train(model, make_images(number, 8), optimizer, epochs=2, min_steps=min_steps, batch_size=48)
    assert sum(1 for _ in steps) == expected


def test_networks_have_ten_layers_and_are_as_wide_as_asked() -> None:
    network = WideResNet(72, widen=2)
    assert sum(isinstance(each, torch.nn.Conv2d) for each in network.modules()) == 10
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 72)
    assert network.head.in_features == 64 * 2


def test_it_is_trained_by_the_engine_on_images_or_on_the_samples_of_a_generator(
    mvtec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(geom, "SAMPLES_AT_ONCE", 10)
    on_images = fit(mvtec, tmp_path)
    assert on_images.input_size == (16, 16)
    arguments: dict[str, Any] = {"num_samples": 11, "epochs": 1, "batch_size": 400}
    models = [fit(mvtec, tmp_path, generator=HtdgmPublished(k_shot=2, **GENERATOR), **arguments) for _ in range(2)]
    generator = models[0].generator
    assert generator is not None
    assert generator.model.is_trained
    samples = torch.cat(list(draw_samples(generator.model, 11, 0)))
    assert samples.shape == (11, 3, 25, 25)
    assert len(samples.unique(dim=0)) == 11
    image = shingles(seed=5) / 2 + 0.5
    first, again = (model(image).pred_score for model in models)
    assert torch.equal(first, again)
    assert not torch.equal(first, on_images(image).pred_score)
    assert models[0].model.state_dict().keys() == on_images.model.state_dict().keys()  # the generator is left out


def test_a_generator_has_to_generate() -> None:
    with pytest.raises(ValueError, match="generator: got a model with fake_weight=0"):
        Geom(generator=HtdgmPublished(fake_weight=0))
