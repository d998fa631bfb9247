# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Serves the page with short trainings, and no way out of this machine; a process of its own for ``test_demo.py``."""

from functools import partial

import pytest

from anomalib_htdgm.demo.__main__ import main
from anomalib_htdgm.inspection import learning, preparing
from tests.integration.conftest import forbid_network

SMALL = {"iterations": 5, "image_size": 48, "memory_patches": 500, "energy_cells": 500}

if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patch:
        forbid_network(patch)
        patch.setattr(preparing, "learn", partial(learning.learn, settings=SMALL))
        main()
