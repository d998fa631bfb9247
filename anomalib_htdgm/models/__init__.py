# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Anomaly detection models."""

# First of all: the plugin hook loads the models of this package upon this import, which has to happen before any of its
# modules has begun, whichever is imported first (see `anomalib_htdgm.plugin`).
import anomalib.models  # noqa: F401 - see above
