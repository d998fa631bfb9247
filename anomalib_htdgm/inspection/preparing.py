# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What a run of the command begins with: its arguments, the good photographs, and the model, learnt or loaded."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
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
from .project import CHECKPOINT, FILE, Project
from .regions import EVERYWHERE
from .report import REFERENCE, REPORT, TABLE, THUMBNAILS, facts_of, load_reference, save_reference
from .state import Photograph, State, free_key
from .writing import write_whole

OF_SHOTS = "of shots"
"""Setting of a project: the threshold that its good photographs have chosen."""
EARLIER = "earlier"
"""Folder within that for results, for those of another model or folder."""


class CannotBeDoneError(Exception):
    """A run that cannot be done; the message is a sentence for the user."""


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
        tell(f"{len(files)} good photographs: {MOST_SHOTS} of them, evenly spread, are learnt.")
    return {name: files[name] for name in chosen}


def get_model(
    wanted: Wanted, project: Project, images: dict[str, torch.Tensor], callbacks: Sequence[Callback] = ()
) -> tuple[Htdgm, Facts]:
    """Take the model that is there if it is what a training would give, or else learn or load one."""
    checkpoint, state = project.folder / CHECKPOINT, project.read()
    settings = _choose_settings(wanted, state.settings)
    before = None if state.model is None or not checkpoint.is_file() else facts_of(state)
    own_threshold = None if before is None or state.threshold == before.threshold else state.threshold
    has_reference = before is None or not before.settings.get("align") or (project.folder / REFERENCE).is_file()
    if before is not None and has_reference and before.digest == digest_of(checkpoint):
        is_same_model = wanted.model is not None and digest_of(wanted.model) == before.digest
        is_same_training = wanted.model is None and _would_give(before, images, settings)
        if (is_same_model or is_same_training) and _is_of_folder(wanted, state.settings):
            tell("The model is as before.")
            return _load(checkpoint, images)[0], before
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
            chosen = dict(settings)
            if chosen.pop("align"):
                reference = reference_of(next(iter(images.values())).cpu().numpy())
            model, facts = learn(images, partial, callbacks, reference, **chosen)
        if wanted.out:
            _set_aside(project)
        save_reference(project, reference)
        partial.replace(checkpoint)
    finally:
        partial.unlink(missing_ok=True)
    project.note_model(asdict(facts), facts.threshold)
    with project.changing() as state:
        if wanted.new and wanted.out:
            state.name = wanted.new.resolve().name
            settings["new"] = str(wanted.new.resolve())
        # What was chosen on the page meanwhile, and is not of this run, stays.
        given = {name: value for name, value in settings.items() if getattr(wanted, name) is not None}
        state.settings = settings | state.settings | given
        state.settings.pop(OF_SHOTS, None)
        if own_threshold is not None and wanted.project:
            state.threshold = own_threshold
    return model, facts


def _choose_settings(wanted: Wanted, before: dict[str, Any]) -> dict[str, Any]:
    """Choose what a training is to be done with: what is wanted, or else what the project has."""
    region = wanted.region or before.get("region")
    return {
        "tiles": wanted.tiles or before.get("tiles", 1),
        "region": None if region == EVERYWHERE else region,
        "align": before.get("align", False) if wanted.align is None else wanted.align,
    }


def _would_give(before: Facts, images: dict[str, torch.Tensor], settings: dict[str, Any]) -> bool:
    is_same = list(before.good.items()) == list(digests_of(images).items()) and bool(before.usual)
    made_with = {"region": None, "align": False} | before.settings
    return is_same and all(made_with.get(name) == value for name, value in settings.items())


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
    names = [
        name for name in (FILE, TABLE, REPORT, CHECKPOINT, REFERENCE, THUMBNAILS) if (project.folder / name).exists()
    ]
    if not names:
        return
    target = project.folder / EARLIER / f"{datetime.now().astimezone():%Y-%m-%d %H.%M.%S.%f}"
    target.mkdir(parents=True)
    for name in names:
        shutil.move(project.folder / name, target / name)
    tell(f"What was there before is in {target}.")


def keep_good(project: Project, folder: Path) -> None:
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


def tell(sentence: str) -> None:
    """Tell the user something, beside what a script reads."""
    print(sentence, file=sys.stderr, flush=True)  # noqa: T201
