# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""A page to try Htdgm on one's own photographs: ``python -m anomalib_htdgm.demo``."""
