# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""A model to be taken elsewhere: its checkpoint, at the threshold that the user has chosen, and ONNX with a script."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

import torch

from anomalib_htdgm import Htdgm

from . import aligning
from .facts import digest_of, post_processor_of
from .pictures import REFERENCE, read_reference
from .project import CHECKPOINT, Project
from .report import write_report, write_table
from .watching import StoppedError
from .writing import write_whole

SCRIPT = Path(__file__).with_name("score.py")
"""Is copied as it is; it is not imported, as it needs onnxruntime."""
ALIGNING = Path(aligning.__file__)
"""Is copied beside it where photographs are aligned."""
SECONDS_PER_LOOK = 0.2
"""Seconds after which an export looks whether to stop."""
EXPORT = """
import json, sys
import onnx
from anomalib_htdgm import Htdgm
path = Htdgm.load_from_checkpoint(sys.argv[1]).to_onnx(sys.argv[2])
model = onnx.load(path)
onnx.helper.set_model_props(model, {"htdgm": sys.argv[3]})
onnx.save(model, sys.argv[4])
"""
"""What exports a checkpoint, as a process of its own, since nothing else can be stopped."""


def save_checkpoint(model: Htdgm, like: Path, target: Path) -> str:
    """Save a model whose threshold has changed since it was saved, and give the digest of the new checkpoint.

    Args:
        model (Htdgm): The model.
        like (Path): Its checkpoint as it was.
        target (Path): Where the new one goes, whole or not at all; it may be the same.
    """
    checkpoint = torch.load(like, map_location="cpu", weights_only=True)
    checkpoint["state_dict"] = model.state_dict()
    model.on_save_checkpoint(checkpoint)
    content = BytesIO()
    torch.save(checkpoint, content)
    write_whole(target, [content.getvalue()])
    return digest_of(target)


def save_files(project: Project, stopped: Event) -> Iterator[Path]:
    """Write checkpoint, table, report, and last the ONNX file with the script that scores by it; give the path of each.

    All call anomalous what is above the project's threshold. A stop takes effect within an export, too.

    Raises:
        ValueError: If nothing has been learnt yet.
        RuntimeError: If the export fails.
        StoppedError: If it was stopped.
    """
    state = project.read()
    facts, files = state.facts, project.folder / "files"
    shutil.rmtree(files, ignore_errors=True)
    source, checkpoint, onnx = project.folder / CHECKPOINT, files / CHECKPOINT, files / "model.onnx"
    model = Htdgm.load_from_checkpoint(source, map_location="cpu")
    post_processor_of(model).image_sensitivity = 1 - state.threshold
    save_checkpoint(model, source, checkpoint)
    yield checkpoint
    aligns = read_reference(project, facts) is not None
    if aligns:
        yield Path(shutil.copy(project.folder / REFERENCE, files))
    for write in (write_table, write_report):
        yield Path(shutil.copy(write(project), files))
    band = [facts.score_at(raw) for raw in facts.band_at(state.threshold)]
    noted = {"threshold": state.threshold, "band": band, "chosen by": facts.chosen_by, "align": aligns}
    _export(checkpoint, onnx, json.dumps(noted), stopped)
    yield onnx
    for script in [SCRIPT, ALIGNING] if aligns else [SCRIPT]:
        yield Path(shutil.copyfile(script, files / script.name))


def _export(checkpoint: Path, target: Path, noted: str, stopped: Event) -> None:
    with TemporaryDirectory(prefix="htdgm_") as scratch, (Path(scratch) / "log").open("w+", encoding="utf-8") as said:
        command = [sys.executable, "-W", "ignore", "-c", EXPORT, str(checkpoint), scratch, noted, str(target)]
        with subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT) as process:  # noqa: S603
            while process.poll() is None:
                if stopped.wait(SECONDS_PER_LOOK):
                    process.kill()
                    raise StoppedError
        if process.returncode:
            said.seek(0)
            msg = f"The export to ONNX failed: {said.read().strip().splitlines()[-1:]}"
            raise RuntimeError(msg)
