# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""A score that knows nothing: where it does well, the figures of any model say little about defects."""

from typing import Any, Literal, cast

import torch
from anomalib import LearningType
from anomalib.data import ImageBatch, InferenceBatch
from anomalib.models.components import AnomalibModule, MemoryBankMixin
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import nn

from anomalib_htdgm.validation import check_choice

Statistic = Literal["brightness", "contrast"]


class _Distance(MemoryBankMixin, nn.Module):
    """How far a statistic of an image is from those of the training images."""

    usual: torch.Tensor

    def __init__(self, statistic: Statistic) -> None:
        super().__init__()
        self.statistic = statistic
        self.register_buffer("usual", torch.zeros(1))
        self._seen: list[torch.Tensor] = []

    def measure(self, images: torch.Tensor) -> torch.Tensor:
        """Measure images of shape ``(B, 3, H, W)``: mean, or standard deviation, of their pixels; shape ``(B,)``."""
        pixels = images.mean(dim=1).flatten(1)
        return pixels.mean(dim=1) if self.statistic == "brightness" else pixels.std(dim=1)

    def see(self, images: torch.Tensor) -> None:
        """Take in training images."""
        self._seen.append(self.measure(images))

    def fit(self) -> None:
        """Take the mean over all training images."""
        self.usual = torch.cat(self._seen).mean()[None]
        self._seen = []

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Score images of shape ``(B, 3, H, W)``."""
        return InferenceBatch(pred_score=(self.measure(images) - self.usual).abs())


class TrivialScore(AnomalibModule):
    """Scores an image by how much brighter or darker, or richer or poorer in contrast, it is than the training images.

    Args:
        statistic (str): ``brightness``, the mean of all pixels, or ``contrast``, their standard deviation.
        **components: Pre-processor, post-processor, evaluator and visualizer, as anomalib's models take them.

    Raises:
        ValueError: If there is no such statistic.
    """

    def __init__(self, statistic: Statistic = "brightness", **components: Any) -> None:  # noqa: ANN401
        check_choice("statistic", statistic, ("brightness", "contrast"))
        super().__init__(**components)
        self.model: _Distance = _Distance(statistic)

    @staticmethod
    def configure_optimizers() -> None:
        """There is nothing to optimise."""

    def training_step(self, batch: ImageBatch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:  # noqa: ANN401
        """Take in a batch of training images."""
        del args, kwargs
        self.model.see(cast("torch.Tensor", batch.image))
        return torch.tensor(0.0, requires_grad=True)

    def validation_step(self, batch: ImageBatch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:  # noqa: ANN401
        """Score a batch."""
        del args, kwargs
        return batch.update(**self.model(batch.image)._asdict())

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """One look at each image is enough."""
        return {"max_epochs": 1, "num_sanity_val_steps": 0, "devices": 1}

    @property
    def learning_type(self) -> LearningType:
        """Learning type."""
        return LearningType.ONE_CLASS
