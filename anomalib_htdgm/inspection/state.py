# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What is known of a project, as it is in its file."""

import json
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal, NamedTuple

from .facts import Facts, Finding, now

FORMAT = 1
"""Number of the format of the file, which a later one would count up."""

Place = Literal["good", "checked"]
"""Whether a photograph was given as good, or to be checked."""
Decision = Literal["good", "defective", "skip"]
"""What a person says of a photograph."""
Identity = tuple[str, int, int]
"""Name, size in bytes and time of the last change: what tells a file from one that was checked before."""


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
        finding (Finding | None): What the present model says of it; ``None`` if it has not been asked.
    """

    name: str
    file: str
    place: Place
    added: str
    size: int = 0
    modified: int = 0
    decision: Decision | None = None
    finding: Finding | None = None

    @property
    def identity(self) -> Identity:
        """What tells its file from others."""
        return self.name, self.size, self.modified


class Row(NamedTuple):
    """A photograph to check, as it is at the threshold of the moment: without finding and verdict if it waits."""

    key: str
    photograph: Photograph
    finding: Finding
    verdict: str
    reason: str

    @property
    def name(self) -> str:
        """Its name, with a number where there are two of one name."""
        return self.key.removeprefix("checked/")


@dataclass
class State:
    """All that is known of a project.

    Args:
        name (str): Name of the part.
        made (str): When the project was made, in ISO 8601.
        settings (dict[str, Any]): What the next model is to be made with, such as ``{"tiles": 4}``.
        threshold (float): Score in [0, 1] above which photographs are called anomalous.
        model (Facts | None): What is known of the model; ``None`` if there is none.
        photographs (dict[str, Photograph]): Photographs by their keys, such as ``good/IMG_1.jpg``, in their order.
        decisions (list[dict[str, Any]]): All decisions, the last one last: photograph, before, decision and time.
        format (int): :data:`FORMAT`.
    """

    name: str
    made: str = field(default_factory=now)
    settings: dict[str, Any] = field(default_factory=dict)
    threshold: float = 0.5
    model: Facts | None = None
    photographs: dict[str, Photograph] = field(default_factory=dict)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    format: int = FORMAT

    @property
    def facts(self) -> Facts:
        """What is known of the model.

        Raises:
            ValueError: If there is none.
        """
        if self.model is None:
            msg = f"project: got {self.name}, which has learnt nothing yet; allowed are those with a model"
            raise ValueError(msg)
        return self.model

    def good(self) -> dict[str, Photograph]:
        """List the photographs to learn from: given as good, or decided to be, and not decided otherwise."""
        return {
            key: each
            for key, each in self.photographs.items()
            if (each.decision or each.place) == "good" and not (each.finding and each.finding.problem)
        }

    def checked(self) -> dict[str, Photograph]:
        """List the photographs that were given to be checked."""
        return {key: each for key, each in self.photographs.items() if each.place == "checked"}

    def waiting(self) -> dict[str, Photograph]:
        """List the photographs to check that the present model has not been asked about."""
        return {key: each for key, each in self.checked().items() if each.finding is None}

    def rows(self, keys: Iterable[str] | None = None) -> list[Row]:
        """List photographs to check as they are shown at the present threshold, all or some, in their order."""
        band = self.model.band_at(self.threshold) if self.model else (0.0, 0.0)
        rows = []
        for key in self.checked() if keys is None else keys:
            photograph = self.photographs[key]
            finding = photograph.finding or Finding()
            verdict = finding.verdict_at(band) if photograph.finding else ""
            rows.append(Row(key, photograph, finding, verdict, finding.reason_of(verdict)))
        return rows


def highest_first(rows: Iterable[Row]) -> list[Row]:
    """Order rows by their scores; those without one are last."""
    return sorted(rows, key=lambda row: -1 if row.finding.raw is None else row.finding.raw, reverse=True)


_encode = json.JSONEncoder(ensure_ascii=False, default=vars).encode


def to_text(state: State) -> str:
    """Write JSON with a line for each photograph: Python's own indentation takes ten times as long."""
    lines = (f"\n  {_encode(key)}: {_encode(each)}" for key, each in state.photographs.items())
    fields = {name: _encode(value) for name, value in vars(state).items() if name != "photographs"}
    fields["photographs"] = "{" + ",".join(lines) + "}"
    return "{\n" + ",\n".join(f" {_encode(name)}: {text}" for name, text in fields.items()) + "\n}\n"


def from_text(text: str) -> State:
    """Read what :func:`to_text` has written.

    Raises:
        ValueError: If it is damaged, or a later version's.
    """
    try:
        content = json.loads(text)
        if content["format"] == FORMAT:
            content["model"] = content["model"] and Facts(**content["model"])
            for key, each in content["photographs"].items():
                finding = Finding(**each["finding"]) if each["finding"] else None
                content["photographs"][key] = Photograph(**each | {"finding": finding})
            return State(**content)
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        msg = f"it is damaged ({error}); allowed is what this package has written"
        raise ValueError(msg) from error
    msg = f"got format {content['format']}; allowed is {FORMAT}"
    raise ValueError(msg)


def free_key(taken: Container[str], place: Place, name: PurePosixPath) -> str:
    """Make the key of a new photograph: its place and name, and a number if there is one of that name."""
    key, number = f"{place}/{name}", 1
    while key in taken:
        number += 1
        key = f"{place}/{name.with_name(f'{name.stem} ({number}){name.suffix}')}"
    return key


def name_of_good(key: str) -> str:
    """Name a good photograph by its key, as names may be alike; one that was given to be checked keeps its place."""
    return key.removeprefix("good/")
