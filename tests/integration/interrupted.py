# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Trainings in processes of their own, which stop where a test wants to interrupt them."""

import multiprocessing
import os
import resource
import signal
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from anomalib.data import MVTecAD
from anomalib.engine import Engine
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from anomalib_htdgm import Htdgm

from .small import make_engine

TIMEOUT = 240
ARGUMENTS = {"k_shot": 2, "seed": 1, "image_size": 20, "width": 4, "iterations": 3, "votes_from": 12}
SCALES, STEPS = 3, 6
"""Scales of that model, and steps at each: two sets of transformations, three iterations."""


@dataclass
class Order:
    """What a child is to do.

    Args:
        root (Path): Folder of the data set.
        folder (Path): Folder for all that the training writes.
        kept (Path): Folder for the checkpoints that are asked for.
        callback (dict[str, Any]): When they are asked for; never by default.
        stop_at (int): Step of the training to stop before; that of the validation if ``in_validation``.
        in_validation (bool): Whether it stops in the validation.
        largest_file (int | None): Size in bytes of the largest file that it may write from there on.
        is_fatal (bool): Whether the kernel kills it at this size, in place of an error as of a full disk.
    """

    root: Path
    folder: Path
    kept: Path
    callback: dict[str, Any] = field(default_factory=dict)
    stop_at: int = 0
    in_validation: bool = False
    largest_file: int | None = None
    is_fatal: bool = False


def fit(
    root: Path, folder: Path, callbacks: list[Callback], model: Htdgm, ckpt_path: Path | None = None
) -> tuple[Htdgm, Engine]:
    """Train as any user would."""
    engine = make_engine(folder, callbacks=callbacks)
    datamodule = MVTecAD(root=root, category="wall", eval_batch_size=5, num_workers=0)
    engine.fit(model, datamodule=datamodule, ckpt_path=ckpt_path)
    return model, engine


class Child:
    """A training in a process of its own."""

    def __init__(self, order: Order) -> None:
        self.log = order.folder.with_suffix(".log")
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])  # imports take seconds; children are forked from a server with them
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_run, args=(order, theirs, self.log))
        self.process.start()
        theirs.close()

    def wait_until_it_stops(self) -> None:
        assert self.connection.poll(TIMEOUT), "the child has not come so far"
        try:
            self.connection.recv()
        except EOFError:
            pytest.fail(f"the child ended before it stopped:\n{self.log.read_text()}")

    def kill(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def let_go(self) -> tuple[int, str]:
        """Let it go on to its end; return the exit code and the output."""
        with suppress(BrokenPipeError):  # it may be dead already
            self.connection.send("go")
        self.process.join(TIMEOUT)
        assert self.process.exitcode is not None, "the child has not ended"
        return self.process.exitcode, self.log.read_text()


class _Stop(Callback):
    def __init__(self, order: Order, connection: Connection) -> None:
        self.order, self.connection = order, connection

    def on_train_batch_start(self, trainer: Trainer, pl_module: Htdgm, batch: object, batch_idx: int) -> None:
        del trainer, pl_module, batch
        if batch_idx == self.order.stop_at and not self.order.in_validation:
            self._stop()

    def on_validation_batch_start(self, trainer: Trainer, pl_module: Htdgm, batch: object, batch_idx: int) -> None:
        del trainer, pl_module, batch
        if batch_idx == self.order.stop_at and self.order.in_validation:
            self._stop()

    def _stop(self) -> None:
        self.connection.send("here")
        self.connection.recv()
        if self.order.largest_file is not None:
            if self.order.is_fatal:
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.order.largest_file, self.order.largest_file))


def _run(order: Order, connection: Connection, log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # processes of a shell's background ignore it
    torch.set_num_threads(1)
    callbacks: list[Callback] = [_Stop(order, connection)]
    if order.callback:
        callbacks.append(ModelCheckpoint(order.kept, **order.callback))
    fit(order.root, order.folder, callbacks, Htdgm(**ARGUMENTS))
