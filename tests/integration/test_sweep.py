# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""A benchmark sweep as its user runs it: Hydra's command line, a CSV file, a report."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks" / "quality"


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of digits, stripes that lean either way."""
    rows, columns = np.mgrid[:28, :28]
    stripes = [np.uint8(255 * ((rows + sign * columns) // 4 % 2)) for sign in (1, -1)]
    images = np.stack([np.roll(stripes[index % 2], index, axis=0) for index in range(8)])
    labels = np.arange(8) % 2
    path = tmp_path_factory.mktemp("sweep") / "mnist.npz"
    np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
    return path


def sweep(arrays: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    small = ["model=htdgm_grayscale", "+model.arguments.settings={width:8,iterations:5}", "threads=1"]
    data = ["data=mnist", f"data.arrays={arrays}", f"scratch={arrays.parent}", f"results={arrays.parent}/results.csv"]
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / "run.py"), "-m", *small, *data, *overrides],
        check=False,
        capture_output=True,
        text=True,
    )


def test_a_missing_data_set_is_refused_at_once(arrays: Path) -> None:
    results, root = arrays.parent / "missing.csv", arrays.parent / "nowhere"
    options = ["data=quickstart,bottle", f"data_root={root}", f"results={results}"]
    command = [sys.executable, str(BENCHMARKS / "run.py"), "-m", *options]
    refused = subprocess.run(command, check=False, capture_output=True, text=True)
    assert refused.returncode
    assert f"data_root: there is no folder {root / 'MVTecAD' / 'bottle'}" in refused.stderr
    assert not root.exists()
    assert not results.exists()


@pytest.mark.thorough
def test_a_sweep_resumes_and_is_reported(arrays: Path) -> None:
    first = sweep(arrays, "trial=0,1", "data.datamodule.normal_class=zero")
    assert first.returncode == 0, first.stderr
    assert "2/2" in first.stderr  # the progress bar
    path = arrays.parent / "results.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["dataset"], row["category"], row["trial"]) for row in rows] == [("MNIST", "zero", t) for t in "01"]
    assert all(0 <= float(row["image_AUROC"]) <= 1 and row["training_images"].startswith("0_zero/") for row in rows)

    content = path.read_bytes()
    path.write_bytes(content[:-50])  # killed while it wrote the second row
    second = sweep(
        arrays, "trial=0,1", "data.datamodule.normal_class=zero", "hydra/launcher=joblib", "hydra.launcher.n_jobs=1"
    )
    assert second.returncode == 0, second.stderr
    with path.open(newline="") as file:
        resumed = list(csv.DictReader(file))
    metrics = ["key", "trial", "image_AUROC", "training_images"]
    assert [[row[name] for name in metrics] for row in resumed] == [[row[name] for name in metrics] for row in rows]
    assert resumed[0] == rows[0]

    values = [100 * float(row["image_AUROC"]) for row in rows]
    ours = f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"
    report = arrays.parent / "results.csv.report"
    assert f"| zero | Htdgm grayscale | 2 | {ours} | 75.2 ± 5.8 | {np.mean(values) - 75.2:+.1f} (" in (
        report / "tables.md"
    ).read_text(encoding="utf-8")
    assert [path.name for path in report.glob("*.png")] == ["auroc_shots.png"]
