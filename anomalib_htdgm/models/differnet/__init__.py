# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""DifferNet, a normalizing flow on the pooled features of a pretrained network."""

from .lightning_model import Differnet

__all__ = ["Differnet"]
