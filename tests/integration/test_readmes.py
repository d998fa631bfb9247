# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What the READMEs and the documentation tell a reader to type works: every command, every block of Python, every link.

The blocks of a page are executed in their order. A block of bash is executed by bash, where the commands it calls only
note down what they were given (:data:`RECORDER`); what they noted is then done by :func:`follow`. Data stand in at the
places where the pages expect them, the defaults of models are small (:func:`small`), and there is no network. What is
not done in full is listed in :data:`CHECKED_ONLY`, with the reason.
"""

import argparse
import contextlib
import inspect
import os
import re
import runpy
import shlex
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
import torch
import torchvision
from anomalib.cli.cli import AnomalibCLI
from anomalib.data import Folder, MVTecAD
from anomalib.models import Patchcore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from PIL import Image

from anomalib_htdgm import Devnet, Differnet, HtdgmPublished, QuickstartTextures
from anomalib_htdgm.models import backbone
from anomalib_htdgm.models.htdgm import settings
from anomalib_htdgm.models.htdgm.settings import Settings

pytestmark = pytest.mark.thorough

PROJECT = Path(__file__).parents[2]
CONFIGURATIONS = PROJECT / "benchmarks" / "quality" / "conf"
PAGES = sorted(
    page
    for page in PROJECT.rglob("*.md")
    if not any(part.startswith(".") or part in {"site", "results", "runs"} for part in page.relative_to(PROJECT).parts)
)
NAMES = [str(page.relative_to(PROJECT)) for page in PAGES]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
NOT_CODE = {"bibtex", "text", "toml"}

CHECKED_ONLY = {
    "python3": "makes an environment of 6 GB: CI runs the README's test command itself, and so do those below",
    "pip": "as above; that the extras exist is checked",
    "pytest": "would run this test",
    "python -m anomalib_htdgm.demo": "test_demo.py serves the page: options are parsed",
    "python -m anomalib_htdgm.check": "test_check.py checks folders: options are parsed",
    "mkdocs": "test_documentation.py builds the pages",
    "python": "the benchmarks take hours: options are parsed, configurations of Hydra composed, every value of a sweep",
    "anomalib benchmark": "30 trainings: the configuration files are parsed, and test_command.py makes what they name",
    "anomalib fit --config configs/htdgm/paper.yaml --ckpt_path results/HtdgmPublished/MVTecAD/bottle/latest/"
    "weights/lightning/model.ckpt": "goes on with what was stopped, as test_published.py does: all is made",
    "anomalib train --config configs/devnet/cpu.yaml": "minutes of training: model and datamodule are made",
    "anomalib train --config configs/differnet/1shot.yaml": "a flow of 688 MB: model and datamodule are made",
}
# Of blocks of Python: what would take minutes, and what is done in its place.
SHORTENED = {
    "epochs=10, steps_per_epoch=10": "epochs=1, steps_per_epoch=1",
    "image_sizes=(224, 112)": "image_sizes=(64, 32)",
    "Schedule(iterations=30": "Schedule(iterations=1",
}
RECORDER = """#!/bin/sh
case "$*" in "-m anomalib_htdgm.configs "*) exec PYTHON "$@";; esac  # other commands' words are made of what it prints
for word in "${0##*/}" "$@"; do printf '%s\\0' "$word"; done >> "$RECORD"
printf '\\n\\0' >> "$RECORD"
""".replace("PYTHON", sys.executable)
COMMANDS = ("python3", "python", "pip", "pytest", "mkdocs", "anomalib")


@dataclass
class Block:
    """A block of a page."""

    language: str
    line: int
    text: str


def read_blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [Block(m[1], text[: m.start()].count("\n") + 1, m[2]) for m in FENCE.finditer(text)]


def read_commands_in_the_text(page: Path) -> list[str]:
    """Find commands that stand between backticks, with the variables that the page's blocks define."""
    text = page.read_text(encoding="utf-8")
    variables = set(re.findall(r"^([A-Z]\w*)=", "\n".join(block.text for block in read_blocks(page)), re.MULTILINE))
    spans = (" ".join(span.split()) for span in SPAN.findall(FENCE.sub("", text)))
    starts = (
        "python benchmarks/",
        "python -m ",
        "anomalib benchmark -",
        "pip install '",
        *(f"${name} " for name in variables),
    )
    return [span for span in spans if span.startswith(starts)]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give models and datamodules defaults that take no time and nothing from the network."""
    one_scale = {"memory_patches": 50, "energy_cells": 50, "image_size": 25, "coarsest_size": 25, "votes_from": 25}
    fast = replace(Settings(), iterations=1, **one_scale)
    monkeypatch.setattr(settings, "PRESETS", dict.fromkeys(settings.PRESETS, fast))
    monkeypatch.setitem(Settings.__init__.__kwdefaults__, "iterations", 1)
    defaults: dict[Any, dict[str, Any]] = {
        HtdgmPublished: {"iterations": 1, "image_size": 25},
        Devnet: {"image_sizes": (64,), "epochs": 1, "steps_per_epoch": 1, "batch_size": 2},
        Differnet: {
            "image_sizes": (64,),
            "coupling_blocks": 1,
            "hidden_width": 8,
            "epochs": 1,
            "test_rotations": 1,
            "map_rotations": 1,
        },
        Patchcore: {"backbone": "resnet18", "layers": ("layer1",), "pre_trained": False},
        MVTecAD: {"num_workers": 0},
        Folder: {"num_workers": 0},
        QuickstartTextures: {"num_workers": 0},
    }
    for cls, values in defaults.items():
        parameters = [p for p in inspect.signature(cls).parameters.values() if p.default is not p.empty]
        assert values.keys() <= {parameter.name for parameter in parameters}
        changed = tuple(values.get(parameter.name, parameter.default) for parameter in parameters)
        monkeypatch.setattr(cls.__init__, "__defaults__", changed)
    make = backbone._create_network  # noqa: SLF001 - what the library would download is drawn instead
    monkeypatch.setattr(backbone, "_create_network", lambda name, pretrained=False: make(name))  # noqa: ARG005


def save(path: Path, source: np.random.Generator, size: tuple[int, int] = (64, 64), **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(source.integers(0, 255, (*size, 3), np.uint8)).save(path, **options)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a working directory with what the pages expect: a clone of the repository, photographs, a data set."""
    for name in ("configs", "benchmarks", "pyproject.toml"):
        (tmp_path / name).symlink_to(PROJECT / name)
    source = np.random.default_rng(0)
    for index in range(11):
        name = f"{index:03}.png"
        save(tmp_path / "datasets" / "MVTecAD" / "bottle" / "train" / "good" / name, source)
        save(tmp_path / "datasets" / "MVTecAD" / "bottle" / "test" / "broken_large" / name, source)
        mask = tmp_path / "datasets" / "MVTecAD" / "bottle" / "ground_truth" / "broken_large" / f"{index:03}_mask.png"
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.eye(64, dtype=np.uint8) * 255).save(mask)
    for kind in ("good", "contamination"):
        save(tmp_path / "datasets" / "MVTecAD" / "bottle" / "test" / kind / "000.png", source)
    mask = tmp_path / "datasets" / "MVTecAD" / "bottle" / "ground_truth" / "contamination" / "000_mask.png"
    mask.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.eye(64, dtype=np.uint8) * 255).save(mask)
    for index in range(5):
        for folder in ("photos/good", "photos/new", "photos/bad", "photos/unchecked", "images/good"):
            save(tmp_path / folder / f"{index:03}.png", source)
        orientation = Image.Exif()
        orientation[0x0112] = 6 if index % 2 else 1  # every other photograph is upright only by its note
        for folder in ("phone/good", "phone/new"):
            save(tmp_path / folder / f"IMG_{index}.JPG", source, (90, 70) if index % 2 else (70, 90), exif=orientation)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def record(script: str, place: Path) -> list[list[str]]:
    """Have bash execute a script, whose commands only note down their words.

    Args:
        script: The script.
        place: Its working directory.

    Returns:
        The words of every command, its name first. Words such as ``...`` are left out.
    """
    for folder in (place / "bin", place / ".venv" / "bin"):
        folder.mkdir(parents=True, exist_ok=True)
        for name in COMMANDS:
            (folder / name).write_text(RECORDER, encoding="utf-8")
            (folder / name).chmod(0o755)
    notes = place / "notes"
    notes.write_bytes(b"")
    environment = {"PATH": f"{place / 'bin'}:{os.environ['PATH']}", "RECORD": str(notes)}
    subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=place, env=environment, check=True)
    commands = notes.read_text(encoding="utf-8").split("\n\0")[:-1]
    return [[word for word in command.split("\0")[:-1] if word != "..."] for command in commands]


