# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""A seed gives one model and one set of scores: in the API, the stock command and the benchmark pipeline."""

from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from anomalib.data import MVTecAD

from anomalib_htdgm import Htdgm

from .conftest import RunAnomalib, assert_equal_states
from .small import make_engine

ITERATIONS = 3
SETTINGS = {"iterations": ITERATIONS, "image_size": 48, "votes_from": 24, "memory_patches": 500}
ARGUMENTS = {"k_shot": 2, "settings": SETTINGS}


def fit_and_test(root: Path, directory: Path, batch_size: int) -> tuple[Htdgm, dict[str, float]]:
    torch.manual_seed(batch_size)
    sizes = {"train_batch_size": batch_size, "eval_batch_size": batch_size, "num_workers": 0}
    datamodule = MVTecAD(root=root, category="wall", **sizes)
    engine = make_engine(directory)
    model = Htdgm(**ARGUMENTS, seed=1)
    engine.fit(model, datamodule=datamodule)
    (metrics,) = engine.test(model, datamodule=datamodule)
    return model, metrics


@pytest.fixture(scope="module")
def reference(mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Htdgm, dict[str, float]]:
    return fit_and_test(mvtec_root, tmp_path_factory.mktemp("reference"), batch_size=2)


def test_batches_and_global_state_make_no_difference(
    mvtec_root: Path, tmp_path: Path, reference: tuple[Htdgm, dict[str, float]]
) -> None:
    model, metrics = fit_and_test(mvtec_root, tmp_path, batch_size=7)
    assert_equal_states(model, reference[0])  # thresholds and score ranges included
    assert metrics == reference[1]


def test_the_stock_command_and_worker_processes_give_the_same_model(
    mvtec_root: Path, tmp_path: Path, run_anomalib: RunAnomalib, reference: tuple[Htdgm, dict[str, float]]
) -> None:
    wall = {"root": str(mvtec_root), "category": "wall"}
    config = {
        "model": {"class_path": "Htdgm", "init_args": ARGUMENTS | {"seed": 1}},
        "data": {"class_path": "MVTecAD", "init_args": wall | {"num_workers": 2}},
        "trainer": {
            "accelerator": "cpu",
            "logger": {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "logs"}},
            "log_every_n_steps": 1,
        },
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    result = run_anomalib("train", "--config", "config.yaml")
    assert result.returncode == 0, result.stderr
    (path,) = tmp_path.glob("results/Htdgm/MVTecAD/wall/v0/weights/lightning/model.ckpt")
    assert_equal_states(Htdgm.load_from_checkpoint(path), reference[0])
    # The user sees which images, which scale, which iteration, which loss; the logger too.
    output = result.stdout + result.stderr
    for shown in ("Training on 2 normal", "scale", "iteration", "loss", "image_AUROC", "pixel_AUPRO"):
        assert shown in output
    (log,) = tmp_path.glob("logs/**/metrics.csv")
    steps = pd.read_csv(log).dropna(subset="loss")
    assert len(steps) == ITERATIONS * 3 * 2  # scales and members
    assert steps["scale"].tolist() == sorted(steps["scale"])


def test_the_benchmark_pipeline_gives_the_same_scores(
    mvtec_root: Path, tmp_path: Path, run_anomalib: RunAnomalib, reference: tuple[Htdgm, dict[str, float]]
) -> None:
    config = {
        "accelerator": ["cpu"],
        "benchmark": {
            "seed": 42,
            "model": {
                "class_path": "Htdgm",
                "init_args": ARGUMENTS | {"seed": {"grid": [1, 2]}},
            },
            "data": {
                "class_path": "MVTecAD",
                "init_args": {"root": str(mvtec_root), "category": {"grid": ["wall"]}, "num_workers": 0},
            },
        },
    }
    (tmp_path / "benchmark.yaml").write_text(yaml.safe_dump(config))
    result = run_anomalib("benchmark", "--config", "benchmark.yaml")
    assert result.returncode == 0, result.stderr
    (table,) = tmp_path.glob("runs/benchmark/*/results.csv")
    rows = pd.read_csv(table).set_index("model.init_args.seed")
    for name, value in reference[1].items():
        assert rows.loc[1, name] == pytest.approx(value, abs=1e-12)
    assert (rows.loc[1, list(reference[1])] != rows.loc[2, list(reference[1])]).any()
