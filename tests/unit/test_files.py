# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Image files that anomalib leaves out for their names are named, and no others."""

from pathlib import Path

import pytest
from anomalib.data import PredictDataset
from anomalib.data.datasets.image.folder import FolderDataset
from torch.utils.data import DataLoader, Subset

from anomalib_htdgm.data.files import warn_of_unlisted
from tests.integration.kinds import PICTURE, PNG, encode

KINDS = {"a.jfif": "JPEG", "b.GIF": "GIF", "c.jp2": "JPEG2000", "nameless": "PNG", "phone/d.avif": "AVIF"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "good" / "phone").mkdir(parents=True)
    for name in ("0.png", "1.png"):
        (tmp_path / "good" / name).write_bytes(PNG)
    for name, kind in KINDS.items():
        (tmp_path / "good" / name).write_bytes(encode(PICTURE, kind))
    (tmp_path / "good" / "notes.txt").write_bytes(b"no image")
    return tmp_path / "good"


def test_what_is_not_listed_is_named_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = FolderDataset("stripes", folder.parent, "good")
    warn_of_unlisted([DataLoader(Subset(data, [0])), {"new": DataLoader(PredictDataset(folder))}])
    (warning,) = caplog.messages
    assert all(warning.count(str(folder / name)) == 1 for name in KINDS)
    assert "notes.txt" not in warning


def test_a_file_that_was_asked_for_alone_has_none_beside_it(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    warn_of_unlisted(DataLoader(PredictDataset(folder / "0.png")))
    assert not caplog.messages


def test_many_of_them_become_a_number(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for index in range(25):
        (folder / f"{index}.gif").write_bytes(encode(PICTURE, "GIF"))
    warn_of_unlisted(DataLoader(PredictDataset(folder)))
    (warning,) = caplog.messages
    assert warning.count(str(folder)) == 10
    assert "and 20 more" in warning
