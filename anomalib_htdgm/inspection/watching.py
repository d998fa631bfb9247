# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Watches a training: reports how far it is, and ends it when it is to stop."""

from collections.abc import Callable
from threading import Event
from typing import TYPE_CHECKING, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from anomalib_htdgm.models.htdgm.training import count_steps

if TYPE_CHECKING:
    from anomalib_htdgm import Htdgm

ITERATIONS_PER_REPORT = 10
"""Iterations after which the bar moves: to draw it a hundred times a second would slow them down."""


class StoppedError(Exception):
    """What was going on was stopped by the user."""


class Watch(Callback):
    """Reports which share of a training is done, and ends it by :class:`StoppedError` when it is to stop."""

    def __init__(self, report: Callable[[float], None], stopped: Event) -> None:
        self.report = report
        self.stopped = stopped

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look whether to stop before every image that is scored, too: for the threshold, after the last iteration."""
        model = cast("Htdgm", pl_module)
        self.number = count_steps(model.model)
        maps = model.model.anomaly_map_generator
        self.scoring = maps.register_forward_pre_hook(lambda *_: self._look(trainer.global_step))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the model as it was."""
        del trainer, pl_module
        self.scoring.remove()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Look in every iteration, which is a step of an optimiser."""
        del pl_module, optimizer
        self._look(trainer.global_step)

    def _look(self, done: int) -> None:
        if self.stopped.is_set():
            raise StoppedError
        if done % ITERATIONS_PER_REPORT == 0 or done == self.number:
            self.report(done / self.number)
