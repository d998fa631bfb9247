# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Figures of results, the rows that ``run.py`` wrote: over trials and classes, and beside what the paper reports."""

from pathlib import Path
from typing import Any

import pandas as pd
from shared.pictures import AVERAGE
from shared.rows import maps_folder

from anomalib_htdgm.data.arrays import CLASSES

PAPER = Path(__file__).parents[1] / "paper_auroc.csv"
# The paper's names of classes where they are not ours.
CLASS_NAMES = {
    "Avg": AVERAGE,
    "Plane": "airplane",
    "Car": "automobile",
    "T-shirt": "t_shirt_top",
    "Sandals": "sandal",
    "Ankle-Boot": "ankle_boot",
    "Metal-nut": "metal_nut",
    "Metalnut": "metal_nut",
    **{str(digit): name for digit, name in enumerate(CLASSES["MNIST"])},
}
# The paper's columns, and what the names of our models of that method begin with. "Ours2" is its own method with
# rotations alone on MVTec, the nearest to our defaults; the letters are the variants of its Table 1.
METHODS = {"Ours": "Htdgm", "Ours2": "Htdgm"}
METHODS |= {name: name for name in ("DifferNet", "PatchSVDD", "DROCC", "DeepSVDD", "GEOM", "GOAD")}
METHODS |= {f"({letter})": f"({letter})" for letter in "abcdefg"}
OF_FRACTIONS = 7  # the supplement's table of fractions of patches
WITH_FRACTION = r"(.*) (0\.\d+|1\.0)"  # names of models that are tested with several
GROUP = ["dataset", "model", "shots", "category"]
METRICS = ["image_AUROC", "pixel_AUROC", "pixel_AUPRO", "image_F1Max", "false_alarms", "recall"]
TEST = ["test_seconds", "test_images"]
COSTS = ["fit_seconds", "milliseconds_an_image", "memory_megabytes", "weights_megabytes"]


def read_results(paths: list[Path]) -> pd.DataFrame:
    """Read CSV files of ``run.py`` or of ``anomalib benchmark``.

    Returns:
        pd.DataFrame: All rows, metrics in percent, with the folder of their maps. A run that several files have is
        there once.
    """
    rows = pd.concat([_read_file(path) for path in paths], ignore_index=True).drop_duplicates("key")
    needed = [*rows.columns, *METRICS, *COSTS, *TEST, "pretrained", "known_anomalies"]
    rows = rows.reindex(columns=list(dict.fromkeys(needed)))
    rows[METRICS] *= 100
    rows["milliseconds_an_image"] = 1000 * rows["test_seconds"] / rows["test_images"]
    return rows


def _read_file(path: Path) -> pd.DataFrame:
    rows = pd.read_csv(path).assign(maps=str(maps_folder(path)))
    if "key" in rows:
        return rows
    # anomalib's benchmark: metrics are of normalised scores, so they are not put beside those of raw ones.
    rows.columns = rows.columns.str.removeprefix("data.init_args.")
    names = {"model.class_path": "model", "k_shot": "shots", "seed": "trial", "fit_duration": "fit_seconds"}
    rows = rows.rename(columns=names | {"datamodule.init_args.category": "category"})
    key = rows[["model", "category", "shots", "trial"]].astype(str).agg(" ".join, axis=1)
    return rows.assign(dataset=rows["datamodule.class_path"] + " by anomalib benchmark", key=key)


def _read_paper() -> pd.DataFrame:
    """Read the paper's results, with our names of classes, data sets and columns."""
    paper = pd.read_csv(PAPER).rename(columns={"auroc_mean": "paper", "auroc_std": "paper_std"})
    classes = paper["class"].replace(CLASS_NAMES).str.lower().str.replace("-", "_")
    return paper.assign(category=classes, dataset=paper["dataset"].replace({"PARIS": "Paris"}))


def select_usual(rows: pd.DataFrame) -> pd.DataFrame:
    """Select rows of models that know good images only, tested in one way; others have tables of their own."""
    is_usual = ~(rows["known_anomalies"] > 0) & ~rows["model"].str.fullmatch(WITH_FRACTION)
    return rows[is_usual].astype({"shots": int})


