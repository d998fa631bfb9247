# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Many predictions, many fits, two fits at once, many threads at once: memory stays flat and scores the same."""

import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data import MVTecAD
from anomalib.deploy import TorchInferencer

from anomalib_htdgm import Htdgm
from benchmarks.quality.shared.measurements import read_peak_memory, reset_peak_memory

from .small import fit as train
from .small import unscaled

pytestmark = [pytest.mark.thorough, pytest.mark.usefixtures("one_thread")]

SMALL = {
    "iterations": 2,
    "image_size": 24,
    "coarsest_size": 18,
    "votes_from": 20,
    "memory_patches": 500,
    "energy_cells": 500,
}
THREADS = 8
REQUESTS = 48
FIT = """
import sys, time
from pathlib import Path
from anomalib.data import MVTecAD
from anomalib.engine import Engine
from anomalib_htdgm import Htdgm

name, root, results, small = sys.argv[1], sys.argv[2], sys.argv[3], eval(sys.argv[4])
Path(results, name + ".ready").touch()
while len(list(Path(results).glob("*.ready"))) < 2:
    time.sleep(0.01)
engine = Engine(logger=False, default_root_dir=results, accelerator="cpu", enable_progress_bar=False)
engine.fit(Htdgm(1, precision="float32", settings=small), datamodule=MVTecAD(root=root, category="wall", num_workers=0))
print(engine.best_model_path)
"""


def read_memory() -> float:
    """Read the resident memory of this process in MB: a peak that begins now."""
    reset_peak_memory()
    resident = read_peak_memory()
    if resident is None:
        pytest.skip("this system does not tell a process's resident memory")
    return resident


def count_tensors() -> int:
    gc.collect()
    return sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects())


def fit(root: Path, results: Path, **arguments: object) -> Htdgm:
    pre_processor = Htdgm.configure_pre_processor((64, 64))
    model = Htdgm(1, settings=SMALL, **arguments, pre_processor=pre_processor, post_processor=unscaled())
    train(model, MVTecAD(root=root, category="wall", num_workers=0), results)
    return model.eval()


@pytest.fixture(scope="module")
def small(mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Htdgm:
    """Train a model that scores an image in milliseconds."""
    return fit(mvtec_root, tmp_path_factory.mktemp("small"), precision="float32")


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    """Make as many images as requests, of several sizes."""
    source = np.random.default_rng(0)
    return [source.integers(0, 255, (64 + index % 5, 60, 3), np.uint8) for index in range(REQUESTS)]


def assert_flat(predict: Callable[[], object], warm_up: int, number: int) -> None:
    for _ in range(warm_up):
        predict()
    tensors, memory = count_tensors(), read_memory()
    for _ in range(number - warm_up):
        predict()
    assert count_tensors() <= tensors
    assert read_memory() < 1.05 * memory


def test_memory_is_flat_over_many_predictions(small: Htdgm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    inferencer = TorchInferencer(small.to_torch(tmp_path), device="cpu")
    # What one prediction holds, 3 MB of image alone, would add up to far more than 5 %.
    image = torch.rand(3, 512, 512)
    assert_flat(lambda: inferencer.predict(image), warm_up=20, number=100)


def test_memory_is_flat_over_six_fits_and_models_go(mvtec_root: Path, tmp_path: Path) -> None:
    models = []

    def once() -> None:
        models.append(weakref.ref(fit(mvtec_root, tmp_path)))

    assert_flat(once, warm_up=2, number=6)
    assert len(models) == 6
    assert not any(model() for model in models)
    versions = {path.name for path in (tmp_path / "Htdgm" / "MVTecAD" / "wall").iterdir()}
    assert versions == {"latest", *(f"v{index}" for index in range(6))}


@pytest.fixture
def trained_in_a_thread(mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Train in a thread of this process, which must not matter, what the two processes train."""
    with ThreadPoolExecutor(1) as pool:
        model = Htdgm(1, precision="float32", settings=SMALL)
        datamodule = MVTecAD(root=mvtec_root, category="wall", num_workers=0)
        pool.submit(train, model, datamodule, tmp_path_factory.mktemp("thread")).result()
    return model.model.state_dict()


def test_two_fits_at_once_into_one_folder_give_the_same_model(
    mvtec_root: Path, tmp_path: Path, trained_in_a_thread: dict[str, torch.Tensor]
) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", FIT, name, mvtec_root, tmp_path, repr(SMALL)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for name in ("first", "second")
    ]
    ended = [(process, *process.communicate(timeout=300)) for process in processes]
    # anomalib chooses the next `v<n>` and then makes it: a process that has just been overtaken says so, and ends.
    lost = [errors for process, _, errors in ended if process.returncode]
    assert len(lost) < 2
    assert all("FileExistsError" in errors or "FileNotFoundError" in errors for errors in lost), lost
    paths = [output.split()[-1] for process, output, _ in ended if not process.returncode]
    assert len(set(paths)) == len(paths)
    for path in paths:
        saved = torch.load(path, weights_only=False)["state_dict"]
        for name, tensor in trained_in_a_thread.items():
            assert torch.equal(saved[f"model.{name}"], tensor), name


def test_a_server_scores_many_requests_at_once_as_one_after_the_other(
    small: Htdgm, images: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    inferencer = TorchInferencer(small.to_torch(tmp_path), device="cpu")
    begun = threading.Barrier(THREADS)

    def answer(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        begun.wait(60)  # as many requests as that are in the model together
        return score(image)

    def score(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        prediction = inferencer.predict(image)
        return prediction.pred_score.numpy(), prediction.anomaly_map.numpy()

    with ThreadPoolExecutor(THREADS) as clients:
        answers = list(clients.map(answer, images))
    np.testing.assert_equal(answers, [score(image) for image in images])
    assert len({pred_score.item() for pred_score, _ in answers}) > REQUESTS / 2
