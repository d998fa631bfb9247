# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The stock command: every configuration file parses, bad input is one clear error, and a signal ends it cleanly."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from anomalib.cli.cli import AnomalibCLI
from anomalib.data import get_datamodule
from anomalib.pipelines.components.utils import get_iterator_from_grid_dict

CONFIGS = Path(__file__).parents[2] / "configs"
BENCHMARKS = sorted(CONFIGS.glob("benchmark_*.yaml"))
TRAININGS = sorted(set(CONFIGS.rglob("*.yaml")) - set(BENCHMARKS))


@pytest.mark.parametrize("config", TRAININGS, ids=lambda path: path.stem)
def test_every_configuration_makes_a_model_and_a_datamodule(config: Path, tmp_path: Path) -> None:
    cli = AnomalibCLI(["train", "--config", str(config), "--default_root_dir", str(tmp_path)], run=False)
    expected = "htdgm" if config.parent == CONFIGS else config.parent.name
    assert cli.model.name.lower() == ("htdgmpublished" if config.match("htdgm/paper.yaml") else expected)
    shots = config.stem.rpartition("_")[2].removesuffix("shot")
    draws = cli.model.model.settings if cli.model.name == "Htdgm" else cli.datamodule
    assert not shots.isdigit() or draws.k_shot == int(shots)
    name = cli.datamodule.name.removesuffix(f"_{shots}shot")
    names = {"MVTecAD", "CIFAR10", "MNIST", "QuickstartTextures", "brick"}
    assert name in names | {"MVTecAD_10anomalies", "MVTecAD_10anomalies_broken_large"}


def test_benchmarks_give_every_model_the_same_images() -> None:
    runs: dict[str, set[str]] = {}
    for config in BENCHMARKS:
        for each in get_iterator_from_grid_dict(yaml.safe_load(config.read_text())["benchmark"]):
            runs.setdefault(each["model"]["class_path"], set()).add(json.dumps(each["data"], sort_keys=True))
    assert runs.keys() == {"Htdgm", "Patchcore", "Padim"}
    assert runs["Htdgm"] == runs["Patchcore"] > runs["Padim"]
    datamodules = [get_datamodule(json.loads(each)) for each in runs["Htdgm"]]
    found = {(each.category, each.k_shot, each.seed) for each in datamodules}
    assert found == set(itertools.product(("bottle", "grid"), (1, 5, 10), range(5)))


@pytest.fixture
def photographs(mvtec_root: Path) -> list[str]:
    good = mvtec_root / "wall" / "train" / "good"
    data = ["--data", "Folder", "--data.name", "photographs", "--data.normal_dir", str(good), "--data.num_workers", "0"]
    return [*data, "--data.test_split_mode", "none", "--data.val_split_mode", "same_as_test"]


def test_bad_input_is_one_clear_error_and_leaves_nothing(
    photographs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"patch_fraction: got 1\.5; allowed are numbers above 0 and at most 1"):
        AnomalibCLI(["fit", "--model", "Htdgm", "--model.settings.patch_fraction", "1.5", *photographs])
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="Windows has other signals")
@pytest.mark.parametrize(
    ("number", "exit_code"),
    [(signal.SIGINT, 1), (signal.SIGTERM, 128 + signal.SIGTERM)],
)
@pytest.mark.thorough
def test_a_signal_ends_it_cleanly(
    number: signal.Signals, exit_code: int, photographs: list[str], tmp_path: Path
) -> None:
    arguments = ["fit", "--model", "Htdgm", "--model.settings.iterations", "100000", *photographs]
    # Processes of a shell's background ignore the signal, and so do their children.
    program = "from signal import *; signal(SIGINT, default_int_handler); from anomalib.cli.cli import main; main()"
    command = [sys.executable, "-W", "ignore", "-c", program, *arguments]
    log = tmp_path / "log"
    with log.open("w") as output, subprocess.Popen(command, cwd=tmp_path, stdout=output, stderr=output) as process:
        deadline = time.monotonic() + 120
        while "Training on 3 normal images" not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.2)
        time.sleep(2)
        assert process.poll() is None, log.read_text()
        process.send_signal(number)
        assert process.wait(60) == exit_code
    assert "Traceback" not in log.read_text()
    assert not list(tmp_path.rglob("*.ckpt"))
