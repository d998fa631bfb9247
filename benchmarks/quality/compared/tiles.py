# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Small defects in large photographs: what do tiles find that is lost in the whole?

    python benchmarks/quality/compared/tiles.py --photograph surface.jpg --parts 2 3 --results tiles.csv
    python benchmarks/quality/compared/tiles.py --results tiles.csv

A photograph of one surface is cut into square parts that do not overlap. In each trial another one is the only
training image; the rest are the good test images and, with irregular spots of another material pasted into them, the
defective ones. A spot has the mean and deviation of what it covers, in each channel, so that neither brightness nor
contrast gives it away. A row for each trial, number of tiles and diameter is appended to the results; those that are
there are not measured again. Without a photograph the rows are shown as a table.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.patches import Circle
from numpy.typing import NDArray
from skimage import data
from skimage.io import imread
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F  # noqa: N812

from anomalib_htdgm import Htdgm

if TYPE_CHECKING:
    from anomalib.pre_processing import PreProcessor

MATERIALS = ("brick", "grass", "gravel")
"""Photographs of scikit-image's (CC0), of 512x512 pixels, that spots are cut out of."""
OUTLINE = 0.15
"""Share of its radius by which a spot's outline is irregular."""
SMALLEST_SIDE = 0.08
"""Share of a part's side that no spot's centre is nearer to the border than."""


@dataclass(frozen=True)
class Defect:
    """A part with a spot.

    Args:
        image (NDArray[np.uint8]): The part, of shape ``(H, W, 3)``.
        mask (NDArray[np.bool_]): Where the spot is, of shape ``(H, W)``.
        centre (tuple[int, int]): Row and column of its centre.
        diameter (int): Its diameter in pixels.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    centre: tuple[int, int]
    diameter: int


def cut_parts(photograph: NDArray[np.uint8], rows: int, columns: int) -> list[NDArray[np.uint8]]:
    """Cut as many squares, as large as possible, out of the middle of a photograph's equal parts."""
    height, width = photograph.shape[0] // rows, photograph.shape[1] // columns
    side = min(height, width)
    down, right = (height - side) // 2, (width - side) // 2
    corners = [(row * height + down, column * width + right) for row in range(rows) for column in range(columns)]
    return [photograph[top : top + side, left : left + side, :3] for top, left in corners]


def paste_spot(part: NDArray[np.uint8], diameter: int, material: str, generator: np.random.Generator) -> Defect:
    """Paste a spot of another material, with soft and irregular outline, into a part, anywhere but at its very border.

    Args:
        part (NDArray[np.uint8]): Image of shape ``(H, W, 3)``.
        diameter (int): Mean diameter of the spot in pixels.
        material (str): One of :data:`MATERIALS`.
        generator (np.random.Generator): Source of place and outline.

    Returns:
        Defect: The part with the spot.
    """
    side, reach = len(part), diameter
    margin = max(reach, round(SMALLEST_SIDE * side))
    row, column = (int(each) for each in generator.integers(margin, side - margin, 2))
    window = (slice(row - reach, row + reach), slice(column - reach, column + reach))
    rows, columns = np.mgrid[-reach:reach, -reach:reach] + 0.5
    noise = cv2.GaussianBlur(generator.standard_normal(rows.shape), (0, 0), sigmaX=diameter / 6)
    bent = np.hypot(rows, columns) / (diameter / 2) + OUTLINE * (noise - noise.mean()) / noise.std()
    opacity = cv2.GaussianBlur((bent < 1).astype(float), (0, 0), sigmaX=max(diameter / 20, 0.5))
    inside = opacity > 0.5  # noqa: PLR2004
    photograph = getattr(data, material)()
    top, left = generator.integers(0, 512 - 2 * reach, 2)
    other = photograph[top : top + 2 * reach, left : left + 2 * reach].astype(float)
    standardised = ((other - other[inside].mean()) / other[inside].std())[..., None]
    good = part[window].astype(float)
    spot = np.clip(standardised * good[inside].std(axis=0) + good[inside].mean(axis=0), 0, 255)
    image, mask = part.copy(), np.zeros(part.shape[:2], np.bool_)
    image[window] = np.rint(good + opacity[..., None] * (spot - good)).astype(np.uint8)
    mask[window] = inside
    return Defect(image, mask, (row, column), diameter)


