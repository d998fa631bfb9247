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
from report import read_results, to_lines, write_into, write_report, write_tables
from shared.rows import COLUMNS

AUROC = {"Htdgm": (0.8, 0.9), "PatchCore": (0.95, 0.99), "DifferNet": (0.9, 0.9)}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Rows of three models on bottle, two trials of one shot, with anomaly maps of the first."""
    path = tmp_path / "results.csv"
    rows = []
    for model, values in AUROC.items():
        for trial, value in enumerate(values):
            key = f"{model}{trial}"
            row = dict.fromkeys(COLUMNS, "") | {"key": key, "dataset": "MVTec", "category": "bottle", "model": model}
            row |= {"shots": "1", "trial": str(trial), "image_AUROC": str(value), "image_F1Max": "1"}
            row |= {"fit_seconds": "1", "test_seconds": "2", "test_images": "4", "pretrained": str(model != "Htdgm")}
            rows.append(row | {"memory_megabytes": "1500", "weights_megabytes": "0.91"})
    pd.DataFrame(rows).to_csv(path, index=False)
    image = tmp_path / "image.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(image)
    (tmp_path / "results.csv.maps").mkdir()
    for model in AUROC:
        maps = tmp_path / "results.csv.maps" / f"{model}0.npz"
        np.savez(
            maps, paths=[str(image)], maps=np.random.default_rng(0).random((1, 8, 8)), masks=np.ones((1, 8, 8), bool)
        )
    return path


def read_lines(text: str) -> list[list[str]]:
    """Read the cells of all lines of tables."""
    return [[each.strip() for each in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]


def test_published_figures_stand_beside_their_own_method(results: Path, tmp_path: Path) -> None:
    header, _, *cells = read_lines(write_report([results], tmp_path / "report"))
    table = pd.DataFrame(cells, columns=header).set_index("model")
    assert table["image AUROC"].to_list() == ["90.0 ± 0.0", "85.0 ± 7.1", "97.0 ± 2.8"]
    assert table["published AUROC"].to_dict() == {"Htdgm": "85.0 ± 3.7", "PatchCore": "", "DifferNet": "98.2 ± 0.4"}
    assert table["pretrained"].to_dict() == {"Htdgm": "no", "PatchCore": "yes", "DifferNet": "yes"}
    assert set(table["test [ms/image]"]) == {"500"}
    assert "pixel AUROC" not in table


def test_models_stand_in_one_order_in_every_class(results: Path, tmp_path: Path) -> None:
    rows = pd.read_csv(results)
    classes = ["bottle", "cable", "capsule", "carpet", "grid", "leather"]
    path = tmp_path / "classes.csv"
    pd.concat([rows.assign(category=each, key=rows["key"] + each) for each in classes]).to_csv(path, index=False)
    text = write_report([path], tmp_path / "report")
    cells = [line[:2] for line in read_lines(text[text.index("### MVTec, 1 shot") :])[2:]]
    assert cells == [[each, model] for each in [*classes, "average"] for model in sorted(AUROC)]


def test_tables_are_written_into_the_place_of_a_page(results: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- side by side -->\nold\n<!-- end of side by side -->\nbelow\n")
    (table,) = write_tables(read_results([results]), tmp_path / "report").values()
    write_into(page, "side by side", to_lines(table))
    text = page.read_text()
    assert text.startswith("above\n<!-- side by side -->\n| class | model |")
    assert text.endswith(" |\n<!-- end of side by side -->\nbelow\n")
    assert "| bottle | Htdgm | 2 | 85.0 ± 7.1 | 85.0 ± 3.7 |" in text
    assert "old" not in text
    with pytest.raises(ValueError, match="has no place between '<!-- elsewhere -->'"):
        write_into(page, "elsewhere", "new")
    with pytest.raises(ValueError, match="into: there is no table for"):
        write_into(page, "side by side", "")
    assert page.read_text() == text


def read_table(page: Path) -> dict[str, dict[str, str]]:
    """Read the table of a page, lines by their first cells."""
    header, _, *rows = read_lines(page.read_text())
    assert all(len(row) == len(header) for row in rows)
    return {row[0]: dict(zip(header, row, strict=True)) for row in rows}


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.md"
    path.write_text("<!-- table -->\n<!-- end of table -->\n")
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["report.py", *map(str, arguments)])
    report.main()


def test_tables_that_only_pages_have(
    results: Path, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bottle = pd.read_csv(results).replace({"model": {"PatchCore": "PatchCore Lite0"}})
    is_ours = bottle["model"] == "Htdgm"
    bottle.loc[is_ours, "false_alarms"] = [0.2, 0.3]
    bottle.loc[is_ours, "recall"] = 1
    digits = [
        bottle.iloc[:1]
        .drop(columns=["false_alarms", "recall"])
        .assign(dataset="MNIST", category=name, model=model, image_AUROC=value, key=model + name)
        for model, value in (("Htdgm grayscale", 0.8), ("Brightness", 0.4), ("GEOM", 0.3))
        for name in ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    ]
    rows = pd.concat([bottle, bottle.assign(shots=10, key=bottle["key"] + "ten"), *digits])
    rows.to_csv(results, index=False)
    into = [results, "--output", tmp_path / "report", "--into", page, "table", "--title"]

    run(monkeypatch, *into, "At a glance")
    table = read_table(page)
    assert list(table) == ["MVTec bottle", "MNIST"]
    bottle = ["85.0 ± 7.1", "97.0 ± 2.8", "85.0 ± 3.7", "85.0 ± 7.1", "97.0 ± 2.8", "90.5 ± 3.1"]
    columns = [f"{name}, {shots}" for shots in ("1 shot", "10 shots") for name in ("Htdgm", "PatchCore", "paper")]
    assert table["MVTec bottle"] == dict(zip(["", *columns], ["MVTec bottle", *bottle], strict=True))
    assert table["MNIST"]["Htdgm, 1 shot"] == "80.0"
    assert table["MNIST"]["paper, 1 shot"] == "79.3 ± 5.6"

    run(monkeypatch, *into, "Verdicts, by set")
    assert read_table(page)["bottle"]["Htdgm, 10 shots"] == "85.0 ± 7.1; 25 ± 7 / 100 ± 0"
    run(monkeypatch, *into, "Verdicts, mean over sets")
    mean = read_table(page)["Htdgm"]
    assert (mean["image AUROC"], mean["false alarms [%]"]) == ("85.0 ± 7.1", "25.0 ± 7.1")
    assert mean["defects found [%]"] == "100.0 ± 0.0"

    run(monkeypatch, *into, "MNIST, by class")
    table = read_table(page)
    assert next(iter(table)) == "zero"
    zero = {"class": "zero", "Htdgm, 1 shot": "80.0", "paper, 1 shot": "75.2 ± 5.8", "brightness": "40.0"}
    assert table["zero"] == zero
    assert table["average"]["brightness"] == "40.0"

    run(monkeypatch, *into, "Side by side", "--shots", "10", "--models", "Lite0")
    (line,) = read_table(page).values()
    del line["trials"]
    header = ("class", "shots", "model", "image AUROC", "F1 (best)", "memory [MB]", "weights [MB]", "pretrained")
    cells = ("bottle", "10", "PatchCore Lite0", "97.0 ± 2.8", "100.0 ± 0.0", "1500", "0.9", "yes")
    assert line == dict(zip(header, cells, strict=True))


def test_a_table_of_another_program_is_written_as_it_is(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = page.with_name("speed.md")
    printed.write_text("| model | fit [s] |\n| --- | --- |\n| Htdgm | 3.2 |\n\nHtdgm in bfloat16\n")
    run(monkeypatch, printed, "--into", page, "table")
    assert read_table(page) == {"Htdgm": {"model": "Htdgm", "fit [s]": "3.2"}}
    printed.write_text("no table\n")
    with pytest.raises(ValueError, match="into: there is no table for"):
        run(monkeypatch, printed, "--into", page, "table")


def test_the_page_needs_no_other_file(results: Path, tmp_path: Path) -> None:
    write_report([results], tmp_path / "report")
    page = (tmp_path / "report" / "index.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]{20})', page)
    assert len(sources) == 2  # one of AUROC, one of anomaly maps
    assert set(sources) == {"data:image/png;base6"}
    assert "85.0 ± 7.1" in page


def test_runs_with_known_anomalies_have_a_table_of_their_own(results: Path, tmp_path: Path) -> None:
    rows = pd.read_csv(results).assign(known_anomalies=10, shots="all")
    rows["key"] += "known"
    rows.to_csv(tmp_path / "known.csv", index=False)
    usual = write_report([results], tmp_path / "report")
    both = write_report([results, tmp_path / "known.csv"], tmp_path / "report")
    assert both.startswith(usual.rstrip("\n"))
    assert "| bottle | all | 10 | Htdgm | 2 | 85.0 ± 7.1 |" in both
    assert "DevNet, published, ResNet-18" in both
    known = read_lines(both[both.index("### Known anomalies") :])
    assert {len(line) for line in known} == {11}
    assert "bottle | all" not in usual


def test_results_of_anomalib_benchmark_are_joined(results: Path, tmp_path: Path) -> None:
    draw = {"data.init_args.k_shot": 1, "data.init_args.datamodule.class_path": "MVTecAD"}
    draw |= {"data.init_args.datamodule.init_args.category": "bottle", "fit_duration": 3.0}
    rows = [
        {"model.class_path": "Padim", "data.init_args.seed": seed, "image_AUROC": 0.5 + 0.1 * seed, **draw}
        for seed in (0, 1)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "anomalib.csv", index=False)
    text = write_report([results, tmp_path / "anomalib.csv"], tmp_path / "report")
    assert "### MVTecAD by anomalib benchmark, 1 shot" in text
    assert "| bottle | Padim | 2 | 55.0 ± 7.1 |" in text
