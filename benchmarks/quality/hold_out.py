# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Make arrays to choose settings on: of each class's training images the last 50 are to be tested on, the others drawn.

python benchmarks/quality/hold_out.py cifar10.npz held_out.npz
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

NUM_TESTED = 50


def divide(source: Path, output: Path) -> None:
    """Divide the training images of an array file that OneClass reads, and write another."""
    arrays = np.load(source)
    images, labels = arrays["x_train"], arrays["y_train"].ravel()
    rank = pd.Series(labels).groupby(labels).cumcount(ascending=False).to_numpy()  # from the class's last image
    parts = {"train": rank >= NUM_TESTED, "test": rank < NUM_TESTED}
    divided = {f"x_{name}": images[chosen] for name, chosen in parts.items()}
    np.savez_compressed(output, **divided, **{f"y_{name}": labels[chosen] for name, chosen in parts.items()})


def main() -> None:
    """Read the arguments and divide."""
    parser = argparse.ArgumentParser(description="Make arrays to choose settings on, out of training images.")
    parser.add_argument("source", type=Path, help=".npz file that OneClass reads")
    parser.add_argument("output", type=Path, help="file to write, .npz")
    arguments = parser.parse_args()
    divide(arguments.source, arguments.output)


if __name__ == "__main__":
    main()
