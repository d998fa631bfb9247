# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The benchmark report: means over trials, published figures beside their own method, one page without other files."""

import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import report
from PIL import Image
from report import write_report
from shared.results import compare, read_results, select_usual, summarize
from shared.rows import COLUMNS
from shared.tables import make_tables_of_pages

from anomalib_htdgm.data.arrays import CLASSES

AUROC = {"Htdgm": (0.8, 0.9), "PatchCore Lite0": (0.95, 0.99), "DifferNet": (0.9, 0.9)}
MEASURED = {"image_F1Max": 1, "fit_seconds": 1, "test_seconds": 2, "test_images": 4, "memory_megabytes": 1500}


def write_rows(path: Path, *rows: dict[str, object]) -> Path:
    common = {"dataset": "MVTec", "category": "bottle", "shots": 1, "trial": 0, "weights_megabytes": 0.91, **MEASURED}
    keyed = (dict.fromkeys(COLUMNS, "") | {"key": f"run{index}"} | common | row for index, row in enumerate(rows))
    pd.DataFrame(keyed).to_csv(path, index=False)
    return path


@pytest.fixture
def bottle() -> list[dict[str, object]]:
    """Rows of three models on bottle, two trials of one shot; only Htdgm has verdicts."""
    rows: list[dict[str, object]] = []
    for model, values in AUROC.items():
        for trial, value in enumerate(values):
            row = {"key": f"{model}{trial}", "model": model, "trial": trial, "image_AUROC": value}
            verdicts = {"false_alarms": 0.2 + 0.1 * trial, "recall": 1} if model == "Htdgm" else {}
            rows.append({**row, "pretrained": model != "Htdgm", **verdicts})
    return rows


def read_lines(text: str) -> list[list[str]]:
    """Read the cells of all lines of tables."""
    return [[each.strip() for each in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]


def find_lines(text: str, first: str) -> list[list[str]]:
    return [cells for cells in read_lines(text) if cells[0].startswith(first)]


def test_published_figures_stand_beside_their_own_method(bottle: list[dict[str, object]], tmp_path: Path) -> None:
    header, _, *cells = read_lines(write_report([write_rows(tmp_path / "a.csv", *bottle)], tmp_path / "report"))
    table = pd.DataFrame(cells, columns=header).set_index("model")
    assert table.index.to_list() == ["DifferNet", "Htdgm", "PatchCore Lite0"]
    assert table["image AUROC"].to_list() == ["90.0 ± 0.0", "85.0 ± 7.1", "97.0 ± 2.8"]
    assert table["published AUROC"].to_list() == ["98.2 ± 0.4", "85.0 ± 3.7", ""]
    assert table["pretrained"].to_list() == ["yes", "no", "yes"]
    assert set(table["test [ms/image]"]) == {"500"}
    assert "pixel AUROC" not in table


def test_models_stand_in_one_order_in_every_class(bottle: list[dict[str, object]], tmp_path: Path) -> None:
    classes = ["bottle", "cable", "capsule", "carpet", "grid", "leather"]
    rows = [row | {"category": each, "key": f"{row['key']}{each}"} for each in classes for row in bottle]
    text = write_report([write_rows(tmp_path / "classes.csv", *rows)], tmp_path / "report")
    cells = [line[:2] for line in read_lines(text[text.index("### MVTec, 1 shot") :])[2:]]
    assert cells == [[each, model] for each in [*classes, "average"] for model in sorted(AUROC)]


def test_variants_stand_beside_the_papers(tmp_path: Path) -> None:
    rows = [
        {"dataset": "CIFAR10", "category": category, "model": model, "image_AUROC": value, "shots": shots}
        for model, value in (("(a) no generators", 0.6), ("Htdgm in full", 0.7), ("GEOM", 0.5))
        for category in CLASSES["CIFAR10"]
        for shots in (1, 5)
        if (model, shots) != ("GEOM", 5) or category in CLASSES["CIFAR10"][:3]
    ]
    text = write_report([write_rows(tmp_path / "table1.csv", *rows)], tmp_path / "report")
    table = text[text.index("mean over classes") : text.index("### CIFAR10, 1 shot")]
    assert find_lines(table, "(a)") == [["(a) no generators", "60.0", "60.7 ± 8.5", "60.0", "64.9 ± 4.8"]]
    assert find_lines(table, "Htdgm") == [["Htdgm in full", "70.0", "64.9 ± 5.9", "70.0", "67.5 ± 3.4"]]
    assert find_lines(table, "GEOM") == [["GEOM", "50.0", "57.1 ± 7.3", "50.0 (3 classes)", ""]]


def test_fractions_stand_beside_the_papers(tmp_path: Path) -> None:
    rows = [{"model": f"Htdgm {each}", "image_AUROC": 0.9 - 0.1 * each} for each in (0.01, 0.05, 1.0)]
    text = write_report([write_rows(tmp_path / "figure7.csv", *rows)], tmp_path / "report")
    published = ["75.4 ± 12.6", "85.0 ± 3.7", "76.5 ± 9.0", "82.5 ± 9.0", "81.6 ± 6.3", "67.0 ± 9.4"]
    ours = ["bottle", "1", "Htdgm", "1", "89.9", "89.5", "", "", "", "80.0"]
    assert find_lines(text, "bottle") == [ours, ["bottle", "1", "published", "10", *published]]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["report.py", *map(str, arguments)])
    report.main()


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.md"
    path.write_text("above\n<!-- table -->\nold\n<!-- end of table -->\nbelow\n")
    return path


