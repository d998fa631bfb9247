# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The documentation builds without a warning, shows every argument, asks nothing of other servers, and is whole."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from anomalib_htdgm import Htdgm

PROJECT = Path(__file__).parents[2]
DOCS = PROJECT / "docs"
# What a browser loads by itself; a link (`<a href=...>`) is for the reader.
LOADED = re.compile(r"""<(?:script|img|iframe)\b[^>]*\bsrc=["']?(?:https?:)?//|<link[^>]*stylesheet[^>]*//""")
PAGES = [
    PROJECT / "README.md",
    *(path for name in ("anomalib_htdgm", "benchmarks", "docs") for path in (PROJECT / name).rglob("*.md")),
]
MOST_LINES = 120  # of the README: what a newcomer reads in one sitting


def test_documentation_builds(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="pip install '.[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    pages = {path.relative_to(tmp_path).parent.as_posix(): path.read_text() for path in tmp_path.rglob("index.html")}
    names = {path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md")} - {"index"}
    assert pages.keys() == names | {"."}
    for name in ("Htdgm", "k_shot", "standardize", "memory_patches", "Differnet", "Devnet"):
        assert name in pages["api/models"], name
    assert not {name for name, text in pages.items() if LOADED.search(text)}


def test_a_page_is_a_question_that_the_start_and_the_readme_link_to() -> None:
    sections = yaml.safe_load((PROJECT / "mkdocs.yml").read_text())["nav"]
    (questions,) = (each["Questions"] for each in sections if "Questions" in each)
    start, readme = (path.read_text() for path in (DOCS / "index.md", PROJECT / "README.md"))
    for page in questions:
        title = (DOCS / page).read_text().splitlines()[0].removeprefix("# ")
        assert title.endswith("?"), page
        assert f"[{title}]({page})" in start
        assert f"[{title}](docs/{page})" in readme


def test_all_arguments_have_the_defaults_that_their_page_says() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `?([\w.]+)`? \|", (DOCS / "arguments.md").read_text(), re.MULTILINE)
    said = {name: yaml.safe_load(default) for name, default in rows}
    actual = {name: each.default for name, each in inspect.signature(Htdgm).parameters.items()}
    assert said
    assert said == {name: actual[name] for name in said}


def test_the_readme_is_read_in_one_sitting() -> None:
    assert len((PROJECT / "README.md").read_text().splitlines()) <= MOST_LINES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_tables_are_whole(page: Path) -> None:
    text = page.read_text()
    marks = re.findall(r"^<!-- (.*) -->$", text, re.MULTILINE)
    written = [mark for mark in marks if f"end of {mark}" in marks]
    assert len(written) == len(set(written))
    for mark in written:
        assert f"<!-- {mark} -->" in text.partition(f"<!-- end of {mark} -->")[0]
    assert {mark for mark in marks if mark.startswith("end of ")} == {f"end of {mark}" for mark in written}
    for table in re.findall(r"(?:^ *\|.*\|$\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1, table
