# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Checking a folder: each file once, whatever ends the process, and whenever it comes."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

from .facts import Finding
from .inspecting import Inspector
from .pictures import save_map, save_pictures
from .project import Project
from .report import TABLE, table_lines, write_report, write_table
from .state import Identity, Photograph

SECONDS_PER_LOOK = 1.0
"""Seconds between two looks at a folder that is watched. A file that did not change meanwhile is complete."""
SECONDS_PER_REPORT = 10.0
"""Seconds between two reports while there is always something new."""
OF_WINDOWS = ("Thumbs.db", "desktop.ini")
"""Files that Windows leaves in folders, as hidden ones."""


def list_files(folder: Path, without: Path | None = None) -> dict[str, Path]:
    """List all files below a folder by their names, but hidden ones, and those of another folder, such as results."""
    found = {}
    for root, folders, files in os.walk(folder):
        place = Path(root)
        folders[:] = [each for each in folders if not each.startswith(".") and (place / each).resolve() != without]
        paths = (place / each for each in files if not each.startswith(".") and each not in OF_WINDOWS)
        found.update({path.relative_to(folder).as_posix(): path for path in paths})
    return dict(sorted(found.items()))


class FolderCheck:
    """Checks what is in a folder, and keeps what was found in a project, with copies of the files if so wanted."""

    def __init__(self, project: Project, inspector: Inspector, folder: Path, *, copies: bool) -> None:
        self.project, self.inspector = project, inspector
        self.folder, self.copies = folder, copies
        self._changing: dict[str, Identity] = {}
        for each in project.read().checked().values():
            if each.finding and each.finding.digest:
                inspector.remember(each.finding.digest, each.name)
        write_table(project)  # what a process that was killed has left out of it

    def check_waiting(self, stopped: Event) -> Iterator[tuple[Photograph, Finding]]:
        """Check photographs of the project that were checked by another model only."""
        for key, each in self.project.read().waiting().items():
            if stopped.is_set():
                return
            while key in self.project.read().photographs:  # again if the threshold moves meanwhile
                finding = self._inspect(self.project.path_of(each), each.identity)
                if self.project.note_finding(key, finding, self.inspector.facts.digest):
                    self._append(key)
                    yield each, finding
                    break

    def new_files(self) -> dict[str, Path]:
        """List files that have not been checked yet, by their names."""
        done = {each.identity for each in self.project.read().checked().values()}
        files = list_files(self.folder, self.project.folder.resolve())
        return {name: path for name, path in files.items() if _identify(name, path) not in done}

    def check(self, files: dict[str, Path], stopped: Event) -> Iterator[tuple[Photograph, Finding]]:
        """Check files, by their names, one after the other; each comes out once it is in project and table.

        A stop ends it after the present file.
        """
        for name, path in files.items():
            if stopped.is_set():
                return
            identity = _identify(name, path)
            finding = self._inspect(path, identity)
            is_replaced = self._forget_failure(name)
            copy, digest = self.copies and not finding.problem, self.inspector.facts.digest
            try:
                key = self.project.add(
                    path, "checked", name, copy=copy, finding=finding, model=digest, status=identity[1:]
                )
            except FileNotFoundError:  # it was taken away again
                continue
            photograph = self.project.read().photographs[key]
            if photograph.finding is None:  # the threshold has moved meanwhile
                yield from self.check_waiting(stopped)
                continue
            if is_replaced:
                write_table(self.project)
            else:
                self._append(key)
            yield photograph, finding

    def watch(self, stopped: Event, told: Callable[[Photograph, Finding], None]) -> None:
        """Check what comes, until it is stopped, tell of each photograph, and keep the report up to date."""
        is_old = True
        while not stopped.is_set():
            due = time.monotonic() + SECONDS_PER_REPORT
            for checked in self.check(self._complete(self.new_files()), stopped):
                told(*checked)
                is_old = True
                if time.monotonic() > due:  # the others are still new afterwards
                    break
            else:
                stopped.wait(SECONDS_PER_LOOK)
            if is_old and not stopped.is_set():
                write_report(self.project, is_growing=True)
                is_old = False

    def _inspect(self, path: Path, identity: Identity) -> Finding:
        """Inspect a file by the threshold of the moment, which others may have moved, and keep its pictures."""
        facts = self.project.read().facts
        if facts != self.inspector.facts:
            self.inspector.follow(facts)
            write_table(self.project)  # all on one scale
        finding, heat, pictures = self.inspector.inspect(path, identity[0])
        save_pictures(self.project, identity, pictures)
        if self.copies:  # to be drawn at another threshold: a map has more bytes than all pictures
            save_map(self.project, identity, heat)
        return finding

    def _complete(self, files: dict[str, Path]) -> dict[str, Path]:
        """Pick the files that are as they were at the last look: others may still be being written."""
        before, self._changing = self._changing, {name: _identify(name, path) for name, path in files.items()}
        return {name: path for name, path in files.items() if before.get(name) == self._changing[name]}

    def _forget_failure(self, name: str) -> bool:
        """Forget that a file of this name could not be read, since it has changed, and tell whether there was one."""
        every = self.project.read().checked().items()
        failed = [key for key, each in every if each.name == name and each.finding and each.finding.problem]
        for key in failed:
            self.project.remove(key)
        return bool(failed)

    def _append(self, key: str) -> None:
        """Add a line to the table, at once."""
        state = self.project.read()
        if key in state.photographs:  # else it was removed by somebody else
            with (self.project.folder / TABLE).open("a", encoding="utf-8", newline="") as file:
                file.writelines(table_lines(state, [key]))


def _identify(name: str, path: Path) -> Identity:
    try:
        about = path.stat()
    except OSError:  # it is gone, or a link to nowhere
        return name, -1, -1
    return name, about.st_size, about.st_mtime_ns
