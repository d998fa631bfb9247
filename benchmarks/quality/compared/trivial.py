# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""A score that knows nothing: where it is far from chance, the figures of any model say little about defects."""

from typing import Any, Literal

import torch
from anomalib import LearningType
from anomalib.data import ImageBatch, InferenceBatch
from anomalib.models.components import AnomalibModule
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import nn

from anomalib_htdgm.validation import check_choice

Statistic = Literal["brightness", "contrast"]


class _Measure(nn.Module):
    """One number for each image."""

    def __init__(self, statistic: Statistic) -> None:
        super().__init__()
        self.statistic = statistic

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Score images of shape ``(B, 3, H, W)``."""
        pixels = images.mean(dim=1).flatten(1)
        return InferenceBatch(pred_score=pixels.mean(dim=1) if self.statistic == "brightness" else pixels.std(dim=1))


class Untrained(AnomalibModule):
    """A model whose training is no optimisation: one pass over the training images.

    Args:
        **components: Pre-processor, post-processor, evaluator and visualizer, as anomalib's models take them.
    """

    @staticmethod
    def configure_optimizers() -> None:
        """There is nothing to optimise."""

    def training_step(self, batch: ImageBatch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Learn nothing."""
        del batch, args, kwargs
        return torch.tensor(0.0, requires_grad=True)

    def validation_step(self, batch: ImageBatch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Score a batch."""
        del args, kwargs
        return batch.update(**self.model(batch.image)._asdict())

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """One epoch."""
        return {"max_epochs": 1, "num_sanity_val_steps": 0, "devices": 1}

    @property
    def learning_type(self) -> LearningType:
        """Learning type."""
        return LearningType.ONE_CLASS


class TrivialScore(Untrained):
    """Scores an image by its brightness or contrast alone; it learns nothing, so it is the same in every trial.

    An AUROC below 50 % is as telling as one that is as far above.

    Args:
        statistic (str): ``brightness``, the mean of all pixels, or ``contrast``, their standard deviation.
        **components: Pre-processor, post-processor, evaluator and visualizer, as anomalib's models take them.

    Raises:
        ValueError: If there is no such statistic.
    """

    def __init__(self, statistic: Statistic = "brightness", **components: Any) -> None:
        check_choice("statistic", statistic, ("brightness", "contrast"))
        super().__init__(**components)
        self.model: _Measure = _Measure(statistic)
