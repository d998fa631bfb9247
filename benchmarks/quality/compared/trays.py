# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""A tray of parts in one picture, of which one is defective: what do tiles find that is lost in the whole?

    python benchmarks/quality/compared/trays.py MVTEC_AD/bottle MPDD/metal_plate

Parts and defects are real: images of a data set in MVTec's layout, laid side by side in a square. In each trial one
tray of good training images is trained on; test images make up the others, which have no or one defective part.
"""

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

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


class Trays(NamedTuple):
    """A tray to train on, and others to test on: good ones, then one with a defective part for each row and column."""

    shot: NDArray[np.uint8]
    tests: list[NDArray[np.uint8]]
    places: list[tuple[int, int]]


def lay(parts: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Lay images of one size side by side in a square, row by row."""
    side = round(len(parts) ** 0.5)
    return np.concatenate([np.concatenate(parts[row * side :][:side], axis=1) for row in range(side)])


def make_trays(category: Path, trial: int, side: int, num_good: int, num_defective: int) -> Trays:
    """Lay ``side * side`` parts of a folder in MVTec's layout on trays, drawn by the trial; defects of all kinds."""
    rng = np.random.default_rng(trial)
    good = sorted(category.glob("test/good/*"))
    kinds = sorted(path for path in category.glob("test/*") if path.name != "good")
    shot = lay(_draw(sorted(category.glob("train/good/*")), side**2, rng))
    tests, places = [lay(_draw(good, side**2, rng)) for _ in range(num_good)], []
    for index in range(num_defective):
        parts, place = _draw(good, side**2, rng), int(rng.integers(side**2))
        parts[place] = imread(rng.choice(sorted(kinds[index % len(kinds)].glob("*"))))[..., :3]
        tests.append(lay(parts))
        places.append(divmod(place, side))
    return Trays(shot, tests, places)


def _draw(paths: Sequence[Path], number: int, rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    """Read a random choice of images, none twice unless there are too few."""
    chosen = rng.choice(len(paths), number, replace=len(paths) < number)
    return [imread(paths[index])[..., :3] for index in chosen]


def train(tiles: int, shot: NDArray[np.uint8], seed: int) -> Htdgm:
    """Train a model with default arguments."""
    model = Htdgm(k_shot=1, seed=seed, tiles=tiles, post_processor=False, evaluator=False, visualizer=False)
    for _ in htdgm.train(model.model, _prepare(model, shot), seed):
        pass
    return model


@torch.inference_mode()
def score(model: Htdgm, image: NDArray[np.uint8]) -> tuple[float, NDArray[np.float32]]:
    """Score an image, and make its map, in the image's own size."""
    output = model.model(_prepare(model, image))
    enlarged = F.interpolate(output.anomaly_map, image.shape[:2], mode="bilinear")
    return float(output.pred_score), enlarged[0, 0].numpy()


def _prepare(model: Htdgm, image: NDArray[np.uint8]) -> torch.Tensor:
    """Pre-process an image as the model does: ``(1, 3, H, W)``."""
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    transform = cast("PreProcessor", model.pre_processor).transform
    assert transform is not None  # for the type checker
    prepared: torch.Tensor = transform(pixels)
    return prepared


def judge(scored: Sequence[tuple[float, NDArray[np.float32]]], places: list[tuple[int, int]], side: int) -> list[float]:
    """Compute image AUROC, and the share of defective trays whose map is highest in the defective part, in percent."""
    scores, maps = zip(*scored, strict=True)
    num_good = len(scores) - len(places)
    highest = [np.unravel_index(each.argmax(), each.shape) for each in maps[num_good:]]
    parts = [tuple(int(at) * side // len(maps[0]) for at in place) for place in highest]
    found = np.mean([part == place for part, place in zip(parts, places, strict=True)])
    return [100 * float(roc_auc_score(np.arange(len(scores)) >= num_good, scores)), 100 * float(found)]


def main() -> None:
    """Measure, and print means over trials."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("categories", type=Path, nargs="+", help="folders in MVTec's layout")
    parser.add_argument("--trials", type=int, default=1)
    options = parser.parse_args()
    rows = []
    for category, trial in product(options.categories, range(options.trials)):
        trays = make_trays(category, trial, SIDE, GOOD, DEFECTIVE)
        for tiles in TILES:
            model = train(tiles, trays.shot, seed=trial)
            figures = judge([score(model, each) for each in trays.tests], trays.places, SIDE)
            rows.append([category.name, tiles, *figures])
    table = pd.DataFrame(rows, columns=["parts", "tiles", "image AUROC", "found"])
    print(table.groupby(["parts", "tiles"]).mean().round(0).to_string())


if __name__ == "__main__":
    main()
