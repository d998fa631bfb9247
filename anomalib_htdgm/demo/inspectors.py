# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Projects and their models for a server: found by name, loaded when first asked for, and used by one at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock

from anomalib_htdgm.inspection.facts import digest_of
from anomalib_htdgm.inspection.inspecting import Inspector
from anomalib_htdgm.inspection.learning import load, read_good
from anomalib_htdgm.inspection.pictures import read_reference
from anomalib_htdgm.inspection.project import CHECKPOINT, Project, list_projects
from anomalib_htdgm.inspection.state import name_of_good

MOST_LOADED = 4
"""Models that are kept in memory."""


class Inspectors:
    """The projects in a folder, and inspectors by their models."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._turn = RLock()
        self._loaded: dict[Path, Inspector] = {}
        self._found: dict[str, Project] = {}

    def find(self, name: str) -> Project:
        """Find a project by its name, which is never a path.

        Raises:
            KeyError: If there is none.
        """
        found = {project.folder.name: project for project in list_projects(self.root)}
        return self._found.setdefault(name, found[name])  # the same one, which does not parse its file for each request

    @contextmanager
    def of(self, project: Project) -> Iterator[Inspector]:
        """Give out the inspector of a project's model, to nobody else meanwhile.

        Raises:
            ValueError: If nothing has been learnt yet, or the model is not the one that the project knows.
        """
        with self._turn:
            inspector = self._loaded.pop(project.folder, None)
            if inspector is None or inspector.facts != project.read().facts:
                inspector = self._load(project)
            self._loaded[project.folder] = inspector  # the last one that was used is the last
            for oldest in list(self._loaded)[:-MOST_LOADED]:
                del self._loaded[oldest]
            yield inspector

    def _load(self, project: Project) -> Inspector:
        state, checkpoint = project.read(), project.folder / CHECKPOINT
        facts = state.facts
        if not checkpoint.is_file() or digest_of(checkpoint) != facts.digest:
            msg = f"{checkpoint} is not the model that was learnt; learn again"
            raise ValueError(msg)
        paths = {name_of_good(key): project.path_of(each) for key, each in state.photographs.items()}
        images = read_good({name: paths[name] for name in facts.good if name in paths and paths[name].is_file()})
        return Inspector(load(checkpoint, images)[0], facts, images, read_reference(project, facts))
