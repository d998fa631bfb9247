# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What the page shows of a project: HTML, and the pictures in it, drawn for the threshold of the moment."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from anomalib_htdgm.inspection.colours import OF_VERDICTS, legend
from anomalib_htdgm.inspection.evidence import Picture, shrink
from anomalib_htdgm.inspection.inspecting import THUMBNAIL
from anomalib_htdgm.inspection.learning import read
from anomalib_htdgm.inspection.pictures import encode, read_map, save_map, to_picture
from anomalib_htdgm.inspection.project import Project
from anomalib_htdgm.inspection.state import Row, State, highest_first, name_of_good
from anomalib_htdgm.inspection.thresholds import to_review

from .inspectors import Inspectors

LARGE = 480
"""Longest side in pixels of the photograph that is looked at."""
PIECES: Any = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True).get_template("pieces.html")


def show_projects(projects: Sequence[Project]) -> str:
    """Show the list of projects."""
    rows = []
    for project in projects:
        try:
            state = project.read()
        except ValueError as error:  # one that is damaged does not hide the others
            state = State(str(error))
        verdicts = [row.verdict for row in state.rows()]
        rows.append((project.folder.name, state, len(verdicts), verdicts.count("anomalous")))
    return str(PIECES.module.projects(rows))


def show_good(project: str, state: State, chosen: str) -> str:
    """Show the good photographs; those that are not learnt yet are pale."""
    learnt = [key for key in state.good() if state.model and name_of_good(key) in state.model.good]
    return str(PIECES.module.good(project, state.good(), learnt, chosen))


def show_results(project: str, state: State, chosen: str) -> tuple[str, str, Row | None]:
    """Show the photographs that were checked, and the one to look at, which is returned, too.

    It is the one that was clicked, whose key is ``chosen``; otherwise the most unsure one, or the first.
    """
    rows, review = highest_first(state.rows()), to_review(state)
    by_key = {row.key: row for row in rows}
    row = next((by_key[key] for key in (chosen, *review, *by_key) if key in by_key), None)
    of = {"project": project, "at": state.threshold, "digest": state.model.digest[:8] if state.model else ""}
    is_guess = state.model is not None and state.model.chosen_by == "guess"
    results = PIECES.module.results(of, rows, row.key if row else "", OF_VERDICTS, is_guess)
    return str(results), str(PIECES.module.detail(of, row, OF_VERDICTS, is_guess, legend(), len(review))), row


def draw(inspectors: Inspectors, project: Project, key: str, kind: str, *, large: bool) -> bytes:
    """Draw a picture of a photograph as JPEG, at the project's threshold.

    Raises:
        KeyError: If there is no such photograph, or no picture of this kind of it.
        ValueError: If it cannot be read, or nothing has been learnt yet.
    """
    state = project.read()
    photograph = state.photographs[key]
    path = project.path_of(photograph)
    picture = _read(path, photograph.modified)
    if kind == "good":
        return encode(shrink(picture, THUMBNAIL), "JPEG", quality=85)
    (row,) = state.rows([key])
    with inspectors.of(project) as inspector:
        heat = read_map(project, photograph.identity)
        if heat is None:
            heat = inspector.inspect(path, remembers=False).heat
            save_map(project, photograph.identity, heat)
        if heat is None:
            raise KeyError(kind)
        facts = inspector.facts
        limit = max(facts.pixel_threshold * facts.raw_at(state.threshold) / facts.raw_threshold, 1e-6)
        drawn, _ = inspector.draw(picture, heat, row.verdict, limit, LARGE if large else THUMBNAIL)
    return encode(drawn[kind], "JPEG", quality=85)


@lru_cache(maxsize=100)
def _read(path: Path, modified: int) -> Picture:
    """Read a small picture; a file that has changed is another one."""
    del modified
    return to_picture(read(path))