def follow(command: list[str]) -> None:
    """Do what a command says, as far as :data:`CHECKED_ONLY` allows."""
    name, *arguments = command
    line = " ".join(command)
    if name == "anomalib" and arguments[0] == "benchmark":
        AnomalibCLI(arguments, run=False)
        assert Path(arguments[arguments.index("--config") + 1]).is_file(), line  # which is read only when it is run
    elif name == "anomalib":
        run = not any(line == start for start in CHECKED_ONLY)
        AnomalibCLI(arguments, run=run)
    elif name == "pip":
        check_installation(arguments)
    elif name == "python":
        check_program(arguments)
    else:
        assert name in CHECKED_ONLY, line


def check_installation(arguments: list[str]) -> None:
    section = (PROJECT / "pyproject.toml").read_text(encoding="utf-8").partition("[project.optional-dependencies]\n")[2]
    extras = set(re.findall(r"^(\w+) = \[", section.partition("\n\n")[0], re.MULTILINE))
    assert arguments[0] == "install", arguments
    (what,) = (each for each in arguments[1:] if not each.startswith("-"))
    path, _, asked = what.removesuffix("]").partition("[")
    assert path == "."
    assert set(filter(None, asked.split(","))) <= extras


def check_program(arguments: list[str]) -> None:
    if arguments[0] == "-m":
        _, module, *options = arguments
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [module, *options])
            run_only_parsing(lambda: runpy.run_module(module, run_name="__main__"))
        return
    script, *options = arguments
    path = PROJECT / script
    assert path.is_file(), f"{script} does not exist"
    text = path.read_text(encoding="utf-8")
    if "@hydra.main" in text:
        (configuration,) = re.findall(r'config_name="(\w+)"', text)
        check_hydra(configuration, [each for each in options if each not in {"-m", "--multirun"}])
    else:
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(path.parent))
            patch.setattr(sys, "argv", [script, *options])
            run_only_parsing(lambda: runpy.run_path(str(path), run_name="__main__"))


