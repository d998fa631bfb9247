# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What a run begins with: what is wanted, the good photographs, and the model, learnt or loaded."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from lightning.pytorch import Callback

from anomalib_htdgm import Htdgm
from anomalib_htdgm.models.htdgm.region import Outlines

from .aligning import reference_of
from .checking import list_files
from .facts import Facts, digest_of, digests_of
from .learning import MOST_SHOTS, choose_shots, learn, load
from .pictures import REFERENCE, THUMBNAILS, load_reference, save_good_pictures, save_reference
from .project import CHECKPOINT, FILE, Project
from .regions import EVERYWHERE
from .report import REPORT, TABLE
from .state import Photograph, State, free_key, name_of_good
from .thresholds import OF_SHOTS
from .writing import write_whole

EARLIER = "earlier"
"""Folder within that for results, for those of another model or folder."""
ALIGNED_WITH = "aligned with"
"""Setting of a project: name of the good photograph that others are aligned with, even if an earlier name comes."""


@dataclass(frozen=True)
class Wanted:
    """What a run is to do: the arguments of the command. ``None`` is what the project has."""

    good: Path | None = None
    model: Path | None = None
    new: Path | None = None
    out: Path | None = None
    project: Path | None = None
    tiles: int | None = None
    region: Outlines | None = None
    align: bool | None = None
    watch: bool = False


def good_files(wanted: Wanted, project: Project) -> dict[str, Path]:
    """Choose the good photographs to learn from, by their names: of the folder, and of the project.

    Raises:
        ValueError: If there is none.
    """
    state = project.read() if wanted.project else State("")
    files = {name_of_good(key): project.path_of(each) for key, each in state.good().items()}
    taken = set(state.photographs)
    for name, path in (list_files(wanted.good) if wanted.good else {}).items():
        if not _has(state.photographs, name, path):
            taken.add(key := free_key(taken, "good", PurePosixPath(name)))
            files[name_of_good(key)] = path
    if not files and not wanted.model:
        places = f"{wanted.good}, which has no file" if wanted.good else f"none, and {project.folder} has none"
        msg = f"--good: got {places}; allowed is a folder of good photographs"
        raise ValueError(msg)
    chosen = choose_shots(files, first=state.settings.get(ALIGNED_WITH))
    if len(chosen) < len(files):
        tell(f"{len(files)} good photographs: {MOST_SHOTS} of them, evenly spread, are learnt.")
    return {name: files[name] for name in chosen}


def get_model(
    wanted: Wanted, project: Project, images: dict[str, torch.Tensor], callbacks: Sequence[Callback] = ()
) -> Htdgm:
    """Take the model that is there if it is what a training would give, or else learn or load one.

    Raises:
        ValueError: If a checkpoint cannot be loaded; what was there before is as it was.
    """
    state = project.read()
    settings = _choose_settings(wanted, state.settings)
    if state.model and _is_as_before(wanted, project, images, settings):
        tell("The model is as before.")
        model, facts = _load(project.folder / CHECKPOINT, images)[0], state.model
    else:
        model, facts = _get_new_model(wanted, project, images, callbacks, settings)
        project.note_model(facts)
        _note_settings(wanted, project, settings, state, next(iter(images), None))
    if wanted.project and wanted.good:  # copy what it does not have, in the order that keys were given out in
        for name, path in list_files(wanted.good).items():
            if not _has(project.read().photographs, name, path):
                project.add(path, "good", name)
    save_good_pictures(project, facts, images)
    return model


def _choose_settings(wanted: Wanted, before: dict[str, Any]) -> dict[str, Any]:
    """Choose what a training is to be done with: what is wanted, or else what the project has."""
    region = wanted.region or before.get("region")
    return {
        "tiles": wanted.tiles or before.get("tiles", 1),
        "region": None if region == EVERYWHERE else region,
        "align": before.get("align", False) if wanted.align is None else wanted.align,
    }


