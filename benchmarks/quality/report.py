# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Turn the rows that ``run.py`` wrote into tables, beside what the paper reports, pictures, and a page with both.

    python benchmarks/quality/report.py cifar10.csv mnist.csv --output report
    python benchmarks/quality/report.py table1.csv --into benchmarks/README.md "table 1" --title "mean over classes"
    python benchmarks/quality/report.py speed.md --into benchmarks/README.md "speed table"

The second command also writes tables into a page, between ``<!-- table 1 -->`` and ``<!-- end of table 1 -->``: one of
the report, or one that only pages have, of :func:`make_tables_of_pages`. The third takes a table that another program
has printed.

Prints Markdown and writes it to ``report/tables.md``; ``report/index.html`` has the same tables and the pictures in one
file, and the pictures lie beside it. What the figures are is said in :data:`LEGEND`.

``paper_auroc.csv`` has every number of tables 1 to 7 of the supplement.
"""

import argparse
import base64
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd
from matplotlib import pyplot as plt
from shared.pictures import (
    AVERAGE,
    draw_against,
    draw_averages,
    draw_classes,
    draw_fractions,
    draw_heat_maps,
    make_title,
)
from shared.rows import maps_folder

from anomalib_htdgm.data.one_class import CLASSES

LEGEND = (
    "AUROC is in percent, mean and standard deviation (n - 1) over trials; an average over classes has the "
    "mean of the classes' standard deviations, as the paper's averages have. \"Published\" is what HTDGM's "
    'paper\'s supplement reports of the same method (means over ten trials); "difference" is ours less that, '
    "also in units of its standard deviation. Memory is the peak of the process, of which Python, PyTorch and "
    "anomalib take about 1 GB."
)
PAPER = Path(__file__).with_name("paper_auroc.csv")
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
# What is compared at a glance: our settings, one for each kind of images, and the PatchCore that all images were given.
AT_A_GLANCE = ("Htdgm", "Htdgm symmetries", "Htdgm grayscale", "PatchCore Lite0")
TRIVIAL = ("Brightness", "Contrast")
OF_FRACTIONS = 7  # the supplement's table of fractions of patches
WITH_FRACTION = r"(.*) (0\.\d+|1\.0)"  # names of models that are tested with several
# Detection and segmentation AUROC of all of MVTec AD, as the paper's page at HyperAI has them. Ours is over all pixels
# of all test images; by the authors' code theirs is each anomalous image's own, averaged.
PUBLISHED_WITH_ANOMALIES = {"DevNet": ("94.5", "91.8 (mean over images)"), "FLOS": ("93.9", "")}
GROUP = ["dataset", "model", "shots", "category"]
METRICS = ["image_AUROC", "pixel_AUROC", "pixel_AUPRO", "image_F1Max", "false_alarms", "recall"]
TEST = ["test_seconds", "test_images"]
COSTS = ["fit_seconds", "milliseconds_an_image", "memory_megabytes", "weights_megabytes"]
STYLE = """body {font: 15px sans-serif; margin: 2em auto; max-width: 1200px; padding: 0 1em; color: #222}
table {border-collapse: collapse; margin-bottom: 2em} th, td {padding: 4px 10px; border-bottom: 1px solid #ddd}
th {text-align: left; background: #f3f3f3} td {font-variant-numeric: tabular-nums; white-space: nowrap}
img {max-width: 100%} figure {margin: 2em 0} pre {white-space: pre-wrap}"""
Values: TypeAlias = "pd.Series[float]"


@dataclass
class Table:
    """A table of text: title, names of columns, and rows of as many cells."""

    title: str
    header: list[str]
    rows: list[list[str]]


def read_results(paths: list[Path]) -> pd.DataFrame:
    """Read rows of results.

    Args:
        paths (list[Path]): CSV files of ``run.py`` or of ``anomalib benchmark``.

    Returns:
        pd.DataFrame: All rows, metrics in percent, with the folder of their maps. A run that several files have is
        there once.
    """
    rows = pd.concat([_read_file(path) for path in paths], ignore_index=True).drop_duplicates("key")
    rows = rows.reindex(
        columns=list(dict.fromkeys([*rows.columns, *METRICS, *COSTS, *TEST, "pretrained", "known_anomalies"]))
    )
    rows[METRICS] *= 100
    rows["milliseconds_an_image"] = 1000 * rows["test_seconds"] / rows["test_images"]
    return rows


def _read_file(path: Path) -> pd.DataFrame:
    rows = pd.read_csv(path).assign(maps=str(maps_folder(path)))
    if "key" in rows:
        return rows
    # anomalib's benchmark: metrics are of normalised scores, so they are not put beside those of raw ones.
    draws = "data.init_args."
    rows = rows.rename(
        columns={
            "model.class_path": "model",
            f"{draws}k_shot": "shots",
            f"{draws}seed": "trial",
            f"{draws}datamodule.init_args.category": "category",
            "fit_duration": "fit_seconds",
        }
    )
    dataset = rows[f"{draws}datamodule.class_path"] + " by anomalib benchmark"
    return rows.assign(
        dataset=dataset, key=rows[["model", "category", "shots", "trial"]].astype(str).agg(" ".join, axis=1)
    )


def read_paper() -> pd.DataFrame:
    """Read the paper's results of methods that have a counterpart here."""
    paper = _read_supplement()
    own = paper[paper.column.isin(METHODS) & (paper.supplement_table != OF_FRACTIONS)]
    own = own.assign(method=own.column.map(METHODS))
    # Table 6 repeats the method's own figures of tables 1 and 2.
    own = own.drop_duplicates(["dataset", "method", "shots", "category"])
    return own[["dataset", "method", "shots", "category", "auroc_mean", "auroc_std"]]


def read_paper_fractions() -> pd.DataFrame:
    """Read the paper's results by the fraction of patches that the score is over."""
    paper = _read_supplement()
    paper = paper[paper.supplement_table == OF_FRACTIONS]
    return paper.assign(fraction=paper.column.astype(float) / 100)


def _read_supplement() -> pd.DataFrame:
    paper = pd.read_csv(PAPER)
    classes = paper["class"].replace(CLASS_NAMES).str.lower().str.replace("-", "_")
    return paper.assign(category=classes, dataset=paper.dataset.replace({"PARIS": "Paris"}))


def summarize(rows: pd.DataFrame) -> pd.DataFrame:
    """Compute means and standard deviations over trials, and averages over classes.

    Args:
        rows (pd.DataFrame): Rows of results.

    Returns:
        pd.DataFrame: One row for each data set, model, number of shots and category, with the number of trials, whether
        the model has pretrained weights, and columns ``<metric>`` and ``<metric>_std``; an average has the number of
        ``classes``.
    """
    groups = rows.groupby(GROUP)
    summary = groups[[*METRICS, *COSTS]].mean().join(groups[METRICS].std().add_suffix("_std"))
    summary["trials"] = groups.size()
    summary = summary.reset_index().sort_values(by=GROUP, key=_order, ignore_index=True)
    of_models = summary.groupby(GROUP[:-1])
    averages = of_models[summary.columns.drop(GROUP).to_list()].mean().assign(category=AVERAGE)
    averages["trials"] = of_models["trials"].min()
    averages["classes"] = of_models.size()
    averages = averages[averages["classes"] > 1].reset_index()
    # Averages come after the classes of their data set, model and number of shots.
    summary = pd.concat([summary, averages]).sort_values(by=GROUP[:-1], key=_order, kind="stable", ignore_index=True)
    return summary.assign(pretrained=summary["model"].map(rows.groupby("model")["pretrained"].first()))


def _order(values: "pd.Series[Any]") -> "pd.Series[Any]":
    """Put classes in the order of their labels, which for digits and photographs is not that of their names."""
    order = {name: f"{index:02}" for classes in CLASSES.values() for index, name in enumerate(classes)}
    return values.replace(order)


def compare(summary: pd.DataFrame) -> pd.DataFrame:
    """Put the published cells beside ours.

    Args:
        summary (pd.DataFrame): As :func:`summarize` makes it.

    Returns:
        pd.DataFrame: The same rows with ``paper``, ``paper_std``, ``difference`` and ``in_stds``, which are NaN where
        the paper has none of that method, or reports an average over other classes than ours.
    """
    paper = read_paper().rename(columns={"auroc_mean": "paper", "auroc_std": "paper_std"})
    table = summary.assign(method=summary["model"].str.split().str[0])
    table = table.merge(paper, how="left", on=["dataset", "method", "shots", "category"])
    sizes = {name: set(part.category) for name, part in paper.groupby(["dataset", "shots"])}
    for (dataset, _, shots), part in table.groupby(GROUP[:-1]):
        if set(part.category) != sizes.get((dataset, shots)):
            table.loc[part.index[part.category == AVERAGE], ["paper", "paper_std"]] = float("nan")
    table["difference"] = table["image_AUROC"] - table["paper"]
    table["in_stds"] = table["difference"] / table["paper_std"]
    return table


def make_tables(table: pd.DataFrame) -> list[Table]:
    """Make a table for each data set and number of shots, categories together and models below each other.

    Args:
        table (pd.DataFrame): As :func:`compare` makes it.

    Returns:
        list[Table]: The tables, without columns that would be empty.
    """
    tables = []
    for (dataset, shots), part in table.groupby(["dataset", "shots"], sort=False):
        order = {category: index for index, category in enumerate(dict.fromkeys(part["category"]))}
        ordered = part.sort_values("category", key=lambda each: each.map(order), kind="stable")
        tables.append(_to_table(make_title(dataset, shots), [_cells(row) for _, row in ordered.iterrows()]))
    return tables


def _to_table(title: str, rows: list[dict[str, str]]) -> Table:
    """Make a table of rows of cells by column, without columns that would be empty."""
    header = [name for name in rows[0] if any(row[name] for row in rows)]
    return Table(title, header, [[row[name] for name in header] for row in rows])


def make_tables_of_averages(table: pd.DataFrame) -> list[Table]:
    """Make a table for each data set with several classes: a line for each model, numbers of shots beside each other.

    Args:
        table (pd.DataFrame): As :func:`compare` makes it.

    Returns:
        list[Table]: The tables; an average over fewer classes than others have says over how many.
    """
    tables = []
    for dataset, part in table[table["category"] == AVERAGE].groupby("dataset", sort=False):
        shots = sorted(part["shots"].unique())
        header = ["model", *(cell for number in shots for cell in (_name_shots(number), "published"))]
        lines = []
        for model, of_model in part.groupby("model", sort=False):
            by_shots = {row["shots"]: row for _, row in of_model.iterrows()}
            cells = [_average_cells(by_shots.get(number), part["classes"].max()) for number in shots]
            lines.append([str(model), *(cell for pair in cells for cell in pair)])
        tables.append(Table(f"{dataset}, mean over classes", header, lines))
    return tables


def make_tables_of_pages(table: pd.DataFrame) -> list[Table]:
    """Make the tables that pages have beside those of the report.

    Args:
        table (pd.DataFrame): As :func:`compare` makes it.

    Returns:
        list[Table]: "Side by side", every model, number of shots and class below each other; "<data set>, by class" of
        each data set with several; "At a glance", our settings, PatchCore and the paper, a line for each class, or for
        each data set of whole images.
    """
    numbers_of_shots = sorted(table["shots"].unique())
    classes = table[table["category"] != AVERAGE].sort_values(["dataset", "category", "shots"], kind="stable")
    side_by_side = [
        {"class": row["category"], "shots": str(row["shots"])} | _without_times(_cells(row))
        for _, row in classes.iterrows()
    ]
    tables = [_to_table("Side by side", side_by_side)] if side_by_side else []
    for dataset in table.loc[table["category"] == AVERAGE, "dataset"].unique():
        of_dataset = table[table["dataset"] == dataset]
        lines = [
            {"class": str(category), **_compare_methods(part, numbers_of_shots), **_trivial(part)}
            for category, part in of_dataset.groupby("category", sort=False)
        ]
        tables.append(_to_table(f"{dataset}, by class", lines))
    is_whole = table["dataset"].isin(CLASSES)  # of images that are anomalous as a whole; their classes are many
    shown = table[((table["category"] == AVERAGE) == is_whole) & table["model"].isin(AT_A_GLANCE)]
    lines = [
        {"": _name_class(str(dataset), str(category))}
        | _compare_methods(part, numbers_of_shots)
        | _judge(part, numbers_of_shots)
        for (_, dataset, category), part in shown.groupby([is_whole, "dataset", "category"])
    ]
    tables += make_tables_of_verdicts(classes)
    return [*tables, _to_table("At a glance", lines)] if lines else tables


def make_tables_of_verdicts(classes: pd.DataFrame) -> list[Table]:
    """Make tables of what thresholds make of good and of defective images that nobody labelled.

    Args:
        classes (pd.DataFrame): As :func:`compare` makes it, without averages.

    Returns:
        list[Table]: "Verdicts, by set", a line for each set, and "Verdicts, mean over sets", of all data sets together,
        a line for each model and number of shots.
    """
    judged = classes.dropna(subset=["false_alarms", "recall"])
    if judged.empty:
        return []
    pairs = sorted({(str(row["model"]), int(row["shots"])) for _, row in judged.iterrows()})
    by_set = []
    for category, part in judged.groupby("category", sort=False):
        rows = {(row["model"], row["shots"]): row for _, row in part.iterrows()}
        cells = {f"{key[0]}, {_name_shots(key[1])}": _verdict(rows.get(key)) for key in pairs}
        by_set.append({"": str(category)} | cells)
    means = [
        {
            "model": str(model),
            "shots": str(shots),
            "sets": str(len(part)),
            "image AUROC": _number(part["image_AUROC"].mean()),
            "false alarms [%]": _number(part["false_alarms"].mean()),
            "defects found [%]": _number(part["recall"].mean()),
        }
        for (model, shots), part in judged.groupby(["model", "shots"])
    ]
    return [_to_table("Verdicts, by set", by_set), _to_table("Verdicts, mean over sets", means)]


def _verdict(row: "pd.Series[Any] | None") -> str:
    """Name AUROC; false alarms / defects found."""
    if row is None:
        return ""
    shares = (_number(row[name], digits=0) for name in ("false_alarms", "recall"))
    return f"{_spread(row, 'image_AUROC')}; {' / '.join(shares)}"


def _without_times(cells: dict[str, str]) -> dict[str, str]:
    """Leave out what a table of its own has, and what can be read off the figures."""
    return {name: cell for name, cell in cells.items() if name not in {"difference", "fit [s]", "test [ms/image]"}}


def _compare_methods(part: pd.DataFrame, shots: list[int]) -> dict[str, str]:
    """Make the cells of a class: for each number of shots, the methods' figures and the paper's of ours."""
    cells = {}
    for number in shots:
        rows = part[(part["shots"] == number) & part["model"].isin(AT_A_GLANCE)]
        by_method = {row["model"].split()[0]: row for _, row in rows.iterrows()}
        for method in dict.fromkeys(model.split()[0] for model in AT_A_GLANCE):
            row = by_method.get(method)
            cells[f"{method}, {_name_shots(number)}"] = "" if row is None else _spread(row, "image_AUROC")
        ours = by_method.get("Htdgm")
        cells[f"paper, {_name_shots(number)}"] = "" if ours is None else _number(ours["paper"], ours["paper_std"])
    return cells


def _judge(part: pd.DataFrame, shots: list[int]) -> dict[str, str]:
    """Make the cells of a class: for each number of shots, what our threshold makes of good and of defective images."""
    cells = {}
    for number in shots:
        rows = part[(part["shots"] == number) & part["model"].str.startswith("Htdgm")]
        for name, metric in (("false alarms", "false_alarms"), ("defects found", "recall")):
            cells[f"{name} [%], {_name_shots(number)}"] = "" if rows.empty else _spread(rows.iloc[0], metric)
    return cells


def _trivial(part: pd.DataFrame) -> dict[str, str]:
    values = part.drop_duplicates("model").set_index("model")["image_AUROC"].reindex(list(TRIVIAL))
    return {str(name).lower(): _number(value) for name, value in values.items()}


def _name_class(dataset: str, category: str) -> str:
    is_only_one = category == AVERAGE or category.lower() == dataset.replace(" ", "").lower()
    return dataset if is_only_one else f"{dataset} {category}"


def _name_shots(number: int) -> str:
    return f"{number} shot{'s' if number != 1 else ''}"


def _average_cells(row: "pd.Series[Any] | None", classes: float) -> tuple[str, str]:
    if row is None:
        return "", ""
    fewer = f" ({row['classes']:.0f} classes)" if row["classes"] < classes else ""
    return _spread(row, "image_AUROC") + fewer, _number(row["paper"], row["paper_std"])


def summarize_fractions(rows: pd.DataFrame) -> pd.DataFrame:
    """Compute means and standard deviations over trials for each fraction of patches, the published ones among them.

    Args:
        rows (pd.DataFrame): Rows of results of models that were tested with several fractions.

    Returns:
        pd.DataFrame: Columns ``category``, ``shots``, ``model``, ``fraction``, ``mean``, ``std`` and ``trials``.
    """
    names = rows["model"].str.extract(f"^{WITH_FRACTION}$")
    ours = rows.assign(model=names[0], fraction=names[1].astype(float))
    groups = ours.groupby(["category", "shots", "model", "fraction"])["image_AUROC"]
    summary = groups.agg(["mean", "std", "size"]).rename(columns={"size": "trials"}).reset_index()
    paper = read_paper_fractions().rename(columns={"auroc_mean": "mean", "auroc_std": "std"})
    shown = paper.merge(summary[["category", "shots"]].drop_duplicates())
    return pd.concat([summary, shown.assign(model="published", trials=10)])[summary.columns]


def make_table_of_fractions(summary: pd.DataFrame) -> Table:
    """Make the table of AUROC by the fraction of patches that the score is over.

    Args:
        summary (pd.DataFrame): As :func:`summarize_fractions` makes it.

    Returns:
        Table: A line for each category, number of shots and model.
    """
    fractions = sorted(summary["fraction"].unique())
    header = ["class", "shots", "model", "trials", *(f"{100 * each:.0f} %" for each in fractions)]
    lines = []
    for (category, shots, model), part in summary.groupby(["category", "shots", "model"]):
        cells = part.set_index("fraction").reindex(fractions)
        values = [_number(row["mean"], row["std"]) for _, row in cells.iterrows()]
        lines.append([str(category), str(shots), str(model), f"{part['trials'].max():.0f}", *values])
    return Table("Fractions of patches", header, lines)


def make_table_of_known_anomalies(rows: pd.DataFrame) -> Table:
    """Make the table of the runs in which some anomalies were known.

    Args:
        rows (pd.DataFrame): Their rows of results.

    Returns:
        Table: A line for each category, numbers of images and model; published figures at the end.
    """
    header = ["class", "normal images", "known anomalies", "model", "trials", "image AUROC", "pixel AUROC", "AUPRO"]
    header += ["F1 (best)", "fit [s]", "test [ms/image]"]
    groups = rows.assign(shots=rows["shots"].astype(str)).groupby(["category", "shots", "known_anomalies", "model"])
    lines = []
    for (category, shots, known, model), part in groups:
        spreads = [_number(part[metric].mean(), part[metric].std()) for metric in METRICS]
        costs = [_number(part["fit_seconds"].mean()), _number(part["milliseconds_an_image"].mean(), digits=0)]
        lines.append([str(category), str(shots), f"{known:.0f}", str(model), str(len(part)), *spreads, *costs])
    for model, (image, pixel) in PUBLISHED_WITH_ANOMALIES.items():
        name = f"{model}, published, ResNet-18"
        lines.append(["all of MVTec AD", "", "", name, "", image, pixel, *[""] * (len(header) - 7)])
    return Table("Known anomalies", header, lines)


def _cells(row: "pd.Series[Any]") -> dict[str, str]:
    return {
        "class": row["category"],
        "model": row["model"],
        "trials": str(row["trials"]),
        "image AUROC": _spread(row, "image_AUROC"),
        "published AUROC": _number(row["paper"], row["paper_std"]),
        "difference": "" if pd.isna(row["difference"]) else f"{row['difference']:+.1f} ({row['in_stds']:+.1f} std)",
        "pixel AUROC": _spread(row, "pixel_AUROC"),
        "AUPRO": _spread(row, "pixel_AUPRO"),
        "F1 (best)": _spread(row, "image_F1Max"),
        "false alarms [%]": _spread(row, "false_alarms"),
        "defects found [%]": _spread(row, "recall"),
        "fit [s]": _number(row["fit_seconds"]),
        "test [ms/image]": _number(row["milliseconds_an_image"], digits=0),
        "memory [MB]": _number(row["memory_megabytes"], digits=0),
        "weights [MB]": _number(row["weights_megabytes"]),
        "pretrained": "" if pd.isna(row["pretrained"]) else "yes" if row["pretrained"] else "no",
    }


def _number(mean: float, std: float = float("nan"), digits: int = 1) -> str:
    if pd.isna(mean):
        return ""
    return f"{mean:.{digits}f}" if pd.isna(std) else f"{mean:.{digits}f} ± {std:.{digits}f}"


def _spread(row: Values, metric: str) -> str:
    return _number(row[metric], row[f"{metric}_std"])


def to_markdown(tables: list[Table]) -> str:
    """Write tables as Markdown."""
    return "\n".join(f"\n### {table.title}\n\n{to_lines(table)}" for table in tables) + "\n"


def to_lines(table: Table) -> str:
    """Write the lines of one table as Markdown."""
    rows = [table.header, ["---"] * len(table.header), *table.rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def to_html(tables: list[Table], pictures: dict[str, Path]) -> str:
    """Write tables and pictures as one page that needs no other file.

    Args:
        tables (list[Table]): The tables.
        pictures (dict[str, Path]): PNG files by caption.

    Returns:
        str: The page.
    """
    parts = [f"<title>Benchmarks of anomalib-htdgm</title><style>{STYLE}</style><h1>Benchmarks of anomalib-htdgm</h1>"]
    parts.append(f"<p>{escape(LEGEND)}</p>")
    for table in tables:
        rows = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in table.rows]
        header = "".join(f"<th>{escape(name)}</th>" for name in table.header)
        body = "".join(f"<tr>{row}</tr>\n" for row in rows)
        parts.append(f"<h2>{escape(table.title)}</h2>\n<table><tr>{header}</tr>\n{body}</table>")
    for caption, path in pictures.items():
        data = base64.b64encode(path.read_bytes()).decode()
        source = f'<img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
        parts.append(f"<figure><h2>{escape(caption)}</h2>{source}</figure>")
    return '<!DOCTYPE html><html lang="en"><meta charset="utf-8">' + "\n".join(parts) + "</html>\n"


def draw(rows: pd.DataFrame, table: pd.DataFrame, directory: Path) -> dict[str, Path]:
    """Draw all pictures.

    Args:
        rows (pd.DataFrame): Rows of results.
        table (pd.DataFrame): As :func:`compare` makes it.
        directory (Path): Where to write them.

    Returns:
        dict[str, Path]: The files by caption.
    """
    names = {"Image AUROC against shots": "shots", "Image AUROC against seconds to fit": "seconds"}
    pictures = {caption: directory / f"auroc_{name}.png" for caption, name in names.items()}
    for (caption, path), column in zip(pictures.items(), ("shots", "fit_seconds"), strict=True):
        draw_against(table, column, caption.split(" against ")[1], path)
    pictures["Image AUROC of each class"] = directory / "auroc_classes.png"
    draw_classes(table, pictures["Image AUROC of each class"])
    if (table["category"] == AVERAGE).any():
        pictures["Image AUROC, mean over classes"] = directory / "auroc_averages.png"
        draw_averages(table[table["category"] == AVERAGE], pictures["Image AUROC, mean over classes"])
    for (folder, shots), part in rows[rows["trial"] == 0].groupby(["maps", "shots"]):
        caption = make_title("Anomaly maps", shots)
        path = directory / f"maps_{Path(str(folder)).name.split('.')[0]}_{shots}shot.png"
        if draw_heat_maps(part, Path(str(folder)), path):
            pictures[f"{caption} ({Path(str(folder)).stem})"] = path
    return pictures


def write_report(paths: list[Path], directory: Path) -> str:
    """Write tables, pictures and page.

    Args:
        paths (list[Path]): CSV files of ``run.py``.
        directory (Path): Where to write them.

    Returns:
        str: The tables as Markdown.
    """
    return to_markdown(write_tables(read_results(paths), directory))


def write_tables(rows: pd.DataFrame, directory: Path) -> list[Table]:
    """Write tables, pictures and page of rows of results.

    Args:
        rows (pd.DataFrame): The rows.
        directory (Path): Where to write them.

    Returns:
        list[Table]: The tables.
    """
    plt.switch_backend("agg")
    knows_anomalies = rows["known_anomalies"] > 0
    is_usual = _is_usual(rows)
    directory.mkdir(parents=True, exist_ok=True)
    tables: list[Table] = []
    pictures: dict[str, Path] = {}
    has_fraction = rows["model"].str.fullmatch(WITH_FRACTION)
    if is_usual.any():
        usual = rows[is_usual].astype({"shots": int})
        table = compare(summarize(usual))
        tables = make_tables_of_averages(table) + make_tables(table)
        pictures = draw(usual, table, directory)
    if has_fraction.any():
        fractions = summarize_fractions(rows[has_fraction].astype({"shots": int}))
        tables.append(make_table_of_fractions(fractions))
        pictures["Image AUROC against the fraction of patches"] = directory / "auroc_fractions.png"
        draw_fractions(fractions, pictures["Image AUROC against the fraction of patches"])
    if knows_anomalies.any():
        tables.append(make_table_of_known_anomalies(rows[knows_anomalies]))
    (directory / "tables.md").write_text(to_markdown(tables))
    (directory / "index.html").write_text(to_html(tables, pictures))
    return tables


def _is_usual(rows: pd.DataFrame) -> "pd.Series[bool]":
    """Tell rows of models that know good images only, tested in one way; others have tables of their own."""
    return ~(rows["known_anomalies"] > 0) & ~rows["model"].str.fullmatch(WITH_FRACTION)


def write_into(page: Path, marker: str, tables: list[Table]) -> None:
    """Write tables into a page, in place of what is between two comments.

    Args:
        page (Path): The page, in Markdown.
        marker (str): They are between ``<!-- marker -->`` and ``<!-- end of marker -->``.
        tables (list[Table]): The tables; several have their titles above them.

    Raises:
        ValueError: If there is no such place, or no table to write.
    """
    if not tables:
        msg = "title: no table has such a title; the report lists them all"
        raise ValueError(msg)
    parts = [(f"**{table.title}**\n\n" if len(tables) > 1 else "") + to_lines(table) for table in tables]
    _write_between(page, marker, "\n\n".join(parts))


def write_printed_into(page: Path, marker: str, printed: Path) -> None:
    """Write a table that another program has printed into a page.

    Args:
        page (Path): The page, in Markdown.
        marker (str): As :func:`write_into` has it.
        printed (Path): What the program has printed, a table in Markdown among it.

    Raises:
        ValueError: If there is no such place, or no table in the file.
    """
    lines = [line for line in printed.read_text().splitlines() if line.startswith("|")]
    if not lines:
        msg = f"results: {printed} has no table"
        raise ValueError(msg)
    _write_between(page, marker, "\n".join(lines))


def _write_between(page: Path, marker: str, text: str) -> None:
    before, begin, rest = page.read_text().partition(f"<!-- {marker} -->\n")
    _, end, after = rest.partition(f"<!-- end of {marker} -->")
    if not begin or not end:
        msg = f"into: {page} has no place between '<!-- {marker} -->' and '<!-- end of {marker} -->'"
        raise ValueError(msg)
    page.write_text(f"{before}{begin}{text}\n{end}{after}")


def main() -> None:
    """Write the report of the command line's files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    results = "CSV files of run.py, or of anomalib benchmark; or a table in Markdown (.md) to write into a page"
    parser.add_argument("results", type=Path, nargs="+", help=results)
    parser.add_argument("--output", type=Path, default=Path("report"), help="directory for tables, pictures and page")
    parser.add_argument("--models", default="", help="regular expression: report on models with such names only")
    parser.add_argument("--shots", nargs="+", help="report on these numbers of shots only")
    parser.add_argument("--into", nargs=2, metavar=("PAGE", "MARKER"), help="page to write tables into, and where")
    parser.add_argument("--title", default="", help="write only tables with this in their title into the page")
    options = parser.parse_args()
    if options.into and options.results[0].suffix == ".md":
        write_printed_into(Path(options.into[0]), options.into[1], options.results[0])
        return
    rows = read_results(options.results)
    rows = rows[rows["model"].str.contains(options.models)]
    rows = rows[rows["shots"].astype(str).isin(options.shots)] if options.shots else rows
    tables = write_tables(rows, options.output)
    print(to_markdown(tables))
    if options.into:
        usual = rows[_is_usual(rows)].astype({"shots": int})
        tables += [] if usual.empty else make_tables_of_pages(compare(summarize(usual)))
        write_into(Path(options.into[0]), options.into[1], [each for each in tables if options.title in each.title])


if __name__ == "__main__":
    main()
