# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The version of this package, which checkpoints name."""

__version__ = "0.2.0"
