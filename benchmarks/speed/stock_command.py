# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Measure a configuration through the stock ``anomalib`` command: quality and time, over several seeds.

    python benchmarks/speed/stock_command.py --config configs/htdgm/defects_1shot.yaml --seeds 0 1 2 -- --data.root DIR

What stands after ``--`` goes to ``anomalib train``. A seed is one draw of the training image and of the weights.
Metrics are those that anomalib reports; "train" is the whole of its fit, with reading and validation, "score" one image
through pre-processor and model on its own (batch 1), "command" the whole process.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch
import yaml

from anomalib_htdgm import Htdgm

METRICS = ["image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_F1Score", "pixel_AUPRO"]


def measure(config: Path, seed: int, arguments: list[str]) -> dict[str, float]:
    """Train and test once.

    Args:
        config (Path): Configuration file of ``anomalib train``.
        seed (int): Seed of the model.
        arguments (list[str]): Further arguments of ``anomalib train``.

    Returns:
        dict[str, float]: Metrics, and seconds or milliseconds by name.
    """
    with TemporaryDirectory() as directory:
        logger = ["--trainer.logger", "lightning.pytorch.loggers.CSVLogger", "--trainer.logger.save_dir", directory]
        command = [sys.executable, "-W", "ignore", "-c", "from anomalib.cli.cli import main; main()", "train"]
        options = ["--config", str(config), "--model.seed", str(seed), "--default_root_dir", directory]
        start = time.perf_counter()
        result = subprocess.run(  # noqa: S603
            [*command, *options, *logger, *arguments],
            check=False,
            text=True,
            capture_output=True,
            env=os.environ | {"COLUMNS": "200"},
        )
        seconds = time.perf_counter() - start
        if result.returncode:
            sys.exit(result.stderr)
        (table,) = Path(directory).rglob("metrics.csv")
        metrics = pd.read_csv(table)[METRICS].dropna().iloc[-1]
        training = re.search(r"Training took\s+([\d.]+)\s+seconds", result.stderr + result.stdout)
        (checkpoint,) = Path(directory).rglob("*.ckpt")
        return {
            **{str(name): float(value) for name, value in metrics.items()},
            "train [s]": float(training[1]) if training else float("nan"),
            "score [ms]": score_milliseconds(checkpoint),
            "command [s]": seconds,
        }


@torch.inference_mode()
def score_milliseconds(checkpoint: Path, repeats: int = 30) -> float:
    """Time pre-processor and model on one image of 256x256 pixels.

    Args:
        checkpoint (Path): Checkpoint of a trained model.
        repeats (int): Number of runs.

    Returns:
        float: Median in milliseconds.
    """
    model = Htdgm.load_from_checkpoint(checkpoint).eval()
    image, times = torch.rand(1, 3, 256, 256), []
    for _ in range(repeats):
        start = time.perf_counter()
        model(image)
        times.append(1000 * (time.perf_counter() - start))
    return float(torch.tensor(times).median())


def main() -> None:
    """Measure every seed, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, help="CSV file of all rows")
    options, arguments = parser.parse_known_args()
    rows = pd.DataFrame(
        [measure(options.config, seed, [each for each in arguments if each != "--"]) for seed in options.seeds],
        index=pd.Index(options.seeds, name="seed"),
    )
    data = yaml.safe_load(options.config.read_text())["data"]["class_path"]
    print(f"{options.config} on {data} {' '.join(arguments)}")
    print(pd.concat([rows, rows.agg(["mean", "std"])]).round(3).to_string())
    if options.output:
        rows.to_csv(options.output)


if __name__ == "__main__":
    main()
