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
from html import escape
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd
from matplotlib import pyplot as plt
from shared.pictures import (
    AVERAGE,
    draw_against_shots,
    draw_averages,
    draw_fractions,
    draw_heat_maps,
    make_title,
    name_shots,
)
from shared.rows import maps_folder

from anomalib_htdgm.data.arrays import CLASSES

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
COMPARED = ("Htdgm", "PatchCore", "paper")
VERDICTS = {"false alarms [%]": "false_alarms", "defects found [%]": "recall"}
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
Text: TypeAlias = "pd.Series[str]"
Tables: TypeAlias = dict[str, pd.DataFrame]
"""Tables of text by title."""


def read_results(paths: list[Path]) -> pd.DataFrame:
    """Read rows of results.

    Args:
        paths (list[Path]): CSV files of ``run.py`` or of ``anomalib benchmark``.

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
    key = rows[["model", "category", "shots", "trial"]].astype(str).agg(" ".join, axis=1)
    return rows.assign(dataset=dataset, key=key)


def _read_paper() -> pd.DataFrame:
    """Read the paper's results, with our names of classes, data sets and columns."""
    paper = pd.read_csv(PAPER).rename(columns={"auroc_mean": "paper", "auroc_std": "paper_std"})
    classes = paper["class"].replace(CLASS_NAMES).str.lower().str.replace("-", "_")
    return paper.assign(category=classes, dataset=paper["dataset"].replace({"PARIS": "Paris"}))


