# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Projects of small photographs, learnt by small models: what tests of the page begin with."""

from pathlib import Path
from threading import Event

from anomalib_htdgm.demo.inspectors import Inspectors
from anomalib_htdgm.demo.part import Part


def open_again(root: Path, name: str) -> Part:
    """Open a project as a server does that was started anew, or another tab."""
    inspectors = Inspectors(root)
    return Part(inspectors.find(name), inspectors)


def learn(part: Part, *good: Path) -> None:
    assert part.add(good, "good") == []
    part.learn(1, lambda _: None, Event())


def check(part: Part, *new: Path) -> dict[str, float]:
    """Check photographs, and give the scores of all by their names."""
    assert part.add(new, "checked") == []
    list(part.check(Event()))
    return {row.name: row.finding.score for row in part.project.read().rows()}


def basis(part: Part) -> str:
    return part.project.read().model.chosen_by