def paste_spots(parts: Sequence[NDArray[np.uint8]], diameters: Sequence[int], number: int, seed: int) -> list[Defect]:
    """Paste, for each diameter, a number of spots into copies of each part, the same for every number of tiles."""
    generator = np.random.default_rng(seed)
    return [
        paste_spot(part, diameter, MATERIALS[index % len(MATERIALS)], generator)
        for diameter in diameters
        for part in parts
        for index in range(number)
    ]


def prepare(model: Htdgm, image: NDArray[np.uint8]) -> torch.Tensor:
    """Pre-process an image as the model does: ``(1, 3, H, W)``."""
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    transform = cast("PreProcessor", model.pre_processor).transform
    assert transform is not None  # noqa: S101  # for the type checker
    prepared: torch.Tensor = transform(pixels)
    return prepared


def train(tiles: int, shot: NDArray[np.uint8], seed: int) -> tuple[Htdgm, float]:
    """Train a model with default arguments, and measure the seconds that it takes."""
    model = Htdgm(k_shot=1, seed=seed, tiles=tiles, post_processor=False, evaluator=False, visualizer=False)
    start = time.perf_counter()
    for _ in model.training_schedule.run(model.model, prepare(model, shot), seed):
        pass
    return model, time.perf_counter() - start


@torch.inference_mode()
def score(model: Htdgm, image: NDArray[np.uint8]) -> tuple[float, NDArray[np.float32]]:
    """Score an image, and make its map, in the image's own size."""
    output = model.model(prepare(model, image))
    enlarged = F.interpolate(output.anomaly_map, image.shape[:2], mode="bilinear")
    return float(output.pred_score), enlarged[0, 0].numpy()


def measure(
    parts: Sequence[NDArray[np.uint8]], trial: int, tiles: int, diameters: Sequence[int], number: int
) -> Iterator[dict[str, float]]:
    """Train on one part, and measure on the others: a row for each diameter."""
    shot = trial % len(parts)
    tests = [part for index, part in enumerate(parts) if index != shot]
    defects = paste_spots(tests, diameters, number, seed=trial)
    model, fit_seconds = train(tiles, parts[shot], seed=trial)
    start = time.perf_counter()
    good = [score(model, each)[0] for each in tests]
    scored = [score(model, each.image) for each in defects]
    seconds = (time.perf_counter() - start) / (len(good) + len(scored))
    for diameter in diameters:
        of_size = [(each, *result) for each, result in zip(defects, scored, strict=True) if each.diameter == diameter]
        masks = np.concatenate([defect.mask.ravel() for defect, _, _ in of_size])
        maps = np.concatenate([anomaly_map.ravel() for _, _, anomaly_map in of_size])
        labels = [0] * len(good) + [1] * len(of_size)
        yield {
            "diameter": diameter,
            "image_AUROC": float(roc_auc_score(labels, good + [result for _, result, _ in of_size])),
            "pixel_AUROC": float(roc_auc_score(masks, maps)),
            "found": float(np.mean([is_found(defect, anomaly_map) for defect, _, anomaly_map in of_size])),
            "fit_seconds": fit_seconds,
            "seconds_per_image": seconds,
        }


def is_found(defect: Defect, anomaly_map: NDArray[np.float32]) -> bool:
    """Tell whether a map's maximum is within the spot's diameter from its centre."""
    place = np.unravel_index(anomaly_map.argmax(), anomaly_map.shape)
    return bool(np.hypot(*np.subtract(place, defect.centre)) <= defect.diameter)


