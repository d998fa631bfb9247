# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What a file becomes when it is read, and what is said of one that cannot be."""

import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
import torch
from anomalib.data import ImageBatch
from anomalib.data.datasets.image.folder import FolderDataset
from anomalib.data.utils import read_image as read_image_of_anomalib
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from anomalib_htdgm.data import UnreadableImageError, read_image
from anomalib_htdgm.data.loading import read_as_seen
from tests.integration.kinds import BAD, GOOD, JPEG, PICTURE, PNG, TURNED

THOROUGHLY = settings(
    max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("name", GOOD)
def test_pixels_are_those_that_one_sees(name: str, tmp_path: Path) -> None:
    content, expected = GOOD[name]
    path = tmp_path / name
    path.write_bytes(content)
    np.testing.assert_allclose(read_image(path), expected / 255, atol=1e-6)
    np.testing.assert_allclose(read_image(path, as_tensor=True).permute(1, 2, 0), expected / 255, atol=1e-6)
    if "sixteen" not in name and "turned" not in name:  # the others are as anomalib reads them
        assert torch.equal(read_image(path, as_tensor=True), read_image_of_anomalib(path, as_tensor=True))


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    content, what = BAD[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match=rf"^image {re.escape(str(path))} cannot be .*{what}.*; allowed"):
        read_image(path)


@pytest.mark.thorough
@THOROUGHLY
@given(
    mode=st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "I;16"]),
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    seed=st.integers(0, 100),
)
def test_any_mode_and_size_becomes_three_channels(
    mode: str, width: int, height: int, seed: int, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 65536, (height, width), np.uint16)
    image = Image.fromarray(pixels) if mode == "I;16" else Image.fromarray((pixels >> 8).astype(np.uint8))
    image.convert(mode).save(tmp_path / "any.png")
    read = read_image(tmp_path / "any.png", as_tensor=True)
    assert read.shape == (3, height, width)
    assert read.dtype == torch.float32
    assert 0 <= read.min() <= read.max() <= 1
    if mode == "I;16":
        np.testing.assert_allclose(read[0], pixels / 65535, atol=1e-6)


@pytest.mark.thorough
@THOROUGHLY
@given(
    content=st.sampled_from([PNG, JPEG, *(content for content, _ in GOOD.values())]),
    end=st.integers(0, 2 * max(len(PNG), len(JPEG))),
    places=st.lists(st.integers(0, 2_000), max_size=8),
    value=st.integers(0, 255),
)
def test_truncated_and_damaged_anywhere(
    content: bytes, end: int, places: list[int], value: int, tmp_path: Path
) -> None:
    path, damaged = tmp_path / "damaged", bytearray(content)
    for each in places:
        damaged[each % len(damaged)] = value
    path.write_bytes(damaged[:end])
    try:
        read = read_image(path, as_tensor=True)
    except UnreadableImageError as error:
        assert str(path) in str(error)  # noqa: PT017  # damage may be invisible, as in a pixel of a BMP
        return
    assert read.ndim == 3
    assert read.shape[0] == 3
    if content in {PNG, JPEG} and not places:
        assert end > len(content) - 20  # the last bytes hold no pixels
        with Image.open(io.BytesIO(content)) as image:
            np.testing.assert_allclose(read.permute(1, 2, 0), np.asarray(image) / 255, atol=1e-6)


def test_photographs_of_iphones_are_read(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    pillow_heif.from_pillow(PICTURE).save(tmp_path / "photo.heic", quality=-1)
    (tmp_path / "photo.heic").rename(path)
    np.testing.assert_allclose(read_image(path), np.asarray(PICTURE) / 255, atol=0.05)


@pytest.mark.thorough  # the package is loaded once more
def test_what_lacks_to_read_them_is_said(tmp_path: Path) -> None:
    pillow_heif.from_pillow(PICTURE).save(tmp_path / "photo.heic")
    (tmp_path / "photo.heic").rename(tmp_path / "photo.png")
    program = "import sys; sys.modules['pillow_heif'] = None; from anomalib_htdgm.data import read_image; "
    command = [sys.executable, "-c", f"{program}read_image({str(tmp_path / 'photo.png')!r})"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert re.search(r"photo\.png cannot be read: it is HEIC, .*install pillow-heif.*JPEG", result.stderr)


@pytest.mark.parametrize("is_drawn_as_stored", [False, True])
def test_a_mask_fits_a_turned_photograph(tmp_path: Path, *, is_drawn_as_stored: bool) -> None:
    for folder in ("good", "bad", "masks"):
        (tmp_path / folder).mkdir()
    stored, mask = np.zeros((60, 90, 3), np.uint8), np.zeros((60, 90), np.uint8)
    stored[5:20, 10:50] = mask[5:20, 10:50] = 255
    Image.fromarray(stored).save(tmp_path / "good" / "0.png")
    Image.fromarray(stored).save(tmp_path / "bad" / "0.png", exif=TURNED)
    drawn = mask if is_drawn_as_stored else np.rot90(mask, -1)
    Image.fromarray(np.ascontiguousarray(drawn)).save(tmp_path / "masks" / "0.png")
    dataset = FolderDataset("b", root=tmp_path, normal_dir="good", abnormal_dir="bad", mask_dir="masks")
    bad, good = read_as_seen(DataLoader(dataset, collate_fn=ImageBatch.collate), skip_unreadable=False)
    assert bad.image.shape == (1, 3, 90, 60)
    assert torch.equal(bad.gt_mask[0], bad.image[0, 0] == 1)
    assert good.image.shape == (1, 3, 60, 90)
    assert good.gt_mask.shape == (1, 60, 90)
    assert not good.gt_mask.any()