class Parsed(Exception):  # noqa: N818 - not an error
    """The command line has been parsed."""


def run_only_parsing(main: Any) -> None:  # noqa: ANN401
    """Run a program until its command line is parsed."""
    parse = argparse.ArgumentParser.parse_args

    def parse_and_end(parser: argparse.ArgumentParser, *arguments: Any, **options: Any) -> None:
        parse(parser, *arguments, **options)
        raise Parsed

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Parsed):
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_and_end)
        main()
        pytest.fail("no command line was parsed")


def check_hydra(configuration: str, overrides: list[str]) -> None:
    """Compose a configuration with all that a sweep goes through, that of the command line and that of ``+sweep``.

    Of what is no file of ``conf``, such as numbers of shots, the first value stands for all.
    """
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONFIGURATIONS), version_base="1.3"):
        fixed, swept = split_sweeps(overrides)
        whole = hydra.compose(configuration, fixed, return_hydra_config=True)
        parameters = OmegaConf.to_container(whole.hydra.sweeper.params or OmegaConf.create({}), resolve=False)
        named = {override.partition("=")[0].lstrip("+") for override in overrides}
        _, of_sweep = split_sweeps(
            [f"{key}={value}" for key, value in parameters.items() if key.lstrip("+") not in named], all_swept=True
        )
        swept |= of_sweep
        first = {key: values[0] for key, values in swept.items()}
        for key, values in swept.items():
            for value in values if (CONFIGURATIONS / key).is_dir() else values[:1]:
                chosen = first | {key: value}
                hydra.compose(configuration, fixed + [f"{name}={each}" for name, each in chosen.items()])
    GlobalHydra.instance().clear()


