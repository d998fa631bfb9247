# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Checkpoints that are not what they should be are refused by name, before anything of them is used.

Reading never runs code that a file brings along: only tensors and plain data are loaded (``weights_only``).
"""

import inspect
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from anomalib.utils.serialization import anomalib_safe_globals
from lightning.pytorch import LightningModule, Trainer
from torch import nn

from anomalib_htdgm.version import __version__

from .checkpoint_io import WholeCheckpointIO

VERSION = "anomalib_htdgm_version"
"""Key of a checkpoint for the version of this package that wrote it."""
MARK = "anomalib_htdgm"
"""Key of a checkpoint for its model, and for what it could not hold of it."""


class CheckpointError(ValueError):
    """A checkpoint that is refused; the message names the file, and what is wrong."""


def check_file(path: str | Path, model: type[LightningModule], model_name: str, safe: Sequence[Any] = ()) -> None:
    """Look at a checkpoint, without running code or reading its weights, before Lightning loads it.

    What is no local file is left to Lightning. Types in ``safe`` may be there beside tensors and plain data.

    Raises:
        CheckpointError: If it is damaged, holds Python objects, is of another model, or has unknown arguments.
    """
    if not Path(path).is_file():
        return
    try:
        _check_archive(path)
        with anomalib_safe_globals(extra=safe):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        _check_content(checkpoint, model, model_name)
    except CheckpointError as error:
        raise named(error, path) from error
    except UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f" ({found[1]})" if found else ""
        msg = f"it holds a Python object{what}, which could run code; allowed are tensors and plain data"
        raise named(CheckpointError(msg), path) from error
    except Exception as error:  # damaged files raise nearly anything
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        msg = f"it is damaged ({reason}); allowed are whole files"
        raise named(CheckpointError(msg), path) from error


def written_by(checkpoint: Mapping[str, Any]) -> str:
    """Say, before what is wrong with a checkpoint, which version wrote it; nothing if it is this one."""
    version = checkpoint.get(VERSION)
    writer = f"anomalib-htdgm {version}" if version else "an unknown version, or another package,"
    return "" if version == __version__ else f"{writer} wrote it, and this is {__version__}: "


def named(error: Exception, path: object) -> CheckpointError:
    """Put the name of the file before what is wrong with it, once."""
    message = str(error)
    return CheckpointError(message if message.startswith("checkpoint ") else f"checkpoint {path}: {message}")


def _check_archive(path: str | Path) -> None:
    if not zipfile.is_zipfile(path):
        what = "it is truncated, or no checkpoint" if Path(path).stat().st_size else "it is empty"
        msg = f"{what}; allowed are whole files that a trainer has saved"
        raise CheckpointError(msg)
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()  # PyTorch does not compare checksums
    if damaged is not None:
        msg = f"it is damaged, in {damaged}; allowed are whole files"
        raise CheckpointError(msg)


def _check_content(checkpoint: Any, model: type[LightningModule], model_name: str) -> None:  # noqa: ANN401
    for key, kind in {"state_dict": Mapping, "pytorch-lightning_version": str}.items():
        if not isinstance(checkpoint, Mapping) or not isinstance(checkpoint.get(key), kind):
            msg = f"it has no {key}; allowed are checkpoints that a trainer has saved"
            raise CheckpointError(msg)
    about = checkpoint.get(MARK)
    if about is None:  # of a model of another package: its tensors will tell
        return
    if about["model"] != model_name:
        msg = f"it is of the model {about['model']}; allowed are those of {model_name}"
        raise CheckpointError(msg)
    known = inspect.signature(model).parameters
    takes_any = any(each.kind == inspect.Parameter.VAR_KEYWORD for each in known.values())
    unknown = [name for name in checkpoint.get("hyper_parameters", {}) if name not in known and name[:1] != "_"]
    if unknown and not takes_any:
        got = f"{written_by(checkpoint)}hyper_parameters: got {', '.join(unknown)}"
        msg = f"{got}; allowed are arguments of {model_name}"
        raise CheckpointError(msg)


def check_numbers(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Refuse weights that no training leaves: a model with one of them scores everything alike, or not at all.

    Weights have to be finite. Buffers may be infinite, and those of anomalib's components anything.

    Raises:
        CheckpointError: If there is another number.
    """
    weights = dict(module.named_parameters())
    for name, tensor in state.items():
        if not name.startswith("model.") or not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
            continue
        if tensor.isnan().any() or (name in weights and not tensor.isfinite().all()):
            msg = f"{name}: got numbers that are not finite; allowed are finite ones"
            raise CheckpointError(msg)


def describe_mismatch(expected: Mapping[str, Any], found: Mapping[str, Any], otherwise: str) -> str:
    """Say in one line what tensors of a model and a checkpoint do not go together; if all do, what PyTorch says."""
    missing = [each for each in expected if each not in found]
    unknown = [each for each in found if each not in expected]
    if missing or unknown:
        other_model = "it is of another model, or damaged: " if len(missing) * 2 > len(expected) else ""
        parts = [f"it lacks {len(missing)}, first {missing[0]}"] if missing else []
        parts += [f"it has {len(unknown)} unknown ones, first {unknown[0]}"] if unknown else []
        return f"{other_model}of {len(expected)} tensors {', and '.join(parts)}; allowed are the model's own"
    for name, tensor in expected.items():
        shapes = [tuple(each.shape) if isinstance(each, torch.Tensor) else type(each) for each in (found[name], tensor)]
        if shapes[0] != shapes[1]:
            return f"{name}: got {shapes[0]}; allowed is the shape {shapes[1]}"
    return otherwise.splitlines()[-1].strip()


class CheckedCheckpointIO(WholeCheckpointIO):
    """Reads checkpoints for a trainer, once they have been looked at, and writes them whole or not at all.

    Args:
        trainer (Trainer): The trainer, whose model may change.
        extra_safe_globals (Sequence[Any]): Types of the model that a checkpoint may hold.
    """

    def __init__(self, trainer: Trainer, extra_safe_globals: Sequence[Any] = ()) -> None:
        super().__init__(extra_safe_globals)
        self.trainer = trainer

    def load_checkpoint(
        self,
        path: Any,  # noqa: ANN401
        map_location: Any = None,  # noqa: ANN401
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Load a checkpoint: tensors and plain data only, unless ``weights_only`` is ``False``.

        Lightning says nothing, which an environment variable of PyTorch could take for ``False``.

        Raises:
            CheckpointError: If it is refused.
        """
        model: Any = self.trainer.lightning_module
        trusts = weights_only is False
        if hasattr(model, "checkpoint_name") and not trusts:
            check_file(path, type(model), model.checkpoint_name(), self.extra_safe_globals)
        return super().load_checkpoint(path, map_location=map_location, weights_only=not trusts)
