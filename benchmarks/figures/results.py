# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Draw what a trained model makes of the quick start's images: image, outline of the defect, anomaly map.

The images are spread evenly over the test set by their numbers, not picked.

Command, in a directory of one's own:
    anomalib train --model Htdgm --model.k_shot 10 --data QuickstartTextures
    python benchmarks/figures/results.py --data datasets/quickstart/brick_seed0 --output quickstart.png \
        --checkpoint results/Htdgm/QuickstartTextures/brick/latest/weights/lightning/model.ckpt
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray
from skimage.io import imread
from skimage.transform import resize

from anomalib_htdgm import Htdgm

ROWS = ("image", "pasted patch", "anomaly map")
OUTLINE = "#e5007d"
CELL = 1.45  # side of a picture in inches
PIXELS_PER_INCH = 100


def spread(paths: list[Path], number: int) -> list[Path]:
    """Choose paths at even distances, the first and the last among them."""
    return [paths[index] for index in np.linspace(0, len(paths) - 1, number).round().astype(int)]


@torch.no_grad()
def draw(model: Htdgm, paths: list[Path], output: Path) -> None:
    """Draw images of the folders ``test_good`` and ``defect`` side by side, with what a trained model makes of them."""
    mpl.rcParams.update({"font.family": "DejaVu Sans", "font.size": 10})
    size = ((len(paths) + 0.75) * CELL, (len(ROWS) + 0.45) * CELL)
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    figure, grid = plt.subplots(len(ROWS), len(paths), figsize=size, squeeze=False, layout=layout)
    for column, path in zip(grid.T, paths, strict=True):
        image, is_defective = imread(path), path.parent.name == "defect"
        prediction = model(torch.from_numpy(image).float().div(255).expand(1, 3, -1, -1))
        score, anomaly_map = float(prediction.pred_score), prediction.anomaly_map.squeeze().numpy()
        verdict = "anomalous" if score > 0.5 else "normal"  # noqa: PLR2004  # anomalib's threshold
        title = f"{'defect' if is_defective else 'good'} {path.stem}"
        column[0].set_title(f"{title}\n{score:.2f} {verdict}", fontsize=10)
        for axes in column:
            _show(axes, image)
        if is_defective:
            mask = imread(path.parents[1] / "mask" / path.name) > 0
            column[1].contour(mask, [0.5], colors=OUTLINE, linewidths=1.5)
        enlarged = resize(anomaly_map, image.shape, order=1, anti_aliasing=True)
        heat = column[2].imshow(enlarged, cmap="inferno", vmin=0, vmax=1, alpha=0.65)
    for axes, label in zip(grid[:, 0], ROWS, strict=True):
        axes.set_ylabel(label, fontsize=10)
    bar = figure.colorbar(heat, ax=grid[2], shrink=0.9, aspect=12, pad=0.02, ticks=[0, 0.5, 1])
    bar.outline.set_visible(False)
    figure.savefig(output, dpi=PIXELS_PER_INCH, facecolor="white", pil_kwargs={"optimize": True})


def _show(axes: Axes, image: NDArray[np.uint8]) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=255)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def main() -> None:
    """Read the arguments and draw."""
    parser = argparse.ArgumentParser(description="Draw what a model makes of the quick start's images.")
    parser.add_argument("--checkpoint", type=Path, required=True, help="checkpoint of a trained Htdgm")
    parser.add_argument("--data", type=Path, required=True, help="such as datasets/quickstart/brick_seed0")
    parser.add_argument("--output", type=Path, required=True, help="picture to write")
    arguments = parser.parse_args()
    model = Htdgm.load_from_checkpoint(arguments.checkpoint, map_location="cpu").eval()
    good, defective = (sorted((arguments.data / name).glob("*.png")) for name in ("test_good", "defect"))
    draw(model, [*spread(good, 2), *spread(defective, 4)], arguments.output)


if __name__ == "__main__":
    main()
