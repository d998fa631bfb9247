# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures of benchmark results: AUROC against shots, time and fraction of patches, by class and on average, and maps.

Each is written as PNG and as SVG. Methods differ in marker, line and hatching, so that pictures can be read without
colour; what is published is hollow and dashed.
"""

from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator
from PIL import Image

AVERAGE = "average"
CHANCE = 50.0  # AUROC of a coin, in percent
LINEAR_SHOTS = 10  # more than these are drawn on a logarithmic axis
MARKERS = "osD^vP*XH"
COLOURS = (
    "black",
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#e69f00",
    "#999999",
    "#000066",
)  # Okabe, Ito
HATCHES = ("", "///", "...", "xxx", "\\\\\\", "++", "oo", "--", "**")


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
        for index, (model, line) in enumerate(part.sort_values("shots").groupby("model")):
            axis.errorbar(line[column], line["image_AUROC"], line["image_AUROC_std"], label=model, **_style(index))
        if column == "shots":
            if part["shots"].max() > LINEAR_SHOTS:
                axis.set_xscale("log")
                axis.xaxis.set_minor_locator(NullLocator())
            axis.set_xticks(sorted(part["shots"].unique()), labels=sorted(part["shots"].unique()))
            published = part.dropna(subset=["paper"]).drop_duplicates(["method", "shots"]).sort_values("shots")
            for index, (method, line) in enumerate(published.groupby("method")):
                style = _style(index, published=True) | {"label": f"{method}, published"}
                axis.errorbar(line["shots"], line["paper"], line["paper_std"], **style)
        else:
            axis.set_xscale("log")  # a generator's training takes a thousand times as long
            axis.xaxis.set_minor_formatter(NullFormatter())  # labels between the powers of ten overlap
        axis.set(title=name, xlabel=label, ylabel="image AUROC [%]")
        axis.legend()
        axis.grid(alpha=0.3)
    save(figure, path, dpi=120)


def draw_fractions(summary: pd.DataFrame, path: Path) -> None:
    """Draw AUROC against the fraction of patches, the paper's figure 7: a panel for each category and number of shots.

    Args:
        summary (pd.DataFrame): As :func:`report.summarize_fractions` makes it.
        path (Path): Image file to write.
    """
    categories, shots = summary["category"].unique(), sorted(summary["shots"].unique())
    size = (3.4 * len(shots), 3.2 * len(categories))
    figure, axes = plt.subplots(len(categories), len(shots), figsize=size, squeeze=False, layout="constrained")
    for (category, number), part in summary.groupby(["category", "shots"]):
        axis = axes[list(categories).index(category), shots.index(number)]
        for index, (model, line) in enumerate(part.groupby("model")):
            style = _style(index, published=model == "published")
            axis.errorbar(100 * line["fraction"], line["mean"], line["std"], label=model, **style)
        axis.set_xscale("log")
        ticks = [round(100 * each) for each in sorted(part["fraction"].unique())]
        axis.set_xticks(ticks, labels=ticks)
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set(title=make_title(category, number), xlabel="patches [%]", ylabel="image AUROC [%]")
        axis.grid(alpha=0.3)
    axes[0, 0].legend(fontsize="small")
    save(figure, path, dpi=120)


def draw_averages(averages: pd.DataFrame, path: Path) -> None:
    """Draw the means over classes as bars: a panel for each data set and number of shots, the paper's beside ours.

    Args:
        averages (pd.DataFrame): Those rows of what :func:`report.compare` makes.
        path (Path): Image file to write.
    """
    panels = list(averages.groupby(["dataset", "shots"], sort=False))
    models = averages["model"].nunique()
    size = (7.5, (1.0 + 0.45 * models) * len(panels))
    figure, axes = plt.subplots(len(panels), 1, figsize=size, squeeze=False, layout="constrained")
    for axis, ((dataset, shots), part) in zip(axes[:, 0], panels, strict=True):
        positions = np.arange(len(part))
        ours = {"color": "#555555", "label": "here", "xerr": part["image_AUROC_std"].fillna(0), "capsize": 2}
        paper = {"color": "white", "edgecolor": "black", "hatch": "///", "label": "published", "capsize": 2}
        axis.barh(positions - 0.2, part["image_AUROC"], 0.38, **ours)
        axis.barh(positions + 0.2, part["paper"].fillna(0), 0.38, xerr=part["paper_std"].fillna(0), **paper)
        axis.set_yticks(positions, labels=part["model"])
        axis.invert_yaxis()
        axis.axvline(CHANCE, color="black", linewidth=0.8, linestyle=":")
        axis.set(title=make_title(dataset, shots), xlabel="image AUROC [%]", xlim=(30, 100))
        axis.legend(fontsize="small")
    save(figure, path, dpi=120)


def _style(index: int, *, published: bool = False) -> dict[str, Any]:
    """Choose marker and line of the method with this index; what is published is hollow and dashed."""
    colour = "gray" if published else COLOURS[index % len(COLOURS)]
    line = {"linestyle": "--", "markerfacecolor": "white"} if published else {"linestyle": "-"}
    return {"marker": MARKERS[index % len(MARKERS)], "color": colour, "capsize": 3, **line}


def save(figure: Figure, path: Path, dpi: int) -> None:
    """Write a picture as PNG, and as SVG beside it.

    Args:
        figure (Figure): The picture, which is closed.
        path (Path): The PNG file.
        dpi (int): Its pixels per inch.
    """
    figure.savefig(path, dpi=dpi)
    with mpl.rc_context({"svg.hashsalt": "htdgm"}):  # the same picture is the same file
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
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
        means.plot.bar(
            ax=axis, yerr=errors.reindex_like(means).fillna(0), rot=20, capsize=2, width=0.8, edgecolor="black"
        )
        bars = [each for each in axis.containers if isinstance(each, BarContainer)]
        for hatch, container in zip(cycle(HATCHES), bars, strict=False):
            for bar in container:
                bar.set_hatch(hatch)
        axis.set(title=make_title(dataset, shots), xlabel="", ylabel="image AUROC [%]")
        axis.set_ylim(max(0, means.min().min() - 15), 100)
        axis.legend(loc="lower right", fontsize="small")
    save(figure, path, dpi=100)


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
    save(figure, path, dpi=80)
    return True


def make_title(dataset: object, shots: object) -> str:
    """Name a data set and a number of shots."""
    return f"{dataset}, {shots} shot{'s' if shots != 1 else ''}"
