# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""A CSV file of results that any number of processes append to, and that survives their being killed.

A row is appended whole, under a lock; what a killed process left of a row is cut off before the next one is written. A
run is claimed by a lock of its own, which the operating system lets go of when its process dies.
"""

import csv
import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

COLUMNS = (
    *("key", "dataset", "category", "model", "shots", "known_anomalies", "unlabelled", "trial"),
    *("image_AUROC", "image_F1Max", "pixel_AUROC", "pixel_AUPRO", "false_alarms", "recall"),
    *("fit_seconds", "test_seconds", "test_images", "memory_megabytes", "weights_megabytes", "pretrained"),
    *("threads", "training_images"),
    *("configuration", "versions", "machine", "finished"),
)


def maps_folder(path: Path) -> Path:
    """Name the folder of the anomaly maps that are kept of the runs of a CSV file, a file for each key."""
    return path.with_name(path.name + ".maps")


class Results:
    """The rows of a CSV file.

    Args:
        path (Path): The file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._directory = path.with_name(path.name + ".locks")

    @contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        """Claim a run for this process.

        Args:
            key (str): Key of the run, fit for a file name.

        Yields:
            bool: Whether it is ours to do: its row is not there, and no other process is at it.

        Raises:
            ValueError: If the file has other columns than :data:`COLUMNS`, so that the row could not be appended.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._directory / key)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        with lock:
            try:
                yield key not in self.keys()
            finally:
                # Whoever waits for the unlinked file looks for the row next, and whoever makes a new one does, too.
                Path(lock.lock_file).unlink(missing_ok=True)

    def keys(self) -> set[str]:
        """Read the keys of all rows."""
        with self._lock():
            if not self._has_header():
                return set()
            with self.path.open(newline="") as file:
                return {row["key"] for row in csv.DictReader(file)}

    def append(self, row: Mapping[str, object]) -> None:
        """Append a row, and see it to the disk.

        Args:
            row (Mapping[str, object]): Values by column; the columns that it lacks stay empty.

        Raises:
            ValueError: If it has a column that is not in :data:`COLUMNS`, or the file has other columns.
        """
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS)
        with self._lock():
            if not self._has_header():
                writer.writeheader()
            writer.writerow(row)
            with self.path.open("a", newline="") as file:
                file.write(text.getvalue())
                file.flush()
                os.fsync(file.fileno())

    def _lock(self) -> FileLock:
        self._directory.mkdir(parents=True, exist_ok=True)
        return FileLock(self._directory / "rows")

    def _has_header(self) -> bool:
        """Cut off a last row that has no end, and check the columns that the header names, if there is one."""
        content = self.path.read_bytes() if self.path.exists() else b""
        if not content.endswith(b"\n"):
            content = content[: content.rfind(b"\n") + 1]
            if self.path.exists():
                os.truncate(self.path, len(content))
        if not content:
            return False
        columns = tuple(next(csv.reader(io.StringIO(content.decode()))))
        if columns != COLUMNS:
            msg = f"results: {self.path} has the columns {', '.join(columns)}; needed are {', '.join(COLUMNS)}"
            raise ValueError(msg)
        return True
