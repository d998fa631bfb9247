# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""A project: one folder a part, with all that is known of it in ``project.json``, which a person can read.

A project has no memory of its own. Whoever changes it takes the lock, reads the file, and writes it whole. So two
processes, or two tabs of a browser, never undo each other's work, and a restart loses nothing.
"""

import json
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from filelock import FileLock

from anomalib_htdgm.validation import check_choice

from .writing import write_whole

FILE = "project.json"
CHECKPOINT = "model.ckpt"
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


class Project:
    """A folder with photographs, a model, findings and decisions.

    Args:
        folder (Path): The folder. It becomes a project at the first change.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._lock = FileLock(self.folder / ".project.lock")

    def exists(self) -> bool:
        """Tell whether the folder is a project already."""
        return (self.folder / FILE).is_file()

    def read(self) -> State:
        """Read what is known at this moment; of a folder that is no project yet, nothing is.

        Raises:
            ValueError: If the file is damaged, or a later version's.
        """
        try:
            content = json.loads((self.folder / FILE).read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                msg = f"{self.folder / FILE}: got format {content['format']}; allowed is {FORMAT}"
                raise ValueError(msg)
            photographs = {key: Photograph(**each) for key, each in content.pop("photographs").items()}
            return State(**content, photographs=photographs)
        except FileNotFoundError:
            return State(self.folder.resolve().name, now())
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            msg = f"{self.folder / FILE}: it is damaged ({error}); allowed is what this package has written"
            raise ValueError(msg) from error

    @contextmanager
    def changing(self) -> Iterator[State]:
        """Give out what is known, to be changed, while nobody else can; an error changes nothing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lock:
            state = self.read()
            yield state
            write_whole(self.folder / FILE, [_to_text(state).encode()])

    def add(self, source: Path, place: Place, name: str | None = None, *, copy: bool = True, **noted: Any) -> str:  # noqa: ANN401
        """Add a photograph.

        Args:
            source (Path): Its file.
            place (Place): What it is given as.
            name (str | None): Its name; ``None`` is the file's.
            copy (bool): Whether the project gets a copy of the file, as it is.
            **noted (Any): What else is to be noted at once, such as its ``finding``; or its ``size`` and ``modified``,
                if the file may have changed since they were taken.

        Returns:
            str: Its key. Where the name is taken, a number tells the two apart.

        Raises:
            ValueError: If the name would lead out of the folder, or there is no such place.
            OSError: If the file cannot be read, or copied.
        """
        check_choice("place", place, get_args(Place))
        path = PurePosixPath(name or source.name)
        if path.is_absolute() or ".." in path.parts or not path.name:
            msg = f"name: got {str(path)!r}; allowed are names, and those of folders below one another"
            raise ValueError(msg)
        status = source.stat()
        with self.changing() as state:
            key = free_key(state.photographs, place, path)
            file = key if copy else str(source.resolve())
            if copy:
                with source.open("rb") as content:
                    write_whole(self.folder / key, iter(lambda: content.read(2**20), b""))
            about = {"size": status.st_size, "modified": status.st_mtime_ns, **noted}
            state.photographs[key] = Photograph(str(path), file, place, now(), **about)
        return key

    def remove(self, key: str) -> None:
        """Remove a photograph, and the project's copy of it.

        Raises:
            KeyError: If there is none of this key.
        """
        with self.changing() as state:
            del state.photographs[key]
        (self.folder / key).unlink(missing_ok=True)

    def path_of(self, photograph: Photograph) -> Path:
        """Give the path of a photograph's file."""
        return self.folder / photograph.file

    def decide(self, key: str, decision: Decision | None) -> None:
        """Note what a person says of a photograph; ``None`` takes it back.

        Raises:
            KeyError: If there is no photograph of this key.
            ValueError: If there is no such decision.
        """
        check_choice("decision", decision, (*get_args(Decision), None))
        with self.changing() as state:
            before = state.photographs[key].decision
            state.photographs[key] = replace(state.photographs[key], decision=decision)
            state.decisions.append({"photograph": key, "before": before, "decision": decision, "time": now()})

    def take_back(self) -> str | None:
        """Take the last decision back, and the one before it at the next call.

        Returns:
            str | None: Key of the photograph; ``None`` if there is no decision left.
        """
        with self.changing() as state:
            while state.decisions:
                last = state.decisions.pop()
                key = str(last["photograph"])
                if key in state.photographs:
                    state.photographs[key] = replace(state.photographs[key], decision=last["before"])
                    return key
        return None

    def note_model(self, facts: dict[str, Any], threshold: float) -> None:
        """Note what is known of a new model; what another one has found is forgotten."""
        with self.changing() as state:
            if state.model is None or state.model["digest"] != facts["digest"]:
                every = state.photographs.items()
                state.photographs = {key: replace(each, finding=None) for key, each in every}
                state.threshold = threshold
            state.model = facts

    def note_finding(self, key: str, finding: dict[str, Any], model: str) -> bool:
        """Note what a model says of a photograph.

        Args:
            key (str): Key of the photograph.
            finding (dict[str, Any]): What it says.
            model (str): Digest of the model.

        Returns:
            bool: Whether it was noted: not if there is another model now, or the photograph was removed.
        """
        with self.changing() as state:
            is_wanted = state.model is not None and state.model["digest"] == model and key in state.photographs
            if is_wanted:
                state.photographs[key] = replace(state.photographs[key], finding=finding)
        return is_wanted

    def move_threshold(self, threshold: float) -> None:
        """Note a threshold of the user's own, on the scale of scores."""
        with self.changing() as state:
            state.threshold = threshold


def _to_text(state: State) -> str:
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


def list_projects(root: Path) -> list[Project]:
    """List the projects in a folder, the one that was changed last first."""
    files = sorted(root.glob(f"*/{FILE}"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    return [Project(path.parent) for path in files]


def now() -> str:
    """Tell the time, in ISO 8601, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")
