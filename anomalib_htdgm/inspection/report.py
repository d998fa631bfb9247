# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The report: one file that a colleague can open anywhere, and the table beside it."""

import csv
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from hashlib import sha256
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader, select_autoescape
from numpy.typing import NDArray
from PIL import Image

from .colours import OF_VERDICTS, legend
from .evidence import Picture
from .expectation import expect_by_count, spread_of_unseen
from .facts import Facts
from .inspecting import DETAIL, NOT_READ, Finding, spread_of, to_picture
from .photograph_faults import describe_odd, find_odd
from .project import Project
from .regions import polygons_of
from .state import Photograph, State, now
from .writing import write_whole

REPORT, TABLE, THUMBNAILS, REFERENCE = "report.html", "scores.csv", "thumbnails", "reference.png"
COLUMNS = ("photograph", "score", "threshold", "verdict", "threshold chosen by", "reason", "raw score", "decision")
BARS = 40
"""Bars of the histogram, from score 0 to 1."""
Identity = tuple[str, int, int]
"""Name, size in bytes and time of the last change: what tells a file from one that was checked before."""
QUALITY = 75
"""Of JPEG: a photograph with all its pictures has 20 kB."""
ENOUGH_COUNTED = 20
"""Photographs from which on the share of those above the threshold tells something."""
SECONDS = 10
"""After which a report that is still growing is loaded again."""


def write_report(project: Project, *, is_growing: bool = False) -> Path:
    """Write the report of a project, one photograph after the other, so that thousands do not fill memory.

    Args:
        project (Project): A project with a model.
        is_growing (bool): Whether a browser is to look for a newer report now and then.

    Returns:
        Path: Its path.
    """
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=select_autoescape(["html"]))
    template = environment.get_template("report.html")
    path = project.folder / REPORT
    write_whole(path, (part.encode() for part in template.generate(_content(project, is_growing=is_growing))))
    return path


def write_table(project: Project) -> Path:
    """Write the table of scores anew, in the order in which photographs were checked."""
    state = project.read()
    facts, lines = facts_of(state), [format_line(COLUMNS)]
    lines += [format_line(row_of(each, state, facts)) for each in state.checked().values() if each.finding]
    path = project.folder / TABLE
    write_whole(path, (line.encode() for line in lines))
    return path


def row_of(photograph: Photograph, state: State, facts: Facts) -> list[object]:
    """Make a photograph's row of the table, see :data:`COLUMNS`."""
    finding = finding_of(photograph)
    verdict = finding.verdict_at(spread_of(facts).band(facts.raw_at(state.threshold)))
    chosen_by = facts.chosen_by if state.threshold == facts.threshold else "hand"
    told = [photograph.name, finding.score, state.threshold, verdict, chosen_by]
    return [*told, finding.reason_of(verdict), finding.raw, photograph.decision]


def format_line(row: Sequence[object]) -> str:
    """Format a row as CSV."""
    line = StringIO(newline="")
    csv.writer(line, lineterminator="\n").writerow(row)
    return line.getvalue()


def facts_of(state: State) -> Facts:
    """Get what is known of a project's model.

    Raises:
        ValueError: If there is none.
    """
    if state.model is None:
        msg = f"project: got {state.name}, which has learnt nothing yet; allowed are those with a model"
        raise ValueError(msg)
    return Facts(**state.model)


def identity_of(photograph: Photograph) -> Identity:
    """Get what tells a photograph's file from others."""
    return photograph.name, photograph.size, photograph.modified


def finding_of(photograph: Photograph) -> Finding:
    """Get what was found of a photograph; nothing if it waits."""
    return Finding(**(photograph.finding or {}))


def save_pictures(project: Project, identity: Identity, pictures: dict[str, Picture]) -> None:
    """Keep the pictures of a photograph for reports."""
    for kind, picture in pictures.items():
        content = BytesIO()
        Image.fromarray(picture).save(content, "JPEG", quality=QUALITY)
        write_whole(_picture_of(project, identity, kind), [content.getvalue()])


def save_map(project: Project, identity: Identity, heat: NDArray[np.float32] | None) -> None:
    """Keep the raw map of a photograph, of shape ``(h, w)``, to draw it at another threshold."""
    if heat is not None:
        content = BytesIO()
        np.save(content, heat.astype(np.float16))
        write_whole(_picture_of(project, identity, "map").with_suffix(".npy"), [content.getvalue()])


def read_map(project: Project, identity: Identity) -> NDArray[np.float32] | None:
    """Get the raw map of a photograph; ``None`` if it was not kept."""
    path = _picture_of(project, identity, "map").with_suffix(".npy")
    return np.load(path).astype(np.float32) if path.is_file() else None


def save_reference(project: Project, reference: Picture | None) -> None:
    """Keep what photographs are aligned with, and nothing where they are not."""
    if reference is None:
        (project.folder / REFERENCE).unlink(missing_ok=True)
        return
    content = BytesIO()
    Image.fromarray(reference).save(content, "PNG")
    write_whole(project.folder / REFERENCE, [content.getvalue()])


