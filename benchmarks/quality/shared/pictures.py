# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures of benchmark results: AUROC against shots, and anomaly maps.

Methods differ in marker, so that pictures can be read without colour; what is published is hollow and dashed.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.ticker import NullLocator
from PIL import Image

AVERAGE = "average"
MARKERS = "osD^vP*XH"
# Okabe and Ito's
COLOURS = ("black", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#999999", "#000066")


def draw_against_shots(table: pd.DataFrame, path: Path) -> None:
    """Draw AUROC against shots: a panel for each data set, or category where not all were run.

    Args:
        table (pd.DataFrame): As :func:`report.compare` makes it.
        path (Path): Image file to write.
    """
    panels = {}
    for dataset, rows in table.groupby("dataset", sort=False):
        is_average = rows["category"] == AVERAGE
        if rows.loc[is_average, "paper"].notna().any():
            panels[f"{dataset}, mean over classes"] = rows[is_average]
        else:
            parts = rows[~is_average].groupby("category", sort=False)
            panels |= {f"{dataset} {category}": part for category, part in parts}
    for name, part in panels.items():
        published = part.dropna(subset=["paper"]).drop_duplicates(["method", "shots"])
        figures = {"image_AUROC": published["paper"], "image_AUROC_std": published["paper_std"]}
        panels[name] = pd.concat([part, published.assign(model=published["method"] + ", published", **figures)])
    _draw_lines(panels, path)


def _draw_lines(panels: dict[str, pd.DataFrame], path: Path) -> None:
    """Draw panels of AUROC against shots by their titles, a line for each model."""
    width = min(len(panels), 3)
    height = -(-len(panels) // width)
    size = (4.5 * width, 4 * height)
    figure, axes = plt.subplots(height, width, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for axis, (name, part) in zip(axes.flat, panels.items(), strict=False):
        for index, (model, line) in enumerate(part.sort_values("shots").groupby("model")):
            style: dict[str, Any] = {"color": COLOURS[index % len(COLOURS)], "linestyle": "-"}
            if str(model).endswith("published"):
                style = {"color": "gray", "linestyle": "--", "markerfacecolor": "white"}
            style |= {"marker": MARKERS[index % len(MARKERS)], "capsize": 3, "label": model}
            axis.errorbar(line["shots"], line["image_AUROC"], line["image_AUROC_std"], **style)
        axis.set_xscale("log")
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xticks(sorted(part["shots"].unique()), labels=sorted(part["shots"].unique()))
        axis.set(title=name, xlabel="shots", ylabel="image AUROC [%]")
        axis.legend(fontsize="small")
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_heat_maps(rows: pd.DataFrame, folder: Path, path: Path) -> bool:
    """Draw anomaly maps: a row for each test image, a column for each model, as the paper's figure 6.

    Colours run from the lowest to the highest value that a model gives to the images shown of a category.

    Args:
        rows (pd.DataFrame): Rows of results with one number of shots and one trial.
        folder (Path): Folder of the maps that were kept of these runs.
        path (Path): Image file to write.

    Returns:
        bool: Whether there was anything to draw.
    """
    runs = [
        (str(row["category"]), str(row["model"]), np.load(folder / f"{row['key']}.npz"))
        for _, row in rows.iterrows()
        if (folder / f"{row['key']}.npz").exists()
    ]
    models = list(dict.fromkeys(model for _, model, _ in runs))
    columns = {name: column for column, name in enumerate(["image and defect", *models])}
    shown = list(dict.fromkeys((category, name) for category, _, maps in runs for name in maps["paths"]))
    if not shown:
        return False
    size = (2 * len(columns), 2.1 * len(shown))
    figure, axes = plt.subplots(len(shown), len(columns), figsize=size, squeeze=False, layout="constrained")
    for category, model, maps in runs:
        limits = {"vmin": maps["maps"].min(), "vmax": maps["maps"].max()}
        for name, values, mask in zip(maps["paths"], maps["maps"], maps["masks"], strict=True):
            line = axes[shown.index((category, name))]
            if not line[0].images:
                line[0].imshow(Image.open(name).convert("RGB").resize(mask.shape[::-1]))
                if mask.any():
                    line[0].contour(mask, levels=[0.5], colors="lime", linewidths=1)
                line[0].set_ylabel(f"{category} {Path(name).parent.name}", fontsize="small")
            line[columns[model]].imshow(values, cmap="inferno", **limits)
    for name, column in columns.items():
        axes[0, column].set_title(name, fontsize="small")
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=80)
    plt.close(figure)
    return True


def make_title(dataset: object, shots: object) -> str:
    """Name a data set and a number of shots."""
    return f"{dataset}, {name_shots(shots)}"


def name_shots(number: object) -> str:
    """Name a number of shots."""
    return f"{number} shot{'s' if number != 1 else ''}"
