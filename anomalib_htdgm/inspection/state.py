# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What is known of a project, as it is in its file."""

import json
from collections.abc import Container
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any, Literal

FORMAT = 1
"""Number of the format of the file, which a later one would count up."""

Place = Literal["good", "checked"]
"""Whether a photograph was given as good, or to be checked."""
Decision = Literal["good", "defective", "skip"]
"""What a person says of a photograph."""


@dataclass(frozen=True)
class Photograph:
    """A photograph of a project.

    Args:
        name (str): Its name, as its owner knows it; with folders, if it came from one below another.
        file (str): Its path: within the project if the project has a copy, else absolute.
        place (Place): What it was given as.
        added (str): When, in ISO 8601.
        size (int): Bytes of the file that it came from.
        modified (int): When that file was last changed, in nanoseconds since 1970.
        decision (Decision | None): What a person says of it.
        finding (dict[str, Any] | None): What the present model says of it, see
            :class:`~anomalib_htdgm.inspection.inspecting.Finding`; ``None`` if it has not been asked.
    """

    name: str
    file: str
    place: Place
    added: str
    size: int = 0
    modified: int = 0
    decision: Decision | None = None
    finding: dict[str, Any] | None = None


@dataclass
class State:
    """All that is known of a project, as it is in the file.

    Args:
        name (str): Name of the part.
        made (str): When the project was made, in ISO 8601.
        settings (dict[str, Any]): What the next model is to be made with, such as ``{"tiles": 4}``.
        threshold (float): Score in [0, 1] above which photographs are called anomalous.
        model (dict[str, Any] | None): What is known of the model, see
            :class:`~anomalib_htdgm.inspection.learning.Facts`; ``None`` if there is none.
        photographs (dict[str, Photograph]): Photographs by their keys, such as ``good/IMG_1.jpg``, in their order.
        decisions (list[dict[str, Any]]): All decisions, the last one last: photograph, before, decision and time.
        format (int): :data:`FORMAT`.
    """

    name: str
    made: str
    settings: dict[str, Any] = field(default_factory=dict)
    threshold: float = 0.5
    model: dict[str, Any] | None = None
    photographs: dict[str, Photograph] = field(default_factory=dict)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    format: int = FORMAT

    def good(self) -> dict[str, Photograph]:
        """List the photographs to learn from: given as good, or decided to be, and not decided otherwise."""
        return {
            key: each
            for key, each in self.photographs.items()
            if (each.decision or each.place) == "good" and (each.finding is None or not each.finding.get("problem"))
        }

    def checked(self) -> dict[str, Photograph]:
        """List the photographs that were given to be checked."""
        return {key: each for key, each in self.photographs.items() if each.place == "checked"}

    def waiting(self) -> dict[str, Photograph]:
        """List the photographs to check that the present model has not been asked about."""
        return {key: each for key, each in self.checked().items() if each.finding is None}


def to_text(state: State) -> str:
    """Write JSON with a line for each photograph: Python's own indentation takes ten times as long."""
    parts = []
    for name, value in vars(state).items():
        text = _dump(value) if name != "photographs" else _dump_lines(value)
        parts.append(f" {_dump(name)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _dump_lines(photographs: dict[str, Photograph]) -> str:
    lines = (f"\n  {_dump(key)}: {_dump(vars(each))}" for key, each in photographs.items())
    return "{" + ",".join(lines) + "}"


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def free_key(taken: Container[str], place: Place, name: PurePosixPath) -> str:
    """Make the key of a new photograph: its place and name, and a number if there is one of that name."""
    key, number = f"{place}/{name}", 1
    while key in taken:
        number += 1
        key = f"{place}/{name.with_name(f'{name.stem} ({number}){name.suffix}')}"
    return key


def now() -> str:
    """Tell the time, in ISO 8601, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")
