# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Every configured experiment of the paper can be made, is reported beside the paper, and shows the right images."""

import gzip
import sys
from pathlib import Path

import hydra
import numpy as np
import pandas as pd
import pytest
from anomalib.models.components import AnomalibModule
from decisions import Decisions
from pack_fashion_mnist import main as pack
from report import write_report
from run import run_key
from shared.rows import COLUMNS

CONFIGURATIONS = Path(__file__).parents[2] / "benchmarks" / "quality" / "conf"
OF_TABLE_1 = sorted(path.stem for path in (CONFIGURATIONS / "model").glob("table1_*.yaml"))


@pytest.mark.parametrize("schedule", ["short", "published"])
@pytest.mark.parametrize("model", OF_TABLE_1)
def test_variants_are_models_of_any_schedule(model: str, schedule: str) -> None:
    with hydra.initialize_config_dir(str(CONFIGURATIONS), version_base="1.3"):
        config = hydra.compose("config", [f"model={model}", f"schedule={schedule}", "data=cifar10"])
    assert isinstance(hydra.utils.instantiate(config.model.arguments, evaluator=False), AnomalibModule)


def test_schedules_are_different_runs() -> None:
    with hydra.initialize_config_dir(str(CONFIGURATIONS), version_base="1.3"):
        keys = {
            run_key(hydra.compose("config", ["model=table1_full", f"schedule={name}"]))
            for name in ("short", "published")
        }
    assert len(keys) == 2


def write_rows(path: Path, *rows: dict[str, object]) -> Path:
    common = {"shots": 1, "trial": 0, "fit_seconds": 1, "test_seconds": 2, "test_images": 4, "image_F1Max": 1}
    keyed = (dict.fromkeys(COLUMNS, "") | {"key": f"run{index}"} | common | row for index, row in enumerate(rows))
    pd.DataFrame(keyed).to_csv(path, index=False)
    return path


def cells(text: str, first: str) -> list[list[str]]:
    lines = (line for line in text.splitlines() if line.startswith(f"| {first} "))
    return [[each.strip() for each in line.split("|")[1:-1]] for line in lines]


def test_variants_stand_beside_the_papers(tmp_path: Path) -> None:
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    rows = [
        {"dataset": "CIFAR10", "category": category, "model": model, "image_AUROC": value, "shots": shots}
        for model, value in (("(a) no generators", 0.6), ("Htdgm in full", 0.7), ("GEOM", 0.5))
        for category in classes
        for shots in (1, 5)
        if (model, shots) != ("GEOM", 5) or category in classes[:3]
    ]
    text = write_report([write_rows(tmp_path / "table1.csv", *rows)], tmp_path / "report")
    table = text[text.index("mean over classes") : text.index("### CIFAR10, 1 shot")]
    assert cells(table, "(a)") == [["(a) no generators", "60.0", "60.7 ± 8.5", "60.0", "64.9 ± 4.8"]]
    assert cells(table, "Htdgm") == [["Htdgm in full", "70.0", "64.9 ± 5.9", "70.0", "67.5 ± 3.4"]]
    assert cells(table, "GEOM") == [["GEOM", "50.0", "57.1 ± 7.3", "50.0 (3 classes)", ""]]
    assert (tmp_path / "report" / "auroc_averages.svg").exists()


def test_fractions_stand_beside_the_papers(tmp_path: Path) -> None:
    rows = [
        {"dataset": "MVTec", "category": "bottle", "model": f"Htdgm {fraction}", "image_AUROC": 0.9 - 0.1 * fraction}
        for fraction in (0.01, 0.05, 1.0)
    ]
    text = write_report([write_rows(tmp_path / "figure7.csv", *rows)], tmp_path / "report")
    published = ["75.4 ± 12.6", "85.0 ± 3.7", "76.5 ± 9.0", "82.5 ± 9.0", "81.6 ± 6.3", "67.0 ± 9.4"]
    assert cells(text, "bottle") == [
        ["bottle", "1", "Htdgm", "1", "89.9", "89.5", "", "", "", "80.0"],
        ["bottle", "1", "published", "10", *published],
    ]
    assert (tmp_path / "report" / "auroc_fractions.png").exists()


def test_images_are_shown_as_what_they_are() -> None:
    scores = np.array([0.1, 0.2, 0.3, 0.8, 0.9, 0.5, 0.4], dtype=np.float32)
    labels = np.array([False, False, True, True, True, False, True])
    decisions = Decisions(np.array(list("abcdefg")), scores, labels, threshold=0.5)
    chosen = decisions.choose(number=2)
    assert chosen["true negative"] == ["a", "b"]
    assert chosen["true positive"] == ["d", "e"]
    assert chosen["false positive"] == ["f"]
    assert chosen["false negative"] == ["c", "g"]


def test_fashion_mnist_is_packed_as_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = np.arange(2 * 28 * 28, dtype=np.uint16).astype(np.uint8).reshape(2, 28, 28), np.uint8([3, 9])
    for prefix, first in (("train", 0), ("t10k", 1)):
        for kind, header, data in (("images-idx3", 16, images[first:]), ("labels-idx1", 8, labels[first:])):
            content = gzip.compress(bytes(header) + data.tobytes())
            (tmp_path / f"{prefix}-{kind}-ubyte.gz").write_bytes(content)
    monkeypatch.setattr(sys, "argv", ["pack", str(tmp_path), str(tmp_path / "out.npz")])
    pack()
    packed = np.load(tmp_path / "out.npz")
    np.testing.assert_array_equal(packed["x_train"], images)
    np.testing.assert_array_equal(packed["x_test"], images[1:])
    assert packed["y_train"].tolist() == [3, 9]
    assert packed["y_test"].tolist() == [9]
