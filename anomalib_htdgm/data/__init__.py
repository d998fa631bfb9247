# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Datamodules for few-shot anomaly detection."""

from .few_shot import FewShot

__all__ = ["FewShot"]
