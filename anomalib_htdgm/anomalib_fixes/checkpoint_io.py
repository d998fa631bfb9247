# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Checkpoints that are whole or not there, and that are looked at before they are loaded.

Lightning 2.6 moves a file from the folder for temporary files. To another file system, as ``/tmp`` often is, that is to
copy: what breaks it off, a signal or a full disk, leaves half a file in place of the checkpoint that was there. In a
folder that may not be written to, a checkpoint is lost without a word. What it says of a wrong file names no file.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from uuid import uuid4

from anomalib.engine.plugins import AnomalibCheckpointIO
from lightning.fabric.utilities.types import _MAP_LOCATION_TYPE
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class WholeCheckpointIO(AnomalibCheckpointIO):
    """Writes checkpoints whole or not at all, and reads those of a trainer's model once they have been looked at.

    Args:
        trainer (Trainer): The trainer, whose model may change.
        extra_safe_globals (Sequence[Any]): Types of the model that a checkpoint may hold.
    """

    def __init__(self, trainer: Trainer, extra_safe_globals: Sequence[Any]) -> None:
        super().__init__(extra_safe_globals)
        self.trainer = trainer

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: object | None = None
    ) -> None:
        """Write a checkpoint beside its place, and move it there when it is complete.

        Lightning writes those that are not of this machine.
        """
        if _is_remote(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        partial = Path(f"{path}.{uuid4().hex}.part")
        try:
            super().save_checkpoint(checkpoint, partial, storage_options)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def load_checkpoint(
        self, path: str | Path, map_location: _MAP_LOCATION_TYPE = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Load a checkpoint: tensors and plain data only, unless ``weights_only`` is ``False``.

        Lightning says nothing, which an environment variable of PyTorch could take for ``False``.

        Raises:
            CheckpointError: If it is refused.
        """
        trusts = weights_only is False
        check_file = getattr(self.trainer.lightning_module, "check_file", None)
        if check_file is not None and not trusts:
            check_file(path)
        return super().load_checkpoint(path, map_location=map_location, weights_only=not trusts)


def check_writable(trainer: Trainer) -> None:
    """Refuse folders that no checkpoint can be written to before a training, not after it.

    Raises:
        OSError: If there is such a folder.
    """
    folders = [each.dirpath for each in trainer.checkpoint_callbacks if isinstance(each, ModelCheckpoint)]
    for folder in folders:
        if folder and not _is_remote(folder):
            Path(folder).mkdir(parents=True, exist_ok=True)
            TemporaryFile(dir=folder).close()


def _is_remote(path: str | Path) -> bool:
    return "://" in str(path)  # as in s3://...
