# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The training images are the same whatever the dataloader, and files that cannot be trained on are named."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data import Folder, ImageBatch, ImageItem
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset
from torchvision.transforms.v2 import Resize

from anomalib_htdgm.data.few_shot import FewShot
from anomalib_htdgm.data.shots import RepeatedBatch, digest_images, read_anomalies, read_shots

NUM_IMAGES = 9


def write_image(path: Path, size: tuple[int, int] = (24, 20), seed: int = 0) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def make_folder(root: Path, **arguments: object) -> Folder:
    settings = {"train_batch_size": 4, "num_workers": 0, "test_split_mode": "none", "val_split_mode": "none"}
    folder = Folder(name="folder", root=root, normal_dir="good", **settings | arguments)
    folder.setup()
    return folder


def read(data: Folder | DataLoader, k_shot: int, seed: int = 0) -> ImageBatch:
    loader = data if isinstance(data, DataLoader) else data.train_dataloader()
    return read_shots(loader, k_shot, seed)


def names(batch: ImageBatch) -> list[str]:
    return [Path(path).stem for path in batch.image_path]


class Items(Dataset):
    """An own data set of greys, ``number / 100``, whose labels are known once they are read."""

    def __init__(self, number: int, anomalous: set[int], size: tuple[int, int] = (20, 24)) -> None:
        self.number, self.anomalous, self.size = number, anomalous, size
        self.read: list[int] = []

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> ImageItem:
        self.read.append(index)
        label = torch.tensor(index in self.anomalous)
        return ImageItem(image=torch.full((3, *self.size), index / 100), gt_label=label)


def greys(batch: ImageBatch | None) -> list[int]:
    return [] if batch is None else (batch.image.amax(dim=(1, 2, 3)) * 100).round().int().tolist()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "good").mkdir()
    for index in range(NUM_IMAGES):
        write_image(tmp_path / "good" / f"{index}.png", seed=index)
    return tmp_path


class TestDraw:
    """Which images are read, and that they are read right."""

    @pytest.mark.parametrize(("k_shot", "seed"), [(1, 0), (4, 7)])
    def test_same_images_as_few_shot(self, root: Path, k_shot: int, seed: int) -> None:
        few_shot = FewShot(make_folder(root), k_shot, seed)
        few_shot.setup()
        batch = read(make_folder(root), k_shot, seed)
        assert isinstance(batch, ImageBatch)
        assert list(map(str, batch.image_path)) == few_shot.shot_paths
        assert len(set(few_shot.shot_paths)) == k_shot
        # Reading what FewShot left draws the same images again.
        assert torch.equal(read(few_shot.train_dataloader(), k_shot, seed).image, batch.image)

    @pytest.mark.parametrize("settings", [{"train_batch_size": 1}, {"num_workers": 2}], ids=str)
    def test_dataloader_makes_no_difference(self, root: Path, settings: dict[str, int]) -> None:
        expected = read(make_folder(root), 5, seed=3)
        torch.manual_seed(1)
        batch = read(make_folder(root, **settings), 5, seed=3)
        assert batch.image_path == expected.image_path
        assert torch.equal(batch.image, expected.image)

    def test_labelled_anomalies_are_not_drawn(self, root: Path) -> None:
        folder = make_folder(root)
        folder.train_data.samples.loc[::2, "label_index"] = 1
        assert names(read(folder, 100)) == ["1", "3", "5", "7"]
        folder.train_data.samples["label_index"] = 1
        for empty in (folder, DataLoader(Items(0, set()))):
            with pytest.raises(ValueError, match=r"^datamodule: .*no normal images"):
                read(empty, 1)


class TestFiles:
    """Files that cannot be trained on, or of which something is to be said; ``test_wrong_files.py`` has others."""

    def test_several_pages_are_announced(self, root: Path, caplog: pytest.LogCaptureFixture) -> None:
        path = root / "good" / "3.png"
        with Image.open(path) as image:
            image.save(path, "TIFF", save_all=True, append_images=[image, image])
        read(make_folder(root), NUM_IMAGES)
        (warning,) = caplog.messages
        assert str(path) in warning
        assert "3 frames" in warning

    def test_only_the_files_that_were_drawn_matter(self, root: Path) -> None:
        drawn = names(read(make_folder(root), 2))
        for index in {*map(str, range(NUM_IMAGES))} - {*drawn}:
            (root / "good" / f"{index}.png").write_bytes(b"")
        assert names(read(make_folder(root), 2)) == drawn

    def test_different_shapes_are_named(self, root: Path) -> None:
        write_image(root / "good" / "5.png", size=(30, 20))
        both = ConcatDataset([Items(1, set()), Items(1, set(), size=(30, 24))])
        for data, shapes in ((make_folder(root), "[(3, 20, 24), (3, 20, 30)]"), (DataLoader(both), "(3, 30, 24)]")):
            with pytest.raises(ValueError, match=rf"different shapes .*{re.escape(shapes)}"):
                read(data, NUM_IMAGES)


