# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""A project: one folder a part, with all that is known of it in ``project.json``, which a person can read.

Whoever changes it takes the lock, reads the file, and writes it whole. So two processes, or two tabs of a browser,
never undo each other's work, and a restart loses nothing. Who only reads does not read a file again that is as it was.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import get_args

from filelock import FileLock, Timeout

from anomalib_htdgm.validation import check_choice

from .facts import Facts, Finding, now
from .state import Decision, Photograph, Place, State, free_key, from_text, to_text
from .writing import write_whole

FILE = "project.json"
CHECKPOINT = "model.ckpt"


class Project:
    """A folder with photographs, a model, findings and decisions, which becomes a project at the first change."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = Path(folder), Path(folder) / FILE
        self._lock = FileLock(self.folder / ".project.lock")
        self._last: tuple[object, State] | None = None

    def read(self) -> State:
        """Read what is known at this moment, not to be changed; of a folder that is no project yet, nothing is.

        Raises:
            ValueError: If the file is damaged, or a later version's.
        """
        try:
            version, last = self._version(), self._last
            if last is None or last[0] != version:
                self._last = last = version, self._parse()
            return last[1]
        except FileNotFoundError:
            return State(self.folder.resolve().name)

    def _version(self) -> object:
        about = self.file.stat()
        return about.st_ino, about.st_mtime_ns, about.st_size

    def _parse(self) -> State:
        try:
            return from_text(self.file.read_text(encoding="utf-8"))
        except ValueError as error:
            msg = f"{self.file}: {error}"
            raise ValueError(msg) from error

    @contextmanager
    def changing(self) -> Iterator[State]:
        """Give out what is known, to be changed, while nobody else can; an error changes nothing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lock:
            state = self._parse() if self.file.is_file() else self.read()
            yield state
            write_whole(self.file, [to_text(state).encode()])
            self._last = self._version(), state

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from the model and the table meanwhile, but not from photographs and decisions.

        Raises:
            ValueError: If another one has begun.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / ".check.lock", timeout=0, thread_local=False)
        try:
            held = lock.acquire()
        except Timeout as error:
            msg = f"{self.folder.resolve().name} is being worked on by another check or page; wait for it, or end it"
            raise ValueError(msg) from error
        with held:
            yield

    def add(
        self,
        source: Path,
        place: Place,
        name: str | None = None,
        *,
        copy: bool = True,
        finding: Finding | None = None,
        model: str = "",
        status: tuple[int, int] | None = None,
    ) -> str:
        """Add a photograph.

        Args:
            source (Path): Its file.
            place (Place): What it is given as.
            name (str | None): Its name; ``None`` is the file's.
            copy (bool): Whether the project gets a copy of the file, as it is.
            finding (Finding | None): What was found. If that was by another model, it is left out.
            model (str): Digest of the model that has found it.
            status (tuple[int, int] | None): Size and time of change, if the file may have changed since it was read.

        Returns:
            str: Its key. Where the name is taken, a number tells the two apart.

        Raises:
            ValueError: If the name would lead out of the folder.
            OSError: If the file cannot be read, or copied.
        """
        path = PurePosixPath(name or source.name)
        if path.is_absolute() or ".." in path.parts or not path.name:
            msg = f"name: got {str(path)!r}; allowed are names, and those of folders below one another"
            raise ValueError(msg)
        about = source.stat()
        with self.changing() as state:
            key = free_key(state.photographs, place, path)
            if copy:
                with source.open("rb") as content:
                    write_whole(self.folder / key, iter(lambda: content.read(2**20), b""))
            file = key if copy else str(source.resolve())
            found = finding if state.model and state.model.digest == model else None
            noted = status or (about.st_size, about.st_mtime_ns)
            state.photographs[key] = Photograph(str(path), file, place, now(), *noted, finding=found)
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
        """Take the last decision back, then the one before it, and give the key of the photograph, if there is one."""
        with self.changing() as state:
            while state.decisions:
                last = state.decisions.pop()
                key = str(last["photograph"])
                if key in state.photographs:
                    state.photographs[key] = replace(state.photographs[key], decision=last["before"])
                    return key
        return None

    def note_model(self, facts: Facts) -> None:
        """Note what is known of a new model; what another one has found is forgotten."""
        with self.changing() as state:
            if state.model is None or state.model.digest != facts.digest:
                every = state.photographs.items()
                state.photographs = {key: replace(each, finding=None) for key, each in every}
                state.threshold = facts.threshold
            state.model = facts

    def note_finding(self, key: str, finding: Finding, model: str) -> bool:
        """Note what a model, of a digest, says of a photograph.

        Returns:
            bool: Whether it was noted: not if there is another model now, or the photograph was removed.
        """
        with self.changing() as state:
            is_wanted = state.model is not None and state.model.digest == model and key in state.photographs
            if is_wanted:
                state.photographs[key] = replace(state.photographs[key], finding=finding)
        return is_wanted

    def move_threshold(self, threshold: float) -> None:
        """Note a threshold of the user's own, on the scale of scores."""
        with self.changing() as state:
            state.threshold = threshold


def list_projects(root: Path) -> list[Project]:
    """List the projects in a folder, the one that was changed last first."""
    files = sorted(root.glob(f"*/{FILE}"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    return [Project(path.parent) for path in files]
