# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""DevNet, a deviation network that learns from a few labelled anomalies."""

from .lightning_model import Devnet

__all__ = ["Devnet"]
