# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What the command cannot do it says in a sentence, and nothing that was there is lost."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from shutil import copytree
from threading import Event

import pytest
from PIL import Image

from anomalib_htdgm.check import main

from .checked import contents, do, read_table
from .small import TESTED

pytestmark = pytest.mark.usefixtures("learnt")


def test_what_cannot_be_done_is_said_before_anything_is_written(
    parts: Path, new: Path, tmp_path: Path, learnt: list[int]
) -> None:
    out, nowhere, nothing = (tmp_path / name for name in ("out", "none yet", "nothing"))
    do(good=parts, new=new, out=out)
    before = contents(out)
    nothing.mkdir()
    (nothing / "Thumbs.db").write_bytes(b"of Windows")
    wrong = {name: Path(copytree(parts, tmp_path / name)) / "other.png" for name in ("unreadable", "small", "shape")}
    wrong["unreadable"].write_bytes((parts / "good 0.png").read_bytes()[:200])
    Image.new("RGB", (8, 8)).save(wrong["small"])
    Image.new("RGB", (90, 60)).save(wrong["shape"])
    for wanted in (
        {"good": nothing},
        {"model": parts / "good 0.png"},
        *({"good": path.parent} for path in wrong.values()),
    ):
        for each in (out, nowhere):
            with pytest.raises(ValueError, match=r"allowed|cannot be loaded"):
                do(**wanted, new=new, out=each)
    with pytest.raises(ValueError, match="allowed"):
        do(good=parts, new=nothing, out=nowhere)
    assert contents(out) == before
    assert contents(nowhere) == {}
    assert learnt == [3]


def test_two_checks_do_not_write_to_one_folder(parts: Path, new: Path, tmp_path: Path) -> None:
    wanted = {"good": parts, "new": new, "out": tmp_path / "out"}
    with pytest.raises(ValueError, match=r"^out is being worked on by another check or page; wait for it"):
        do(**wanted, ready=lambda: do(**wanted))
    do(**wanted)
    assert len(read_table(tmp_path / "out")) == len(TESTED)


def test_a_check_that_is_broken_off_says_what_it_left(
    parts: Path, new: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped = Event()
    do(stopped, ready=stopped.set, good=parts, new=new, out=tmp_path / "out")
    number = len(TESTED)
    assert f"Broken off: {number} of {number} photographs were not checked." in capsys.readouterr().err
    do(good=parts, new=new, out=tmp_path / "out")
    assert "Broken off" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--good", ".", "--new", "."], "--out, --project: got neither"),
        (["--good", ".", "--new", ".", "--out", "out", "--project", "out"], "--out, --project: got both"),
        (["--good", "nowhere", "--new", ".", "--out", "out"], "--good: got nowhere, which is no folder"),
        (["--good", ".", "--new", "nowhere", "--out", "out"], "--new: got nowhere, which is no folder"),
        (["--new", ".", "--out", "out"], "--good, --model: got none"),
        (["--model", "none.ckpt", "--new", ".", "--out", "out"], "--model: got none.ckpt, which is no file"),
        (["--good", ".", "--tiles", "99", "--new", ".", "--out", "out"], "--tiles: got 99; allowed are 1 to 16"),
        (["--good", ".", "--region", __file__, "--new", ".", "--out", "out"], "--region: got"),
        (["--good", ".", "--tiles", "0", "--new", ".", "--out", "out"], "--tiles: got 0"),
        (["--good", ".", "--region", "0.5,0,0.4,1", "--new", ".", "--out", "out"], "--region: got 0.5,0,0.4,1"),
        (["--model", __file__, "--align", "--new", ".", "--out", "out"], "--region, --align: got both"),
        (["--project", "out", "--watch"], "--new: got none"),
    ],
)
def test_wrong_arguments_end_with_two(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["check", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.thorough
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_training_that_is_broken_off_is_no_verdict(
    parts: Path, new: Path, tmp_path: Path, number: int, status: int
) -> None:
    command = [sys.executable, "-m", "anomalib_htdgm.check", "--good", parts, "--new", new, "--out", tmp_path / "out"]
    with subprocess.Popen([*map(str, command), "--tiles", "3"], stderr=subprocess.PIPE, text=True) as process:
        said = process.stderr.readline()
        while "Learning from" not in said:
            said = process.stderr.readline()
        time.sleep(1)
        process.send_signal(number)
        assert process.stderr.read().endswith("Broken off before a photograph was checked.\n")
    assert process.returncode == status
    assert contents(tmp_path / "out") == {}
