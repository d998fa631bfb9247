# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Datamodules for few-shot anomaly detection."""

# First of all: the plugin hook loads the datamodules of this package upon this import, which has to happen before any
# of its modules has begun, whichever is imported first (see `anomalib_htdgm.plugin`).
import anomalib.data  # noqa: F401 - see above

from .few_labelled_anomalies import FewLabelledAnomalies
from .few_shot import FewShot
from .one_class import OneClass
from .paris import Paris
from .quickstart import QuickstartTextures
from .reading import UnreadableImageError, read_image

__all__ = [
    "FewLabelledAnomalies",
    "FewShot",
    "OneClass",
    "Paris",
    "QuickstartTextures",
    "UnreadableImageError",
    "read_image",
]
