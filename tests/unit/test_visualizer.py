# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Every image has a picture of its own, which shows it as the model has read it."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch
from anomalib.visualization import ImageVisualizer
from PIL import Image

from anomalib_htdgm.anomalib_fixes.pre_processor import configure_pre_processor
from anomalib_htdgm.anomalib_fixes.visualizer import DistinctVisualizer, adopt_visualizer

Write = Callable[..., Path]
MODEL = SimpleNamespace(pre_processor=configure_pre_processor((32, 32)))


def draw(
    folder: Path, paths: list[Path] | None, visualizer: ImageVisualizer | None = None, grey: float = 0.0, **where: Any
) -> set[str]:
    """Draw images of one grey in [-1, 1], and list the pictures that there are then."""
    number = 2 if paths is None else len(paths)
    batch = ImageBatch(
        image=torch.full((number, 3, 32, 32), grey),
        image_path=None if paths is None else [str(path) for path in paths],
        anomaly_map=torch.zeros(number, 32, 32),
        pred_mask=torch.zeros(number, 32, 32, dtype=torch.bool),
    )
    trainer = SimpleNamespace(default_root_dir=folder)
    visualizer = visualizer or DistinctVisualizer(field_size=(32, 32), text_config={"enable": False})
    visualizer.on_predict_batch_end(trainer, MODEL, batch, batch, **{"batch_idx": 0, **where})
    return {path.relative_to(folder).as_posix() for path in folder.rglob("images/**/*") if path.is_file()}


def shown(picture: Path) -> int:
    """Read a grey level of the image that a picture shows."""
    with Image.open(picture) as opened:
        return opened.convert("L").getpixel((16, 30))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, grey: int = 200, **options: Any) -> Path:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (grey,) * 3).save(path, **options)
        return path

    return write


def test_files_of_one_name_have_pictures_each(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = [write(name) for name in ("cam1/ok/0.png", "cam2/ok/0.png")]
    drawn = draw(tmp_path, paths)
    assert drawn == {"images/photos/cam1/ok/0.png", "images/photos/cam2/ok/0.png"}
    # A second call, and relative paths, too.
    (other,) = draw(tmp_path, [write("cam3/ok/0.png").relative_to(tmp_path)]) - drawn
    assert other == "images/photos/cam3/ok/0.png"


def test_elsewhere_the_whole_path_is_the_name(write: Write, tmp_path: Path) -> None:
    paths = [write(name, format="JPEG") for name in ("a/0.jfif", "b/0.jfif", "nameless")]
    drawn = draw(tmp_path / "results", paths)
    assert {name.rpartition("photos/")[2] for name in drawn} == {"a/0.jfif.png", "b/0.jfif.png", "nameless.png"}


def test_images_without_files_have_pictures_in_their_colours(tmp_path: Path) -> None:
    drawn = draw(tmp_path, None, grey=0.5) | draw(tmp_path, None, batch_idx=1, dataloader_idx=1)
    assert len(drawn) == 4
    assert shown(tmp_path / "images" / "loader_0_batch_0_image_1.png") == 191  # (0.5 + 1) / 2, of 255


def test_a_picture_shows_the_image_as_it_was_read(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(np.full((16, 16), 16384, np.uint16)).save(path)
    (name,) = draw(tmp_path, [path])
    assert shown(tmp_path / name) == 63  # a quarter of 255


@pytest.mark.parametrize("size", [(1, 40), (40, 1), (1, 1)])
def test_an_image_of_one_row_has_a_picture(size: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "thin.png"
    Image.new("RGB", size, (200, 200, 200)).save(path)
    (name,) = draw(tmp_path, [path])
    assert shown(tmp_path / name) == 200


def test_anomalibs_own_is_adopted_and_others_left_alone(tmp_path: Path, write: Write) -> None:
    class Own(ImageVisualizer):
        """A visualizer of somebody's own."""

    own = Own()
    assert adopt_visualizer(own) is own
    assert adopt_visualizer(None) is None
    adopted = adopt_visualizer(ImageVisualizer(field_size=(32, 32), output_dir=tmp_path / "images" / "mine"))
    drawn = draw(tmp_path, [write("cam1/ok/0.png"), write("cam2/ok/0.png")], adopted)
    assert len(drawn) == 2
    assert all(name.startswith("images/mine/") for name in drawn)
