# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Detectors of other libraries see the pixels of the training images, and their scores are an anomalib model's."""

import random
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
from shared.measurements import weigh
from skimage.io import imread
from torchvision.transforms.v2.functional import resize

from .labelled import prepared

pytestmark = pytest.mark.usefixtures("one_thread")
BENCHMARKS = Path(__file__).parents[2] / "benchmarks" / "quality"
ALONE: dict[str, Any] = {"post_processor": False, "visualizer": False}


class DistanceToMean:
    """A detector with the interface of PyOD, which needs gradients, as networks do."""

    def fit(self, vectors: NDArray[np.float32]) -> None:
        centre = torch.zeros(vectors.shape[1], requires_grad=True)
        (torch.from_numpy(vectors) - centre).square().mean(dim=0).sum().backward()
        assert centre.grad is not None
        self.mean = -centre.grad.numpy() / 2

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


def pixels(paths: list[str]) -> torch.Tensor:
    images = torch.stack([torch.from_numpy(imread(path)).permute(2, 0, 1) / 255 for path in paths])
    return resize(images, [12, 12], antialias=True).flatten(1)


@pytest.mark.parametrize("validation_batches", [0, 1])
def test_scores_are_the_detectors_of_the_reduced_pixels(cifar10: Path, validation_batches: int) -> None:
    data = prepared(cifar10, train_batch_size=3, eval_batch_size=5)
    model = PixelDetector(DistanceToMean, image_size=12, **ALONE)
    engine = Engine(barebones=True, logger=False, enable_progress_bar=False, limit_val_batches=validation_batches)
    engine.fit(model, datamodule=data)
    batches = engine.predict(model, datamodule=data)
    assert batches is not None
    scores = {item.image_path: float(item.pred_score) for batch in batches for item in batch.items}
    assert len(scores) == len(data.test_data)
    expected = (pixels(list(scores)) - pixels(data.train_data.samples["image_path"].tolist()).mean(dim=0)).norm(dim=1)
    torch.testing.assert_close(torch.tensor(list(scores.values())), expected)
    assert 0.99 < weigh(model) / (3 * 12 * 12 * 4 / 1e6) < 3  # what it remembers counts as weights


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
    [("deep_svdd", "pyod.models.deep_svdd", {}), ("goad", "deepod.models.tabular", {"n_trans": 8, "epochs": 5})],
)
def test_libraries_detectors_learn_from_one_image(name: str, library: str, changes: dict[str, int]) -> None:
    pytest.importorskip(library)
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    config = OmegaConf.merge({"trial": 0}, {"model": OmegaConf.load(BENCHMARKS / f"conf/model/{name}.yaml")})
    config.model.arguments.detector.update(changes)
    model = hydra.utils.instantiate(config.model.arguments, **ALONE).model
    model.fit(images[:1])
    scores = model(images).pred_score
    assert scores.isfinite().all()
    assert len(scores.unique()) == len(images)
