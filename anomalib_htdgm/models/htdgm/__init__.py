# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""HTDGM, a hierarchical transformation-discriminating generative model."""

from .lightning_model import Htdgm

__all__ = ["Htdgm"]
