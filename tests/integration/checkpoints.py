# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Checkpoints that are altered, the ways to load one, and how it is refused in each of them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from anomalib.cli.cli import AnomalibCLI
from anomalib.data import Folder
from anomalib.models import Padim
from hypothesis import HealthCheck, settings

from anomalib_htdgm import Htdgm
from anomalib_htdgm.anomalib_fixes.checkpoint import CheckpointError

from .small import make_engine, make_small_model

WEIGHT = "model.votes.discriminators.0.0.hidden.0.weight"
# Files are written anew in each example.
THOROUGHLY = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
Alteration = Callable[[dict[str, Any]], object]


def save_altered(checkpoint: Path, folder: Path, alteration: Alteration) -> Path:
    content = torch.load(checkpoint, weights_only=True)
    alteration(content)
    torch.save(content, folder / "altered.ckpt")
    return folder / "altered.ckpt"


def make_padim() -> Padim:
    return Padim(backbone="resnet18", layers=["layer1"], n_features=10, pre_trained=False)


def save(model: pl.LightningModule, good: Folder) -> Path:
    trainer = make_engine(good.root)
    trainer._setup_trainer(model)  # noqa: SLF001  # for the trainer that anomalib would make
    trainer.trainer.strategy.connect(model)
    trainer.trainer.save_checkpoint(good.root / "other.ckpt")
    return good.root / "other.ckpt"


def load(path: Path, _good: Folder) -> object:
    return Htdgm.load_from_checkpoint(path)


def predict(path: Path, good: Folder) -> object:
    return make_engine(good.root).predict(Htdgm(), data_path=good.root / "good", ckpt_path=path)


def fit(path: Path, good: Folder) -> object:
    return make_engine(good.root).fit(make_small_model(), datamodule=good, ckpt_path=path)


def run_command(path: Path, good: Folder) -> object:
    arguments = ["--data", str(good.root / "good"), "--default_root_dir", str(good.root), "--ckpt_path", str(path)]
    return AnomalibCLI(["predict", "--model", "Htdgm", *arguments])


WAYS = [load, predict, fit, run_command]


def refused(path: Path, good: Folder, what: str, ways: list[Callable[[Path, Folder], object]]) -> None:
    for way in ways:
        with pytest.raises(CheckpointError) as caught:
            way(path, good)
        message = str(caught.value)
        # What is wrong with tensors says PyTorch, which names what it expected rather than what is allowed.
        assert re.fullmatch(rf"checkpoint {re.escape(str(path))}: .*{what}.*", message), message
