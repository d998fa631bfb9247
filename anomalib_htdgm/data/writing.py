# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Writing of data sets, whole or not at all."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory


def write_once(directory: Path, write: Callable[[Path], None]) -> bool:
    """Fill a directory, unless it is there, and tell whether that was done.

    It appears when it is complete: an interrupted run leaves nothing that a later one could take for the data set, and
    processes that write the same one at once do not harm each other.

    Args:
        directory: The directory.
        write: Makes and fills the directory whose path it is given, always with the same files.
    """
    if directory.is_dir():
        return False
    directory.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=directory.parent) as scratch:
        complete = Path(scratch) / "images"
        write(complete)
        try:
            complete.rename(directory)
        except OSError:
            if not directory.is_dir():  # else another process was faster, with the same images
                raise
    return True
