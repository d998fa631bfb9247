# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""A tray of parts in one picture, of which one is defective: what do tiles find that is lost in the whole?

    python benchmarks/quality/compared/trays.py MVTEC_AD/bottle MPDD/metal_plate --results trays.csv

Parts and defects are real: images of a data set in MVTec's layout, laid side by side in a square. In each trial one
tray of good training images is trained on; test images make up the others, which have no or one defective part. A row
for each trial and number of tiles is appended to the results; those that are there are not measured again.
"""

import argparse
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from skimage.io import imread
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from anomalib_htdgm import Htdgm
from anomalib_htdgm.models.htdgm import training as htdgm

if TYPE_CHECKING:
    from anomalib.pre_processing import PreProcessor

SIDE = 4
"""Parts along each side of a tray."""
TILES = (1, 2, 4, 8)
GOOD, DEFECTIVE = 8, 16
"""Test trays without and with a defect."""


def lay(parts: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Lay images of one size side by side in a square, row by row."""
    side = round(len(parts) ** 0.5)
    return np.concatenate([np.concatenate(parts[row * side :][:side], axis=1) for row in range(side)])


def draw(paths: Sequence[Path], number: int, generator: np.random.Generator) -> list[NDArray[np.uint8]]:
    """Read a random choice of images, none twice unless there are too few."""
    chosen = generator.choice(len(paths), number, replace=len(paths) < number)
    return [imread(paths[index])[..., :3] for index in chosen]


def prepare(model: Htdgm, image: NDArray[np.uint8]) -> torch.Tensor:
    """Pre-process an image as the model does: ``(1, 3, H, W)``."""
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    transform = cast("PreProcessor", model.pre_processor).transform
    assert transform is not None  # for the type checker
    prepared: torch.Tensor = transform(pixels)
    return prepared


def train(tiles: int, shot: NDArray[np.uint8], seed: int) -> tuple[Htdgm, float]:
    """Train a model with default arguments, and measure the seconds that it takes."""
    model = Htdgm(k_shot=1, seed=seed, tiles=tiles, post_processor=False, evaluator=False, visualizer=False)
    start = time.perf_counter()
    for _ in htdgm.train(model.model, prepare(model, shot), seed):
        pass
    return model, time.perf_counter() - start


@torch.inference_mode()
def score(model: Htdgm, image: NDArray[np.uint8]) -> tuple[float, NDArray[np.float32]]:
    """Score an image, and make its map, in the image's own size."""
    output = model.model(prepare(model, image))
    enlarged = F.interpolate(output.anomaly_map, image.shape[:2], mode="bilinear")
    return float(output.pred_score), enlarged[0, 0].numpy()


def measure(category: Path, trial: int, tiles: int, side: int, num_good: int, num_defective: int) -> dict[str, float]:
    """Train on a tray, and measure on others, which are the same for every number of tiles.

    Args:
        category (Path): Folder in MVTec's layout.
        trial (int): Seed of trays and training.
        tiles (int): Number of tiles along each side.
        side (int): Number of parts along each side.
        num_good (int): Number of test trays without a defect.
        num_defective (int): Number of test trays with one defective part, kinds of defects taking turns.

    Returns:
        dict[str, float]: Shares, the one of trays whose map is highest in the defective part among them, and seconds.
    """
    generator = np.random.default_rng(trial)
    good = sorted(category.glob("test/good/*"))
    kinds = sorted(path for path in category.glob("test/*") if path.name != "good")
    shot = lay(draw(sorted(category.glob("train/good/*")), side**2, generator))
    trays = [lay(draw(good, side**2, generator)) for _ in range(num_good)]
    masks = [np.zeros(shot.shape[:2], np.bool_) for _ in trays]
    places = []
    for index in range(num_defective):
        parts, place = draw(good, side**2, generator), int(generator.integers(side**2))
        image = generator.choice(sorted(kinds[index % len(kinds)].glob("*")))
        mask = imread(category / "ground_truth" / image.parent.name / f"{image.stem}_mask.png") > 0
        blank = [np.zeros(part.shape[:2], np.uint8) for part in parts]
        parts[place], blank[place] = imread(image)[..., :3], mask.astype(np.uint8)
        trays.append(lay(parts))
        masks.append(lay(blank) > 0)
        places.append(divmod(place, side))

    model, fit_seconds = train(tiles, shot, seed=trial)
    start = time.perf_counter()
    scores, maps = zip(*(score(model, tray) for tray in trays), strict=True)
    seconds = (time.perf_counter() - start) / len(trays)
    highest = [np.unravel_index(each.argmax(), each.shape) for each in maps[num_good:]]
    cells = [tuple(int(each) * side // len(shot) for each in place) for place in highest]
    return {
        "image_AUROC": float(roc_auc_score([mask.any() for mask in masks], scores)),
        "pixel_AUROC": float(roc_auc_score(np.concatenate(masks).ravel(), np.concatenate(maps).ravel())),
        "found": float(np.mean([cell == place for cell, place in zip(cells, places, strict=True)])),
        "fit_seconds": fit_seconds,
        "seconds_per_image": seconds,
    }


def main() -> None:
    """Measure what is missing, and show all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("categories", type=Path, nargs="+", help="folders in MVTec's layout")
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--results", type=Path, default=Path("trays.csv"))
    options = parser.parse_args()
    for trial, category, tiles in product(range(options.trials), options.categories, TILES):
        run = {"tray": f"{SIDE}x{SIDE} {category.name}", "trial": trial, "tiles": tiles}
        done = pd.read_csv(options.results) if options.results.exists() else pd.DataFrame(columns=list(run))
        if not (done[list(run)] == pd.Series(run)).all(axis=1).any():
            row = pd.DataFrame([run | measure(category, trial, tiles, SIDE, GOOD, DEFECTIVE)])
            row.to_csv(options.results, mode="a", header=done.empty, index=False)
            print(row.to_string(index=False), flush=True)
    rows = pd.read_csv(options.results).drop(columns="trial")
    print(rows.groupby(["tray", "tiles"]).agg(["mean", "std"]).round(3).to_string())


if __name__ == "__main__":
    main()
