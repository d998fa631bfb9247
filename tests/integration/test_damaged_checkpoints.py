# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Checkpoints that have suffered on disk, or would run code: one error with the file's name."""

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from anomalib.data import Folder
from hypothesis import given
from hypothesis import strategies as st

from anomalib_htdgm import Htdgm
from anomalib_htdgm.anomalib_fixes.checkpoint import CheckpointError

from .checkpoints import THOROUGHLY, WAYS, WEIGHT, load, predict, refused, save_altered
from .conftest import assert_equal_states

pytestmark = pytest.mark.thorough

DAMAGED = {"empty": b"", "text": b"text", "pickle": pickle.dumps({"epoch": 1}), "cut": None, "list": [1, 2]}


@pytest.mark.parametrize("kind", DAMAGED)
def test_what_is_no_checkpoint_is_refused_in_every_way(kind: str, good: Folder, small_checkpoint: Path) -> None:
    path, content = good.root / "damaged.ckpt", DAMAGED[kind]
    if kind == "list":
        torch.save(content, path)
    else:
        path.write_bytes(small_checkpoint.read_bytes()[:-1] if content is None else content)
    refused(path, good, "(damaged|no state_dict)", WAYS if kind == "list" else [load, predict])


def test_a_missing_file_stays_a_missing_file(good: Folder) -> None:
    for way in WAYS[:2]:
        with pytest.raises(FileNotFoundError, match=r"absent\.ckpt"):
            way(good.root / "absent.ckpt", good)


@THOROUGHLY
@given(share=st.floats(0, 1), bit=st.integers(0, 7) | st.none())
def test_a_file_that_is_cut_off_or_has_a_flipped_bit_is_refused_or_makes_no_difference(
    share: float, bit: int | None, tmp_path: Path, small_checkpoint: Path
) -> None:
    content, path = bytearray(small_checkpoint.read_bytes()), tmp_path / "damaged.ckpt"
    place = int(share * (len(content) - 1))
    if bit is None:
        del content[place:]
    else:
        content[place] ^= 1 << bit
    path.write_bytes(content)
    try:
        loaded = Htdgm.load_from_checkpoint(path)
    except CheckpointError as error:
        assert str(error).startswith(f"checkpoint {path}: it is ")  # noqa: PT017  # there may be none
        return
    assert bit is not None
    expected = Htdgm.load_from_checkpoint(small_checkpoint)
    assert_equal_states(loaded, expected)
    assert dict(loaded.hparams) == dict(expected.hparams)


class Payload:
    """Creates a file as soon as it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


HIDING_PLACES: dict[str, Callable[[dict[str, Any], Payload], object]] = {
    "beside": lambda each, payload: each.update(extra=payload),
    "argument": lambda each, payload: each["hyper_parameters"].update(seed=payload),
    "callback": lambda each, payload: each["callbacks"].update(evil=payload),
    "state": lambda each, payload: each["state_dict"].update({WEIGHT: payload}),
}


@pytest.fixture
def _permissive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let PyTorch be told by the environment to allow code."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")


@pytest.mark.usefixtures("_permissive")
@pytest.mark.parametrize("place", HIDING_PLACES)
def test_no_code_is_run(place: str, small_checkpoint: Path, good: Folder) -> None:
    ran = good.root / "ran"
    evil = save_altered(small_checkpoint, good.root, lambda each: HIDING_PLACES[place](each, Payload(ran)))
    ways = WAYS if place == "beside" else WAYS[:2]
    refused(evil, good, r"Python object \(\w+\.mkdir\), which could run code", ways)
    assert not ran.exists()
    torch.load(evil, weights_only=False)
    assert ran.exists()  # else it would show nothing


@pytest.mark.usefixtures("_permissive")
def test_nor_where_it_is_no_archive_of_pytorch(good: Folder) -> None:
    ran, path = good.root / "ran", good.root / "evil.ckpt"
    path.write_bytes(pickle.dumps(Payload(ran)))
    refused(path, good, "damaged", WAYS[:2])
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Payload(ran)))
        archive.writestr("archive/version", "3\n")
    refused(path, good, "", WAYS[:2])
    assert not ran.exists()
