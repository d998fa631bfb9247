# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What mends anomalib 2.7 and Lightning 2.6 for the models of this package.

The docstring of each file says what it mends. A file can go when that is mended there.
"""

# First of all, for the plugin hook, as in `anomalib_htdgm.models`.
import anomalib.models  # noqa: F401 - see above
