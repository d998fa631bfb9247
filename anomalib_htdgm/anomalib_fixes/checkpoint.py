# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Checkpoints that are not what they should be are refused by name, before anything of them is used.

Lightning 2.6 and PyTorch say of a wrong file what went wrong in their own code, in many lines, and not which file it
was. They compare no checksums. Reading never runs code that a file brings along: only tensors and plain data are loaded
(``weights_only``).
"""

import inspect
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from textwrap import shorten
from typing import Any

import torch
from anomalib.utils.serialization import anomalib_safe_globals
from torch import nn

from anomalib_htdgm.version import __version__

VERSION = "anomalib_htdgm_version"
"""Key of a checkpoint for the version of this package that wrote it."""
MARK = "anomalib_htdgm"
"""Key of a checkpoint for its model, and for what it could not hold of it."""


MOST_LETTERS = 800
"""Letters of an error that are shown: PyTorch lists all tensors that a checkpoint of another model lacks."""


class CheckpointError(ValueError):
    """A checkpoint that is refused; the message names the file, and what is wrong."""


def check_file(path: str | Path, model: type[nn.Module], model_name: str, safe: Sequence[Any] = ()) -> None:
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
        reason = str(error)
    except UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f" ({found[1]})" if found else ""
        reason = f"it holds a Python object{what}, which could run code; allowed are tensors and plain data"
    except Exception as error:  # noqa: BLE001  # damaged files raise nearly anything
        what = next(iter(str(error).splitlines()), type(error).__name__)
        reason = f"it is damaged ({what}); allowed are whole files"
    else:
        return
    raise named(reason, path)


def written_by(checkpoint: Mapping[str, Any]) -> str:
    """Say, before what is wrong with a checkpoint, which version wrote it; nothing if it is this one."""
    version = checkpoint.get(VERSION)
    writer = f"anomalib-htdgm {version}" if version else "an unknown version, or another package,"
    return "" if version == __version__ else f"{writer} wrote it, and this is {__version__}: "


def named(error: object, path: object, writer: str = "") -> CheckpointError:
    """Put the name of a file, if it is known, before what is wrong with it, once; of many lines the last says what."""
    lines = str(error).splitlines() or [type(error).__name__]
    message = writer + shorten(lines[-1], MOST_LETTERS)
    is_named = path is None or message.startswith("checkpoint ")
    return CheckpointError(message if is_named else f"checkpoint {path}: {message}")


def _check_archive(path: str | Path) -> None:
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()  # PyTorch does not compare checksums
    if damaged is not None:
        msg = f"it is damaged, in {damaged}; allowed are whole files"
        raise CheckpointError(msg)


def _check_content(checkpoint: object, model: type[nn.Module], model_name: str) -> None:
    content = checkpoint if isinstance(checkpoint, Mapping) else {}
    for key, kind in {"state_dict": Mapping, "pytorch-lightning_version": str}.items():
        if not isinstance(content.get(key), kind):
            msg = f"it has no {key}; allowed are checkpoints that a trainer has saved"
            raise CheckpointError(msg)
    written_for = content.get(MARK, {}).get("model")
    if written_for != model_name:
        what = f"the model {written_for}" if written_for else "a model of another package"
        msg = f"it is of {what}; allowed are those of {model_name}"
        raise CheckpointError(msg)
    known = {name for each in model.__mro__ for name in inspect.signature(each).parameters}
    unknown = [name for name in content.get("hyper_parameters", {}) if name not in known and name[:1] != "_"]
    if unknown:
        got = f"{written_by(content)}hyper_parameters: got {', '.join(unknown)}"
        msg = f"{got}; allowed are arguments of {model_name}"
        raise CheckpointError(msg)


def check_finite(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Refuse numbers that no training leaves: a model with one scores everything alike, or not at all.

    Weights have to be finite. Buffers may be infinite, and those of anomalib's components anything.

    Raises:
        CheckpointError: If there is one, in one line.
    """
    weights = dict(model.named_parameters())
    for name, found in state.items():
        if not name.startswith("model.") or not isinstance(found, torch.Tensor):
            continue
        is_wrong = ~found.isfinite() if name in weights else found.isnan()
        if is_wrong.any():
            msg = f"{name}: got numbers that are not finite; allowed are finite ones"
            raise CheckpointError(msg)
