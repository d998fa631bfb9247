# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Checkpoints that are whole or not there, whatever ends a process that writes them."""

import zipfile
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from uuid import uuid4

import torch
from anomalib.engine.plugins import AnomalibCheckpointIO
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

REPLACED = (TorchCheckpointIO, AnomalibCheckpointIO)
"""What reads and writes checkpoints where the user has not chosen anything else."""


class WholeCheckpointIO(AnomalibCheckpointIO):
    """Writes checkpoints whole or not at all, and reads no others.

    Lightning's own way is to write to the folder for temporary files and to move the file from there. Where that is
    another file system, as ``/tmp`` often is, to move is to copy: what breaks it off, a signal or a full disk, leaves
    half a file in place of the checkpoint that was there. In a folder that may not be written to, a checkpoint is lost
    without a word.
    """

    last: Path | None = None
    """The checkpoint that was written or read last."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:  # noqa: ANN401
        """Write a checkpoint beside its place, and move it there when it is complete.

        Args:
            checkpoint (dict[str, Any]): Lightning's checkpoint.
            path (str | Path): Its path. Lightning writes those that are not of this machine.
            storage_options (Any): ``None``, as Lightning wants it.

        Raises:
            OSError: If it cannot be written; the message tells what to do.
        """
        local = _local(path)
        if local is None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        content = BytesIO()
        torch.save(checkpoint, content)
        partial = local.with_name(f"{local.name}.{uuid4().hex}.part")
        try:
            local.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("xb") as file:
                file.write(content.getbuffer())
            partial.replace(local)
        except OSError as error:
            msg = (
                f"checkpoint {local} cannot be written ({error.strerror}); those written before are as they were. "
                "Make room, or choose another folder (default_root_dir of the trainer, dirpath of ModelCheckpoint)"
            )
            raise OSError(error.errno, msg) from error
        finally:
            partial.unlink(missing_ok=True)
        self.last = local

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:  # noqa: ANN401
        """Read a checkpoint.

        Args:
            path (str | Path): Its path.
            *args: As anomalib's.
            **kwargs: As anomalib's.

        Returns:
            dict[str, Any]: The checkpoint.

        Raises:
            ValueError: If the file is not whole.
        """
        check_whole(path)
        checkpoint = super().load_checkpoint(path, *args, **kwargs)
        self.last = _local(path)
        return checkpoint


def install_checkpoint_io(trainer: Trainer) -> None:
    """Let a trainer write checkpoints whole or not at all, unless its user has chosen how it writes them.

    Args:
        trainer (Trainer): The trainer.
    """
    current = trainer.strategy.checkpoint_io
    if type(current) in {*REPLACED, WholeCheckpointIO}:
        trainer.strategy.checkpoint_io = WholeCheckpointIO(getattr(current, "extra_safe_globals", None))


def check_whole(path: str | Path) -> None:
    """Refuse a checkpoint that is only the beginning of one.

    Args:
        path (str | Path): Path of the checkpoint; nothing is said of those that are not of this machine, or not there.

    Raises:
        ValueError: If the file is not whole: the directory of a zip archive, which a checkpoint is, is at its end.
    """
    local = _local(path)
    if local is not None and local.is_file() and not zipfile.is_zipfile(local):
        msg = (
            f"{local} is not a whole checkpoint: it was cut off, as by a full disk or a copy that was broken off, or "
            "is a file of another kind. Take another checkpoint, copy it again, or train anew"
        )
        raise ValueError(msg)


def check_writable(trainer: Trainer) -> None:
    """Refuse folders that no checkpoint can be written to before a training, not after it.

    Args:
        trainer (Trainer): The trainer.

    Raises:
        OSError: If there is such a folder; the message names it.
    """
    for callback in trainer.checkpoint_callbacks:
        folder = _local(callback.dirpath) if isinstance(callback, ModelCheckpoint) and callback.dirpath else None
        if folder is None:
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=folder):
                pass
        except OSError as error:
            msg = (
                f"no checkpoint can be written to {folder} ({error.strerror}). Choose another folder (default_root_dir "
                "of the trainer, dirpath of ModelCheckpoint), or let this one be written to"
            )
            raise OSError(error.errno, msg) from error


def _local(path: str | Path) -> Path | None:
    file_system, local = url_to_fs(str(path))
    return Path(local) if isinstance(file_system, LocalFileSystem) else None
