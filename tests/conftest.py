# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Tests run side by side, so each of them, and each process that it starts, has one thread."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before PyTorch is imported