def _is_as_before(wanted: Wanted, project: Project, images: dict[str, torch.Tensor], settings: dict[str, Any]) -> bool:
    """Tell whether the project has the model that a training would give, and results of the same folder."""
    state, checkpoint = project.read(), project.folder / CHECKPOINT
    before = state.facts
    if not checkpoint.is_file() or before.digest != digest_of(checkpoint):
        return False
    if before.settings.get("align") and not (project.folder / REFERENCE).is_file():
        return False
    if wanted.out and wanted.new and state.settings.get("new") != str(wanted.new.resolve()):
        return False
    has_same_good = list(before.good.items()) == list(digests_of(images).items())
    if wanted.model:
        return has_same_good and digest_of(wanted.model) == before.digest
    made_with = {"region": None, "align": False} | before.settings
    is_same = has_same_good and bool(before.usual)
    return is_same and all(made_with.get(name) == value for name, value in settings.items())


def _get_new_model(
    wanted: Wanted,
    project: Project,
    images: dict[str, torch.Tensor],
    callbacks: Sequence[Callback],
    settings: dict[str, Any],
) -> tuple[Htdgm, Facts]:
    """Learn or load a model, and put it into its place at the end only."""
    partial, reference = project.folder / f".new.{CHECKPOINT}", None
    try:
        if wanted.model:
            model, facts = _load(wanted.model, images)
            write_whole(partial, [wanted.model.read_bytes()])
            if (reference := load_reference(wanted.model.with_name(REFERENCE))) is not None:
                facts = replace(facts, settings=facts.settings | {"align": True})
                tell(f"Photographs are aligned with {wanted.model.with_name(REFERENCE)}, as the model's were.")
        else:
            tell(f"Learning from {len(images)} good photograph{'' if len(images) == 1 else 's'}.")
            if settings["align"]:
                reference = reference_of(next(iter(images.values())).cpu().numpy())
            chosen = {"tiles": settings["tiles"], "region": settings["region"]}
            model, facts = learn(images, partial, callbacks, reference, **chosen)
        if wanted.out:
            _set_aside(project)
        save_reference(project, reference)
        partial.replace(project.folder / CHECKPOINT)
    finally:
        partial.unlink(missing_ok=True)
    return model, facts


def _note_settings(
    wanted: Wanted, project: Project, settings: dict[str, Any], before: State, first: str | None
) -> None:
    """Note what a new model was made with; what was chosen on the page meanwhile, and is not of this run, stays."""
    given = {name: value for name, value in settings.items() if getattr(wanted, name) is not None}
    with project.changing() as state:
        if wanted.new and wanted.out:
            state.name = wanted.new.resolve().name
            given["new"] = str(wanted.new.resolve())
        if settings["align"] and not wanted.model:
            given[ALIGNED_WITH] = first
        state.settings = settings | state.settings | given
        state.settings.pop(OF_SHOTS, None)
        if wanted.project and before.model and before.threshold != before.model.threshold:
            state.threshold = before.threshold  # the user's own


def _load(checkpoint: Path, images: dict[str, torch.Tensor]) -> tuple[Htdgm, Facts]:
    try:
        return load(checkpoint, images)
    except Exception as error:  # a checkpoint may be anything
        msg = f"--model: got {checkpoint}, which cannot be loaded: {error}"
        raise ValueError(msg) from error


def _set_aside(project: Project) -> None:
    """Keep the results of another model, or another folder, where no later run touches them."""
    every = (FILE, TABLE, REPORT, CHECKPOINT, REFERENCE, THUMBNAILS)
    if names := [name for name in every if (project.folder / name).exists()]:
        target = project.folder / EARLIER / f"{datetime.now().astimezone():%Y-%m-%d %H.%M.%S.%f}"
        target.mkdir(parents=True)
        for name in names:
            shutil.move(project.folder / name, target / name)
        tell(f"What was there before is in {target}.")


def _has(photographs: dict[str, Photograph], name: str, path: Path) -> bool:
    """Tell whether a good photograph is there already; one that has changed is another one."""
    known = {each.identity for each in photographs.values() if each.place == "good"}
    return (name, path.stat().st_size, path.stat().st_mtime_ns) in known


def tell(sentence: str) -> None:
    """Tell the user something, beside what a script reads."""
    print(sentence, file=sys.stderr, flush=True)  # noqa: T201