def tabulate(rows: pd.DataFrame) -> str:
    """Write rows as a table in Markdown: mean and standard deviation over the trials."""
    names = (
        "photograph",
        "defect [px]",
        "tiles",
        "trials",
        "image AUROC",
        "pixel AUROC",
        "found",
        "fit [s]",
        "image [s]",
    )
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for (photograph, diameter, tiles), group in rows.groupby(["photograph", "diameter", "tiles"]):
        percent = [
            f"{100 * group[name].mean():.1f} ± {100 * group[name].std():.1f}"
            for name in ("image_AUROC", "pixel_AUROC", "found")
        ]
        times = [f"{group['fit_seconds'].mean():.0f}", f"{group['seconds_per_image'].mean():.2f}"]
        lines.append(f"| {' | '.join(map(str, [photograph, diameter, tiles, len(group), *percent, *times]))} |")
    return "\n".join(lines)


def draw(parts: Sequence[NDArray[np.uint8]], trial: int, diameter: int, path: Path) -> None:
    """Draw a test image with a spot, which is ringed, and its maps with one tile and with eight a side."""
    shot = trial % len(parts)
    (defect,) = paste_spots([parts[shot - 1]], [diameter], 1, seed=trial)
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
    axes[0].imshow(cv2.resize(defect.image, (400, 400), interpolation=cv2.INTER_AREA))
    axes[0].set_title(f"{len(defect.image)} px, defect of {diameter} px")
    for axis, tiles in zip(axes[1:], (1, 8), strict=True):
        model, _ = train(tiles, parts[shot], seed=trial)
        axis.imshow(cv2.resize(score(model, defect.image)[1], (400, 400), interpolation=cv2.INTER_AREA), cmap="inferno")
        axis.set_title(f"map, tiles={tiles}")
    for axis in axes:
        row, column = (400 * each / len(defect.image) for each in defect.centre)
        axis.add_patch(Circle((column, row), 16, fill=False, color="cyan", linewidth=1))
        axis.set_axis_off()
    figure.savefig(path, dpi=95)


def main() -> None:
    """Measure, draw or show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photograph", type=Path, help="picture of one surface; without it results are shown")
    parser.add_argument("--parts", type=int, nargs=2, default=(2, 2), metavar=("ROWS", "COLUMNS"))
    parser.add_argument("--tiles", type=int, nargs="+", default=(1, 2, 4, 8))
    parser.add_argument("--diameters", type=int, nargs="+", default=(10, 20, 40, 80), help="of spots, in pixels")
    parser.add_argument("--spots", type=int, default=2, help="of each diameter in each test part")
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--results", type=Path, default=Path("tiles.csv"))
    parser.add_argument("--figure", type=Path, help="draw a spot of the first diameter, and its maps, to this file")
    options = parser.parse_args()
    if options.photograph is None:
        print(tabulate(pd.read_csv(options.results)))
        return
    parts = cut_parts(imread(options.photograph), *options.parts)
    if options.figure is not None:
        draw(parts, 0, options.diameters[0], options.figure)
        return
    name = options.photograph.stem
    print(f"{len(parts)} parts of {len(parts[0])} pixels a side")
    for trial in range(options.trials):
        for tiles in options.tiles:
            done = pd.read_csv(options.results) if options.results.exists() else None
            if done is not None and len(done.query("photograph == @name and trial == @trial and tiles == @tiles")):
                continue
            rows = pd.DataFrame(measure(parts, trial, tiles, options.diameters, options.spots))
            rows = rows.assign(photograph=name, side=len(parts[0]), trial=trial, tiles=tiles)
            rows.to_csv(options.results, mode="a", header=done is None, index=False)
            print(rows.to_string(index=False), flush=True)
    print(tabulate(pd.read_csv(options.results)))


if __name__ == "__main__":
    main()
