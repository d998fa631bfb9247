# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Measure what Htdgm costs with its defaults, beside PatchCore, in seconds and in a unit that other machines have, too.

    python benchmarks/speed/speed.py --shots 1 5 10 --repeats 1 > speed.md

Fits with ``Engine.fit``, without validation images, and scores through pre-processor, model and post-processor. Images
are noise of 256x256 pixels: what they show makes no difference to the time. PatchCore has an EfficientNet-Lite0 with
random weights, which take as long as trained ones.

Seconds are those of the processor, of all threads of the process together; in parentheses those that passed. All is
measured in turns, in a new process for each repeat and number of threads, in which a fit of each model comes first that
does not count. The unit is a fixed number of convolutions in float32, measured just before each fit. Prints the medians
over the repeats, in Markdown.
"""

import argparse
import logging
import math
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.models import Patchcore
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from torch.nn.functional import conv2d
from torchvision.utils import save_image

from anomalib_htdgm import Htdgm
from anomalib_htdgm.models.precision import choose_dtype

Row = dict[str, object]

BACKBONE, LAYERS = "tf_efficientnet_lite0", ["blocks.2", "blocks.4"]
THREADS = (1, 2)
BATCHES = (1, 32)
SIZE = 256
SCORED = 32
CONVOLUTIONS = 100
PRICES = {"fit": "s", **{f"image of {batch}": "ms" for batch in BATCHES}}


class CalibratedHtdgm(Htdgm):
    """Htdgm that takes the time of its calibration."""

    calibration = 0.0

    def _calibrate(self, post_processor: PostProcessor) -> None:
        self.calibration, _ = measure(partial(super()._calibrate, post_processor))


MODELS: dict[str, Callable[[int], AnomalibModule]] = {
    "Htdgm": CalibratedHtdgm,
    "PatchCore": lambda _: Patchcore(BACKBONE, LAYERS, pre_trained=False),
}


def measure(work: Callable[[], object]) -> tuple[float, float]:
    """Measure a chunk of work.

    Args:
        work (Callable[[], object]): The work.

    Returns:
        tuple[float, float]: Seconds of the processor, of all threads together, and seconds that passed.
    """
    elapsed, processor = time.perf_counter(), time.process_time()
    work()
    return time.process_time() - processor, time.perf_counter() - elapsed


def make_images(num_images: int, size: int) -> torch.Tensor:
    """Make noise in [-1, 1]: what the images show makes no difference to the time."""
    return torch.rand(num_images, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def convolve() -> None:
    """Do what the unit is: convolutions from 32 to 32 channels, 3x3, of 96x96 pixels, in float32."""
    images, weight = torch.ones(1, 32, 96, 96), torch.ones(32, 32, 3, 3)
    for _ in range(CONVOLUTIONS):
        conv2d(images, weight)


def measure_model(name: str, shots: int, directory: Path) -> Row:
    """Fit a model and let it score.

    Args:
        name (str): Name of the model.
        shots (int): Number of training images.
        directory (Path): Directory of a directory ``good`` with the images; the engine writes beside it.

    Returns:
        Row: What it was, and what it took.
    """
    data = Folder("noise", directory, "good", test_split_mode="none", val_split_mode="same_as_test", num_workers=0)
    engine = Engine(
        default_root_dir=directory / "results",
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = MODELS[name](shots)
    unit, _ = measure(convolve)
    fit, elapsed = measure(partial(engine.fit, model, datamodule=data))
    row: Row = {"model": name, "shots": shots, "unit [s]": unit, "fit [s]": fit, "fit, elapsed [s]": elapsed}
    row |= {"fit [units]": fit / unit, "calibration [s]": getattr(model, "calibration", float("nan"))}
    model.eval()
    for batch in BATCHES:
        images = make_images(batch, SIZE) / 2 + 0.5
        score(model, images, 1)
        processor, elapsed = (each / SCORED for each in measure(partial(score, model, images, SCORED // batch)))
        row |= {f"image of {batch} [ms]": 1000 * processor, f"image of {batch}, elapsed [ms]": 1000 * elapsed}
        row[f"image of {batch} [units]"] = processor / unit
    return row


@torch.inference_mode()
def score(model: AnomalibModule, images: torch.Tensor, times: int) -> None:
    """Score a batch of images, several times."""
    for _ in range(times):
        model(images)


def measure_process(shots: Sequence[int]) -> list[Row]:
    """Measure all models at all numbers of shots; a first fit of each loads libraries and does not count."""
    warnings.filterwarnings("ignore")
    for name in ("anomalib", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    rows = []
    for number in (min(shots), *shots):
        with TemporaryDirectory() as directory:
            good = Path(directory) / "good"
            good.mkdir()
            for index, image in enumerate(make_images(number, SIZE)):
                save_image(image / 2 + 0.5, good / f"{index}.png")
            rows += [measure_model(name, number, Path(directory)) for name in MODELS]
    return rows[len(MODELS) :]


def to_markdown(rows: pd.DataFrame) -> str:
    """Make a table of the medians.

    Args:
        rows (pd.DataFrame): What :func:`measure_model` gives, and the number of threads.

    Returns:
        str: Lines of Markdown.
    """
    medians = rows.groupby(["shots", "threads", "model"]).median().map(_to_text).reset_index()
    table = medians[["shots", "threads", "model"]].astype(str)
    for price, unit in PRICES.items():
        table[f"{price} [{unit}]"] = medians[f"{price} [{unit}]"] + " (" + medians[f"{price}, elapsed [{unit}]"] + ")"
    others = ["calibration [s]", "unit [s]", *(f"{price} [units]" for price in PRICES)]
    table[others] = medians[others]
    lines = [table.columns, ["---"] * len(table.columns), *table.to_numpy()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _to_text(value: float) -> str:
    return "" if math.isnan(value) else f"{float(f'{value:.3g}'):g}"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 10, 80])
    options = parser.parse_args()
    rows = []
    for _ in range(options.repeats):
        for threads in THREADS:
            with ProcessPoolExecutor(1, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
                rows += [{"threads": threads, **row} for row in pool.submit(measure_process, options.shots).result()]
    print(to_markdown(pd.DataFrame(rows)))
    dtype = choose_dtype("auto", torch.device("cpu"))
    print(f"\nHtdgm in {dtype}, PatchCore and the unit in float32; torch {torch.__version__}")


if __name__ == "__main__":
    main()
