# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Turn the rows that ``run.py`` wrote into tables, beside what the paper reports, and into pictures.

    python benchmarks/report.py cifar10.csv mnist.csv --output report

Prints Markdown and writes it to ``report/tables.md``, with ``auroc_shots.png``, ``auroc_seconds.png`` and
``auroc_classes.png`` beside it. AUROC is in percent, mean and standard deviation (n - 1) over trials; an average over
classes has the mean of the classes' standard deviations, as the paper's averages have. "Difference" is ours less the
paper's, also in units of the paper's standard deviation (over ten trials).

``paper_auroc.csv`` has every number of tables 1 to 7 of the paper's supplement.
"""

import argparse
from collections.abc import Hashable
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd
from matplotlib import pyplot as plt

from anomalib_htdgm.data.one_class import CLASSES

PAPER = Path(__file__).with_name("paper_auroc.csv")
AVERAGE = "average"
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
ERROR_BARS: Any = {"marker": "o", "capsize": 3}
GROUP = ["dataset", "model", "shots", "category"]
Values: TypeAlias = "pd.Series[float]"
METRICS = ["image_AUROC", "pixel_AUROC", "pixel_AUPRO", "image_F1Max"]


def read_results(paths: list[Path]) -> pd.DataFrame:
    """Read rows of results.

    Args:
        paths (list[Path]): CSV files of ``run.py``.

    Returns:
        pd.DataFrame: All rows, metrics in percent. A run that several files have is there once.
    """
    rows = pd.concat([pd.read_csv(path) for path in paths]).drop_duplicates("key")
    rows[METRICS] *= 100
    rows["milliseconds_an_image"] = 1000 * rows["test_seconds"] / rows["test_images"]
    return rows


def read_paper() -> pd.DataFrame:
    """Read the paper's results with its own method: those with rotations alone for MVTec, as our defaults are."""
    paper = pd.read_csv(PAPER)
    own = paper[((paper.column == "Ours") | (paper.column == "Ours2")) & (paper.supplement_table <= 5)]  # noqa: PLR2004
    classes = own["class"].replace(CLASS_NAMES).str.lower().str.replace("-", "_")
    return own.assign(category=classes, dataset=own.dataset.replace({"PARIS": "Paris"}))[
        ["dataset", "shots", "category", "auroc_mean", "auroc_std"]
    ]


def summarize(rows: pd.DataFrame) -> pd.DataFrame:
    """Compute means and standard deviations over trials, and averages over classes.

    Args:
        rows (pd.DataFrame): Rows of results.

    Returns:
        pd.DataFrame: One row for each data set, model, number of shots and category, with the number of trials, and
        columns ``<metric>`` and ``<metric>_std``.
    """
    columns = [*METRICS, "fit_seconds", "milliseconds_an_image"]
    groups = rows.groupby(GROUP)
    summary = groups[columns].mean().join(groups[METRICS].std().add_suffix("_std"))
    summary["trials"] = groups.size()
    summary = summary.reset_index().sort_values(by=GROUP, key=_order, ignore_index=True)
    of_models = summary.groupby(GROUP[:-1])
    averages = of_models[summary.columns.drop(GROUP).to_list()].mean().assign(category=AVERAGE)
    averages["trials"] = of_models["trials"].min()
    averages = averages[of_models.size() > 1].reset_index()
    # Averages come after the classes of their data set, model and number of shots.
    return pd.concat([summary, averages]).sort_values(by=GROUP[:-1], key=_order, kind="stable", ignore_index=True)


def _order(values: "pd.Series[Any]") -> "pd.Series[Any]":
    """Put classes in the order of their labels, which for digits and photographs is not that of their names."""
    order = {name: f"{index:02}" for classes in CLASSES.values() for index, name in enumerate(classes)}
    return values.replace(order)


def compare(summary: pd.DataFrame) -> pd.DataFrame:
    """Put the paper's cells beside ours.

    Args:
        summary (pd.DataFrame): As :func:`summarize` makes it.

    Returns:
        pd.DataFrame: The same rows with ``paper``, ``paper_std``, ``difference`` and ``in_stds``, which are NaN where
        the paper has none, or reports an average over other classes than ours.
    """
    paper = read_paper().rename(columns={"auroc_mean": "paper", "auroc_std": "paper_std"})
    table = summary.merge(paper, how="left", on=["dataset", "shots", "category"])
    sizes = {name: set(part.category) for name, part in paper.groupby(["dataset", "shots"])}
    for (dataset, _, shots), part in table.groupby(GROUP[:-1]):
        if set(part.category) != sizes.get((dataset, shots)):
            table.loc[part.index[part.category == AVERAGE], ["paper", "paper_std"]] = float("nan")
    table["difference"] = table["image_AUROC"] - table["paper"]
    table["in_stds"] = table["difference"] / table["paper_std"]
    return table


