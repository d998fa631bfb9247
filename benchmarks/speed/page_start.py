# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Measure how long it takes from ``python -m anomalib_htdgm.demo`` to the page, beside anomalib's own import.

    python benchmarks/speed/page_start.py

Both are processes of their own, which take turns, so that a busy minute is one for both. The page is there when the
server has answered with it.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1] / "figures"))

from demo import serve

IMPORT = "from anomalib.data import Folder; from anomalib.engine import Engine; from anomalib.models import Patchcore"


def time_import() -> float:
    """Time what any program needs of anomalib that trains a model, in seconds."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-W", "ignore", "-c", IMPORT], check=True)  # noqa: S603
    return time.perf_counter() - start


def time_page() -> float:
    """Time the page, in seconds."""
    start = time.perf_counter()
    with serve([sys.executable, "-W", "ignore", "-m", "anomalib_htdgm.demo"]):
        return time.perf_counter() - start


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = range(parser.parse_args().repeats)
    rows = pd.DataFrame([{"import [s]": time_import(), "page [s]": time_page()} for _ in repeats])
    rows["page besides import [s]"] = rows["page [s]"] - rows["import [s]"]
    print(pd.concat([rows, rows.agg(["mean", "std"])]).round(1).to_string())


if __name__ == "__main__":
    main()
