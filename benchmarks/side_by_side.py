# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Train and test every method on the same few images of bottle, grid and metal_plate, and report on them side by side.

    python benchmarks/side_by_side.py --output report data_root=DIRECTORY weights_root=DIRECTORY

Whatever follows goes to ``run.py -m +sweep=side_by_side``, whose configuration says which methods, categories, shots
and trials; ``model=htdgm_defects,patchcore,differnet_download`` takes backbones that are downloaded. If it is killed,
the same command goes on where it was; the report is of what is there.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from report import write_report


def main() -> None:
    """Run what has not been run yet, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("report"), help="directory for results and report")
    options, overrides = parser.parse_known_args()
    options.output.mkdir(parents=True, exist_ok=True)
    results = options.output / "side_by_side.csv"
    command = [sys.executable, str(Path(__file__).with_name("run.py")), "-m", "+sweep=side_by_side"]
    sweep = subprocess.run([*command, f"results={results}", *overrides], check=False)  # noqa: S603  # our own script
    if results.exists():
        print(write_report([results], options.output))
    sys.exit(sweep.returncode)


if __name__ == "__main__":
    main()