def read_reference(project: Project, facts: Facts) -> Picture | None:
    """Get what photographs are aligned with; ``None`` if the model's were not aligned.

    Raises:
        ValueError: If it is not there.
    """
    if not facts.settings.get("align"):
        return None
    reference = load_reference(project.folder / REFERENCE)
    if reference is None:
        msg = f"{project.folder / REFERENCE} is what photographs are aligned with, and is not there; learn again"
        raise ValueError(msg)
    return reference


def load_reference(path: Path) -> Picture | None:
    """Get what photographs are aligned with from a file; ``None`` if there is none.

    Raises:
        ValueError: If it cannot be read.
    """
    try:
        return np.asarray(Image.open(path).convert("RGB")) if path.is_file() else None
    except OSError as error:
        msg = f"{path} is what photographs are aligned with, and cannot be read; learn again"
        raise ValueError(msg) from error


def save_good_pictures(project: Project, facts: Facts, images: dict[str, torch.Tensor]) -> None:
    """Keep small pictures of the good photographs, images in [0, 1] of shape ``(3, H, W)``, for reports."""
    for name, image in images.items():
        save_pictures(project, (facts.good[name], 0, 0), {"good": to_picture(image, DETAIL)})


def expectation_in_words(state: State, facts: Facts) -> str:
    """Say what to expect of new good photographs, by what tells most about them."""
    raw = facts.raw_at(state.threshold)
    read = [(each.decision, finding_of(each)) for each in state.checked().values()]
    known = [(decision, finding.raw) for decision, finding in read if finding.raw is not None]
    good = [score for decision, score in known if decision == "good"]
    if len(good) >= ENOUGH_COUNTED:
        return (
            f"{expect_by_count(sum(score > raw for score in good), len(good))} So say {len(good)} that you called good."
        )
    spread = spread_of_unseen(list(facts.unseen.values()))
    if spread:
        few = " It is a wide range, as so few tell little." if spread.number < 5 else ""  # noqa: PLR2004
        return f"{spread.expect(raw)} So say {len(facts.unseen)} good ones, each compared with the others.{few}"
    if len(known) >= ENOUGH_COUNTED:
        expected = str(expect_by_count(sum(score > raw for _, score in known), len(known)))
        return f"{expected.replace('good ones', 'photographs like these')} Of good ones it will be at most as many."
    return "How many good ones will be called anomalous cannot be told: it takes two good photographs to learn from."


def _content(project: Project, *, is_growing: bool) -> dict[str, Any]:
    """Put together what the template shows."""
    state = project.read()
    facts = facts_of(state)
    band = spread_of(facts).band(facts.raw_at(state.threshold))
    every = [(each, finding_of(each)) for each in state.checked().values() if each.finding]
    every.sort(key=lambda row: -1 if row[1].raw is None else row[1].raw, reverse=True)
    verdicts = [finding.verdict_at(band) for _, finding in every]
    odd = [name for index, name in enumerate(facts.unseen) if index in find_odd(list(facts.unseen.values()))]
    return {
        "state": state,
        "facts": facts,
        "colours": OF_VERDICTS,
        "counts": {verdict: verdicts.count(verdict) for verdict in OF_VERDICTS},
        "bars": _histogram([finding.score for _, finding in every if finding.score is not None]),
        "band": [min(max(facts.score_at(raw), 0), 1) for raw in band],
        "expectation": expectation_in_words(state, facts),
        "odd": [describe_odd(name) for name in odd],
        "legend": legend(),
        "region": [" ".join(f"{x:g},{y:g}" for x, y in each) for each in polygons_of(facts.settings.get("region"))],
        "good": _good_pictures(project, facts),
        "rows": _rows(project, every, verdicts),
        "now": now(),
        "seconds": SECONDS if is_growing else 0,
        "not_read": NOT_READ,
    }


def _rows(
    project: Project, every: Sequence[tuple[Photograph, Finding]], verdicts: Sequence[str]
) -> Iterator[dict[str, Any]]:
    for (photograph, finding), verdict in zip(every, verdicts, strict=True):
        kinds = ("photograph", "heat", "place", "similar")
        pictures = {kind: _data_uri(_picture_of(project, identity_of(photograph), kind)) for kind in kinds}
        yield {**asdict(photograph), "finding": finding, "verdict": verdict, "pictures": pictures}


def _good_pictures(project: Project, facts: Facts) -> list[tuple[str, str]]:
    return [(name, _data_uri(_picture_of(project, (digest, 0, 0), "good"))) for name, digest in facts.good.items()]


def _histogram(scores: Sequence[float]) -> list[int]:
    places = [min(int(score * BARS), BARS - 1) for score in scores]
    return [places.count(place) for place in range(BARS)]


def _picture_of(project: Project, identity: Identity, kind: str) -> Path:
    return project.folder / THUMBNAILS / f"{sha256(str(identity).encode()).hexdigest()[:16]}_{kind}.jpg"


def _data_uri(path: Path) -> str:
    """Put a picture into the report itself; nothing if there is none."""
    if not path.is_file():
        return ""
    return f"data:image/jpeg;base64,{b64encode(path.read_bytes()).decode()}"
