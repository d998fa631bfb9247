# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Checkpoints that are whole or not there, whatever ends a process that writes them."""

from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from uuid import uuid4

import torch
from anomalib.engine.plugins import AnomalibCheckpointIO
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class WholeCheckpointIO(AnomalibCheckpointIO):
    """Writes checkpoints whole or not at all.

    Lightning moves a file from the folder for temporary files. To another file system, as ``/tmp`` often is, that is
    to copy: what breaks it off, a signal or a full disk, leaves half a file in place of the checkpoint that was there.
    In a folder that may not be written to, a checkpoint is lost without a word.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:  # noqa: ANN401
        """Write a checkpoint beside its place, and move it there when it is complete.

        Lightning writes those that are not of this machine.

        Raises:
            OSError: If it cannot be written; the message tells what to do.
        """
        local = local_path(path)
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


def check_writable(trainer: Trainer) -> None:
    """Refuse folders that no checkpoint can be written to before a training, not after it.

    Raises:
        OSError: If there is such a folder; the message names it.
    """
    for callback in trainer.checkpoint_callbacks:
        folder = local_path(callback.dirpath) if isinstance(callback, ModelCheckpoint) and callback.dirpath else None
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


def local_path(path: str | Path) -> Path | None:
    """Return a path of this machine, ``None`` for one of another (``s3://...``)."""
    file_system, local = url_to_fs(str(path))
    return Path(local) if isinstance(file_system, LocalFileSystem) else None