def split_sweeps(overrides: list[str], *, all_swept: bool = False) -> tuple[list[str], dict[str, list[str]]]:
    fixed, swept = [], {}
    for override in OverridesParser.create().parse_overrides(overrides):
        if override.is_sweep_override():
            swept[override.input_line.partition("=")[0]] = list(override.sweep_string_iterator())
        elif all_swept:
            swept[override.input_line.partition("=")[0]] = [override.input_line.partition("=")[2]]
        else:
            fixed.append(override.input_line)
    return fixed, swept


@pytest.fixture
def alexnet(place: Path) -> None:
    """Write the weights that a page reads."""
    state = torchvision.models.get_model("alexnet", weights=None).features.state_dict()
    torch.save({f"features.{name}": tensor for name, tensor in state.items()}, place / "alexnet.pth")


@pytest.mark.usefixtures("small", "alexnet", "no_network")
@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_page(page: Path, place: Path) -> None:
    namespace: dict[str, Any] = {"__name__": "page"}
    variables = ""
    for block in read_blocks(page):
        if block.language == "python":
            text = block.text
            for old, new in SHORTENED.items():
                text = text.replace(old, new)
            exec(compile("\n" * block.line + text, str(page), "exec"), namespace)  # noqa: S102 - that is the test
        elif block.language == "bash":
            for command in record(block.text, place):
                follow(command)
            variables += "\n".join(re.findall(r"^[A-Z]\w*=.*$", block.text, re.MULTILINE)) + "\n"
    for span in read_commands_in_the_text(page):
        for command in record(variables + span, place):
            follow(command)


def test_every_block_is_known() -> None:
    languages = {block.language for page in PAGES for block in read_blocks(page)}
    assert languages <= {"bash", "python"} | NOT_CODE
    assert {"README.md", "benchmarks/README.md", "docs/tutorial.md"} <= set(NAMES)
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    for text in SHORTENED:
        assert any(text in each for each in texts), f"no page says {text!r} any more"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_and_named_files_exist(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    links = [link for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) if "://" not in link]
    named = [span for span in SPAN.findall(text) if re.fullmatch(r"(?:[\w.-]+/)+[\w.-]+\.(?:py|md|yaml|svg|png)", span)]
    produced = ("report/", "results/", "runs/", "images/", "photos/", "exported/")
    missing = [link for link in links if not (page.parent / link).exists()]
    missing += [
        name
        for name in named
        if not name.startswith(produced) and not any((folder / name).exists() for folder in (PROJECT, page.parent))
    ]
    assert not missing


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "command",
    [
        "anomalib train --model Htdgm --model.no_such 1 --data MVTecAD",
        "anomalib fit --model NoSuch --data MVTecAD",
        "python benchmarks/no_such.py",
        "python -m anomalib_htdgm.no_such",
        "python -m anomalib_htdgm.demo --no-such",
        "python benchmarks/quality/report.py a.csv --no-such",
        "python benchmarks/quality/run.py -m +sweep=no_such",
        "python benchmarks/quality/run.py -m +sweep=defects model=htdgm_defects,no_such",
        "python benchmarks/quality/run.py no_such=1",
        "pip install '.[no_such]'",
        "anomalib benchmark --config no_such.yaml",
        "no_such",
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_page_that_is_wrong_fails(command: str, place: Path) -> None:
    with pytest.raises((Exception, SystemExit)):  # noqa: PT012 - whatever a user would see
        (recorded,) = record(command, place)
        assert recorded == shlex.split(command)
        follow(recorded)
    GlobalHydra.instance().clear()
