# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What to do after a training was broken off."""

import logging
import signal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from anomalib_htdgm.models.checkpoint_io import WholeCheckpointIO

logger = logging.getLogger(__name__)


class Advice(Callback):
    """Tells how to go on when a training is interrupted, or cannot be saved."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Name the checkpoint to resume from, and let no terminated training pass for a successful one."""
        if isinstance(exception, SIGTERMException):
            exception.code = 128 + signal.SIGTERM  # as shells have it; Lightning would exit with 0
        if trainer.state.fn != TrainerFn.FITTING or not isinstance(exception, KeyboardInterrupt | SystemExit | OSError):
            return
        pl_module.teardown("fit")  # Lightning does it after a training that ends by itself
        checkpoint_io = trainer.strategy.checkpoint_io
        last = checkpoint_io.last if isinstance(checkpoint_io, WholeCheckpointIO) else None
        saves_now = any(getattr(callback, "save_on_exception", False) for callback in trainer.checkpoint_callbacks)
        if last is not None:
            logger.warning("The training was broken off. Go on from its last checkpoint: fit with ckpt_path=%s", last)
        elif trainer.global_step and not saves_now:
            logger.warning(
                "The training was broken off before a checkpoint was written, and has to start anew. To resume one, "
                "give the trainer the callback ModelCheckpoint(every_n_train_steps=..., save_last=True)"
            )
