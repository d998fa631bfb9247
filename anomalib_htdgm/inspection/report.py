# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The report: one file that a colleague can open anywhere, and the table beside it."""

import csv
from base64 import b64encode
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, select_autoescape

from anomalib_htdgm.models.htdgm.region import list_polygons

from .colours import OF_VERDICTS, legend
from .facts import NOT_READ, now
from .pictures import identity_of_good, path_of
from .project import Project
from .sentences import advise, expect
from .state import Identity, State, highest_first
from .writing import write_whole

REPORT, TABLE = "report.html", "scores.csv"
COLUMNS = ("photograph", "score", "threshold", "verdict", "threshold chosen by", "reason", "raw score", "decision")
BARS = 40
"""Bars of the histogram, from score 0 to 1."""
SECONDS = 10
"""After which a report that is still growing is loaded again."""


def write_report(project: Project, *, is_growing: bool = False) -> Path:
    """Write the report of a project with a model, one photograph after the other, so that thousands do not fill memory.

    While it is growing, a browser looks for a newer one now and then.
    """
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=select_autoescape(["html"]))
    template = environment.get_template("report.html")
    content = _content(project) | {"seconds": SECONDS if is_growing else 0}
    path = project.folder / REPORT
    write_whole(path, (part.encode() for part in template.generate(content)))
    return path


def write_table(project: Project) -> Path:
    """Write the table of scores anew, in the order in which photographs were checked."""
    path = project.folder / TABLE
    write_whole(path, [_format(COLUMNS).encode(), *(line.encode() for line in table_lines(project.read()))])
    return path


def table_lines(state: State, keys: Sequence[str] | None = None) -> Iterator[str]:
    """Give the lines of the table, see :data:`COLUMNS`, of all photographs that were checked, or of some."""
    chosen_by = state.facts.chosen_by if state.threshold == state.facts.threshold else "hand"
    for row in state.rows(keys):
        if row.verdict:
            told = [row.photograph.name, row.finding.score, state.threshold, row.verdict, chosen_by]
            yield _format([*told, row.reason, row.finding.raw, row.photograph.decision])


def _format(cells: Sequence[object]) -> str:
    line = StringIO(newline="")
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def _content(project: Project) -> dict[str, Any]:
    """Put together what the template shows."""
    state = project.read()
    facts = state.facts
    rows = highest_first(row for row in state.rows() if row.verdict)
    verdicts = [row.verdict for row in rows]
    scores = [row.finding.score for row in rows if row.finding.score is not None]
    places = [min(int(score * BARS), BARS - 1) for score in scores]
    polygons = list_polygons(facts.settings["region"]) if facts.settings.get("region") else []
    return {
        "state": state,
        "facts": facts,
        "colours": OF_VERDICTS,
        "counts": {verdict: verdicts.count(verdict) for verdict in OF_VERDICTS},
        "bars": [places.count(place) for place in range(BARS)],
        "band": [min(max(facts.score_at(raw), 0), 1) for raw in facts.band_at(state.threshold)],
        "expectation": expect(state),
        "advice": advise(state),
        "legend": legend(),
        "region": [" ".join(f"{x:g},{y:g}" for x, y in each) for each in polygons],
        "good": [(name, _data_uri(project, identity_of_good(digest), "good")) for name, digest in facts.good.items()],
        "sections": {
            "Photographs, highest score first": [row for row in rows if row.verdict not in ("good", NOT_READ)],
            "Good": [row for row in rows if row.verdict == "good"],
            "Files that cannot be read": [row for row in rows if row.verdict == NOT_READ],
        },
        "picture": lambda row, kind: _data_uri(project, row.photograph.identity, kind),
        "now": now(),
        "not_read": NOT_READ,
    }


def _data_uri(project: Project, identity: Identity, kind: str) -> str:
    """Put a picture into the report itself; nothing if there is none."""
    path = path_of(project, identity, kind)
    return f"data:image/jpeg;base64,{b64encode(path.read_bytes()).decode()}" if path.is_file() else ""
