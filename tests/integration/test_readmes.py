# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What the READMEs and the documentation tell a reader to type works: every command, every block of Python, every link.

The blocks of a page are executed in their order. Data stand in at the places where the pages expect them, the defaults
of models are small, and there is no network. What is not done in full stands in ``pages.py``, with the reason.
"""

import inspect
import re
import shlex
import shutil
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from anomalib.data import Folder, MVTecAD
from anomalib.models import Patchcore
from PIL import Image

from anomalib_htdgm import Devnet, Differnet, Htdgm, HtdgmPublished, QuickstartTextures
from anomalib_htdgm.models import backbone
from anomalib_htdgm.models.htdgm import settings
from anomalib_htdgm.models.htdgm.settings import Settings

from .pages import FENCE, PROJECT, SPAN, follow, read_blocks, record

pytestmark = pytest.mark.thorough

PAGES = sorted(
    page
    for page in PROJECT.rglob("*.md")
    if not any(part.startswith(".") or part in {"site", "results", "runs"} for part in page.relative_to(PROJECT).parts)
)
OF_EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(PROJECT)) for page in PAGES])
# Of blocks of Python: what would take minutes, and what is done in its place.
SHORTENED = {
    "epochs=10, steps_per_epoch=10": "epochs=1, steps_per_epoch=1",
    "image_sizes=(224, 112)": "image_sizes=(64, 32)",
    "Schedule(iterations=30": "Schedule(iterations=1",
}
FLOW = {"coupling_blocks": 1, "hidden_width": 8, "epochs": 1, "test_rotations": 1, "map_rotations": 1}
DEFAULTS: dict[Any, dict[str, Any]] = {
    HtdgmPublished: {"iterations": 1, "image_size": 25},
    Devnet: {"image_sizes": (64,), "epochs": 1, "steps_per_epoch": 1, "batch_size": 2},
    Differnet: {"image_sizes": (64,), **FLOW},
    Patchcore: {"backbone": "resnet18", "layers": ("layer1",), "pre_trained": False},
    **{cls: {"num_workers": 0} for cls in (MVTecAD, Folder, QuickstartTextures)},
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give models and datamodules defaults that take no time and nothing from the network."""
    one_scale = {"memory_patches": 0, "energy_cells": 0, "image_size": 25, "coarsest_size": 25, "votes_from": 25}
    fast = replace(Settings(), iterations=1, num_members=1, **one_scale)
    monkeypatch.setattr(settings, "PRESETS", dict.fromkeys(settings.PRESETS, fast))
    monkeypatch.setitem(Settings.__init__.__kwdefaults__, "iterations", 1)
    for cls, values in DEFAULTS.items():
        parameters = [p for p in inspect.signature(cls).parameters.values() if p.default is not p.empty]
        assert values.keys() <= {parameter.name for parameter in parameters}
        changed = tuple(values.get(parameter.name, parameter.default) for parameter in parameters)
        monkeypatch.setattr(cls.__init__, "__defaults__", changed)
    make = backbone._create_network  # noqa: SLF001 - what the library would download is drawn instead
    monkeypatch.setattr(backbone, "_create_network", lambda name, pretrained=False: make(name))  # noqa: ARG005


