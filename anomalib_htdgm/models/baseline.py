# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What Devnet, Differnet and HtdgmPublished have in common, the models that Htdgm is compared with."""

import logging
from typing import Any

import torch
from torch import nn

from anomalib_htdgm.anomalib_fixes.single_epoch import SingleEpochMixin, forget_thresholds

logger = logging.getLogger(__name__)


class BaselineMixin(SingleEpochMixin):
    """A model whose training draws all that is random from one source."""

    hparams: Any
    device: torch.device
    model: nn.Module
    _source: torch.Generator

    def setup(self, stage: str) -> None:
        """Prepare a stage; a training begins without a threshold, and draws from the start."""
        super().setup(stage)
        if stage == "fit":
            forget_thresholds(self.post_processor)
            self._source = torch.Generator().manual_seed(self.hparams["seed"])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Become the model that was saved, whatever arguments this one was made with."""
        super().on_load_checkpoint(checkpoint)
        arguments = self.arguments_of(checkpoint.get("hyper_parameters", {}))
        if arguments != dict(self.hparams):
            model = self.rebuild(arguments, pre_processor=False, post_processor=False)
            for name in vars(self).keys() & arguments.keys():
                setattr(self, name, arguments[name])
            self.model = model.model.to(self.device)
            self.hparams.update(arguments)
            logger.info("Arguments of the model are those of the checkpoint.")
