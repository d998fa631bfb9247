# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What the page does with a project: photographs in, learning, checking. All that is to stay is in the project."""

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from threading import Event

from anomalib_htdgm import QuickstartTextures
from anomalib_htdgm.data.reading import UnreadableImageError
from anomalib_htdgm.inspection.checking import FolderCheck
from anomalib_htdgm.inspection.learning import read, read_good
from anomalib_htdgm.inspection.preparing import Wanted, get_model, good_files
from anomalib_htdgm.inspection.project import Project
from anomalib_htdgm.inspection.state import Place
from anomalib_htdgm.inspection.thresholds import choose_threshold
from anomalib_htdgm.inspection.watching import StoppedError, Watch

from .inspectors import Inspectors

EXAMPLE = "Bricks, an example"
MOST_LETTERS = 60
"""Of the name of a project."""


def write_example(root: Path) -> Project:
    """Make a project of the quick start's bricks: seven good ones, six to check, of which three are defective."""
    project = Project(root / EXAMPLE)
    bricks = QuickstartTextures("brick", root=root / ".quickstart")
    bricks.prepare_data()
    folder = Path(bricks.root or "")
    images = {kind: sorted(folder.glob(f"{kind}/*.png")) for kind in ("good", "test_good", "defect")}
    for path in images["good"][::2]:
        project.add(path, "good")
    for kind in ("test_good", "defect"):
        for path in images[kind][::7]:
            project.add(path, "checked", f"{kind.removeprefix('test_')} {path.name}")
    return project


def name_project(root: Path, wanted: str) -> str:
    """Begin a project, or find the one of this name.

    Returns:
        str: Its name, which is that of its folder.

    Raises:
        ValueError: If it cannot be the name of a folder.
    """
    name = wanted.strip()
    if not name or name.startswith(".") or len(name) > MOST_LETTERS or set(name) & set('/\\:*?"<>|\0\n'):
        msg = f"name: got {name!r}; allowed are 1 to {MOST_LETTERS} letters, digits, spaces and dashes"
        raise ValueError(msg)
    with Project(root / name).changing():
        return name


class Part:
    """A project, as a page works on it."""

    def __init__(self, project: Project, inspectors: Inspectors) -> None:
        self.project, self.inspectors = project, inspectors

    def add(self, files: Sequence[Path], place: Place) -> list[str]:
        """Add photographs, and return a sentence for each file that was left out."""
        return [refused for path in files if (refused := self._add(path, place))]

    def _add(self, path: Path, place: Place) -> str:
        try:
            if place == "good":  # which have the shape of the first
                first = list(self.project.read().good().values())[:1]
                read_good({each.name: self.project.path_of(each) for each in first} | {str(path): path})
            else:
                read(path)
            self.project.add(path, place)
        except (UnreadableImageError, OSError) as error:
            return f"{str(error).replace(str(path), path.name)}."
        return ""

    def learn(self, tiles: int, report: Callable[[float], None], stopped: Event, *, align: bool | None = None) -> None:
        """Learn from the good photographs, at most ten; a training that does not end leaves the model as it is.

        Args:
            tiles (int): Tiles along each side of a photograph.
            report (Callable[[float], None]): Is told now and then, and at the end, which share of the training is done.
            stopped (Event): Stops it.
            align (bool | None): Whether photographs are moved to where the first good one lies; ``None`` is as before.

        Raises:
            ValueError: If there is no good photograph, or one cannot be learnt.
            StoppedError: If it was stopped.
        """
        if not self.project.read().good():
            msg = "There is no good photograph to learn from: add one to ten."
            raise ValueError(msg)
        with self.project.alone():
            wanted = Wanted(project=self.project.folder, tiles=tiles, align=align)
            try:
                images = read_good(good_files(wanted, self.project))
            except UnreadableImageError as error:
                raise ValueError(str(error).replace(f"{self.project.folder}/", "")) from error
            get_model(wanted, self.project, images, [Watch(report, stopped)])

    def check(self, stopped: Event) -> Iterator[tuple[int, int]]:
        """Check the photographs that wait, if there is a model; then they, or decisions, choose the threshold.

        Yields:
            tuple[int, int]: The number of photographs that are checked, after each, and of all that waited.

        Raises:
            ValueError: If another process works on the project.
            StoppedError: If it was stopped.
        """
        state = self.project.read()
        if state.model is None:
            return
        with self.project.alone():
            with self.inspectors.of(self.project) as inspector:
                checks = FolderCheck(self.project, inspector, self.project.folder / "checked", copies=True)
            checking = checks.check_waiting(stopped)
            for number in count(1):
                with self.inspectors.of(self.project):  # for one photograph only, so that others get their turn
                    if next(checking, None) is None:
                        break
                yield number, len(state.waiting())
        if stopped.is_set() and self.project.read().waiting():
            raise StoppedError
        self.choose_threshold()

    def choose_threshold(self) -> None:
        """Choose the threshold by what is known by now."""
        with self.inspectors.of(self.project) as inspector:
            choose_threshold(self.project, inspector)
