# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Trainings that are broken off, or cannot write: no model and no file pretends to be more than it is."""

import copy
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from anomalib.data import Folder, MVTecAD
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from anomalib_htdgm import Htdgm
from anomalib_htdgm.anomalib_fixes.checkpoint_io import WholeCheckpointIO

from .conftest import assert_equal_states
from .small import fit, make_engine, make_small_model

IMAGE = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
INTERRUPTED, FAILED = (KeyboardInterrupt, SystemExit), (RuntimeError, RuntimeError)
"""What a training is broken off by, and what its caller sees."""


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    handler = signal.getsignal(signal.SIGINT)  # Lightning ignores the signal once it has had one
    yield
    signal.signal(signal.SIGINT, handler)


class BreakOff(Callback):
    """Breaks a training off: in its middle, when the threshold is chosen, or in the validation."""

    def __init__(self, place: str, error: type[BaseException]) -> None:
        self.place, self.error = place, error

    def on_train_batch_start(self, _trainer: object, model: Htdgm, _batch: object, _index: int) -> None:
        maps = model.model.anomaly_map_generator
        self.scoring = maps.register_forward_pre_hook(lambda *_: self._reach("threshold"))

    def on_before_optimizer_step(self, trainer: Trainer, _model: object, _optimizer: object) -> None:
        if trainer.global_step == 2:
            self._reach("training")

    def on_validation_batch_start(self, *_: object) -> None:
        self._reach("validation")

    def on_exception(self, *_: object) -> None:
        self.scoring.remove()

    def _reach(self, place: str) -> None:
        if place == self.place:
            raise self.error


def saved_on_exception(folder: Path) -> tuple[ModelCheckpoint, Path]:
    return ModelCheckpoint(folder, save_on_exception=True, every_n_train_steps=1000), folder


@pytest.fixture
def trained(good: Folder, tmp_path: Path) -> Htdgm:
    model = make_small_model()
    fit(model, good, tmp_path)
    return model


@pytest.mark.parametrize(
    ("place", "error", "seen"),
    [("training", *INTERRUPTED), ("training", *FAILED), ("threshold", *INTERRUPTED)],
)
def test_what_was_not_trained_to_the_end_refuses_to_score(
    place: str, error: type[BaseException], seen: type[BaseException], trained: Htdgm, good: Folder, tmp_path: Path
) -> None:
    expected = Htdgm.load_from_checkpoint(next(tmp_path.rglob("model.ckpt")))
    keep, folder = saved_on_exception(tmp_path / "kept")
    with pytest.raises(seen):
        fit(trained, good, tmp_path, callbacks=[BreakOff(place, error), keep])
    (checkpoint,) = folder.iterdir()
    for each in (trained, Htdgm.load_from_checkpoint(checkpoint)):
        with pytest.raises(RuntimeError, match=r"has not been trained, or not to the end: fit it"):
            each(IMAGE)
    with pytest.raises(ValueError, match=r"^ckpt_path: Htdgm does not resume trainings"):
        make_engine(tmp_path).fit(make_small_model(), datamodule=good, ckpt_path=checkpoint)
    fit(trained, good, tmp_path)
    assert_equal_states(trained, expected)


def test_a_validation_that_is_broken_off_leaves_the_threshold_of_the_training_images(
    wall: MVTecAD, tmp_path: Path
) -> None:
    expected = make_small_model()
    fit(expected, wall, tmp_path, limit_val_batches=0)
    keep, folder = saved_on_exception(tmp_path / "kept")
    model, (error, seen) = make_small_model(), INTERRUPTED
    with pytest.raises(seen):
        fit(model, wall, tmp_path, callbacks=[BreakOff("validation", error), keep])
    (checkpoint,) = folder.iterdir()
    for each in (model, Htdgm.load_from_checkpoint(checkpoint)):
        assert_equal_states(each, expected)
        assert each.threshold_chosen_by == expected.threshold_chosen_by


@pytest.mark.parametrize("limit", [{"max_time": "00:00:00:00"}, {"limit_train_batches": 0}, {"max_steps": 0}])
def test_a_training_that_does_not_begin_leaves_what_there_was(
    limit: dict[str, object], trained: Htdgm, good: Folder, tmp_path: Path
) -> None:
    before, fresh = copy.deepcopy(trained), make_small_model()
    for each in (trained, fresh):
        fit(each, good, tmp_path, **limit)
    assert_equal_states(trained, before)
    with pytest.raises(RuntimeError, match="has not been trained"):
        fresh(IMAGE)


def test_so_does_one_whose_images_cannot_be_read(trained: Htdgm, good: Folder, tmp_path: Path) -> None:
    before = copy.deepcopy(trained)
    (tmp_path / "good" / "1.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"1\.png cannot be read"):
        fit(trained, good, tmp_path)
    assert_equal_states(trained, before)


def test_a_folder_that_cannot_be_written_to_is_refused_before_the_training(good: Folder, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    model, keep = make_small_model(), ModelCheckpoint(tmp_path / "file", every_n_train_steps=1)
    with pytest.raises(FileExistsError, match=str(tmp_path / "file")):
        fit(model, good, tmp_path, callbacks=[keep])
    assert not model.model.is_trained
    assert (tmp_path / "file").read_text() == "a file"


def test_a_checkpoint_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """What was there before stays; a limit of the process is what a full disk would be."""
    path, limits = tmp_path / "model.ckpt", resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = WholeCheckpointIO(Trainer(logger=False, accelerator="cpu"), ())
    writer.save_checkpoint({"weights": torch.zeros(10_000)}, path)
    before = path.read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            writer.save_checkpoint({"weights": torch.ones(10_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before
