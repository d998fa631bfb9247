# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""One run of the command: the model, learnt or loaded, then the folder, then the report."""

import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from threading import Event
from typing import Any

import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

from anomalib_htdgm import Htdgm
from anomalib_htdgm.data.reading import UnreadableImageError

from .checking import FolderCheck, list_files
from .inspecting import NOT_READ, Finding, Inspector, spread_of
from .learning import MOST_SHOTS, Facts, choose_shots, digest_of, digests_of, learn, load, read_good
from .photograph_faults import describe_odd, find_odd
from .project import CHECKPOINT, FILE, Photograph, Project, State, free_key
from .report import (
    REPORT,
    TABLE,
    THUMBNAILS,
    expectation_in_words,
    facts_of,
    finding_of,
    save_good_pictures,
    write_report,
    write_table,
)
from .writing import write_whole

EARLIER = "earlier"
"""Folder within that for results, for those of another model or folder."""
COUNTED = {"anomalous": "anomalous", "look at it": "to look at", "good": "good", NOT_READ: "that cannot be read"}
"""What the last line counts: verdicts, and how it names them."""


class CannotBeDoneError(Exception):
    """A run that cannot be done; the message is a sentence for the user."""


@dataclass(frozen=True)
class Wanted:
    """What a run is to do: the arguments of the command."""

    good: Path | None = None
    model: Path | None = None
    new: Path | None = None
    out: Path | None = None
    project: Path | None = None
    tiles: int | None = None
    watch: bool = False


def check(wanted: Wanted, stopped: Event, ready: Callable[[], None]) -> bool:
    """Check a folder of photographs.

    Args:
        wanted (Wanted): What is to be done.
        stopped (Event): Ends it after the present photograph; the report is written then, too.
        ready (Callable[[], None]): Is called when photographs begin to be checked.

    Returns:
        bool: Whether a photograph is above the threshold.

    Raises:
        CannotBeDoneError: If it cannot be done; what was there before is as it was.
    """
    project = Project(wanted.project or wanted.out or Path())
    try:
        project.read()  # a damaged one is refused
        files = _good_files(wanted, project)
        images = read_good(files)
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


def _good_files(wanted: Wanted, project: Project) -> dict[str, Path]:
    """Choose the good photographs to learn from, by their names: of the folder, and of the project."""
    photographs = project.read().photographs if wanted.project else {}
    files = {_short(key): project.path_of(each) for key, each in State("", "", photographs=photographs).good().items()}
    taken = set(photographs)
    for name, path in (list_files(wanted.good) if wanted.good else {}).items():
        if not _has(photographs, name, path):
            taken.add(key := free_key(taken, "good", PurePosixPath(name)))
            files[_short(key)] = path
    if not files and not wanted.model:
        places = f"{wanted.good}, which has no file" if wanted.good else f"none, and {project.folder} has none"
        msg = f"--good: got {places}; allowed is a folder of good photographs"
        raise ValueError(msg)
    chosen = choose_shots(list(files)) if files else []
    if len(chosen) < len(files):
        _tell(f"{len(files)} good photographs: {MOST_SHOTS} of them, evenly spread, are learnt.")
    return {name: files[name] for name in chosen}


def _check(
    wanted: Wanted,
    project: Project,
    images: dict[str, torch.Tensor],
    stopped: Event,
    ready: Callable[[], None],
) -> bool:
    model, facts = _get_model(wanted, project, images)
    if wanted.project and wanted.good:
        _keep_good(project, wanted.good)
    save_good_pictures(project, facts, images)
    ready()
    odd = find_odd(list(facts.unseen.values()))
    for name in (name for index, name in enumerate(facts.unseen) if index in odd):
        _tell(describe_odd(name))
    folder = wanted.new or project.folder / "checked"
    checks = FolderCheck(project, Inspector(model, facts, images), folder, copies=wanted.project is not None)
    _check_what_is_there(checks, stopped, is_all=not wanted.watch and wanted.new is not None)
    if wanted.watch:
        _tell(f"Watching {folder}. Ctrl-C ends it.")
        checks.watch(stopped, _tell_of)
    report = write_report(project)
    write_table(project)
    return _conclude(project, report)


def _check_what_is_there(checks: FolderCheck, stopped: Event, *, is_all: bool) -> None:
    waiting = len(checks.project.read().waiting())
    files = checks.new_files() if is_all else {}
    with tqdm(desc="Checking", total=waiting + len(files), unit="photograph", disable=None) as bar:
        for _ in checks.check_waiting(stopped):
            bar.update()
        for _ in checks.check(files, stopped):
            bar.update()


