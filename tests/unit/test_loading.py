# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Dataloaders serve what can be read, whatever their batches and workers, and say what cannot and what is odd."""

from pathlib import Path

import pytest
import torch
from anomalib.data import ImageBatch, ImageItem, PredictDataset
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset
from torchvision.transforms.v2.functional import to_image

from anomalib_htdgm.data.loading import read_as_seen
from tests.integration.kinds import GOOD, PICTURE, PNG, encode
from tests.integration.small import SIDE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write six files, of which the second, fourth and fifth cannot be read."""
    for index, content in enumerate((PNG, b"", GOOD["sixteen.png"][0], b"", b"text", PNG)):
        (tmp_path / f"{index}.png").write_bytes(content)
    return tmp_path


def names(loader: DataLoader) -> list[str]:
    return [Path(path).name for batch in loader for path in batch.image_path]


def describe(image: torch.Tensor) -> list[str]:
    return [f"a picture of {tuple(image.shape)}"]


@pytest.mark.parametrize("settings", [{"batch_size": 3}, {"batch_size": 2, "num_workers": 2}], ids=str)
def test_batches_and_workers_make_no_difference(folder: Path, settings: dict[str, int]) -> None:
    dataset = PredictDataset(folder)
    loader = DataLoader(dataset, collate_fn=dataset.collate_fn, **settings)
    served = read_as_seen(loader, skip_unreadable=True)
    for _ in range(2):  # it may be iterated again
        assert names(served) == ["0.png", "2.png", "5.png"]
    assert loader.dataset is dataset
    assert loader.collate_fn == ImageBatch.collate


@pytest.mark.parametrize("settings", [{"num_workers": 0}, {"num_workers": 1, "multiprocessing_context": "spawn"}])
def test_what_is_to_be_said_of_a_file_is_said(
    tmp_path: Path, settings: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "2.png"
    path.write_bytes(encode(PICTURE, "WEBP", save_all=True, append_images=[PICTURE.rotate(90)]))
    loader = DataLoader(PredictDataset(path), collate_fn=ImageBatch.collate, **settings)
    list(read_as_seen(loader, skip_unreadable=True, inspect=describe))
    frames, described = caplog.messages
    assert frames == f"{path}: it has 2 frames or pages, of which only the first is looked at"
    assert described == f"{path}: a picture of (3, {SIDE}, {SIDE})"


def test_parts_of_folders_are_read_alike(folder: Path) -> None:
    whole = PredictDataset(folder)
    parts = ConcatDataset([Subset(whole, [5, 2]), Subset(Subset(whole, [0, 1]), [1, 0])])
    (batch,) = read_as_seen(DataLoader(parts, batch_size=9), skip_unreadable=True)
    assert [Path(path).name for path in batch.image_path] == ["5.png", "2.png", "0.png"]
    assert 0.1 < batch.image[1].mean() < 0.9  # of 16 bits, which anomalib makes white
    assert whole[2].image.min() == 1  # whose own reading stays


def test_an_own_dataset_reads_by_itself(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Own(Dataset):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> ImageItem:
            path = folder / f"{4 + index}.png"
            return ImageItem(image=to_image(Image.open(path).convert("RGB")), image_path=str(path))

    assert names(read_as_seen(DataLoader(Own()), skip_unreadable=True)) == ["5.png"]
    assert "item 0 of Own cannot be read" in caplog.messages[0]


def test_batches_of_something_else_are_refused() -> None:
    loader = DataLoader([(torch.zeros(3, 16, 16), 0)])
    with pytest.raises(TypeError, match=r"^dataloaders: got batches of type list; .* anomalib\.data\.ImageBatch"):
        list(read_as_seen(loader, skip_unreadable=True))


def test_letters_beyond_ascii_cost_one_file(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "größe.png").write_bytes(PNG)
    assert names(read_as_seen(DataLoader(PredictDataset(folder)), skip_unreadable=True))[-1] == "5.png"
    said = f"{folder / 'größe.png'} cannot be read: anomalib takes no letters beyond ASCII"
    assert any(said in message for message in caplog.messages)
