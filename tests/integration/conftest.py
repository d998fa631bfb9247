# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Small real data sets, and the engine and the stock command that work on them."""

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.cli.cli import main
from anomalib.data import Folder, MVTecAD
from anomalib.engine import Engine
from anomalib.models import AnomalibModule
from PIL import Image
from skimage import data as photographs
from torch import nn

from anomalib_htdgm.inspection import preparing

from .checked import SMALL, write
from .small import TESTED, fit, make_engine, make_small_model, write_good_images
from .walls import train_on_walls, walls  # noqa: F401 - fixtures

RunAnomalib = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def mvtec_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a data set in MVTec's layout: crops of a brick wall, defects are patches of gravel."""
    root = tmp_path_factory.mktemp("mvtec")
    brick, gravel, source = photographs.brick(), photographs.gravel(), np.random.default_rng(0)
    for split, kind, number in (("train", "good", 3), ("test", "good", 5), ("test", "gravel", 5)):
        for index in range(number):
            top, left = source.integers(0, 256, 2)
            image, mask = brick[top : top + 256, left : left + 256].copy(), np.zeros((256, 256), np.uint8)
            if kind != "good":
                window = (slice(100, 170), slice(60, 140))
                image[window], mask[window] = gravel[window], 255
                _save(root / "wall" / "ground_truth" / kind / f"{index:03}_mask.png", mask)
            _save(root / "wall" / split / kind / f"{index:03}.png", np.stack([image] * 3, axis=-1))
    return root


def _save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


@pytest.fixture
def wall(mvtec_root: Path) -> MVTecAD:
    """Load that data set with anomalib's own datamodule."""
    return MVTecAD(root=mvtec_root, category="wall", train_batch_size=2, eval_batch_size=2, num_workers=0)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return make_engine(tmp_path)


@pytest.fixture
def good(tmp_path: Path) -> Folder:
    """Write two good images of stripes to ``tmp_path/good``."""
    return write_good_images(tmp_path)


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train the small model on two images of stripes, and keep its checkpoint."""
    root = tmp_path_factory.mktemp("small")
    return fit(make_small_model({"iterations": 40}), write_good_images(root), root)


def assert_equal_states(model: nn.Module, expected: nn.Module) -> None:
    states = model.state_dict(), expected.state_dict()
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[1].items():
        assert tensor.dtype == states[0][name].dtype, name
        assert torch.equal(tensor, states[0][name]) or tensor.isnan() == states[0][name].isnan(), name


def export_in_each_way(engine: Engine, model: AnomalibModule, root: Path, checkpoint: Path) -> dict[str, Path]:
    """Export a checkpoint in each way, and trace it once: OpenVINO's export starts from ONNX's, which takes longest."""
    exported = {kind: engine.export(model, kind, export_root=root, ckpt_path=checkpoint) for kind in ("torch", "onnx")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model), "to_onnx", lambda *_: exported["onnx"])  # the checkpoint is loaded as another
        exported["openvino"] = engine.export(model, "openvino", export_root=root, ckpt_path=checkpoint)
    return exported


@pytest.fixture
def run_anomalib(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> RunAnomalib:
    """Run the stock ``anomalib`` command in an empty directory and this process: test_command.py starts others."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        words = ["anomalib", *map(str, arguments)]
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", words)
        with caplog.at_level("INFO", logger="anomalib_htdgm"):
            main()
        shown = capfd.readouterr()
        return subprocess.CompletedProcess(words, 0, shown.out, shown.err + caplog.text)

    return run


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    for index in (0, 1, 3):
        write(tmp_path / "good parts", "good", index)
    return tmp_path / "good parts"


@pytest.fixture
def new(tmp_path: Path) -> Path:
    for each in TESTED:
        write(tmp_path / "new", *each)
    return tmp_path / "new"


@pytest.fixture
def learnt(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Learn small models, and count them."""
    counted, learn = [], preparing.learn

    def count(images: dict, *arguments: Path, **settings: int) -> object:
        counted.append(len(images))
        return learn(images, *arguments, settings=SMALL | {"iterations": 2}, precision="float32", **settings)

    monkeypatch.setattr(preparing, "learn", count)
    return counted


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forbid connections to other machines, and asking for their addresses."""
    forbid_network(monkeypatch)


def forbid_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do so in any process."""

    def forbid(name: str) -> None:
        original = getattr(socket.socket, name)

        def connect(self: socket.socket, address: object) -> object:
            local = not isinstance(address, tuple) or address[0] in {"127.0.0.1", "::1", "localhost"}
            assert local, f"a connection to {address} was tried"
            return original(self, address)

        monkeypatch.setattr(socket.socket, name, connect)

    def look_up(host: object, *arguments: object, **options: object) -> object:
        assert host in {None, "", "127.0.0.1", "::1", "localhost"}, f"the address of {host} was asked for"
        return original_look_up(host, *arguments, **options)

    original_look_up = socket.getaddrinfo
    forbid("connect")
    forbid("connect_ex")
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
