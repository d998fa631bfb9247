# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Folders of small photographs, and the command that checks them by small models."""

import csv
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event

from PIL import Image

from anomalib_htdgm.inspection.preparing import Wanted
from anomalib_htdgm.inspection.run import check

from .small import make_image

SMALL = {"transformations": "rotations", "image_size": 25, "coarsest_size": 19, "width": 4, "memory_patches": 30}


def write(folder: Path, kind: str, index: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{kind} {index}.png"
    Image.fromarray(make_image(kind, index).permute(1, 2, 0).numpy()).save(path)
    return path


def do(stopped: Event | None = None, ready: Callable[[], None] = lambda: None, **wanted: object) -> bool:
    return check(Wanted(**wanted), stopped or Event(), ready)


def read_table(out: Path) -> list[dict[str, str]]:
    with (out / "scores.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


def wait_for(number: int, out: Path, is_going: Callable[[], bool]) -> None:
    """Wait until a table has some lines."""
    deadline = time.monotonic() + 120
    while not (out / "scores.csv").is_file() or len(read_table(out)) < number:
        assert time.monotonic() < deadline
        assert is_going()
        time.sleep(0.05)
