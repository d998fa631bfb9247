# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Few-shot visual anomaly detection without pretrained weights, for anomalib.

The public names are loaded when they are first asked for: :mod:`anomalib_htdgm.plugin` imports this module before
anomalib, which all of them need.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__ as __version__

if TYPE_CHECKING:
    from .data import FewLabelledAnomalies, FewShot, OneClass, Paris, QuickstartTextures
    from .models.devnet import Devnet
    from .models.differnet import Differnet
    from .models.htdgm import Htdgm
    from .models.htdgm_published import HtdgmPublished

__all__ = [
    "Devnet",
    "Differnet",
    "FewLabelledAnomalies",
    "FewShot",
    "Htdgm",
    "HtdgmPublished",
    "OneClass",
    "Paris",
    "QuickstartTextures",
]

_MODULE_OF = {
    "Devnet": "anomalib_htdgm.models.devnet",
    "Differnet": "anomalib_htdgm.models.differnet",
    "FewLabelledAnomalies": "anomalib_htdgm.data",
    "FewShot": "anomalib_htdgm.data",
    "Htdgm": "anomalib_htdgm.models.htdgm",
    "HtdgmPublished": "anomalib_htdgm.models.htdgm_published",
    "OneClass": "anomalib_htdgm.data",
    "Paris": "anomalib_htdgm.data",
    "QuickstartTextures": "anomalib_htdgm.data",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name in _MODULE_OF:
        return getattr(import_module(_MODULE_OF[name]), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