def _get_model(wanted: Wanted, project: Project, images: dict[str, torch.Tensor]) -> tuple[Htdgm, Facts]:
    """Take the model that is there if it is what a training would give, or else learn or load one."""
    checkpoint, state = project.folder / CHECKPOINT, project.read()
    tiles = wanted.tiles or state.settings.get("tiles", 1)
    before = None if state.model is None or not checkpoint.is_file() else facts_of(state)
    if before is not None and before.digest == digest_of(checkpoint):
        is_same_model = wanted.model is not None and digest_of(wanted.model) == before.digest
        is_same_training = wanted.model is None and _would_give(before, images, tiles)
        if (is_same_model or is_same_training) and _is_of_folder(wanted, state.settings):
            _tell("The model is as before.")
            return _load(checkpoint, images)[0], before
    partial = project.folder / f".new.{CHECKPOINT}"
    try:
        if wanted.model:
            model, facts = _load(wanted.model, images)
            write_whole(partial, [wanted.model.read_bytes()])
        else:
            _tell(f"Learning from {len(images)} good photograph{'' if len(images) == 1 else 's'}.")
            model, facts = learn(images, partial, tiles=tiles)
        if wanted.out:
            _set_aside(project)
        partial.replace(checkpoint)
    finally:
        partial.unlink(missing_ok=True)
    project.note_model(asdict(facts), facts.threshold)
    with project.changing() as state:
        if wanted.new and wanted.out:
            state.name = wanted.new.resolve().name
        state.settings = {"tiles": tiles} | ({"new": str(wanted.new.resolve())} if wanted.new and wanted.out else {})
    return model, facts


def _would_give(before: Facts, images: dict[str, torch.Tensor], tiles: int) -> bool:
    is_same = list(before.good.items()) == list(digests_of(images).items()) and bool(before.usual)
    return is_same and before.settings.get("tiles") == tiles


def _is_of_folder(wanted: Wanted, settings: dict[str, Any]) -> bool:
    return wanted.out is None or wanted.new is None or settings.get("new") == str(wanted.new.resolve())


def _load(checkpoint: Path, images: dict[str, torch.Tensor]) -> tuple[Htdgm, Facts]:
    try:
        return load(checkpoint, images)
    except Exception as error:  # a checkpoint may be anything
        msg = f"--model: got {checkpoint}, which cannot be loaded: {error}"
        raise CannotBeDoneError(msg) from error


def _set_aside(project: Project) -> None:
    """Keep the results of another model, or another folder, where no later run touches them."""
    names = [name for name in (FILE, TABLE, REPORT, CHECKPOINT, THUMBNAILS) if (project.folder / name).exists()]
    if not names:
        return
    target = project.folder / EARLIER / f"{datetime.now().astimezone():%Y-%m-%d %H.%M.%S.%f}"
    target.mkdir(parents=True)
    for name in names:
        shutil.move(project.folder / name, target / name)
    _tell(f"What was there before is in {target}.")


def _keep_good(project: Project, folder: Path) -> None:
    """Copy the good photographs that a project does not have yet, in the order that keys were given out in."""
    for name, path in list_files(folder).items():
        if not _has(project.read().photographs, name, path):
            project.add(path, "good", name)


def _has(photographs: dict[str, Photograph], name: str, path: Path) -> bool:
    """Tell whether a good photograph is there already; one that has changed is another one."""
    known = {(each.name, each.size, each.modified) for each in photographs.values() if each.place == "good"}
    return (name, path.stat().st_size, path.stat().st_mtime_ns) in known


def _short(key: str) -> str:
    """Name a good photograph: by its key, as names may be alike."""
    return key.removeprefix("good/")


def _conclude(project: Project, report: Path) -> bool:
    state = project.read()
    facts = facts_of(state)
    findings = [finding_of(each) for each in state.checked().values() if each.finding]
    verdicts = [each.verdict_at(spread_of(facts).band(facts.raw_at(state.threshold))) for each in findings]
    counts = ", ".join(f"{verdicts.count(verdict)} {name}" for verdict, name in COUNTED.items())
    _tell(f"{counts}. The report is {report}.")
    _tell(expectation_in_words(state, facts))
    return any(each.score is not None and each.score > state.threshold for each in findings)


def _tell_of(photograph: Photograph, finding: Finding) -> None:
    score = "" if finding.score is None else f" {finding.score:.2f}"
    _tell(f"{photograph.name}:{score} {finding.verdict}. {finding.reason}".strip())


def _tell(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)  # noqa: T201
