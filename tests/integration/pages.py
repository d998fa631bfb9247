# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What the pages tell a reader to type, word by word, and what of it can be checked without doing it."""

import argparse
import contextlib
import os
import re
import runpy
import subprocess
import sys
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import hydra
import pytest
from anomalib.cli.cli import AnomalibCLI
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

PROJECT = Path(__file__).parents[2]
CONFIGURATIONS = PROJECT / "benchmarks" / "quality" / "conf"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
COMMAND = re.compile(r"python (benchmarks/|-m )|anomalib benchmark -|pip install '|\$[A-Z] ")
CHECKED_ONLY = {
    "python3": "makes an environment of 6 GB: CI runs the README's test command itself",
    "pip": "as above: that the extras exist is checked",
    "pytest": "would run this test",
    "mkdocs": "test_documentation.py builds the pages",
    "python": "servers and hours of benchmarks: options are parsed, and every file of a sweep is composed",
    "anomalib benchmark": "30 trainings: the configuration files are parsed, and test_command.py makes what they name",
    "anomalib fit --config configs/htdgm/paper.yaml --ckpt_path results/HtdgmPublished/MVTecAD/bottle/latest/"
    "weights/lightning/model.ckpt": "goes on with what was stopped, as test_published.py does: all is made",
    "anomalib train --config configs/devnet/cpu.yaml": "minutes of training: model and datamodule are made",
    "anomalib train --config configs/differnet/1shot.yaml": "a flow of 688 MB: model and datamodule are made",
}
RECORDER = f"""#!/bin/sh
case "$*" in "-m anomalib_htdgm.configs "*) exec {sys.executable} "$@";; esac  # what it prints is words of others
for word in "${{0##*/}}" "$@"; do printf '%s\\0' "$word"; done >> "$RECORD"
printf '\\n\\0' >> "$RECORD"
"""


class Block(NamedTuple):
    """A block of a page, or a command that stands between backticks in its text."""

    language: str
    line: int
    text: str


def read_blocks(page: Path) -> list[Block]:
    """Read the blocks of a page, in order, and then the commands in its text, behind the variables of its blocks."""
    text = page.read_text(encoding="utf-8")
    blocks = [Block(m[1], text[: m.start()].count("\n") + 1, m[2]) for m in FENCE.finditer(text)]
    variables = "\n".join(re.findall(r"^[A-Z]=.*$", text, re.MULTILINE))
    spans = (" ".join(span.split()) for span in SPAN.findall(FENCE.sub("", text)))
    return blocks + [Block("bash", 0, f"{variables}\n{span}") for span in spans if COMMAND.match(span)]


def record(script: str, place: Path) -> list[list[str]]:
    """Have bash execute a script in a folder, whose commands only note down their words; ``...`` is left out."""
    for folder in (place / "bin", place / ".venv" / "bin"):
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("python3", "python", "pip", "pytest", "mkdocs", "anomalib"):
            (folder / name).write_text(RECORDER, encoding="utf-8")
            (folder / name).chmod(0o755)
    notes = place / "notes"
    notes.write_bytes(b"")
    environment = {"PATH": f"{place / 'bin'}:{os.environ['PATH']}", "RECORD": str(notes)}
    subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=place, env=environment, check=True)
    commands = notes.read_text(encoding="utf-8").split("\n\0")[:-1]
    return [[word for word in command.split("\0")[:-1] if word != "..."] for command in commands]


@cache
def check_installation(*arguments: str) -> None:
    """Check that the extras exist that pip is asked for."""
    section = (PROJECT / "pyproject.toml").read_text(encoding="utf-8").partition("[project.optional-dependencies]\n")[2]
    extras = set(re.findall(r"^(\w+) = \[", section.partition("\n\n")[0], re.MULTILINE))
    install, *_, what = arguments
    path, _, asked = what.removesuffix("]").partition("[")
    assert (install, path) == ("install", ".")
    assert set(filter(None, asked.split(","))) <= extras


@cache
def check_program(script: str, *options: str) -> None:
    """Have a program parse its options, or compose its configuration if it is one of Hydra's."""
    if script == "-m":
        module, *options = options
        parse(lambda: runpy.run_module(module, run_name="__main__"), module, *options)
        return
    path = PROJECT / script
    text = path.read_text(encoding="utf-8")
    if "@hydra.main" in text:
        (configuration,) = re.findall(r'config_name="(\w+)"', text)
        compose(configuration, [each for each in options if each not in {"-m", "--multirun"}])
    else:
        parse(lambda: runpy.run_path(str(path), run_name="__main__"), script, *options)


class Parsed(Exception):  # noqa: N818 - not an error
    """The command line has been parsed."""


def parse(main: Any, *words: str) -> None:  # noqa: ANN401
    """Run a program until its command line is parsed."""
    original = argparse.ArgumentParser.parse_args

    def parse_and_end(parser: argparse.ArgumentParser, *arguments: Any, **options: Any) -> None:
        original(parser, *arguments, **options)
        raise Parsed

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Parsed):
        patch.syspath_prepend(str((PROJECT / words[0]).parent))
        patch.setattr(sys, "argv", list(words))
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_and_end)
        main()
        pytest.fail("no command line was parsed")


def compose(configuration: str, overrides: list[str]) -> None:
    """Compose a configuration with every file that a sweep goes through, its own sweep's and the command line's.

    Of what is no file of ``conf``, such as numbers of shots, the first value stands for all.
    """
    GlobalHydra.instance().clear()
    parser = OverridesParser.create()
    with hydra.initialize_config_dir(str(CONFIGURATIONS), version_base="1.3"):
        fixed = [each for each in overrides if not parser.parse_override(each).is_sweep_override()]
        whole = hydra.compose(configuration, fixed, return_hydra_config=True)
        parameters = OmegaConf.to_container(whole.hydra.sweeper.params or OmegaConf.create({}), resolve=False)
        of_sweep = [f"{name}={value}" for name, value in parameters.items()]
        jobs = chain(*BasicSweeper.split_arguments(parser.parse_overrides([*of_sweep, *overrides]), None))
        composed: set[str] = set()
        for job in jobs:
            files = {each for each in job if (CONFIGURATIONS / each.partition("=")[0]).is_dir()}
            if not composed or not files <= composed:
                hydra.compose(configuration, job)
                composed |= {*files, "anything"}
    GlobalHydra.instance().clear()


def follow(command: list[str]) -> None:
    """Do what a command says, as far as :data:`CHECKED_ONLY` allows."""
    name, *arguments = command
    line = " ".join(command)
    if name == "anomalib":
        is_benchmark = arguments[0] == "benchmark"
        AnomalibCLI(arguments, run=not is_benchmark and line not in CHECKED_ONLY)
        if is_benchmark:  # whose configuration is read only when it is run
            assert Path(arguments[arguments.index("--config") + 1]).is_file(), line
    elif name == "pip":
        check_installation(*(each for each in arguments if each != "-e"))
    elif name == "python":
        check_program(*arguments)
    else:
        assert name in CHECKED_ONLY, line
