# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Files that are whole or as they were before, whatever ends the process that writes them."""

import os
from collections.abc import Iterable
from pathlib import Path
from uuid import uuid4


def write_whole(path: Path, content: Iterable[bytes]) -> None:
    """Write the parts of a file beside its place, in a folder that may be new, and move it there when it is complete.

    Raises:
        OSError: If it cannot be written; the file is as it was before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        with partial.open("xb") as file:
            for part in content:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
