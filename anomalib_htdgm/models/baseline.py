# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What Devnet and Differnet have in common, the models that Htdgm is compared with: they are trained in one go."""

import logging
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
from anomalib.data import ImageBatch, ImageItem
from torch import nn
from torch.utils.data import DataLoader

from .single_epoch import SingleEpochMixin

logger = logging.getLogger(__name__)


class BaselineMixin(SingleEpochMixin):
    """A model whose training cannot be resumed, and draws all that is random from one source."""

    hparams: Any
    device: torch.device
    model: nn.Module
    _source: torch.Generator
    _batches: Iterable[ImageBatch] | None = None

    def setup(self, stage: str) -> None:
        """Before a training read its images, once, and give the model its initial weights.

        Raises:
            ValueError: If images or weights are missing.
        """
        super().setup(stage)
        if stage == "fit":
            self._batches = self.prepare_training(self.take_over_training_data())

    @abstractmethod
    def prepare_training(self, dataloader: DataLoader[ImageItem]) -> Iterable[ImageBatch]:
        """Give the model its initial weights, and make the batches of all steps of a training."""

    def train_dataloader(self) -> Iterable[ImageBatch]:
        """Serve one batch for each step: to Lightning, one epoch is the whole training."""
        assert self._batches is not None  # noqa: S101  # for the type checker: `setup` comes first
        return self._batches

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out the optimiser's state, which is twice as large as the model: no training is resumed."""
        super().on_save_checkpoint(checkpoint)
        checkpoint.pop("optimizer_states", None)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Become the model that was saved, whatever arguments this one was made with.

        Raises:
            ValueError: If a training was to be resumed.
        """
        if self.is_resuming:
            name = type(self).__name__
            msg = f"ckpt_path: {name} does not resume trainings; fit without it, or validate, test and predict with it"
            raise ValueError(msg)
        super().on_load_checkpoint(checkpoint)
        arguments = self.arguments_of(checkpoint.get("hyper_parameters", {}))
        if arguments != dict(self.hparams):
            model = self.rebuild(arguments, pre_processor=False, post_processor=False)
            for name in vars(self).keys() & arguments.keys():
                setattr(self, name, arguments[name])
            self.model = model.model.to(self.device)
            self.hparams.update(arguments)
            logger.info("Arguments of the model are those of the checkpoint.")

    def on_train_start(self) -> None:
        """Draw from the start."""
        self._source = torch.Generator().manual_seed(self.hparams["seed"])

    def teardown(self, stage: str) -> None:
        """Let go of the training images, which an exported model must not carry."""
        super().teardown(stage)
        self._batches = None
