# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Tables of results as text, by title."""

from typing import TypeAlias

import pandas as pd
from shared.pictures import AVERAGE, make_title, name_shots
from shared.results import average

from anomalib_htdgm.data.arrays import CLASSES

Text: TypeAlias = "pd.Series[str]"
Tables: TypeAlias = dict[str, pd.DataFrame]
"""Tables of text by title."""
# What is compared at a glance: our settings, one for each kind of images, and the PatchCore that all images were given.
AT_A_GLANCE = ("Htdgm", "Htdgm symmetries", "Htdgm grayscale", "PatchCore Lite0")
COMPARED = ("Htdgm", "PatchCore", "paper")
VERDICTS = {"false alarms [%]": "false_alarms", "defects found [%]": "recall"}
TRIVIAL = ("Brightness", "Contrast")
# Detection and segmentation AUROC of all of MVTec AD, as the paper's page at HyperAI has them. Ours is over all pixels
# of all test images; by the authors' code theirs is each anomalous image's own, averaged.
PUBLISHED_WITH_ANOMALIES = [
    {"class": "all of MVTec AD", "model": f"{model}, published, ResNet-18", "image AUROC": image, "pixel AUROC": pixel}
    for model, image, pixel in (("DevNet", "94.5", "91.8 (mean over images)"), ("FLOS", "93.9", ""))
]
# Metrics and digits by title.
FIGURES = {
    "image AUROC": ("image_AUROC", 1),
    "published AUROC": ("paper", 1),
    "pixel AUROC": ("pixel_AUROC", 1),
    "AUPRO": ("pixel_AUPRO", 1),
    "F1 (best)": ("image_F1Max", 1),
    **{title: (metric, 1) for title, metric in VERDICTS.items()},
    "fit [s]": ("fit_seconds", 1),
    "test [ms/image]": ("milliseconds_an_image", 0),
    "memory [MB]": ("memory_megabytes", 0),
    "weights [MB]": ("weights_megabytes", 1),
}


def make_tables(table: pd.DataFrame) -> Tables:
    """Make a table for each data set and number of shots, of rows of :func:`compare`: a line for a class and model."""
    tables = {}
    for (dataset, shots), part in table.groupby(["dataset", "shots"], sort=False):
        by_category = part.sort_values("category", key=lambda each: pd.factorize(each)[0], kind="stable")
        tables[make_title(dataset, shots)] = _without_empty(_cells(by_category))
    return tables


def make_tables_of_averages(table: pd.DataFrame) -> Tables:
    """Make a table for each data set with several classes, of rows of :func:`compare`.

    It has a line for each model, and numbers of shots beside each other. An average over fewer classes than others says
    over how many.
    """
    tables = {}
    for dataset, part in table[table["category"] == AVERAGE].groupby("dataset", sort=False):
        most = part["classes"].max()
        fewer = ["" if number == most else f" ({number:.0f} classes)" for number in part["classes"]]
        cells = {"ours": _spread(part, "image_AUROC") + fewer, "paper": _spread(part, "paper")}
        wide = part[["model", "shots"]].assign(**cells)
        wide = wide.pivot_table(index="model", columns="shots", aggfunc="last").fillna("")
        shots = sorted(part["shots"].unique())
        wide = wide[[(name, number) for number in shots for name in ("ours", "paper")]]
        wide.columns = pd.Index([name for number in shots for name in (name_shots(number), "published")])
        tables[f"{dataset}, mean over classes"] = wide.reset_index()
    return tables


def make_tables_of_pages(table: pd.DataFrame) -> Tables:
    """Make the tables that pages have beside those of the report, of rows of :func:`compare`.

    Returns:
        Tables: "Side by side", every model, number of shots and class below each other; "<data set>, by class" of each
        data set with several; those of :func:`make_tables_of_verdicts`; "At a glance", our settings, PatchCore and the
        paper, a line for each class, or for each data set of whole images.
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
        trivial = part[part["model"].isin(TRIVIAL)]
        trivial = trivial.assign(model=trivial["model"].str.lower(), cell=trivial["image_AUROC"].map(_number))
        trivial = trivial.pivot_table(index="category", columns="model", values="cell", aggfunc="first")
        wide = _stand_beside(part, "category").join(trivial).fillna("")
        tables[f"{dataset}, by class"] = _without_empty(wide.rename_axis("class").reset_index())
    tables |= make_tables_of_verdicts(classes)
    is_whole = table["dataset"].isin(CLASSES)  # of images that are anomalous as a whole; their classes are many
    shown = table[(is_average == is_whole) & table["model"].isin(AT_A_GLANCE)]
    if not shown.empty:
        shown = shown.assign(is_whole=is_whole, name=[*map(_name_class, shown["dataset"], shown["category"])])
        shown = shown.sort_values(["is_whole", "dataset", "category"], kind="stable")
        tables["At a glance"] = _without_empty(_stand_beside(shown, "name").rename_axis("").reset_index())
    return tables


def _name_class(dataset: str, category: str) -> str:
    is_only_one = category.lower() in {AVERAGE, dataset.replace(" ", "").lower()}
    return dataset if is_only_one else f"{dataset} {category}"


def _stand_beside(table: pd.DataFrame, line: str) -> pd.DataFrame:
    """Put our settings, PatchCore and the paper beside each other for each number of shots, by values of ``line``."""
    shown = table[table["model"].isin(AT_A_GLANCE)]
    ours = shown[shown["method"] == "Htdgm"]
    cells = pd.concat(
        [
            shown[[line, "shots"]].assign(figure=shown["method"], cell=_spread(shown, "image_AUROC")),
            ours[[line, "shots"]].assign(figure="paper", cell=_spread(ours, "paper")),
        ]
    )
    wide = cells.pivot_table(index=line, columns=["shots", "figure"], values="cell", aggfunc="last")
    columns = pd.MultiIndex.from_product([sorted(table["shots"].unique()), COMPARED])
    wide = wide.reindex(index=table[line].unique(), columns=columns)
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


def make_table_of_fractions(summary: pd.DataFrame) -> pd.DataFrame:
    """Make the table of AUROC by the fraction of patches that the score is over, of :func:`summarize_fractions`."""
    line = ["category", "shots", "model"]
    trials = summary.groupby(line)["trials"].transform("max")
    cells = summary[[*line, "fraction"]].assign(trials=trials, cell=_spread(summary, "image_AUROC"))
    wide = cells.pivot_table(index=[*line, "trials"], columns="fraction", values="cell", aggfunc="last").fillna("")
    wide.columns = pd.Index([f"{100 * fraction:.0f} %" for fraction in wide.columns])
    return wide.reset_index().rename(columns={"category": "class"}).astype(str)


def make_table_of_known_anomalies(rows: pd.DataFrame) -> pd.DataFrame:
    """Make the table of rows of results with known anomalies: by class, numbers of images and model; then published."""
    names = {"category": "class", "shots": "normal images", "known_anomalies": "known anomalies", "model": "model"}
    summary = average(rows.astype({"shots": str, "known_anomalies": int}), list(names))
    figures = ["image AUROC", "pixel AUROC", "AUPRO", "F1 (best)", "fit [s]", "test [ms/image]"]
    table = summary[[*names, "trials"]].rename(columns=names).join(_figures(summary)[figures])
    return pd.concat([table.astype(str), pd.DataFrame(PUBLISHED_WITH_ANOMALIES)]).fillna("")


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
    return pd.DataFrame({title: _spread(table, metric, digits) for title, (metric, digits) in FIGURES.items()})


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
