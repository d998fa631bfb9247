# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures of benchmark results: AUROC against shots, against time and by class, and anomaly maps side by side."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.ticker import NullFormatter
from PIL import Image

AVERAGE = "average"
ERROR_BARS: Any = {"marker": "o", "capsize": 3}


def draw_against(table: pd.DataFrame, column: str, label: str, path: Path) -> None:
    """Draw AUROC against another quantity: a panel for each data set, or category where not all were run.

    Args:
        table (pd.DataFrame): As :func:`report.compare` makes it.
        column (str): The other quantity.
        label (str): Its name.
        path (Path): Image file to write.
    """
    panels = _panels(table)
    figure, axes = plt.subplots(1, len(panels), figsize=(4.5 * len(panels), 4), squeeze=False, layout="constrained")
    for axis, (name, part) in zip(axes[0], panels.items(), strict=True):
        for model, line in part.sort_values("shots").groupby("model"):
            axis.errorbar(line[column], line["image_AUROC"], line["image_AUROC_std"], label=model, **ERROR_BARS)
        if column == "shots":
            axis.set_xticks(sorted(part["shots"].unique()))
            published = part.dropna(subset=["paper"]).drop_duplicates(["method", "shots"]).sort_values("shots")
            for shade, (method, line) in zip(("gray", "silver"), published.groupby("method"), strict=False):
                style = {"label": f"{method}, published", "color": shade, "linestyle": "--", **ERROR_BARS}
                axis.errorbar(line["shots"], line["paper"], line["paper_std"], **style)
        else:
            axis.set_xscale("log")  # a generator's training takes a thousand times as long
            axis.xaxis.set_minor_formatter(NullFormatter())  # labels between the powers of ten overlap
        axis.set(title=name, xlabel=label, ylabel="image AUROC [%]")
        axis.legend()
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _panels(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Share the rows out among panels: averages of data sets, and categories of those without a published average."""
    panels = {}
    for dataset, rows in table.groupby("dataset", sort=False):
        averages = rows[rows["category"] == AVERAGE]
        if averages["paper"].notna().any():
            panels[f"{dataset}, mean over classes"] = averages
        else:
            parts = rows[rows["category"] != AVERAGE].groupby("category", sort=False)
            panels |= {f"{dataset} {category}": part for category, part in parts}
    return panels


def draw_classes(table: pd.DataFrame, path: Path) -> None:
    """Draw AUROC for each class: a panel for each data set and number of shots, models and paper side by side.

    Args:
        table (pd.DataFrame): As :func:`report.compare` makes it.
        path (Path): Image file to write.
    """
    panels = list(table.groupby(["dataset", "shots"], sort=False))
    figure, axes = plt.subplots(len(panels), 1, figsize=(11, 2.8 * len(panels)), squeeze=False, layout="constrained")
    for axis, ((dataset, shots), part) in zip(axes[:, 0], panels, strict=True):
        means = part.pivot_table(index="category", columns="model", values="image_AUROC", sort=False)
        errors = part.pivot_table(index="category", columns="model", values="image_AUROC_std", sort=False)
        for method, published in part.dropna(subset=["paper"]).groupby("method"):
            cells = published.groupby("category")[["paper", "paper_std"]].first()
            means[f"{method}, published"], errors[f"{method}, published"] = cells["paper"], cells["paper_std"]
        means.plot.bar(ax=axis, yerr=errors.reindex_like(means).fillna(0), rot=20, capsize=2, width=0.8)
        axis.set(title=make_title(dataset, shots), xlabel="", ylabel="image AUROC [%]")
        axis.set_ylim(max(0, means.min().min() - 15), 100)
        axis.legend(loc="lower right", fontsize="small")
    figure.savefig(path, dpi=100)
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
    return f"{dataset}, {shots} shot{'s' if shots != 1 else ''}"