class TestLabels:
    """No defect is trained on, and every one is found, whatever holds it."""

    def test_own_items(self) -> None:
        loader = DataLoader(Items(20, {3, 4, 11}), shuffle=True, collate_fn=ImageBatch.collate)
        normal = [index for index in range(20) if index not in {3, 4, 11}]
        assert greys(read(loader, 20)) == normal
        draws = [greys(read(loader, 5, seed)) for seed in range(10)]
        assert all(len(drawn) == len({*drawn} & {*normal}) == 5 for drawn in draws)
        assert len({tuple(drawn) for drawn in draws}) > 5
        assert greys(read_anomalies(loader)) == [3, 4, 11]

    def test_only_as_many_are_read_as_are_needed(self) -> None:
        items = Items(50, set())
        shots = read(DataLoader(items), 4)
        assert len(items.read) == 4
        assert read_anomalies(DataLoader(items), shots) is None
        assert sorted(items.read) == list(range(50))

    def test_a_mask_is_a_label_and_a_lacking_label_is_none(self) -> None:
        items = [ImageItem(image=torch.full((3, 20, 24), index / 100)) for index in range(4)]
        items[1].gt_mask, items[2].gt_mask = torch.ones(20, 24), torch.zeros(20, 24)
        assert greys(read(DataLoader(items), 9)) == [0, 2, 3]
        assert greys(read_anomalies(DataLoader(items))) == [1]

    def test_parts_of_folders(self, root: Path) -> None:
        data = make_folder(root).train_data
        data.samples.loc[::2, "label_index"] = 1
        part = Subset(Subset(data, range(1, 9)), [0, 1, 2, 3])  # images 1 to 4
        loader = DataLoader(ConcatDataset([part, Subset(data, [8, 7])]), collate_fn=ImageBatch.collate)
        assert names(read(loader, 100)) == ["1", "3", "7"]
        assert names(read_anomalies(loader)) == ["2", "4", "8"]
        with pytest.raises(ValueError, match="no normal images"):
            read(DataLoader(Subset(data, [0, 2])), 1)

    def test_folders_beside_own_items(self, root: Path) -> None:
        both = ConcatDataset([make_folder(root).train_data, Items(4, {1})])
        loader = DataLoader(both, collate_fn=ImageBatch.collate)
        assert len(read(loader, 100).image) == NUM_IMAGES + 3
        assert greys(read_anomalies(loader)) == [1]

    def test_digests_are_of_files_as_they_are(self, root: Path) -> None:
        data = make_folder(root, train_augmentations=Resize((12, 12))).train_data
        digests = list(digest_images(read(DataLoader(ConcatDataset([data, data])), 100)).values())
        files = [torch.from_numpy(np.asarray(Image.open(path)) / 255) for path in data.samples["image_path"]]
        in_memory = DataLoader([ImageItem(image=image.permute(2, 0, 1)) for image in files])
        assert digests == list(digest_images(read(in_memory, 100)).values()) * 2
        assert len(set(digests)) == NUM_IMAGES


@pytest.mark.parametrize("item", [[1, 2], None], ids=["list", "None"])
def test_items_that_are_no_images_are_named(item: object) -> None:
    with pytest.raises(TypeError, match=f"^train_dataloaders: got items of type {type(item).__name__}; .*ImageItem"):
        read(DataLoader([item]), 1)


def test_a_batch_that_is_served_is_a_copy() -> None:
    batch = ImageBatch(image=torch.rand(2, 3, 20, 20))
    served = RepeatedBatch(batch, 2)
    for copied in served:
        copied.image = torch.zeros(2, 3, 5, 5)  # as a pre-processor does
        assert batch.image.shape == (2, 3, 20, 20)
    assert len(served) == len(list(served)) == 2