def test_tables_that_only_pages_have(bottle: list[dict[str, object]], tmp_path: Path) -> None:
    digits = [
        {"dataset": "MNIST", "category": name, "model": model, "image_AUROC": value, "key": model + name}
        for model, value in (("Htdgm grayscale", 0.8), ("Brightness", 0.4), ("GEOM", 0.3))
        for name in CLASSES["MNIST"]
    ]
    ten = [row | {"shots": 10, "key": f"{row['key']}ten"} for row in bottle]
    rows = select_usual(read_results([write_rows(tmp_path / "a.csv", *bottle, *ten, *digits)]))
    tables = make_tables_of_pages(compare(summarize(rows)))

    of_bottle, of_digits = tables["At a glance"].to_dict("records")
    cells = ["85.0 ± 7.1", "97.0 ± 2.8", "85.0 ± 3.7", "85.0 ± 7.1", "97.0 ± 2.8", "90.5 ± 3.1"]
    columns = [f"{name}, {shots}" for shots in ("1 shot", "10 shots") for name in ("Htdgm", "PatchCore", "paper")]
    assert of_bottle == dict(zip(["", *columns], ["MVTec bottle", *cells], strict=True))
    assert (of_digits[""], of_digits["Htdgm, 1 shot"], of_digits["paper, 1 shot"]) == ("MNIST", "80.0", "79.3 ± 5.6")
    assert tables["Verdicts, by set"]["Htdgm, 10 shots"].to_list() == ["85.0 ± 7.1; 25 ± 7 / 100 ± 0"]
    mean = tables["Verdicts, mean over sets"].to_numpy()[1].tolist()
    assert mean == ["Htdgm", "10", "1", "85.0 ± 7.1", "25.0 ± 7.1", "100.0 ± 0.0"]
    zero, *_, average = tables["MNIST, by class"].to_dict("records")
    assert zero == {"class": "zero", "Htdgm, 1 shot": "80.0", "paper, 1 shot": "75.2 ± 5.8", "brightness": "40.0"}
    assert average["brightness"] == "40.0"