@pytest.fixture(scope="module")
def traced_once() -> Iterator[None]:
    """Trace one model for all pages, which takes half a minute: test_exports.py holds graphs to their models."""
    trace, graphs = Htdgm.to_onnx, []

    def to_onnx(model: Htdgm, export_root: Path, *arguments: object, **options: object) -> Path:
        if not graphs:
            graphs.append(trace(model, export_root, *arguments, **options).read_bytes())
        path = Path(export_root) / "weights" / "onnx" / "model.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(graphs[0])
        return path

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Htdgm, "to_onnx", to_onnx)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make what the pages expect: photographs, some of them upright only by their note, a data set, weights."""
    root, source, is_lying = tmp_path_factory.mktemp("data"), np.random.default_rng(0), Image.Exif()
    is_lying[0x0112] = 6
    bottle = "datasets/MVTecAD/bottle"
    numbers = {f"{bottle}/train/good": 11, f"{bottle}/test/good": 1, f"{bottle}/test/contamination": 1}
    numbers |= {f"{bottle}/test/broken_large": 11, "images/good": 5, "phone/good": 5, "phone/new": 5}
    for folder, number in (numbers | {f"photos/{each}": 5 for each in ("good", "new", "bad", "unchecked")}).items():
        (root / folder).mkdir(parents=True)
        for index in range(number):
            image = Image.fromarray(source.integers(0, 255, (70, 90, 3), np.uint8))
            if folder.startswith("phone"):
                image.save(root / folder / f"IMG_{index}.JPG", exif=is_lying if index % 2 else b"")
                continue
            image.save(root / folder / f"{index:03}.png")
            if folder.startswith(f"{bottle}/test") and not folder.endswith("good"):
                mask = root / folder.replace("test", "ground_truth") / f"{index:03}_mask.png"
                mask.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.eye(90, dtype=np.uint8)[:70] * 255).save(mask)
    state = torchvision.models.get_model("alexnet", weights=None).features.state_dict()
    torch.save({f"features.{name}": tensor for name, tensor in state.items()}, root / "alexnet.pth")
    return root


@pytest.fixture
def place(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a working directory: a clone of the repository with data."""
    shutil.copytree(data, tmp_path, dirs_exist_ok=True)
    for name in ("configs", "benchmarks", "pyproject.toml"):
        (tmp_path / name).symlink_to(PROJECT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("small", "traced_once", "no_network")
@OF_EACH_PAGE
def test_page(page: Path, place: Path) -> None:
    namespace: dict[str, Any] = {"__name__": "page"}
    for language, line, text in read_blocks(page):
        assert language in {"bash", "python", "bibtex", "text", "toml"}
        if language == "python":
            for old, new in SHORTENED.items():
                text = text.replace(old, new)  # noqa: PLW2901
            exec(compile("\n" * line + text, str(page), "exec"), namespace)  # noqa: S102 - that is the test
        elif language == "bash":
            for command in record(text, place):
                follow(command)


@pytest.mark.usefixtures("no_network")
def test_there_is_no_network() -> None:
    with (
        pytest.raises(AssertionError, match=r"a connection to \('192\.0\.2\.1', 80\) was tried"),
        socket.socket() as outer,
    ):
        outer.connect(("192.0.2.1", 80))
    with pytest.raises(AssertionError, match=r"the address of example\.org was asked for"):
        socket.create_connection(("example.org", 80), timeout=0.1)


def test_what_is_shortened_is_on_a_page() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert all(each in text for each in SHORTENED)


@OF_EACH_PAGE
def test_links_and_named_files_exist(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    links = [link for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) if "://" not in link]
    named = [span for span in SPAN.findall(text) if re.fullmatch(r"(?:[\w.-]+/)+[\w.-]+\.(?:py|md|yaml|svg|png)", span)]
    produced = ("report/", "results/", "runs/", "images/", "photos/", "exported/")
    assert [link for link in links if not (page.parent / link).exists()] == []
    named = [name for name in named if not name.startswith(produced)]
    assert [name for name in named if not (PROJECT / name).exists() and not (page.parent / name).exists()] == []


@pytest.mark.parametrize(
    "command",
    [
        "anomalib fit --model NoSuch --data MVTecAD",
        "python -m anomalib_htdgm.demo --no-such",
        "python benchmarks/quality/report.py a.csv --no-such",
        "python benchmarks/quality/run.py -m +sweep=defects model=htdgm_defects,no_such",
        "pip install '.[no_such]'",
        "no_such",
    ],
)
def test_a_page_that_is_wrong_fails(command: str) -> None:
    with pytest.raises((Exception, SystemExit)):  # whatever a user would see
        follow(shlex.split(command))
