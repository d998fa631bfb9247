# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Detectors of other libraries see the pixels of the k shots, and their scores are an anomalib model's."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
import torch
from anomalib.engine import Engine
from compared.detectors import PixelDetector
from numpy.typing import NDArray
from omegaconf import OmegaConf
from shared.measurements import make_evaluator, weigh
from skimage.io import imread
from torchvision.transforms.v2.functional import resize

from anomalib_htdgm import FewShot, OneClass

pytestmark = pytest.mark.usefixtures("one_thread")
BENCHMARKS = Path(__file__).parents[2] / "benchmarks" / "quality"


ALONE: dict[str, Any] = {"post_processor": False, "visualizer": False}


class DistanceToMean:
    """A detector with the interface of PyOD."""

    def fit(self, vectors: NDArray[np.float32]) -> None:
        self.mean = vectors.mean(axis=0)

    def decision_function(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.linalg.norm(vectors - self.mean, axis=1)


class Dice:
    """A detector that draws from every generator, while it is fitted and while it is asked."""

    def fit(self, vectors: NDArray[np.float32]) -> None:
        del vectors
        self.drawn = self._draw()

    def decision_function(self, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.full(len(vectors), self.drawn + self._draw())

    @staticmethod
    def _draw() -> float:
        return float(torch.rand(())) + np.random.rand() + random.random()  # noqa: NPY002, S311


class Slope:
    """A detector that needs gradients, as networks do."""

    def fit(self, vectors: NDArray[np.float32]) -> None:
        weights = torch.ones(vectors.shape[1], requires_grad=True)
        (torch.from_numpy(vectors) @ weights).sum().backward()
        self.weights = weights.grad

    def decision_function(self, vectors: NDArray[np.float32]) -> torch.Tensor:
        return torch.from_numpy(vectors) @ self.weights


@pytest.fixture
def frogs(tmp_path: Path) -> Callable[[int], FewShot]:
    """Make a datamodule of a few green frogs, with deer to be told from them."""
    source = np.random.default_rng(0)
    labels = np.repeat([6, 4], 12)
    images = source.integers(0, 120, (24, 32, 32, 3), dtype=np.uint8)
    images[labels == 6, :, :, 1] += 120
    path = tmp_path / "cifar10.npz"
    np.savez(path, x_train=images, y_train=labels, x_test=images[::-1], y_test=labels[::-1])

    def make(shots: int) -> FewShot:
        data = OneClass("CIFAR10", 6, root=tmp_path, arrays=path, num_workers=0, train_batch_size=2, eval_batch_size=5)
        return FewShot(data, k_shot=shots)

    return make


def run(model: PixelDetector, datamodule: FewShot, validation_batches: int = 0) -> dict[str, float]:
    """Train, test and give the scores of the test images."""
    engine = Engine(
        logger=False, barebones=True, enable_progress_bar=False, limit_val_batches=validation_batches, callbacks=[]
    )
    engine.fit(model, datamodule=datamodule)
    batches = engine.predict(model, datamodule=datamodule)
    assert batches is not None
    return {item.image_path: float(item.pred_score) for batch in batches for item in batch.items}


def pixels(paths: list[str], size: int) -> torch.Tensor:
    images = torch.stack([torch.from_numpy(imread(path)).permute(2, 0, 1) / 255 for path in paths])
    return resize(images, [size, size], antialias=True).flatten(1)


@pytest.mark.parametrize("shots", [1, 5])
@pytest.mark.parametrize("validation_batches", [0, 1])
def test_scores_are_the_detectors_of_the_reduced_pixels(
    frogs: Callable[[int], FewShot], shots: int, validation_batches: int
) -> None:
    datamodule = frogs(shots)
    scores = run(PixelDetector(DistanceToMean, image_size=12, **ALONE), datamodule, validation_batches)
    mean = pixels(datamodule.train_data.samples["image_path"].tolist(), 12).mean(dim=0)
    assert len(datamodule.train_data) == shots
    assert len(scores) == 24
    expected = (pixels(list(scores), 12) - mean).norm(dim=1)
    torch.testing.assert_close(torch.tensor(list(scores.values())), expected)


def test_frogs_are_told_from_deer_and_the_detector_is_weighed(frogs: Callable[[int], FewShot]) -> None:
    datamodule = frogs(5)
    model = PixelDetector(DistanceToMean, evaluator=make_evaluator(has_masks=False), **ALONE)
    engine = Engine(logger=False, enable_progress_bar=False, limit_val_batches=0)
    engine.fit(model, datamodule=datamodule)
    (values,) = engine.test(model, datamodule=datamodule, verbose=False)
    assert values["image_AUROC"] == 1
    assert 0.99 < weigh(model) / (3 * 32 * 32 * 4 / 1e6) < 1.5


@pytest.mark.parametrize("validation_batches", [0, 1])
def test_detectors_have_gradients_while_they_are_fitted(
    frogs: Callable[[int], FewShot], validation_batches: int
) -> None:
    scores = run(PixelDetector(Slope, image_size=8, **ALONE), frogs(3), validation_batches)
    assert np.ptp(list(scores.values())) > 0


def test_a_seed_gives_one_model_and_draws_nothing_of_others() -> None:
    images, state = torch.rand(4, 3, 8, 8), torch.get_rng_state()
    scores = []
    for seed in (0, 0, 1):
        model = PixelDetector(Dice, seed=seed).model
        model.fit(images)
        scores += [model(images).pred_score, model(images).pred_score]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(each, scores[0]) for each in scores[:4])
    assert not torch.equal(scores[4], scores[0])


@pytest.mark.parametrize(
    ("name", "library", "changes"),
    [
        ("deep_svdd", "pyod.models.deep_svdd", {}),
        ("goad", "deepod.models.tabular", {"n_trans": 8, "epochs": 5}),
    ],
)
@pytest.mark.parametrize("shots", [1, 5])
def test_libraries_detectors_learn_from_few_images(
    name: str, library: str, changes: dict[str, int], shots: int
) -> None:
    pytest.importorskip(library)
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    scores = []
    for trial in (0, 0, 1):
        config = OmegaConf.merge({"trial": trial}, {"model": OmegaConf.load(BENCHMARKS / f"conf/model/{name}.yaml")})
        config.model.arguments.detector.update(changes)
        model = hydra.utils.instantiate(config.model.arguments, **ALONE).model
        model.fit(images[:shots])
        scores.append(model(images).pred_score)
    assert scores[0].isfinite().all()
    assert len(scores[0].unique()) == len(images)
    assert torch.equal(scores[0], scores[1])
    assert not torch.equal(scores[0], scores[2])


@pytest.mark.parametrize("argument", ["image_size", "seed"])
def test_numbers_out_of_range_are_refused(argument: str) -> None:
    with pytest.raises(ValueError, match=argument):
        PixelDetector(DistanceToMean, **{argument: -1})
