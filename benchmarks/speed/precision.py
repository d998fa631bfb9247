# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Compare what Htdgm finds when it computes in bfloat16 and in float32.

    python benchmarks/speed/precision.py MVTEC_AD/bottle MVTEC_AD/grid MPDD/metal_plate --output precision.csv

One shot, default settings. A seed draws the training image and the weights, the same in both precisions. The categories
have MVTec AD's layout.
"""

import argparse
import logging
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from anomalib.data import MVTecAD
from anomalib.engine import Engine

from anomalib_htdgm import Htdgm
from anomalib_htdgm.models.precision import Precision

METRICS = ["image_AUROC", "pixel_AUROC", "pixel_AUPRO"]


def measure(category: Path, seed: int, precision: Precision) -> dict[str, object]:
    """Train on one image and test.

    Args:
        category (Path): Directory of the category.
        seed (int): Seed of the model.
        precision (Precision): What it computes in.

    Returns:
        dict[str, object]: The run and its metrics.
    """
    with TemporaryDirectory() as directory:
        engine = Engine(default_root_dir=directory, logger=False, enable_progress_bar=False)
        data = MVTecAD(category.parent, category=category.name, num_workers=0)
        model = Htdgm(k_shot=1, seed=seed, precision=precision, visualizer=False)
        engine.fit(model, datamodule=data)
        (metrics,) = engine.test(model, datamodule=data, verbose=False)
    run = {"category": category.name, "precision": precision, "seed": seed}
    return run | {name: metrics[name] for name in METRICS}


def main() -> None:
    """Measure every category, seed and precision, and print means and standard deviations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("categories", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--output", type=Path, help="CSV file of all rows")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    for name in ("anomalib", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    rows = pd.DataFrame(
        measure(category, seed, precision)
        for category in options.categories
        for seed in options.seeds
        for precision in precisions
    )
    if options.output:
        rows.to_csv(options.output, index=False)
    print(rows.groupby(["category", "precision"])[METRICS].agg(["mean", "std"]).round(3).to_string())


if __name__ == "__main__":
    main()