def _average(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Compute means and standard deviations of groups of rows, columns ``<metric>`` and ``<metric>_std``."""
    groups = rows.groupby(by)
    means = groups[[*METRICS, *COSTS]].mean().join(groups[METRICS].std().add_suffix("_std"))
    return means.assign(trials=groups.size()).reset_index()


def summarize(rows: pd.DataFrame) -> pd.DataFrame:
    """Compute means and standard deviations over trials, and averages over classes.

    Args:
        rows (pd.DataFrame): Rows of results.

    Returns:
        pd.DataFrame: One row for each data set, model, number of shots and category, with the number of trials, whether
        the model has pretrained weights, and columns ``<metric>`` and ``<metric>_std``; an average has the number of
        ``classes``.
    """
    summary = _average(rows, GROUP).sort_values(by=GROUP, key=_order, ignore_index=True)
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
    """Put the published cells beside ours.

    Args:
        summary (pd.DataFrame): As :func:`summarize` makes it.

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


def make_tables(table: pd.DataFrame) -> Tables:
    """Make a table for each data set and number of shots, categories together and models below each other.

    Args:
        table (pd.DataFrame): As :func:`compare` makes it.

    Returns:
        Tables: The tables, without columns that would be empty.
    """
    tables = {}
    for (dataset, shots), part in table.groupby(["dataset", "shots"], sort=False):
        by_category = part.sort_values("category", key=lambda each: pd.factorize(each)[0], kind="stable")
        tables[make_title(dataset, shots)] = _without_empty(_cells(by_category))
    return tables


def make_tables_of_averages(table: pd.DataFrame) -> Tables:
    """Make a table for each data set with several classes: a line for each model, numbers of shots beside each other.

    Args:
        table (pd.DataFrame): As :func:`compare` makes it.

    Returns:
        Tables: The tables; an average over fewer classes than others have says over how many.
    """
    tables = {}
    for dataset, part in table[table["category"] == AVERAGE].groupby("dataset", sort=False):
        classes, most = part["classes"], part["classes"].max()
        fewer = ("" if number == most else f" ({number:.0f} classes)" for number in classes)
        cells = part[["model", "shots"]].assign(ours=_spread(part, "image_AUROC") + list(fewer))
        wide = (
            cells.assign(paper=_spread(part, "paper"))
            .pivot_table(index="model", columns="shots", aggfunc="last")
            .fillna("")
        )
        shots = sorted(part["shots"].unique())
        wide = wide[[(name, number) for number in shots for name in ("ours", "paper")]]
        wide.columns = pd.Index([name for number in shots for name in (name_shots(number), "published")])
        tables[f"{dataset}, mean over classes"] = wide.reset_index()
    return tables


def make_tables_of_pages(table: pd.DataFrame) -> Tables:
    """Make the tables that pages have beside those of the report.

    Args:
        table (pd.DataFrame): As :func:`compare` makes it.

    Returns:
        Tables: "Side by side", every model, number of shots and class below each other; "<data set>, by class" of each
        data set with several; "Verdicts", what thresholds make of images; "At a glance", our settings, PatchCore and
        the paper, a line for each class, or for each data set of whole images.
    """
    is_average = table["category"] == AVERAGE
    classes = table[~is_average].sort_values(["dataset", "category", "shots"], kind="stable")
    side_by_side = _cells(classes)
    side_by_side.insert(1, "shots", classes["shots"].astype(str))
    # What a table of its own has, and what can be read off the figures.
    side_by_side = side_by_side.drop(columns=["difference", "fit [s]", "test [ms/image]"])
    tables = {"Side by side": _without_empty(side_by_side)}

    for dataset in table.loc[is_average, "dataset"].unique():
        part = table[table["dataset"] == dataset]
        wide = _stand_beside(part, "category")
        trivial = part[part["model"].isin(TRIVIAL)]
        trivial = trivial.assign(model=trivial["model"].str.lower(), cell=trivial["image_AUROC"].map(_number))
        trivial = trivial.pivot_table(index="category", columns="model", values="cell", aggfunc="first")
        wide = wide.join(trivial).fillna("")
        tables[f"{dataset}, by class"] = _without_empty(wide.rename_axis("class").reset_index())

    tables |= make_tables_of_verdicts(classes)
    is_whole = table["dataset"].isin(CLASSES)  # of images that are anomalous as a whole; their classes are many
    shown = table[(is_average == is_whole) & table["model"].isin(AT_A_GLANCE)]
    if not shown.empty:
        shown = shown.assign(is_whole=is_whole, name=[*map(_name_class, shown["dataset"], shown["category"])])
        shown = shown.sort_values(["is_whole", "dataset", "category"], kind="stable")
        wide = _stand_beside(shown, "name")
        tables["At a glance"] = _without_empty(wide.rename_axis("").reset_index())
    return tables


def _name_class(dataset: str, category: str) -> str:
    is_only_one = category.lower() in {AVERAGE, dataset.replace(" ", "").lower()}
    return dataset if is_only_one else f"{dataset} {category}"


def _stand_beside(table: pd.DataFrame, line: str) -> pd.DataFrame:
    """Put the figures of our settings, PatchCore and the paper beside each other, for each number of shots.

    Args:
        table (pd.DataFrame): As :func:`compare` makes it.
        line (str): Column of the table whose values have a line each.

    Returns:
        pd.DataFrame: A line for each value, in their order; cells that nothing is known of are empty.
    """
    shown = table[table["model"].isin(AT_A_GLANCE)]
    ours = shown[shown["method"] == "Htdgm"]
    parts: list[tuple[pd.DataFrame, Any, str]]
    parts = [(shown, shown["method"], "image_AUROC"), (ours, "paper", "paper")]
    cells = pd.concat(
        [part[[line, "shots"]].assign(figure=name, cell=_spread(part, metric)) for part, name, metric in parts]
    )
    wide = cells.pivot_table(index=line, columns=["shots", "figure"], values="cell", aggfunc="last")
    shots = sorted(table["shots"].unique())
    columns = [(number, name) for number in shots for name in COMPARED]
    wide = wide.reindex(index=table[line].unique(), columns=pd.MultiIndex.from_tuples(columns))
    wide.columns = pd.Index([f"{name}, {name_shots(number)}" for number, name in columns])
    return wide.fillna("")


def make_tables_of_verdicts(classes: pd.DataFrame) -> Tables:
    """Make tables of what thresholds make of good and of defective images that nobody labelled.

    Args:
        classes (pd.DataFrame): As :func:`compare` makes it, without averages.

    Returns:
        Tables: "Verdicts, by set", a line for each set, and "Verdicts, mean over sets", of all data sets together, a
        line for each model and number of shots: means of the sets' means, and of their deviations between draws.
    """
    judged = classes.dropna(subset=["false_alarms", "recall"])
    if judged.empty:
        return {}
    false_alarms, recall = (_spread(judged, name, digits=0) for name in VERDICTS.values())
    cells = judged.assign(cell=_spread(judged, "image_AUROC") + "; " + false_alarms + " / " + recall)
    by_set = cells.pivot_table(index="category", columns=["model", "shots"], values="cell", aggfunc="last")
    by_set = by_set.reindex(judged["category"].unique()).fillna("").rename_axis("")
    by_set.columns = by_set.columns.map(lambda key: f"{key[0]}, {name_shots(key[1])}")
    groups = judged.groupby(["model", "shots"])
    columns = {"image AUROC": "image_AUROC", **VERDICTS}
    means = groups[[each for name in columns.values() for each in (name, f"{name}_std")]].mean()
    means = means.assign(**{title: _spread(means, name) for title, name in columns.items()})[list(columns)]
    means.insert(0, "sets", groups.size())
    return {
        "Verdicts, by set": by_set.reset_index(),
        "Verdicts, mean over sets": means.reset_index().astype(str),
    }


def summarize_fractions(rows: pd.DataFrame) -> pd.DataFrame:
    """Compute means and standard deviations over trials for each fraction of patches, the published ones among them.

    Args:
        rows (pd.DataFrame): Rows of results of models that were tested with several fractions.

    Returns:
        pd.DataFrame: Columns ``category``, ``shots``, ``model``, ``fraction``, ``image_AUROC``, ``image_AUROC_std`` and
        ``trials``.
    """
    names = rows["model"].str.extract(f"^{WITH_FRACTION}$")
    ours = rows.assign(model=names[0], fraction=names[1].astype(float))
    summary = _average(ours, ["category", "shots", "model", "fraction"])
    paper = _read_paper().rename(columns={"paper": "image_AUROC", "paper_std": "image_AUROC_std"})
    paper = paper[paper["supplement_table"] == OF_FRACTIONS].merge(summary[["category", "shots"]].drop_duplicates())
    paper = paper.assign(fraction=paper["column"].astype(float) / 100, model="published", trials=10)
    columns = ["category", "shots", "model", "fraction", "image_AUROC", "image_AUROC_std", "trials"]
    return pd.concat([summary[columns], paper[columns]], ignore_index=True)


def make_table_of_fractions(summary: pd.DataFrame) -> pd.DataFrame:
    """Make the table of AUROC by the fraction of patches that the score is over.

    Args:
        summary (pd.DataFrame): As :func:`summarize_fractions` makes it.

    Returns:
        pd.DataFrame: A line for each category, number of shots and model.
    """
    line = ["category", "shots", "model"]
    trials = summary.groupby(line)["trials"].transform("max")
    cells = summary[[*line, "fraction"]].assign(trials=trials, cell=_spread(summary, "image_AUROC"))
    wide = cells.pivot_table(index=[*line, "trials"], columns="fraction", values="cell", aggfunc="last").fillna("")
    wide.columns = pd.Index([f"{100 * fraction:.0f} %" for fraction in wide.columns])
    return wide.reset_index().rename(columns={"category": "class"}).astype(str)


def make_table_of_known_anomalies(rows: pd.DataFrame) -> pd.DataFrame:
    """Make the table of the runs in which some anomalies were known.

    Args:
        rows (pd.DataFrame): Their rows of results.

    Returns:
        pd.DataFrame: A line for each category, numbers of images and model; published figures at the end.
    """
    names = {"category": "class", "shots": "normal images", "known_anomalies": "known anomalies", "model": "model"}
    rows = rows.astype({"shots": str, "known_anomalies": int})
    summary = _average(rows, list(names))
    figures = ["image AUROC", "pixel AUROC", "AUPRO", "F1 (best)", "fit [s]", "test [ms/image]"]
    table = summary[[*names, "trials"]].rename(columns=names).join(_figures(summary)[figures])
    published = [
        {
            "class": "all of MVTec AD",
            "model": f"{model}, published, ResNet-18",
            "image AUROC": image,
            "pixel AUROC": pixel,
        }
        for model, (image, pixel) in PUBLISHED_WITH_ANOMALIES.items()
    ]
    return pd.concat([table.astype(str), pd.DataFrame(published)]).fillna("")


def _cells(table: pd.DataFrame) -> pd.DataFrame:
    """Write all that is known of each class, model and number of shots, rows of :func:`compare`."""
    difference = table["image_AUROC"] - table["paper"]
    in_stds = difference / table["paper_std"]
    texts = [f"{each:+.1f} ({stds:+.1f} std)" for each, stds in zip(difference, in_stds, strict=True)]
    cells = table[["category", "model", "trials"]].rename(columns={"category": "class"}).astype(str)
    cells = cells.join(_figures(table))
    cells.insert(5, "difference", pd.Series(texts, table.index).where(difference.notna(), ""))
    return cells.assign(pretrained=table["pretrained"].map({True: "yes", False: "no"}).fillna(""))


def _figures(table: pd.DataFrame) -> pd.DataFrame:
    """Write what was measured, rows with columns ``<metric>`` and ``<metric>_std``."""
    return pd.DataFrame(
        {
            "image AUROC": _spread(table, "image_AUROC"),
            "published AUROC": _spread(table, "paper"),
            "pixel AUROC": _spread(table, "pixel_AUROC"),
            "AUPRO": _spread(table, "pixel_AUPRO"),
            "F1 (best)": _spread(table, "image_F1Max"),
            **{name: _spread(table, metric) for name, metric in VERDICTS.items()},
            "fit [s]": _spread(table, "fit_seconds"),
            "test [ms/image]": _spread(table, "milliseconds_an_image", digits=0),
            "memory [MB]": _spread(table, "memory_megabytes", digits=0),
            "weights [MB]": _spread(table, "weights_megabytes"),
        }
    )


def _spread(table: pd.DataFrame, metric: str, digits: int = 1) -> Text:
    """Write a metric of each row, with its standard deviation where it has one."""
    figures = table.reindex(columns=[metric, f"{metric}_std"]).itertuples(index=False)
    return pd.Series([_number(mean, std, digits) for mean, std in figures], table.index, dtype=object)


def _number(mean: float, std: float = float("nan"), digits: int = 1) -> str:
    if pd.isna(mean):
        return ""
    return f"{mean:.{digits}f}" if pd.isna(std) else f"{mean:.{digits}f} ± {std:.{digits}f}"


def _without_empty(table: pd.DataFrame) -> pd.DataFrame:
    return table.loc[:, (table != "").any()]


def to_markdown(tables: Tables) -> str:
    """Write tables as Markdown."""
    return "\n".join(f"\n### {title}\n\n{to_lines(table)}" for title, table in tables.items()) + "\n"


def to_lines(table: pd.DataFrame) -> str:
    """Write the lines of one table as Markdown."""
    rows = [table.columns, ["---"] * len(table.columns), *table.to_numpy()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def to_html(tables: Tables, pictures: dict[str, Path]) -> str:
    """Write tables and pictures, PNG files by caption, as one page that needs no other file."""
    parts = [f"<title>Benchmarks of anomalib-htdgm</title><style>{STYLE}</style><h1>Benchmarks of anomalib-htdgm</h1>"]
    parts.append(f"<p>{escape(LEGEND)}</p>")
    parts += [f"<h2>{escape(title)}</h2>\n{table.to_html(index=False, border=0)}" for title, table in tables.items()]
    for caption, path in pictures.items():
        data = base64.b64encode(path.read_bytes()).decode()
        source = f'<img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
        parts.append(f"<figure><h2>{escape(caption)}</h2>{source}</figure>")
    return '<!DOCTYPE html><html lang="en"><meta charset="utf-8">' + "\n".join(parts) + "</html>\n"


def draw(rows: pd.DataFrame, table: pd.DataFrame, directory: Path) -> dict[str, Path]:
    """Draw all pictures of models that know good images only.

    Args:
        rows (pd.DataFrame): Rows of results.
        table (pd.DataFrame): As :func:`compare` makes it.
        directory (Path): Where to write them.

    Returns:
        dict[str, Path]: The files by caption.
    """
    pictures = {"Image AUROC against shots": directory / "auroc_shots.png"}
    draw_against_shots(table, pictures["Image AUROC against shots"])
    if (table["category"] == AVERAGE).any():
        pictures["Image AUROC, mean over classes"] = directory / "auroc_averages.png"
        draw_averages(table[table["category"] == AVERAGE], pictures["Image AUROC, mean over classes"])
    for (name, shots), part in rows[rows["trial"] == 0].groupby(["maps", "shots"]):
        folder = Path(str(name))
        path = directory / f"maps_{folder.name.split('.')[0]}_{shots}shot.png"
        if draw_heat_maps(part, folder, path):
            pictures[f"{make_title('Anomaly maps', shots)} ({folder.stem})"] = path
    return pictures


def write_report(paths: list[Path], directory: Path) -> str:
    """Write tables, pictures and page of CSV files of ``run.py``, and return the tables as Markdown."""
    return to_markdown(write_tables(read_results(paths), directory))


def write_tables(rows: pd.DataFrame, directory: Path) -> Tables:
    """Write tables, pictures and page of rows of results.

    Args:
        rows (pd.DataFrame): The rows.
        directory (Path): Where to write them.

    Returns:
        Tables: The tables.
    """
    plt.switch_backend("agg")
    directory.mkdir(parents=True, exist_ok=True)
    tables: Tables = {}
    pictures: dict[str, Path] = {}
    usual, with_fraction = select_usual(rows), rows[rows["model"].str.fullmatch(WITH_FRACTION)]
    knows_anomalies = rows["known_anomalies"] > 0
    if not usual.empty:
        table = compare(summarize(usual))
        tables |= make_tables_of_averages(table) | make_tables(table)
        pictures |= draw(usual, table, directory)
    if not with_fraction.empty:
        fractions = summarize_fractions(with_fraction.astype({"shots": int}))
        tables["Fractions of patches"] = make_table_of_fractions(fractions)
        caption = "Image AUROC against the fraction of patches"
        pictures[caption] = directory / "auroc_fractions.png"
        draw_fractions(fractions, pictures[caption])
    if knows_anomalies.any():
        tables["Known anomalies"] = make_table_of_known_anomalies(rows[knows_anomalies])
    (directory / "tables.md").write_text(to_markdown(tables))
    (directory / "index.html").write_text(to_html(tables, pictures))
    return tables


def select_usual(rows: pd.DataFrame) -> pd.DataFrame:
    """Select rows of models that know good images only, tested in one way; others have tables of their own."""
    is_usual = ~(rows["known_anomalies"] > 0) & ~rows["model"].str.fullmatch(WITH_FRACTION)
    return rows[is_usual].astype({"shots": int})


def write_into(page: Path, marker: str, text: str) -> None:
    """Write text into a page, in place of what is between ``<!-- marker -->`` and ``<!-- end of marker -->``.

    Raises:
        ValueError: If there is no such place, or nothing to write.
    """
    before, begin, rest = page.read_text().partition(f"<!-- {marker} -->\n")
    _, end, after = rest.partition(f"<!-- end of {marker} -->")
    if not begin or not end:
        msg = f"into: {page} has no place between '<!-- {marker} -->' and '<!-- end of {marker} -->'"
        raise ValueError(msg)
    if not text:
        msg = f"into: there is no table for {page}; the report lists all titles"
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
        printed = options.results[0].read_text().splitlines()
        write_into(Path(options.into[0]), options.into[1], "\n".join(line for line in printed if line.startswith("|")))
        return
    rows = read_results(options.results)
    rows = rows[rows["model"].str.contains(options.models)]
    rows = rows[rows["shots"].astype(str).isin(options.shots)] if options.shots else rows
    tables = write_tables(rows, options.output)
    print(to_markdown(tables))
    if options.into:
        usual = select_usual(rows)
        tables |= {} if usual.empty else make_tables_of_pages(compare(summarize(usual)))
        chosen = {title: to_lines(table) for title, table in tables.items() if options.title in title}
        titled = [f"**{title}**\n\n{lines}" for title, lines in chosen.items()]
        write_into(Path(options.into[0]), options.into[1], "\n\n".join(titled if len(titled) > 1 else chosen.values()))


if __name__ == "__main__":
    main()
