# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Few-shot visual anomaly detection without pretrained weights, for anomalib.

The public names are loaded when they are first asked for: this module is imported at every start of the interpreter
(see :mod:`anomalib_htdgm.plugin`) and must cost nothing there.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .data import FewShot
    from .models.htdgm import Htdgm

__all__ = ["FewShot", "Htdgm"]

_MODULE_OF = {"FewShot": "anomalib_htdgm.data", "Htdgm": "anomalib_htdgm.models.htdgm"}


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name in _MODULE_OF:
        return getattr(import_module(_MODULE_OF[name]), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
