# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Checking a folder: each file once, whatever ends the process, and whenever it comes."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from threading import Event

from .inspecting import NOT_READ, Finding, Inspector
from .project import Project
from .report import (
    TABLE,
    Identity,
    facts_of,
    finding_of,
    format_line,
    identity_of,
    row_of,
    save_map,
    save_pictures,
    write_report,
    write_table,
)
from .state import Photograph

SECONDS_PER_LOOK = 1.0
"""Seconds between two looks at a folder that is watched. A file that did not change meanwhile is complete."""
SECONDS_PER_REPORT = 10.0
"""Seconds between two reports while there is always something new."""


OF_WINDOWS = ("Thumbs.db", "desktop.ini")
"""Files that Windows leaves in folders, as hidden ones."""


def list_files(folder: Path, without: Path | None = None) -> dict[str, Path]:
    """List all files below a folder by their names, but hidden ones and those of another folder.

    Args:
        folder (Path): The folder.
        without (Path | None): Folder whose files are left out, such as one for results below it.
    """
    found = {}
    for root, folders, files in os.walk(folder):
        place = Path(root)
        folders[:] = [each for each in folders if not each.startswith(".") and (place / each).resolve() != without]
        paths = (place / each for each in files if not each.startswith(".") and each not in OF_WINDOWS)
        found.update({path.relative_to(folder).as_posix(): path for path in paths})
    return dict(sorted(found.items()))


class FolderCheck:
    """Checks what is in a folder, and keeps what was found in a project.

    Args:
        project (Project): The project.
        inspector (Inspector): Inspects by the project's model.
        folder (Path): The folder.
        copies (bool): Whether the project gets copies of the files.
    """

    def __init__(self, project: Project, inspector: Inspector, folder: Path, *, copies: bool) -> None:
        self.project, self.inspector = project, inspector
        self.folder, self.copies = folder, copies
        self._changing: dict[str, Identity] = {}
        for each in project.read().checked().values():
            if digest := finding_of(each).digest:
                inspector.remember(digest, each.name)
        write_table(project)  # what a process that was killed has left out of it

    def check_waiting(self, stopped: Event) -> Iterator[tuple[Photograph, Finding]]:
        """Check photographs of the project that were checked by another model only."""
        for key, each in self.project.read().waiting().items():
            if stopped.is_set():
                return
            is_noted = False
            while not is_noted and key in self.project.read().photographs:  # again if the threshold moves meanwhile
                self._follow()
                result = self.inspector.inspect(self.project.path_of(each), each.name)
                save_pictures(self.project, identity_of(each), result.pictures)
                save_map(self.project, identity_of(each), result.heat)
                is_noted = self.project.note_finding(key, asdict(result.finding), self.inspector.facts.digest)
            if is_noted:
                self._append(key)
                yield each, result.finding

    def new_files(self) -> dict[str, Path]:
        """List files that have not been checked yet, by their names."""
        every = self.project.read().checked().values()
        done: set[Identity] = {(each.name, each.size, each.modified) for each in every}
        files = list_files(self.folder, self.project.folder.resolve())
        return {name: path for name, path in files.items() if _identify(name, path) not in done}

    def check(self, files: dict[str, Path], stopped: Event) -> Iterator[tuple[Photograph, Finding]]:
        """Check files one after the other.

        Args:
            files (dict[str, Path]): The files, by their names.
            stopped (Event): Ends it after the present file.

        Yields:
            tuple[Photograph, Finding]: Each photograph and what was found, once it is in project and table.
        """
        for name, path in files.items():
            if stopped.is_set():
                return
            identity = _identify(name, path)
            self._follow()
            result = self.inspector.inspect(path, name)
            save_pictures(self.project, identity, result.pictures)
            is_replaced = self._forget_failure(name)
            noted = {"finding": asdict(result.finding), "size": identity[1], "modified": identity[2]}
            try:
                copy = self.copies and not result.finding.problem
                key = self.project.add(path, "checked", name, copy=copy, model=self.inspector.facts.digest, **noted)
            except FileNotFoundError:  # it was taken away again
                continue
            if self.project.read().photographs[key].finding is None:  # the threshold has moved meanwhile
                yield from self.check_waiting(stopped)
                continue
            if is_replaced:
                write_table(self.project)
            else:
                self._append(key)
            yield self.project.read().photographs[key], result.finding

    def watch(
        self, stopped: Event, told: Callable[[Photograph, Finding], None], seconds: float = SECONDS_PER_LOOK
    ) -> None:
        """Check what comes, until it is stopped, and keep the report up to date.

        Args:
            stopped (Event): Ends it after the present file.
            told (Callable[[Photograph, Finding], None]): Is told of each photograph.
            seconds (float): Between two looks at the folder.
        """
        written, is_old = time.monotonic(), True
        while not stopped.is_set():
            complete = self._complete(self.new_files())
            for checked in self.check(complete, stopped):
                told(*checked)
                is_old = True
                if time.monotonic() - written > SECONDS_PER_REPORT:
                    write_report(self.project, is_growing=True)
                    written, is_old = time.monotonic(), False
            if is_old and not stopped.is_set():
                write_report(self.project, is_growing=True)
                written, is_old = time.monotonic(), False
            stopped.wait(seconds)

    def _follow(self) -> None:
        """Take over a threshold that the page, or another process, has chosen meanwhile."""
        facts = facts_of(self.project.read())
        if facts != self.inspector.facts:
            self.inspector.follow(facts)
            write_table(self.project)  # all on one scale

    def _complete(self, files: dict[str, Path]) -> dict[str, Path]:
        """Pick the files that are as they were at the last look: others may still be being written."""
        before, self._changing = self._changing, {name: _identify(name, path) for name, path in files.items()}
        return {name: path for name, path in files.items() if before.get(name) == self._changing[name]}

    def _forget_failure(self, name: str) -> bool:
        """Forget that a file of this name could not be read, since it has changed, and tell whether there was one."""
        every = self.project.read().checked().items()
        failed = [key for key, each in every if each.name == name and finding_of(each).verdict == NOT_READ]
        for key in failed:
            self.project.remove(key)
        return bool(failed)

    def _append(self, key: str) -> None:
        """Add a line to the table, at once."""
        state = self.project.read()
        if key not in state.photographs:  # removed by somebody else
            return
        with (self.project.folder / TABLE).open("a", encoding="utf-8", newline="") as file:
            file.write(format_line(row_of(state.photographs[key], state, facts_of(state))))


def _identify(name: str, path: Path) -> Identity:
    try:
        about = path.stat()
    except OSError:  # it is gone, or a link to nowhere
        return name, -1, -1
    return name, about.st_size, about.st_mtime_ns
