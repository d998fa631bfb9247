# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The documentation builds without a warning, shows every argument, and asks nothing of other servers."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
# What a browser loads by itself; a link (`<a href=...>`) is for the reader.
LOADED = re.compile(r"""<(?:script|img|iframe)\b[^>]*\bsrc=["']?(?:https?:)?//|<link[^>]*stylesheet[^>]*//""")


def test_documentation_builds(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="pip install '.[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    pages = {path.relative_to(tmp_path).parent.as_posix(): path.read_text() for path in tmp_path.rglob("index.html")}
    assert {".", "tutorial", "scores", "api/models", "api/data", "api/torch", "api/plugin"} <= pages.keys()
    for name in ("Htdgm", "k_shot", "votes_from", "memory_patches", "Differnet", "Devnet"):
        assert name in pages["api/models"], name
    assert not {name for name, text in pages.items() if LOADED.search(text)}