def to_markdown(table: pd.DataFrame) -> str:
    """Write the comparison as Markdown, one table for each data set and number of shots.

    Args:
        table (pd.DataFrame): As :func:`compare` makes it.

    Returns:
        str: The text.
    """
    lines: list[str] = []
    for (dataset, shots), part in table.groupby(["dataset", "shots"], sort=False):
        has_pixels = part["pixel_AUROC"].notna().any()
        header = ["class", "model", "trials", "image AUROC", "paper", "difference"]
        header += ["pixel AUROC", "AUPRO"] if has_pixels else []
        header += ["F1 (best)", "fit [s]", "test [ms/image]"]
        lines += [
            f"\n### {dataset}, {shots} shot{'s' if shots != 1 else ''}\n",
            _line(header),
            _line(["---"] * len(header)),
        ]
        for _, row in part.iterrows():
            cells = [row["category"], row["model"], str(row["trials"]), _spread(row, "image_AUROC")]
            cells += [_number(row["paper"], row["paper_std"]), _difference(row)]
            cells += [_spread(row, "pixel_AUROC"), _spread(row, "pixel_AUPRO")] if has_pixels else []
            cells += [_spread(row, "image_F1Max"), f"{row['fit_seconds']:.1f}", f"{row['milliseconds_an_image']:.0f}"]
            lines.append(_line(cells))
    return "\n".join(lines) + "\n"


def _title(dataset: Hashable, shots: Hashable) -> str:
    return f"{dataset}, {shots} shot{'s' if shots != 1 else ''}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(mean: float, std: float) -> str:
    if pd.isna(mean):
        return ""
    return f"{mean:.1f}" if pd.isna(std) else f"{mean:.1f} ± {std:.1f}"


def _spread(row: Values, metric: str) -> str:
    return _number(row[metric], row[f"{metric}_std"])


def _difference(row: Values) -> str:
    return "" if pd.isna(row["difference"]) else f"{row['difference']:+.1f} ({row['in_stds']:+.1f} std)"


def draw_against(table: pd.DataFrame, column: str, label: str, path: Path) -> None:
    """Draw AUROC against another quantity: a panel for each data set, or category where not all were run.

    Args:
        table (pd.DataFrame): As :func:`compare` makes it.
        column (str): The other quantity.
        label (str): Its name.
        path (Path): Image file to write.
    """
    panels = _panels(table)
    figure, axes = plt.subplots(1, len(panels), figsize=(4.5 * len(panels), 4), squeeze=False, layout="constrained")
    for axis, (name, part) in zip(axes[0], panels.items(), strict=True):
        for model, line in part.sort_values("shots").groupby("model"):
            axis.errorbar(line[column], line["image_AUROC"], line["image_AUROC_std"], label=model, **ERROR_BARS)
        paper = part.dropna(subset=["paper"]).drop_duplicates("shots").sort_values("shots")
        if column == "shots":
            axis.set_xticks(sorted(part["shots"].unique()))
            if len(paper):
                axis.errorbar(paper["shots"], paper["paper"], paper["paper_std"], label="paper", c="gray", **ERROR_BARS)
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
        table (pd.DataFrame): As :func:`compare` makes it.
        path (Path): Image file to write.
    """
    panels = list(table.groupby(["dataset", "shots"], sort=False))
    figure, axes = plt.subplots(len(panels), 1, figsize=(11, 2.8 * len(panels)), squeeze=False, layout="constrained")
    for axis, ((dataset, shots), part) in zip(axes[:, 0], panels, strict=True):
        means = part.pivot_table(index="category", columns="model", values="image_AUROC", sort=False)
        errors = part.pivot_table(index="category", columns="model", values="image_AUROC_std", sort=False)
        paper = part.groupby("category")[["paper", "paper_std"]].first()
        if paper["paper"].notna().any():
            means["paper"], errors["paper"] = paper["paper"], paper["paper_std"]
        means.plot.bar(ax=axis, yerr=errors.reindex_like(means).fillna(0), rot=20, capsize=2, width=0.8)
        axis.set(title=_title(dataset, shots), xlabel="", ylabel="image AUROC [%]")
        axis.set_ylim(max(0, means.min().min() - 15), 100)
        axis.legend(loc="lower right", fontsize="small")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main() -> None:
    """Write tables and pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", help="CSV files of run.py")
    parser.add_argument("--output", type=Path, default=Path("report"), help="directory for tables and pictures")
    options = parser.parse_args()
    plt.switch_backend("agg")
    table = compare(summarize(read_results(options.results)))
    options.output.mkdir(parents=True, exist_ok=True)
    text = to_markdown(table)
    (options.output / "tables.md").write_text(text)
    draw_against(table, "shots", "training images", options.output / "auroc_shots.png")
    draw_against(table, "fit_seconds", "seconds to fit", options.output / "auroc_seconds.png")
    draw_classes(table, options.output / "auroc_classes.png")
    print(text)


if __name__ == "__main__":
    main()
