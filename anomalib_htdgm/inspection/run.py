# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""One run of the command: the model, learnt or loaded, then the folder, then the report."""

from collections.abc import Callable
from pathlib import Path
from threading import Event

import torch
from tqdm import tqdm

from .checking import FolderCheck, list_files
from .facts import NOT_READ, Finding
from .inspecting import Inspector
from .learning import read_good
from .pictures import read_reference
from .preparing import Wanted, get_model, good_files, tell
from .project import Project
from .report import write_report, write_table
from .sentences import advise, expect
from .state import Photograph
from .thresholds import choose_threshold
from .watching import Watch

COUNTED = {"anomalous": "anomalous", "look at it": "to look at", "good": "good", NOT_READ: "that cannot be read"}
"""What the last line counts: verdicts, and how it names them."""


def check(wanted: Wanted, stopped: Event, ready: Callable[[], None]) -> bool:
    """Check a folder of photographs.

    Args:
        wanted (Wanted): What is to be done.
        stopped (Event): Ends it after the present photograph; the report is written then, too.
        ready (Callable[[], None]): Is called when photographs begin to be checked.

    Returns:
        bool: Whether a photograph is anomalous, is to be looked at, or cannot be read.

    Raises:
        ValueError: If it cannot be done; what was there before is as it was.
    """
    project = Project(wanted.project or wanted.out or Path())
    images = read_good(good_files(wanted, project))
    is_there = wanted.new is None or wanted.watch or list_files(wanted.new, project.folder.resolve())
    if not is_there and not project.read().checked():  # a script must not take a wrong path for good photographs
        msg = f"--new: got {wanted.new}, which has no file; allowed is a folder of photographs"
        raise ValueError(msg)
    try:
        with project.alone():
            inspector = _get_inspector(wanted, project, images)
            ready()
            return _check(wanted, project, inspector, stopped)
    except OSError as error:  # no room, or no right to write; what was noted until then stays
        msg = f"{error.filename or project.folder} cannot be written: {error.strerror}"
        raise ValueError(msg) from error


def _get_inspector(wanted: Wanted, project: Project, images: dict[str, torch.Tensor]) -> Inspector:
    with tqdm(desc="Learning", total=100, bar_format="{desc}: {n:.0f} %", disable=None, leave=False) as bar:
        watch = Watch(lambda share: bar.update(100 * share - bar.n), Event())
        model, facts = get_model(wanted, project, images, [watch]), project.read().facts
    return Inspector(model, facts, images, read_reference(project, facts))


def _check(wanted: Wanted, project: Project, inspector: Inspector, stopped: Event) -> bool:
    folder = wanted.new or project.folder / "checked"
    checks = FolderCheck(project, inspector, folder, copies=wanted.project is not None)
    files = checks.new_files() if wanted.new and not wanted.watch else {}
    number, checked = len(project.read().waiting()) + len(files), 0
    with tqdm(desc="Checking", total=number, unit="photograph", disable=None) as bar:
        for checking in (checks.check_waiting(stopped), checks.check(files, stopped)):
            for _ in checking:
                bar.update()
                checked += 1
    if stopped.is_set() and checked < number:
        tell(f"Broken off: {number - checked} of {number} photographs were not checked.")
    if wanted.model is None:
        choose_threshold(project, inspector)
        write_table(project)
    if wanted.watch:
        tell(f"Watching {folder}. Ctrl-C ends it.")
        checks.watch(stopped, _tell_of)
    report = write_report(project)
    write_table(project)
    state = project.read()
    verdicts = [row.verdict for row in state.rows() if row.verdict]
    counts = ", ".join(f"{verdicts.count(verdict)} {name}" for verdict, name in COUNTED.items())
    for sentence in advise(state):
        tell(sentence)
    tell(f"{counts}. The report is {report}.")
    tell(expect(state))
    return any(verdict != "good" for verdict in verdicts)


def _tell_of(photograph: Photograph, finding: Finding) -> None:
    score = "" if finding.score is None else f" {finding.score:.2f}"
    tell(f"{photograph.name}:{score} {finding.verdict}. {finding.reason_of(finding.verdict)}".strip())
