# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The training images are the same whatever the dataloader, and files that cannot be trained on are named."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from anomalib.data import Folder, ImageBatch, ImageItem
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset
from torchvision.transforms.v2 import Compose, RandomHorizontalFlip, Resize

from anomalib_htdgm.data.augmentation import augmentation_of
from anomalib_htdgm.data.few_shot import FewShot
from anomalib_htdgm.data.shots import OneBatch, digest_images, read_anomalies, read_shots

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


def read(folder: Folder, k_shot: int, seed: int = 0) -> ImageBatch:
    return read_shots(folder.train_dataloader(), k_shot, seed, smallest_side=11)


class Items(Dataset):
    """A plain dataset of items."""

    def __init__(self, images: list[torch.Tensor]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> ImageItem:
        return ImageItem(image=self.images[index], gt_label=torch.tensor(0))


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
        again = read_shots(few_shot.train_dataloader(), k_shot, seed, smallest_side=11)
        assert torch.equal(again.image, batch.image)

    def test_seeds_draw_different_images(self, root: Path) -> None:
        folder = make_folder(root)
        assert len({tuple(map(str, read(folder, 3, seed).image_path)) for seed in range(8)}) > 4

    def test_pixels_are_those_of_the_files(self, root: Path) -> None:
        batch = read(make_folder(root), 3)
        assert batch.image.shape == (3, 3, 20, 24)
        for path, image in zip(batch.image_path, batch.image, strict=True):
            expected = np.asarray(Image.open(path), np.float32).transpose(2, 0, 1) / 255
            np.testing.assert_allclose(image.numpy(), expected, atol=1e-6)

    @pytest.mark.parametrize(
        "settings", [{"train_batch_size": 1}, {"train_batch_size": 32}, {"num_workers": 2}], ids=str
    )
    def test_dataloader_makes_no_difference(self, root: Path, settings: dict[str, int]) -> None:
        expected = read(make_folder(root), 5, seed=3)
        torch.manual_seed(1)
        batch = read(make_folder(root, **settings), 5, seed=3)
        assert batch.image_path == expected.image_path
        assert torch.equal(batch.image, expected.image)

    @pytest.mark.parametrize("k_shot", [NUM_IMAGES, 1000])
    def test_all_if_there_are_fewer(self, root: Path, k_shot: int) -> None:
        batch = read(make_folder(root), k_shot)
        assert [Path(path).name for path in batch.image_path] == [f"{index}.png" for index in range(NUM_IMAGES)]

    def test_labelled_anomalies_are_not_drawn(self, root: Path) -> None:
        folder = make_folder(root)
        folder.train_data.samples.loc[::2, "label_index"] = 1
        assert [Path(path).name for path in read(folder, 100).image_path] == ["1.png", "3.png", "5.png", "7.png"]
        folder.train_data.samples["label_index"] = 1
        with pytest.raises(ValueError, match=r"^datamodule: .*no normal images"):
            read(folder, 1)

    def test_empty_training_set(self) -> None:
        with pytest.raises(ValueError, match=r"^datamodule: .*no normal images"):
            read_shots(DataLoader(Items([])), 1, seed=0, smallest_side=11)


class TestFiles:
    """Kinds of files."""

    def test_sixteen_bits_keep_their_brightness_in_the_smallest_legal_file(self, tmp_path: Path) -> None:
        (tmp_path / "good").mkdir()
        stored = np.random.default_rng(0).integers(0, 65536, (11, 11), np.uint16)
        Image.fromarray(stored).save(tmp_path / "good" / "0.png")
        batch = read(make_folder(tmp_path), 1)
        assert torch.equal(batch.image[0], (torch.from_numpy(stored.astype(np.float32)) / 65535).expand(3, -1, -1))

    @pytest.mark.parametrize("kind", ["png", "jpg", "tif"])
    def test_an_orientation_is_applied(self, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
        (tmp_path / "good").mkdir()
        upright = np.kron(np.arange(12, dtype=np.uint8).reshape(3, 4) * 20, np.ones((8, 8), np.uint8))
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned clockwise
        Image.fromarray(np.rot90(upright)).save(tmp_path / "good" / f"0.{kind}", exif=exif)
        batch = read(make_folder(tmp_path), 1)
        np.testing.assert_allclose(batch.image[0, 0].numpy(), upright / np.float32(255), atol=0.02)
        assert not caplog.records

    def test_several_pages_are_announced(self, root: Path, caplog: pytest.LogCaptureFixture) -> None:
        path = root / "good" / "3.png"
        with Image.open(path) as image:
            image.save(path, "TIFF", save_all=True, append_images=[image, image])
        read(make_folder(root), NUM_IMAGES)
        (warning,) = caplog.messages
        assert str(path) in warning
        assert "3 frames" in warning

    @pytest.mark.parametrize("damage", [lambda _: b"", lambda _: b"no image", lambda raw: raw[: len(raw) // 2]])
    def test_corrupt_file_is_named(self, root: Path, damage: Callable[[bytes], bytes]) -> None:
        path = root / "good" / "5.png"
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(ValueError, match=f"{re.escape(str(path))} cannot be read"):
            read(make_folder(root), NUM_IMAGES)

    @pytest.mark.parametrize(("size", "named"), [((10, 40), "40x10"), ((40, 10), "10x40")])
    def test_small_file_is_named(self, root: Path, size: tuple[int, int], named: str) -> None:
        path = write_image(root / "good" / "5.png", size=size)
        with pytest.raises(ValueError, match=f"{re.escape(str(path))} has {named} pixels; .*11x11"):
            read(make_folder(root), NUM_IMAGES)

    def test_only_the_files_that_were_drawn_matter(self, root: Path) -> None:
        drawn = {Path(path).name for path in read(make_folder(root), 2).image_path}
        for index in range(NUM_IMAGES):
            if f"{index}.png" not in drawn:
                (root / "good" / f"{index}.png").write_bytes(b"")
        assert {Path(path).name for path in read(make_folder(root), 2).image_path} == drawn

    def test_different_shapes_are_named(self, root: Path) -> None:
        write_image(root / "good" / "5.png", size=(30, 20))
        with pytest.raises(ValueError, match=re.escape("different shapes [(3, 20, 24), (3, 20, 30)]")):
            read(make_folder(root), NUM_IMAGES)


def labelled(number: int, anomalous: set[int]) -> list[ImageItem]:
    """Make items of an own data set, each of a grey of its own, ``number / 100``."""
    return [
        ImageItem(image=torch.full((3, 20, 24), index / 100), gt_label=torch.tensor(index in anomalous))
        for index in range(number)
    ]


def greys(batch: ImageBatch | None) -> list[int]:
    return [] if batch is None else (batch.image.amax(dim=(1, 2, 3)) * 100).round().int().tolist()


class TestLabels:
    """No defect is trained on, and every one is found, whatever holds it."""

    def test_own_items(self) -> None:
        loader = DataLoader(labelled(20, {3, 4, 11}), collate_fn=ImageBatch.collate)
        normal = [index for index in range(20) if index not in {3, 4, 11}]
        assert greys(read_shots(loader, 20, seed=0, smallest_side=11)) == normal
        for seed in range(10):
            drawn = greys(read_shots(loader, 5, seed, smallest_side=11))
            assert len(drawn) == len({*drawn} & {*normal}) == 5
        assert greys(read_anomalies(loader, 11)) == [3, 4, 11]

    def test_only_as_many_are_read_as_are_needed(self) -> None:
        class Counting(Items):
            read: ClassVar[list[int]] = []

            def __getitem__(self, index: int) -> ImageItem:
                self.read.append(index)
                return super().__getitem__(index)

        loader = DataLoader(Counting([torch.zeros(3, 20, 24)] * 50))
        shots = read_shots(loader, 4, seed=0, smallest_side=11)
        assert len(Counting.read) == 4
        assert read_anomalies(loader, 11, shots) is None
        assert sorted(Counting.read) == list(range(50))

    def test_a_mask_is_a_label_and_a_lacking_label_is_none(self) -> None:
        items = [ImageItem(image=torch.full((3, 20, 24), index / 100)) for index in range(4)]
        items[1].gt_mask, items[2].gt_mask = torch.ones(20, 24), torch.zeros(20, 24)
        loader = DataLoader(items)
        assert greys(read_shots(loader, 9, seed=0, smallest_side=11)) == [0, 2, 3]
        assert greys(read_anomalies(loader, 11)) == [1]

    def test_parts_of_folders(self, root: Path) -> None:
        data = make_folder(root).train_data
        data.samples.loc[::2, "label_index"] = 1
        part = Subset(Subset(data, range(1, 9)), [0, 1, 2, 3])  # images 1 to 4
        whole = ConcatDataset([part, Subset(data, [8, 7])])
        loader = DataLoader(whole, collate_fn=ImageBatch.collate)
        shots, anomalies = read_shots(loader, 100, seed=0, smallest_side=11), read_anomalies(loader, 11)
        assert [Path(path).stem for path in shots.image_path] == ["1", "3", "7"]
        assert [Path(path).stem for path in anomalies.image_path] == ["2", "4", "8"]
        with pytest.raises(ValueError, match="no normal images"):
            read_shots(DataLoader(Subset(data, [0, 2])), 1, seed=0, smallest_side=11)

    def test_folders_beside_own_items(self, root: Path) -> None:
        both = ConcatDataset([make_folder(root).train_data, labelled(4, {1})])
        loader = DataLoader(both, collate_fn=ImageBatch.collate)
        assert len(read_shots(loader, 100, seed=0, smallest_side=11).image) == NUM_IMAGES + 3
        assert greys(read_anomalies(loader, 11)) == [1]

    def test_sixteen_bits_in_a_part(self, tmp_path: Path) -> None:
        (tmp_path / "good").mkdir()
        Image.fromarray(np.full((20, 20), 30_000, np.uint16)).save(tmp_path / "good" / "0.png")
        loader = DataLoader(Subset(make_folder(tmp_path).train_data, [0]))
        assert (read_shots(loader, 1, seed=0, smallest_side=11).image == np.float32(30_000 / 65535)).all()

    def test_augmentations_of_parts(self, root: Path) -> None:
        flip = RandomHorizontalFlip(1.0)
        data = make_folder(root, train_augmentations=Compose([flip, Resize((12, 12))])).train_data
        loader = DataLoader(ConcatDataset([Subset(data, [0]), Subset(data, [1, 2])]))
        assert read_shots(loader, 3, seed=0, smallest_side=11).image.shape[-2:] == (12, 12)
        image = torch.rand(1, 3, 20, 24)
        assert torch.equal(augmentation_of(loader, 0)(image, 0), Resize((12, 12))(image.flip(-1)))
        others = ConcatDataset([data, make_folder(root).train_data])
        with pytest.raises(ValueError, match=r"^train_augmentations: got different ones"):
            augmentation_of(DataLoader(others), 0)

    def test_digests_are_of_files_as_they_are(self, root: Path) -> None:
        data = make_folder(root, train_augmentations=Resize((12, 12))).train_data
        twice = DataLoader(ConcatDataset([data, data]))
        digests = digest_images(read_shots(twice, 100, seed=0, smallest_side=11))
        in_memory = [
            ImageItem(image=torch.from_numpy(np.asarray(Image.open(path)) / 255).permute(2, 0, 1))
            for path in data.samples["image_path"]
        ]
        expected = list(digest_images(read_shots(DataLoader(in_memory), 100, seed=0, smallest_side=11)).values())
        assert list(digests.values()) == expected * 2
        assert len(set(expected)) == NUM_IMAGES


class TestDataloaders:
    """Dataloaders of other makes."""

    def test_plain_dataset(self) -> None:
        images = list(torch.rand(6, 3, 20, 24, generator=torch.Generator().manual_seed(0)))
        loader = DataLoader(Items(images), batch_size=2, shuffle=True, collate_fn=ImageBatch.collate)
        batch = read_shots(loader, 6, seed=0, smallest_side=11)
        assert torch.equal(batch.image, torch.stack(images))
        drawn = read_shots(loader, 2, seed=0, smallest_side=11).image
        assert sum(any(torch.equal(one, other) for other in images) for one in drawn) == 2
        assert not torch.equal(*drawn)

    def test_plain_dataset_of_several_shapes(self) -> None:
        loader = DataLoader(Items([torch.zeros(3, 20, 24), torch.zeros(3, 30, 24)]), collate_fn=ImageBatch.collate)
        with pytest.raises(ValueError, match=re.escape("[(3, 20, 24), (3, 30, 24)]")):
            read_shots(loader, 2, seed=0, smallest_side=11)

    @pytest.mark.parametrize(
        "item", [(torch.zeros(3, 20, 20), 0), {"image": torch.zeros(3, 20, 20)}, torch.zeros(3, 20)]
    )
    def test_no_image_items(self, item: object) -> None:
        with pytest.raises(TypeError, match=f"^train_dataloaders: got {type(item).__name__}; .*ImageItem"):
            read_shots(DataLoader([item]), 1, seed=0, smallest_side=11)

    @pytest.mark.parametrize("given", [[1, 2], None, iter(())], ids=["list", "None", "iterator"])
    def test_no_dataloader(self, given: object) -> None:
        with pytest.raises(TypeError, match=f"^train_dataloaders: got {type(given).__name__}"):
            read_shots(given, 1, seed=0, smallest_side=11)


def test_a_batch_that_is_served_is_a_copy() -> None:
    batch = ImageBatch(image=torch.rand(2, 3, 20, 20))
    served = OneBatch(batch)
    for _ in range(2):
        (copied,) = served
        copied.image = torch.zeros(2, 3, 5, 5)  # as a pre-processor does
        assert batch.image.shape == (2, 3, 20, 20)
    assert len(served) == 1
