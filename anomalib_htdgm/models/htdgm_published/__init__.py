# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""HTDGM as published: transformation-discriminating patch networks on a pyramid, trained against generators."""

from .lightning_model import HtdgmPublished

__all__ = ["HtdgmPublished"]
