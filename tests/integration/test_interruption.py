# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Trainings that are killed, or cannot write: nothing that was saved is lost, and resuming gives the same model."""

import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.engine import Engine
from PIL import Image

from anomalib_htdgm import Htdgm

from .interrupted import ARGUMENTS, SCALES, STEPS, Child, Order, fit

pytestmark = [pytest.mark.thorough, pytest.mark.usefixtures("one_thread")]  # as the children have

EVERY_STEP = {"every_n_train_steps": 1, "save_last": True, "save_top_k": -1}
EVERY_SCALE = {"every_n_train_steps": STEPS}
EXIT_CODES = {signal.SIGINT: 1, signal.SIGTERM: 128 + signal.SIGTERM, signal.SIGKILL: -signal.SIGKILL}


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def uninterrupted(mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Htdgm:
    model, _ = fit(mvtec_root, tmp_path_factory.mktemp("whole"), [], Htdgm(**ARGUMENTS))
    assert len(model.model.discriminators) * ARGUMENTS["iterations"] == SCALES * STEPS
    return model.eval()


@pytest.fixture
def order(mvtec_root: Path, tmp_path: Path) -> Order:
    return Order(mvtec_root, tmp_path / "results", tmp_path / "kept", EVERY_STEP)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a small disk, where that is permitted."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount_disk(options: str) -> Path:
        command = shutil.which("mount")
        arguments = ["-t", "tmpfs", "-o", options, "tmpfs", disk]
        if not command or subprocess.run([command, *arguments], check=False).returncode:
            pytest.skip("disks may not be mounted here")
        return disk

    yield mount_disk
    if disk.is_mount():
        subprocess.run(["umount", disk], check=True)


@pytest.fixture
def assert_resumes(mvtec_root: Path, tmp_path: Path, uninterrupted: Htdgm, images: torch.Tensor) -> Callable[..., None]:
    """Resume, with another object's arguments, and compare with the training that was not interrupted."""

    def resume_and_compare(checkpoint: Path, root: Path = mvtec_root) -> None:
        with pytest.raises(RuntimeError, match=r"not to the end.*resume its training"):
            Htdgm.load_from_checkpoint(checkpoint)(images)
        _, engine = fit(root, tmp_path / "resumed", [], Htdgm(), checkpoint)
        resumed = Htdgm.load_from_checkpoint(engine.best_model_path).eval()
        expected = uninterrupted.state_dict()
        assert resumed.state_dict().keys() == expected.keys()
        for name, tensor in resumed.state_dict().items():
            assert torch.equal(tensor, expected[name]), name
        for actual, scored in zip(resumed(images), uninterrupted(images), strict=True):
            assert (actual is scored is None) or torch.equal(actual, scored)

    return resume_and_compare


def files_in(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*.ckpt")}


@pytest.mark.parametrize("scale", range(SCALES))
@pytest.mark.parametrize("number", EXIT_CODES, ids=lambda number: number.name)
def test_signals_at_every_scale(
    number: signal.Signals, scale: int, order: Order, assert_resumes: Callable[..., None]
) -> None:
    order.stop_at = scale * STEPS + STEPS - 2  # in the middle of the second set of transformations
    child = Child(order)
    child.wait_until_it_stops()
    saved = files_in(order.kept)
    child.kill(number)
    exit_code, output = child.let_go()
    assert exit_code == EXIT_CODES[number], output
    assert files_in(order.kept).items() >= {path: data for path, data in saved.items() if path.stem != "last"}.items()
    assert not files_in(order.folder), "what is not finished was saved as the model"
    last = order.kept / "last.ckpt"
    if number != signal.SIGKILL:
        assert f"ckpt_path={last}" in output
    assert torch.load(last, weights_only=True)["unfinished_training"]["finished"] == 2 * scale + 1
    assert_resumes(last)


def test_a_finished_scale_is_not_trained_again(order: Order, assert_resumes: Callable[..., None]) -> None:
    order.callback, order.stop_at = EVERY_SCALE, 2 * STEPS - 1
    child = Child(order)
    child.wait_until_it_stops()
    child.kill(signal.SIGKILL)
    child.let_go()
    (checkpoint,) = files_in(order.kept)
    assert torch.load(checkpoint, weights_only=True)["unfinished_training"]["finished"] == 2
    assert_resumes(checkpoint)


def test_a_model_without_thresholds_is_not_taken_for_a_whole_one(
    order: Order, assert_resumes: Callable[..., None]
) -> None:
    order.callback = {"save_on_exception": True, "every_n_train_steps": 1000}
    order.stop_at, order.in_validation = 1, True
    child = Child(order)
    child.wait_until_it_stops()
    child.kill(signal.SIGINT)
    child.let_go()
    (checkpoint,) = files_in(order.kept)
    assert_resumes(checkpoint)


def test_without_checkpoints_the_message_tells_how_to_ask_for_some(order: Order) -> None:
    order.callback, order.stop_at = {}, STEPS
    child = Child(order)
    child.wait_until_it_stops()
    child.kill(signal.SIGINT)
    _, output = child.let_go()
    assert "has to start anew" in output
    assert "ModelCheckpoint(every_n_train_steps" in output


@pytest.mark.parametrize("largest_file", [40_000, 139_000])
@pytest.mark.parametrize("is_fatal", [True, False], ids=["killed", "error"])
def test_broken_off_in_the_middle_of_a_checkpoint(
    is_fatal: bool, largest_file: int, order: Order, assert_resumes: Callable[..., None]
) -> None:
    order.callback = EVERY_STEP | {"save_top_k": 0}  # each is written over the one before
    order.stop_at, order.is_fatal, order.largest_file = STEPS + 1, is_fatal, largest_file
    child = Child(order)
    child.wait_until_it_stops()
    saved = files_in(order.kept)
    assert largest_file < min(map(len, saved.values()))
    exit_code, output = child.let_go()
    assert files_in(order.kept) == saved
    partial = [path for path in order.kept.iterdir() if path not in saved]
    last = order.kept / "last.ckpt"
    if is_fatal:
        assert exit_code == -signal.SIGXFSZ, output
        assert [path.stat().st_size for path in partial] == [largest_file]
        with pytest.raises(ValueError, match=r"\.part: it is truncated"):
            Htdgm.load_from_checkpoint(partial[0])
    else:
        assert exit_code == 1
        assert not partial
        assert "cannot be written (File too large); those written before are as they were" in output
        assert f"ckpt_path={last}" in output
    assert_resumes(last)


def test_full_disk(mount: Callable[[str], Path], order: Order, assert_resumes: Callable[..., None]) -> None:
    order.kept, order.callback = mount("size=1m") / "kept", EVERY_SCALE | {"save_top_k": -1}
    (order.kept.parent / "another.file").write_bytes(bytes(840_000))  # one checkpoint fits in, and a part of another
    child = Child(order)
    child.wait_until_it_stops()
    exit_code, output = child.let_go()
    assert exit_code == 1
    assert "cannot be written (No space left on device)" in output
    (checkpoint,) = order.kept.iterdir()
    assert f"ckpt_path={checkpoint}" in output
    assert_resumes(checkpoint)


def test_read_only_folders_are_refused_before_the_training(
    mount: Callable[[str], Path], mvtec_root: Path, order: Order
) -> None:
    disk = mount("ro,size=1m")
    order.kept = disk
    exit_code, output = Child(order).let_go()
    assert exit_code == 1
    assert f"no checkpoint can be written to {disk} (Read-only file system)" in output
    assert "Training on" not in output
    with pytest.raises(OSError, match=f"Read-only.*{disk}"):
        fit(mvtec_root, disk, [], Htdgm(**ARGUMENTS))


def test_a_file_in_place_of_the_folder_is_refused_before_the_training(mvtec_root: Path, order: Order) -> None:
    order.kept.write_text("a file")
    exit_code, output = Child(order).let_go()
    assert exit_code == 1
    assert f"no checkpoint can be written to {order.kept}" in output
    assert "Training on" not in output
    assert order.kept.read_text() == "a file"
    with pytest.raises(OSError, match=str(order.kept)):
        fit(mvtec_root, order.kept, [], Htdgm(**ARGUMENTS))


@pytest.fixture(scope="module")
def unfinished(mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Leave a checkpoint of a training that was killed."""
    folder = tmp_path_factory.mktemp("unfinished")
    order = Order(mvtec_root, folder / "results", folder / "kept", EVERY_STEP, stop_at=STEPS + 1)
    child = Child(order)
    child.wait_until_it_stops()
    child.kill(signal.SIGKILL)
    child.let_go()
    return order.kept / "last.ckpt"


@pytest.mark.parametrize("share", [0, 1e-6, 1e-5, 0.1, 0.5, 0.9, 1])
def test_half_a_file_is_refused(share: float, unfinished: Path, tmp_path: Path) -> None:
    content = unfinished.read_bytes()
    half = tmp_path / "half.ckpt"
    half.write_bytes(content[: min(int(share * len(content)), len(content) - 1)])
    with pytest.raises(ValueError, match=f"{half}: it is (truncated|empty)"):
        Htdgm.load_from_checkpoint(half)


def test_half_a_file_is_refused_everywhere(
    unfinished: Path, tmp_path: Path, mvtec_root: Path, engine: Engine, wall: object
) -> None:
    half = tmp_path / "half.ckpt"
    half.write_bytes(unfinished.read_bytes()[:-1])
    for work in (
        lambda: engine.fit(Htdgm(), datamodule=wall, ckpt_path=half),
        lambda: engine.test(Htdgm(), datamodule=wall, ckpt_path=half),
        lambda: engine.validate(Htdgm(), datamodule=wall, ckpt_path=half),
        lambda: engine.predict(Htdgm(), data_path=mvtec_root / "wall" / "test" / "good", ckpt_path=half),
        lambda: engine.export(Htdgm(), "torch", export_root=tmp_path, ckpt_path=half),
    ):
        with pytest.raises(ValueError, match=f"{half}: it is (truncated|empty)"):
            work()


def test_resuming_wants_the_same_images_wherever_they_are(
    unfinished: Path, tmp_path: Path, mvtec_root: Path, assert_resumes: Callable[..., None]
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(mvtec_root, moved)
    assert_resumes(unfinished, moved)
    images = torch.load(unfinished, weights_only=True)["unfinished_training"]["images"]
    name = Path(next(iter(images))).name
    changed = moved / "wall" / "train" / "good" / name
    Image.fromarray(255 - np.asarray(Image.open(changed))).save(changed)
    with pytest.raises(ValueError, match=f"changed since then: {next(iter(images))}; new or changed: {changed}"):
        fit(moved, tmp_path / "changed", [], Htdgm(), unfinished)


def test_a_checkpoint_of_a_finished_training_is_not_trained_again(
    mvtec_root: Path, tmp_path: Path, uninterrupted: Htdgm
) -> None:
    _, engine = fit(mvtec_root, tmp_path, [], Htdgm(**ARGUMENTS))
    model, again = fit(mvtec_root, tmp_path, [], Htdgm(), Path(engine.best_model_path))
    assert again.trainer.global_step == SCALES * STEPS
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, uninterrupted.state_dict()[name]), name
