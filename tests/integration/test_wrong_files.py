# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Image files of all kinds, damaged ones and ones that are none: in training, validation, test and prediction."""

import io
import re
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
import torch
from anomalib.cli.cli import AnomalibCLI
from anomalib.data import Folder, ImageBatch, ImageItem, PredictDataset
from anomalib.data.datasets.image.folder import FolderDataset
from anomalib.data.utils import ValSplitMode
from anomalib.data.utils import read_image as read_image_of_anomalib
from anomalib.models.components import AnomalibModule
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lightning.pytorch.callbacks import BasePredictionWriter
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset
from torchvision.transforms.v2.functional import to_image

from anomalib_htdgm import Devnet, Differnet, FewShot, Htdgm
from anomalib_htdgm.data import read_image
from anomalib_htdgm.data.loading import read_as_seen
from anomalib_htdgm.data.reading import UnreadableImageError

from .small import SIDE, make_engine, make_image, make_small_model

pytestmark = pytest.mark.thorough

THOROUGHLY = settings(
    max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
PICTURE = Image.fromarray(make_image("turned", 5).permute(1, 2, 0).numpy())


def encode(image: Image.Image, kind: str = "PNG", **arguments: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **arguments)
    return buffer.getvalue()


def bomb(width: int, height: int) -> bytes:
    """Make a small file that claims to be of this size."""
    content = bytearray(encode(PICTURE))
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


PNG, JPEG = encode(PICTURE), encode(PICTURE, "JPEG")
BAD = {
    "empty.png": (b"", "it is empty"),
    "truncated.png": (PNG[: len(PNG) // 2], "truncated"),
    "truncated.jpg": (JPEG[: len(JPEG) // 2], "truncated"),
    "text.png": (b"not an image", "cannot identify"),
    "float.tiff": (encode(Image.new("F", (SIDE, SIDE), 0.5), "TIFF"), "32 bits"),
    "integers.tif": (encode(Image.new("I", (SIDE, SIDE), 70_000), "TIFF"), "32 bits"),
    "huge.png": (bomb(20_000, 20_000), "400000000 pixels"),
}
GREY = np.asarray(PICTURE.convert("L"))
SIXTEEN_BITS = Image.fromarray(GREY.astype(np.uint16) * 257)
TURNED = Image.Exif()
TURNED[0x0112] = 6
as_grey = np.stack([GREY] * 3, axis=-1)
GOOD = {
    "sixteen.png": (encode(SIXTEEN_BITS), as_grey),
    "sixteen.tif": (encode(SIXTEEN_BITS, "TIFF"), as_grey),
    "sixteen.pgm": (encode(SIXTEEN_BITS, "PPM"), as_grey),
    "grey.png": (encode(PICTURE.convert("L")), as_grey),
    "grey_alpha.png": (encode(PICTURE.convert("LA")), as_grey),
    "alpha.png": (encode(PICTURE.convert("RGBA")), np.asarray(PICTURE)),
    "palette.png": (encode(PICTURE.convert("P")), np.asarray(PICTURE.convert("P").convert("RGB"))),
    "two.png": (encode(PICTURE.convert("1")), np.asarray(PICTURE.convert("1").convert("RGB"))),
    "cmyk.tif": (encode(PICTURE.convert("CMYK"), "TIFF"), np.asarray(PICTURE)),
    "jpeg.png": (JPEG, np.asarray(Image.open(io.BytesIO(JPEG)))),
    "png.jpg": (PNG, np.asarray(PICTURE)),
    "turned.png": (encode(PICTURE, exif=TURNED), np.rot90(np.asarray(PICTURE), -1)),
    "turned_sixteen.tif": (encode(SIXTEEN_BITS, "TIFF", exif=TURNED), np.rot90(as_grey, -1)),
}
SMALL = {"one.png": (1, 1), "narrow.png": (10, 64), "line.png": (20_000, 10)}


def describe(image: torch.Tensor, path: str | None) -> list[str]:
    return [f"a picture of {tuple(image.shape)}, {Path(str(path)).name}"]


def place(good: Folder, name: str, content: bytes) -> Path:
    path = good.root / "good" / name
    path.write_bytes(content)
    return path


@pytest.fixture(autouse=True)
def _checkpoint(small_checkpoint: Path, tmp_path: Path) -> None:
    shutil.copy(small_checkpoint, tmp_path / "model.ckpt")


def predict(good: Folder, **arguments: object) -> dict[str, float]:
    batches = make_engine(good.root).predict(
        Htdgm(**arguments), data_path=good.root / "good", ckpt_path=good.root / "model.ckpt"
    )
    return {Path(batch.image_path[0]).name: batch.pred_score.item() for batch in batches}


class TestReading:
    """What a file becomes."""

    @pytest.mark.parametrize("name", GOOD)
    def test_pixels_are_those_that_one_sees(self, name: str, good: Folder) -> None:
        content, expected = GOOD[name]
        path = place(good, name, content)
        np.testing.assert_allclose(read_image(path), expected / 255, atol=1e-6)
        np.testing.assert_allclose(read_image(path, as_tensor=True).permute(1, 2, 0), expected / 255, atol=1e-6)
        if "sixteen" not in name and "turned" not in name:  # the others are as anomalib reads them
            assert torch.equal(read_image(path, as_tensor=True), read_image_of_anomalib(path, as_tensor=True))

    @pytest.mark.parametrize("name", BAD)
    def test_what_cannot_be_read_is_named(self, name: str, good: Folder) -> None:
        content, what = BAD[name]
        path = place(good, name, content)
        with pytest.raises(UnreadableImageError, match=rf"^image {re.escape(str(path))} cannot be .*{what}.*; allowed"):
            read_image(path)

    @THOROUGHLY
    @given(
        mode=st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "I;16"]),
        width=st.integers(1, 40),
        height=st.integers(1, 40),
        seed=st.integers(0, 100),
    )
    def test_any_mode_and_size_becomes_three_channels(
        self, mode: str, width: int, height: int, seed: int, tmp_path: Path
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

    @THOROUGHLY
    @given(content=st.sampled_from([PNG, JPEG]), place=st.integers(0, max(len(PNG), len(JPEG))))
    def test_truncated_anywhere(self, content: bytes, place: int, tmp_path: Path) -> None:
        path = tmp_path / "truncated"
        path.write_bytes(content[:place])
        try:
            whole = read_image(path, as_tensor=True)
        except UnreadableImageError as error:
            assert str(path) in str(error)  # noqa: PT017  # the last bytes hold no pixels
        else:
            assert place > len(content) - 20
            with Image.open(io.BytesIO(content)) as image:
                expected = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) / 255
            torch.testing.assert_close(torch.Tensor(whole), expected)

    @THOROUGHLY
    @given(
        content=st.sampled_from([content for content, _ in GOOD.values()]),
        places=st.lists(st.integers(0, 2_000), min_size=1, max_size=8),
        value=st.integers(0, 255),
    )
    def test_damaged_anywhere(self, content: bytes, places: list[int], value: int, tmp_path: Path) -> None:
        path, damaged = tmp_path / "damaged", bytearray(content)
        for each in places:
            damaged[each % len(damaged)] = value
        path.write_bytes(damaged)
        try:
            read = read_image(path, as_tensor=True)
        except UnreadableImageError as error:
            assert str(path) in str(error)  # noqa: PT017  # damage may be invisible, as in a pixel of a BMP
        else:
            assert read.ndim == 3
            assert read.shape[0] == 3


class TestHeic:
    """Photographs of iPhones."""

    def test_they_are_read(self, tmp_path: Path) -> None:
        path = tmp_path / "photo.jpg"
        pillow_heif.from_pillow(PICTURE).save(tmp_path / "photo.heic", quality=-1)
        (tmp_path / "photo.heic").rename(path)
        np.testing.assert_allclose(read_image(path), np.asarray(PICTURE) / 255, atol=0.05)

    def test_what_lacks_is_said(self, tmp_path: Path) -> None:
        pillow_heif.from_pillow(PICTURE).save(tmp_path / "photo.heic")
        (tmp_path / "photo.heic").rename(tmp_path / "photo.png")
        program = "import sys; sys.modules['pillow_heif'] = None; from anomalib_htdgm.data import read_image; "
        command = [sys.executable, "-c", f"{program}read_image({str(tmp_path / 'photo.png')!r})"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert re.search(r"photo\.png cannot be read: it is HEIC, .*install pillow-heif.*JPEG", result.stderr)


class TestMasks:
    """A mask fits its photograph, whether it was drawn on it as stored or as it is seen."""

    @pytest.mark.parametrize("is_drawn_as_stored", [False, True])
    def test_of_a_turned_photograph(self, tmp_path: Path, *, is_drawn_as_stored: bool) -> None:
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


class TestNoImages:
    """What is no data set of images is refused by what is wanted instead, and before a training is lost to it."""

    @pytest.mark.parametrize("collate", [None, ImageBatch.collate], ids=["PyTorch's", "anomalib's"])
    @pytest.mark.parametrize("item", [(torch.zeros(3, 64, 64), 0), {"image": torch.zeros(3, 64, 64)}, None, "0.png"])
    def test_in_every_way(self, item: object, collate: Callable[..., object] | None, good: Folder) -> None:
        loader = DataLoader([item] * 2, collate_fn=collate)
        for way in ("validate", "test", "predict"):
            with pytest.raises(TypeError, match=r"dataloaders: got .*ImageItem"):
                getattr(make_engine(good.root), way)(Htdgm(), dataloaders=loader, ckpt_path=good.root / "model.ckpt")
        model = make_small_model()
        good.setup()
        for train, val in ((loader, None), (good.train_dataloader(), loader)):
            with pytest.raises(TypeError, match=r"dataloaders: got .*ImageItem"):
                make_engine(good.root).fit(model, train_dataloaders=train, val_dataloaders=val)
        assert not model.model.is_trained

    def test_no_validation_images_to_be_split_off(self, good: Folder) -> None:
        good.val_split_mode = ValSplitMode.NONE
        with pytest.raises(ValueError, match=r"^val_split_mode: got 'none', .*'same_as_test'"):
            make_engine(good.root).fit(make_small_model(), datamodule=good)


class TestTraining:
    """One error, before any training."""

    @pytest.mark.parametrize("is_wrapped", [False, True])
    @pytest.mark.parametrize("name", ["truncated.jpg", "float.tiff", "narrow.png"])
    def test_a_bad_file_is_named(self, name: str, good: Folder, *, is_wrapped: bool) -> None:
        content, what = BAD[name] if name in BAD else (encode(Image.new("L", SMALL[name])), "at least 11x11")
        path, model = place(good, name, content), make_small_model(k_shot=3)
        with pytest.raises(ValueError, match=rf"^training image {re.escape(str(path))} .*{what}"):
            make_engine(good.root).fit(model, datamodule=FewShot(good, k_shot=3) if is_wrapped else good)
        assert not model.model.is_trained
        assert list(good.root.rglob("*.ckpt")) == [good.root / "model.ckpt"]

    def test_a_bad_validation_image_costs_no_training(self, good: Folder, caplog: pytest.LogCaptureFixture) -> None:
        defects = good.root / "bad"
        defects.mkdir()
        Image.fromarray(make_image("turned").permute(1, 2, 0).numpy()).save(defects / "0.png")
        (defects / "1.png").write_bytes(b"")
        folders = {"root": good.root, "normal_dir": "good", "abnormal_dir": "bad", "normal_test_dir": "good"}
        both = Folder(name="stripes", val_split_mode="same_as_test", num_workers=0, **folders)
        model = make_small_model({"iterations": 1})
        make_engine(good.root).fit(model, datamodule=both)
        assert model.model.is_trained
        assert not model.post_processor.image_threshold.isnan()
        assert [str(defects / "1.png") in each for each in warnings_of(caplog)] == [True, False]
        # Figures on some of the images would be wrong ones.
        for way in ("test", "validate"):
            with pytest.raises(UnreadableImageError, match=re.escape(str(defects / "1.png"))):
                getattr(make_engine(good.root), way)(Htdgm(), datamodule=both, ckpt_path=good.root / "model.ckpt")
        (defects / "1.png").write_bytes(PNG)
        (metrics,) = make_engine(good.root).test(Htdgm(), datamodule=both, ckpt_path=good.root / "model.ckpt")
        assert metrics["image_AUROC"] == 1


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    records = [record for record in caplog.records if record.name.startswith("anomalib_htdgm")]
    return [record.getMessage() for record in records if record.levelname == "WARNING"]


def make_small_differnet(**arguments: object) -> Differnet:
    small = {"pre_trained": False, "image_sizes": [64], "coupling_blocks": 1, "hidden_width": 4, "epochs": 1}
    return Differnet(**{**small, "test_rotations": 1, "map_rotations": 0, "visualizer": False, **arguments})


class TestPrediction:
    """One bad file does not lose the others' results, unless asked to be strict."""

    def test_bad_files_are_left_out(self, good: Folder, caplog: pytest.LogCaptureFixture) -> None:
        for name, (content, _) in GOOD.items():
            place(good, name, content)
        expected = predict(good)
        assert len(expected) == 2 + len(GOOD)
        assert not warnings_of(caplog)
        for name, (content, _) in BAD.items():
            place(good, name, content)
        for picture in good.root.glob("Htdgm/**/images/**/*.*"):
            picture.unlink()
        assert predict(good) == expected
        *named, total = warnings_of(caplog)
        for name, message in zip(sorted(BAD), named, strict=True):
            assert f"{name} cannot be read: " in message
            assert BAD[name][1] in message
        assert f"left out: {len(BAD)}. " in total
        pictures = {path.name for path in good.root.glob("Htdgm/**/images/**/*.*")}
        assert pictures == {f"{name}.png" if name.endswith(".pgm") else name for name in expected}

    @pytest.mark.parametrize("num_workers", [0, 1])
    def test_what_is_unlike_all_good_images_is_named(
        self, good: Folder, num_workers: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        engine = make_engine(good.root)
        engine.fit(make_small_model(), datamodule=good)
        with Image.open(good.root / "good" / "0.png") as image:
            (good.root / "new").mkdir()
            for name, other in (("good", image), ("wide", image.resize((128, 64))), ("black", image.point([0] * 768))):
                other.save(good.root / "new" / f"{name}.png")
        data = PredictDataset(good.root / "new")
        loader = DataLoader(data, batch_size=3, collate_fn=data.collate_fn, num_workers=num_workers)
        caplog.clear()
        make_engine(good.root).predict(Htdgm(), dataloaders=loader, ckpt_path=engine.best_model_path)
        named = {Path(text.partition(": ")[0]).name: text for text in warnings_of(caplog)}
        assert named.keys() == {"black.png", "wide.png"}
        assert "it is 128x64 pixels, the good ones 64x64, so it is squashed: its score" in named["wide.png"]

    def test_the_stock_command_is_as_strict_as_it_is_told(self, good: Folder) -> None:
        place(good, "text.png", b"text")
        arguments = [
            "predict",
            "--model",
            "Htdgm",
            "--data",
            str(good.root / "good"),
            "--ckpt_path",
            str(good.root / "model.ckpt"),
        ]
        arguments += ["--default_root_dir", str(good.root / "results")]
        AnomalibCLI(arguments)
        assert len(list((good.root / "results").rglob("images/**/*.png"))) == 2
        with pytest.raises(UnreadableImageError, match=r"text\.png cannot be read"):
            AnomalibCLI([*arguments, "--model.skip_unreadable", "false"])

    def test_nothing_but_bad_files_is_an_error(self, good: Folder) -> None:
        for path in (good.root / "good").iterdir():
            path.write_bytes(b"")
        with pytest.raises(UnreadableImageError, match=r"^none of 2 images .*0\.png cannot be read: it is empty"):
            predict(good)

    def test_sixteen_bits_score_as_eight_do(self, good: Folder) -> None:
        place(good, "sixteen.png", GOOD["sixteen.png"][0])
        place(good, "grey.png", GOOD["grey.png"][0])
        scores = predict(good)
        assert scores["sixteen.png"] == pytest.approx(scores["grey.png"], abs=1e-5)
        assert scores["0.png"] < 0.5 < scores["grey.png"]

    def test_small_and_long_images_have_finite_scores(self, good: Folder) -> None:
        for name, size in SMALL.items():
            place(good, name, encode(Image.new("L", size, 90)))
        scores = predict(good)
        assert len(scores) == 2 + len(SMALL)
        assert all(0 <= score <= 1 for score in scores.values())

    @pytest.mark.parametrize("settings", [{"batch_size": 3}, {"batch_size": 2, "num_workers": 2}], ids=str)
    def test_batches_and_workers_make_no_difference(self, good: Folder, settings: dict[str, int]) -> None:
        for name, content in (("1a.png", b""), ("2.png", PNG), ("3.png", b""), ("4.png", b""), ("5.png", PNG)):
            place(good, name, content)
        dataset = PredictDataset(good.root / "good")
        loader = DataLoader(dataset, collate_fn=dataset.collate_fn, **settings)
        served = read_as_seen(loader, skip_unreadable=True)
        assert isinstance(served, DataLoader)
        for _ in range(2):  # it may be iterated again
            names = [Path(path).name for batch in served for path in batch.image_path]
            assert names == ["0.png", "1.png", "2.png", "5.png"]
        assert loader.dataset is dataset
        assert loader.collate_fn == ImageBatch.collate

    @pytest.mark.parametrize("order", [range(6), [5, 4, 3, 2, 1, 0]])
    @pytest.mark.parametrize("settings", [{"batch_size": 2}, {"batch_size": 2, "num_workers": 2}, {"batch_size": 4}])
    def test_a_writer_is_told_which_items_were_scored(
        self, good: Folder, settings: dict[str, int], order: Sequence[int]
    ) -> None:
        """Of six files the third, fourth and sixth cannot be read, so that with batches of two one is lost."""
        for name, content in (("2.png", b""), ("3.png", b""), ("4.png", PNG), ("5.png", b"")):
            place(good, name, content)
        dataset, written = PredictDataset(good.root / "good"), []

        class Writer(BasePredictionWriter):
            def write_on_batch_end(
                self, _: object, __: object, batch: ImageBatch, indices: list[int], *___: int
            ) -> None:
                written.append(dict(zip(indices, batch.image_path, strict=True)))

            def write_on_epoch_end(self, _: object, __: object, ___: object, indices: list[list[list[int]]]) -> None:
                assert [list(each) for each in written] == indices[0]

        loader = DataLoader(Subset(dataset, order), collate_fn=ImageBatch.collate, **settings)
        engine = make_engine(good.root, callbacks=[Writer("batch_and_epoch")])
        engine.predict(Htdgm(), dataloaders=loader, ckpt_path=good.root / "model.ckpt")
        named = {index: Path(path).name for each in written for index, path in each.items()}
        assert named == {index: f"{order[index]}.png" for index in range(6) if order[index] in {0, 1, 4}}

    def test_parts_of_folders_are_read_alike(self, good: Folder) -> None:
        place(good, "2.png", b"")
        place(good, "sixteen.png", GOOD["sixteen.png"][0])
        expected = predict(good)
        whole = PredictDataset(good.root / "good")
        parts = ConcatDataset([Subset(whole, [3, 2]), Subset(whole, [0, 1])])
        batches = make_engine(good.root).predict(
            Htdgm(), dataloaders=DataLoader(parts), ckpt_path=good.root / "model.ckpt"
        )
        assert {Path(batch.image_path[0]).name: batch.pred_score.item() for batch in batches} == expected

    def test_files_that_an_own_dataset_cannot_read_are_left_out(
        self, good: Folder, caplog: pytest.LogCaptureFixture
    ) -> None:
        paths = [place(good, "2.png", b"no image"), good.root / "good" / "0.png"]

        class Own(Dataset):
            def __len__(self) -> int:
                return len(paths)

            def __getitem__(self, index: int) -> ImageItem:
                return ImageItem(image=to_image(Image.open(paths[index]).convert("RGB")), image_path=str(paths[index]))

        (batch,) = make_engine(good.root).predict(
            Htdgm(), dataloaders=DataLoader(Own()), ckpt_path=good.root / "model.ckpt"
        )
        assert batch.image_path == [str(paths[1])]
        assert "item 0 of Own cannot be read" in warnings_of(caplog)[0]

    def test_files_that_anomalib_does_not_list_are_named(self, good: Folder, caplog: pytest.LogCaptureFixture) -> None:
        (good.root / "good" / "phone").mkdir()
        kinds = {"a.jfif": "JPEG", "b.GIF": "GIF", "c.jp2": "JPEG2000", "nameless": "PNG", "phone/d.avif": "AVIF"}
        for name, kind in kinds.items():
            place(good, name, encode(PICTURE, kind))
        place(good, "notes.txt", b"no image")
        assert len(predict(good)) == 2
        (warning,) = warnings_of(caplog)
        assert all(str(good.root / "good" / name) in warning for name in kinds)
        assert "notes.txt" not in warning
        caplog.clear()
        make_engine(good.root).predict(
            Htdgm(), data_path=good.root / "good" / "0.png", ckpt_path=good.root / "model.ckpt"
        )
        assert not warnings_of(caplog)  # it was asked for alone
        folders = {"normal_dir": "good", "normal_test_dir": "good", "val_split_mode": "same_as_test"}
        both = Folder("stripes", root=good.root, num_workers=0, test_split_mode="from_dir", **folders)
        make_engine(good.root).fit(make_small_model({"iterations": 1}), datamodule=FewShot(both))
        assert sum("nameless" in each for each in warnings_of(caplog)) == 1

    def test_many_of_them_become_a_number(self, good: Folder, caplog: pytest.LogCaptureFixture) -> None:
        for index in range(30):
            place(good, f"{index}.gif", encode(PICTURE, "GIF"))
        predict(good)
        (warning,) = warnings_of(caplog)
        assert warning.count(".gif") == 10
        assert "and 20 more" in warning

    @pytest.mark.parametrize("num_workers", [0, 1])
    def test_what_is_to_be_said_of_a_file_is_said(
        self, good: Folder, num_workers: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = place(good, "2.png", encode(PICTURE, "WEBP", save_all=True, append_images=[PICTURE.rotate(90)]))
        loader = DataLoader(PredictDataset(path), collate_fn=ImageBatch.collate, num_workers=num_workers)
        list(read_as_seen(loader, skip_unreadable=True, inspect=describe))
        frames, described = warnings_of(caplog)
        assert frames == f"{path}: it has 2 frames or pages, of which only the first is looked at"
        assert described == f"{path}: a picture of (3, {SIDE}, {SIDE}), 2.png"

    def test_letters_beyond_ascii_cost_one_file(self, good: Folder, caplog: pytest.LogCaptureFixture) -> None:
        path = place(good, "größe.png", PNG)
        assert predict(good).keys() == {"0.png", "1.png"}
        assert f"{path} cannot be read: anomalib takes no letters beyond ASCII" in warnings_of(caplog)[0]

    def test_other_models_read_as_before(self, good: Folder) -> None:
        path = place(good, "sixteen.png", GOOD["sixteen.png"][0])
        predict(good)
        assert PredictDataset(path)[0].image.min() == 1  # clipped, as anomalib does

    @pytest.mark.parametrize("make", [make_small_model, make_small_differnet, Devnet])
    def test_every_model_may_be_strict_and_saves_nothing_of_it(self, make: Callable[..., AnomalibModule]) -> None:
        assert make().skip_unreadable
        strict = make(skip_unreadable=False)
        assert not strict.skip_unreadable
        assert "skip_unreadable" not in strict.hparams

    def test_differnet_leaves_out_too(self, good: Folder) -> None:
        model, engine = make_small_differnet(), make_engine(good.root)
        engine.fit(model, datamodule=good)
        place(good, "text.png", b"text")
        assert len(engine.predict(model, data_path=good.root / "good")) == 2
