# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What the page shows of a project: HTML, and the pictures in it, drawn for the threshold of the moment."""

from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jinja2 import Environment, FileSystemLoader
from PIL import Image

from anomalib_htdgm.data.reading import read_image
from anomalib_htdgm.inspection.colours import OF_VERDICTS, legend
from anomalib_htdgm.inspection.evidence import Picture, shrink
from anomalib_htdgm.inspection.inspecting import THUMBNAIL, spread_of, to_picture
from anomalib_htdgm.inspection.project import Project
from anomalib_htdgm.inspection.report import facts_of, finding_of, identity_of, read_map, save_map
from anomalib_htdgm.inspection.reviewing import to_review
from anomalib_htdgm.inspection.state import State

from .inspectors import Inspectors

LARGE = 480
"""Longest side in pixels of the photograph that is looked at."""
PIECES: Any = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True).get_template("pieces.html")


class Row(NamedTuple):
    """A photograph that is to be checked, or was, as it is shown at the threshold of the moment."""

    key: str
    name: str
    score: float | None
    verdict: str
    reason: str
    decision: str | None
    is_guess: bool


def rows_of(state: State) -> list[Row]:
    """List the photographs that were checked, highest score first, and then those that wait."""
    facts = facts_of(state) if state.model else None
    band = spread_of(facts).band(facts.raw_at(state.threshold)) if facts else (0.0, 0.0)
    rows = []
    for key, each in state.checked().items():
        finding = finding_of(each)
        verdict = finding.verdict_at(band) if each.finding else ""
        is_guess = facts is not None and facts.chosen_by == "guess"
        name = key.removeprefix("checked/")
        reason = finding.reason_of(verdict)
        rows.append((finding.raw, Row(key, name, finding.score, verdict, reason, each.decision, is_guess)))
    return [row for _, row in sorted(rows, key=lambda each: -1 if each[0] is None else each[0], reverse=True)]


def choose_row(state: State, rows: Sequence[Row], key: str) -> tuple[Row | None, int]:
    """Choose the photograph to look at, and count those that are left to review.

    Args:
        state (State): What is known of the project.
        rows (Sequence[Row]): Its photographs.
        key (str): Key of the one that was clicked; otherwise it is the most unsure one, or the first.
    """
    review = to_review(state, facts_of(state)) if state.model else []
    wanted = next((each for each in (key, *review) if each in state.checked()), None)
    return next((row for row in rows if row.key == wanted), rows[0] if rows else None), len(review)


def show_projects(projects: Sequence[Project]) -> str:
    """Show the list of projects."""
    rows = []
    for project in projects:
        state = project.read()
        verdicts = [row.verdict for row in rows_of(state)]
        numbers = {"good": len(state.good()), "checked": len(verdicts), "anomalous": verdicts.count("anomalous")}
        rows.append({"folder": project.folder.name, "learnt": state.model is not None, **numbers})
    return str(PIECES.module.projects(rows))


def show_good(project: str, state: State, chosen: str) -> str:
    """Show the good photographs; those that are not learnt yet are pale."""
    names = (state.model or {}).get("good", {})
    learnt = {key for key in state.photographs if key.removeprefix("good/") in names}
    return str(PIECES.module.good(project, state.good(), learnt, chosen))


def show_results(project: str, state: State, chosen: str) -> tuple[str, str, Row | None]:
    """Show the photographs that were checked, and the one to look at, which is returned, too."""
    rows = rows_of(state)
    row, left = choose_row(state, rows, chosen)
    at, of = state.threshold, (state.model or {}).get("digest", "")[:8]
    results = PIECES.module.results(project, rows, row.key if row else "", at, of, OF_VERDICTS)
    return str(results), str(PIECES.module.detail(project, row, at, of, OF_VERDICTS, legend(), left)), row


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
    drawn = shrink(picture, THUMBNAIL)
    if kind != "good":
        row = next(row for row in rows_of(state) if row.key == key)
        with inspectors.of(project) as inspector:
            heat = read_map(project, identity_of(photograph))
            if heat is None:  # the command has checked it
                heat = inspector.inspect(path, remembers=False).heat
                save_map(project, identity_of(photograph), heat)
            if heat is None:
                raise KeyError(kind)
            facts = inspector.facts
            limit = max(facts.pixel_threshold * facts.raw_at(state.threshold) / facts.raw_threshold, 1e-6)
            drawn = inspector.draw(picture, heat, row.verdict, limit, LARGE if large else THUMBNAIL)[0][kind]
    content = BytesIO()
    Image.fromarray(drawn).save(content, "JPEG", quality=85)
    return content.getvalue()


@lru_cache(maxsize=100)
def _read(path: Path, modified: int) -> Picture:
    """Read a small picture; a file that has changed is another one."""
    del modified
    return to_picture(torch.as_tensor(read_image(path, as_tensor=True)).as_subclass(torch.Tensor), 512)