def average(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Compute means and standard deviations of groups of rows, columns ``<metric>`` and ``<metric>_std``."""
    groups = rows.groupby(by)
    means = groups[[*METRICS, *COSTS]].mean().join(groups[METRICS].std().add_suffix("_std"))
    return means.assign(trials=groups.size()).reset_index()


def summarize(rows: pd.DataFrame) -> pd.DataFrame:
    """Compute means and standard deviations over trials, and averages over classes.

    Returns:
        pd.DataFrame: One row for each data set, model, number of shots and category, as :func:`average` makes it, and
        whether the model has pretrained weights; an average has the number of ``classes``.
    """
    summary = average(rows, GROUP).sort_values(by=GROUP, key=_order, ignore_index=True)
    of_models = summary.groupby(GROUP[:-1])
    averages = of_models[summary.columns.drop(GROUP).to_list()].mean()
    averages = averages.assign(category=AVERAGE, trials=of_models["trials"].min(), classes=of_models.size())
    averages = averages[averages["classes"] > 1].reset_index()
    # Averages come after the classes of their data set, model and number of shots.
    summary = pd.concat([summary, averages]).sort_values(by=GROUP[:-1], key=_order, kind="stable", ignore_index=True)
    return summary.assign(pretrained=summary["model"].map(rows.groupby("model")["pretrained"].first()))


def _order(values: "pd.Series[Any]") -> "pd.Series[Any]":
    """Put classes in the order of their labels, which for digits and photographs is not that of their names."""
    order = {name: f"{index:02}" for classes in CLASSES.values() for index, name in enumerate(classes)}
    return values.replace(order)


def compare(summary: pd.DataFrame) -> pd.DataFrame:
    """Put the published cells beside ours, which are as :func:`summarize` makes them.

    Returns:
        pd.DataFrame: The same rows with ``method``, ``paper`` and ``paper_std``. These are NaN where the paper has none
        of that method, or reports an average over other classes than ours.
    """
    paper = _read_paper()
    paper = paper[paper["column"].isin(METHODS) & (paper["supplement_table"] != OF_FRACTIONS)]
    # Table 6 repeats the method's own figures of tables 1 and 2.
    cell = ["dataset", "method", "shots", "category"]
    paper = paper.assign(method=paper["column"].map(METHODS)).drop_duplicates(cell)
    table = summary.assign(method=summary["model"].str.split().str[0])
    table = table.merge(paper[[*cell, "paper", "paper_std"]], how="left", on=cell)
    classes = {name: set(part["category"]) for name, part in paper.groupby(["dataset", "shots"])}
    for (dataset, _, shots), part in table.groupby(GROUP[:-1]):
        if set(part["category"]) != classes.get((dataset, shots)):
            table.loc[part.index[part["category"] == AVERAGE], ["paper", "paper_std"]] = float("nan")
    return table


def summarize_fractions(rows: pd.DataFrame) -> pd.DataFrame:
    """Compute means and deviations over trials of models that were tested with several fractions of patches.

    Returns:
        pd.DataFrame: Columns ``category``, ``shots``, ``model``, ``fraction``, ``image_AUROC``, ``image_AUROC_std`` and
        ``trials``; the published ones at the end.
    """
    names = rows["model"].str.extract(f"^{WITH_FRACTION}$")
    ours = rows.astype({"shots": int}).assign(model=names[0], fraction=names[1].astype(float))
    summary = average(ours, ["category", "shots", "model", "fraction"])
    paper = _read_paper().rename(columns={"paper": "image_AUROC", "paper_std": "image_AUROC_std"})
    paper = paper[paper["supplement_table"] == OF_FRACTIONS].merge(summary[["category", "shots"]].drop_duplicates())
    paper = paper.assign(fraction=paper["column"].astype(float) / 100, model="published", trials=10)
    return pd.concat([summary, paper], join="inner", ignore_index=True)
