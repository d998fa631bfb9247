# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""One run of the command: the model, learnt or loaded, then the folder, then the report."""

from collections.abc import Callable
from pathlib import Path
from threading import Event

import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

from anomalib_htdgm import Htdgm
from anomalib_htdgm.data.reading import UnreadableImageError

from .checking import FolderCheck, list_files
from .facts import Facts
from .inspecting import NOT_READ, Finding, Inspector, spread_of
from .learning import read_good
from .photograph_faults import advise
from .preparing import CannotBeDoneError, Wanted, get_model, good_files, keep_good, tell
from .project import Project
from .report import (
    expectation_in_words,
    facts_of,
    finding_of,
    read_reference,
    save_good_pictures,
    write_report,
    write_table,
)
from .state import Photograph
from .thresholds import NOTE, choose_threshold
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
        CannotBeDoneError: If it cannot be done; what was there before is as it was.
    """
    project = Project(wanted.project or wanted.out or Path())
    try:
        project.read()  # a damaged one is refused
        files = good_files(wanted, project)
        images = read_good(files)
        _require_something_to_check(wanted, project)
    except (UnreadableImageError, ValueError) as error:
        raise CannotBeDoneError(str(error)) from error
    try:
        project.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(project.folder / ".check.lock", timeout=0):
            return _check(wanted, project, images, stopped, ready)
    except Timeout as error:
        msg = f"{project.folder} is being written to by another check; end it, or choose another folder"
        raise CannotBeDoneError(msg) from error
    except OSError as error:  # no room, or no right to write; what was noted until then stays
        msg = f"{error.filename or project.folder} cannot be written: {error.strerror}"
        raise CannotBeDoneError(msg) from error


def _check(
    wanted: Wanted,
    project: Project,
    images: dict[str, torch.Tensor],
    stopped: Event,
    ready: Callable[[], None],
) -> bool:
    model, facts = _learn_or_load(wanted, project, images)
    if wanted.project and wanted.good:
        keep_good(project, wanted.good)
    save_good_pictures(project, facts, images)
    try:
        inspector = Inspector(model, facts, images, read_reference(project, facts))
    except ValueError as error:
        raise CannotBeDoneError(str(error)) from error
    ready()
    for sentence in advise(facts.good, facts.unseen):
        tell(sentence)
    folder = wanted.new or project.folder / "checked"
    checks = FolderCheck(project, inspector, folder, copies=wanted.project is not None)
    _check_what_is_there(checks, stopped, is_all=not wanted.watch and wanted.new is not None)
    if wanted.model is None:
        choose_threshold(project, inspector)
        write_table(project)
    if wanted.watch:
        tell(f"Watching {folder}. Ctrl-C ends it.")
        checks.watch(stopped, _tell_of)
    report = write_report(project)
    write_table(project)
    return _conclude(project, report)


def _learn_or_load(wanted: Wanted, project: Project, images: dict[str, torch.Tensor]) -> tuple[Htdgm, Facts]:
    with tqdm(desc="Learning", total=100, bar_format="{desc}: {n:.0f} %", disable=None, leave=False) as bar:
        return get_model(wanted, project, images, [Watch(lambda share: bar.update(100 * share - bar.n), Event())])


def _check_what_is_there(checks: FolderCheck, stopped: Event, *, is_all: bool) -> None:
    waiting = len(checks.project.read().waiting())
    files = checks.new_files() if is_all else {}
    with tqdm(desc="Checking", total=waiting + len(files), unit="photograph", disable=None) as bar:
        for _ in checks.check_waiting(stopped):
            bar.update()
        for _ in checks.check(files, stopped):
            bar.update()


def _require_something_to_check(wanted: Wanted, project: Project) -> None:
    """Refuse an empty folder, such as that of a wrong path: a script must not take it for one of good photographs."""
    is_there = wanted.new is None or wanted.watch or list_files(wanted.new, project.folder.resolve())
    if not is_there and not project.read().checked():
        msg = f"--new: got {wanted.new}, which has no file; allowed is a folder of photographs"
        raise ValueError(msg)


def _conclude(project: Project, report: Path) -> bool:
    state = project.read()
    facts = facts_of(state)
    findings = [finding_of(each) for each in state.checked().values() if each.finding]
    verdicts = [each.verdict_at(spread_of(facts).band(facts.raw_at(state.threshold))) for each in findings]
    counts = ", ".join(f"{verdicts.count(verdict)} {name}" for verdict, name in COUNTED.items())
    tell(f"{counts}. The report is {report}.")
    tell(" ".join([expectation_in_words(state, facts), state.settings.get(NOTE, "")]).strip())
    return any(verdict != "good" for verdict in verdicts)


def _tell_of(photograph: Photograph, finding: Finding) -> None:
    score = "" if finding.score is None else f" {finding.score:.2f}"
    tell(f"{photograph.name}:{score} {finding.verdict}. {finding.reason_of(finding.verdict)}".strip())
