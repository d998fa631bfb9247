# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What Devnet and Differnet have in common, the models that Htdgm is compared with: they are trained in one go."""

import logging
from typing import Any

import torch
from torch import nn

from .single_epoch import SingleEpochMixin

logger = logging.getLogger(__name__)


class BaselineMixin(SingleEpochMixin):
    """A model whose training cannot be resumed, and draws all that is random from one source."""

    hparams: Any
    device: torch.device
    model: nn.Module
    _source: torch.Generator

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Become the model that was saved, whatever arguments this one was made with.

        Args:
            checkpoint (dict[str, Any]): Lightning's checkpoint.

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