def test_what_the_command_line_asks_for_is_written_into_a_page(
    bottle: list[dict[str, object]], page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ten = [row | {"shots": 10, "key": f"{row['key']}ten"} for row in bottle]
    results = write_rows(page.with_name("a.csv"), *bottle, *ten)
    chosen = ["--title", "Side by side", "--shots", "10", "--models", "Lite0"]
    run(monkeypatch, results, "--output", page.with_name("report"), "--into", page, "table", *chosen)
    header = ("class", "shots", "model", "trials", "image AUROC", "F1 (best)", "memory [MB]", "weights [MB]")
    cells = ("bottle", "10", "PatchCore Lite0", "2", "97.0 ± 2.8", "100.0 ± 0.0", "1500", "0.9")
    rule = ["---"] * 9
    assert read_lines(page.read_text()) == [[*header, "pretrained"], rule, [*cells, "yes"]]


def test_only_the_place_of_a_table_is_written(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = page.with_name("speed.md")
    printed.write_text("| model | fit [s] |\n| --- | --- |\n| Htdgm | 3.2 |\n\nHtdgm in bfloat16\n")
    run(monkeypatch, printed, "--into", page, "table")
    text = page.read_text()
    assert read_lines(text) == [["model", "fit [s]"], ["---", "---"], ["Htdgm", "3.2"]]
    assert text.startswith("above\n<!-- table -->\n| model |")
    assert text.endswith("| 3.2 |\n<!-- end of table -->\nbelow\n")
    with pytest.raises(ValueError, match="has no place between '<!-- elsewhere -->'"):
        run(monkeypatch, printed, "--into", page, "elsewhere")
    printed.write_text("no table\n")
    with pytest.raises(ValueError, match="into: there is no table for"):
        run(monkeypatch, printed, "--into", page, "table")
    assert page.read_text() == text


def test_the_page_needs_no_other_file(bottle: list[dict[str, object]], tmp_path: Path) -> None:
    image, maps = tmp_path / "image.png", tmp_path / "a.csv.maps"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(image)
    maps.mkdir()
    kept = {"maps": np.random.default_rng(0).random((1, 8, 8)), "masks": np.ones((1, 8, 8), bool)}
    for model in AUROC:
        np.savez(maps / f"{model}0.npz", paths=[str(image)], **kept)
    write_report([write_rows(tmp_path / "a.csv", *bottle)], tmp_path / "report")
    page = (tmp_path / "report" / "index.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]{20})', page)
    assert len(sources) == 2  # one of AUROC, one of anomaly maps
    assert set(sources) == {"data:image/png;base6"}
    assert "85.0 ± 7.1" in page


def test_runs_with_known_anomalies_have_a_table_of_their_own(bottle: list[dict[str, object]], tmp_path: Path) -> None:
    results = write_rows(tmp_path / "a.csv", *bottle)
    known = [row | {"known_anomalies": 10, "shots": "all", "key": f"{row['key']}known"} for row in bottle]
    usual = write_report([results], tmp_path / "report")
    both = write_report([results, write_rows(tmp_path / "known.csv", *known)], tmp_path / "report")
    assert both.startswith(usual.rstrip("\n"))
    assert "| bottle | all | 10 | Htdgm | 2 | 85.0 ± 7.1 |" in both
    assert "DevNet, published, ResNet-18" in both
    assert "bottle | all" not in usual


def test_results_of_anomalib_benchmark_are_joined(bottle: list[dict[str, object]], tmp_path: Path) -> None:
    rows = pd.DataFrame({"data.init_args.seed": [0, 1], "image_AUROC": [0.5, 0.6]})
    rows = rows.assign(**{"model.class_path": "Padim", "data.init_args.k_shot": 1, "fit_duration": 3.0})
    data = "data.init_args.datamodule."
    rows = rows.assign(**{f"{data}class_path": "MVTecAD", f"{data}init_args.category": "bottle"})
    rows.to_csv(tmp_path / "anomalib.csv", index=False)
    results = write_rows(tmp_path / "a.csv", *bottle)
    text = write_report([results, tmp_path / "anomalib.csv"], tmp_path / "report")
    assert "### MVTecAD by anomalib benchmark, 1 shot" in text
    assert "| bottle | Padim | 2 | 55.0 ± 7.1 |" in text
