# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""From a folder of photographs to verdicts, with reasons, and to a report; what the command and the page share."""
