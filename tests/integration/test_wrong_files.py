# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Files that cannot be read: in training, validation, test and prediction."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from anomalib.cli.cli import AnomalibCLI
from anomalib.data import Folder, ImageBatch, PredictDataset
from anomalib.models.components import AnomalibModule
from lightning.pytorch.callbacks import BasePredictionWriter
from PIL import Image
from torch.utils.data import DataLoader, Subset

from anomalib_htdgm import Devnet, Differnet, FewShot, Htdgm
from anomalib_htdgm.data import UnreadableImageError

from .kinds import BAD, GOOD, PNG, encode
from .small import SHORT_DIFFERNET, fit, make_engine, make_image, make_small_model

pytestmark = pytest.mark.thorough

SMALL = {"one.png": (1, 1), "narrow.png": (10, 64), "line.png": (20_000, 10)}


def place(good: Folder, name: str, content: bytes) -> Path:
    path = good.root / "good" / name
    path.write_bytes(content)
    return path


@pytest.fixture(autouse=True)
def _checkpoint(small_checkpoint: Path, tmp_path: Path) -> None:
    shutil.copy(small_checkpoint, tmp_path / "model.ckpt")


def predict(good: Folder) -> dict[str, float]:
    batches = make_engine(good.root).predict(Htdgm(), data_path=good.root / "good", ckpt_path=good.root / "model.ckpt")
    return {Path(batch.image_path[0]).name: batch.pred_score.item() for batch in batches}


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    records = [record for record in caplog.records if record.name.startswith("anomalib_htdgm")]
    return [record.getMessage() for record in records if record.levelname == "WARNING"]


class TestTraining:
    """One error, before any training."""

    @pytest.mark.parametrize("is_wrapped", [False, True])
    @pytest.mark.parametrize("name", ["truncated.jpg", "float.tiff"])
    def test_a_bad_file_is_named(self, name: str, good: Folder, *, is_wrapped: bool) -> None:
        content, what = BAD[name]
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


class TestPrediction:
    """One bad file does not lose the others' results, unless asked to be strict."""

    def test_bad_files_are_left_out(self, good: Folder, caplog: pytest.LogCaptureFixture) -> None:
        for name, (content, _) in GOOD.items():
            place(good, name, content)
        expected = predict(good)
        assert len(expected) == 2 + len(GOOD)
        assert expected["sixteen.png"] == pytest.approx(expected["grey.png"], abs=1e-5)
        assert expected["0.png"] < 0.5 < expected["grey.png"]
        assert not warnings_of(caplog)
        for name, (content, _) in BAD.items():
            place(good, name, content)
        shutil.rmtree(good.root / "Htdgm")
        assert predict(good) == expected
        *named, total = warnings_of(caplog)
        for name, message in zip(sorted(BAD), named, strict=True):
            assert f"{name} cannot be read: " in message
            assert BAD[name][1] in message
        assert f"left out: {len(BAD)}. " in total
        pictures = {path.name for path in good.root.glob("Htdgm/**/images/**/*.*")}
        assert pictures == {f"{name}.png" if name.endswith(".pgm") else name for name in expected}

    def test_what_is_unlike_all_good_images_is_named(self, good: Folder, caplog: pytest.LogCaptureFixture) -> None:
        checkpoint = fit(make_small_model(), good, good.root)
        with Image.open(good.root / "good" / "0.png") as image:
            (good.root / "new").mkdir()
            for name, other in (("good", image), ("wide", image.resize((128, 64))), ("black", image.point([0] * 768))):
                other.save(good.root / "new" / f"{name}.png")
        caplog.clear()
        make_engine(good.root).predict(Htdgm(), data_path=good.root / "new", ckpt_path=checkpoint)
        named = {Path(text.partition(": ")[0]).name: text for text in warnings_of(caplog)}
        assert named.keys() == {"black.png", "wide.png"}
        assert "it is 128x64 pixels, the good ones 64x64, so it is squashed: its score" in named["wide.png"]

    def test_the_stock_command_is_as_strict_as_it_is_told(self, good: Folder) -> None:
        place(good, "text.png", b"text")
        options = {"data": "good", "ckpt_path": "model.ckpt", "default_root_dir": "results"}
        given = [text for name, path in options.items() for text in (f"--{name}", str(good.root / path))]
        AnomalibCLI(["predict", "--model", "Htdgm", *given])
        assert len(list((good.root / "results").rglob("images/**/*.png"))) == 2
        with pytest.raises(UnreadableImageError, match=r"text\.png cannot be read"):
            AnomalibCLI(["predict", "--model", "Htdgm", *given, "--model.skip_unreadable", "false"])

    def test_nothing_but_bad_files_is_an_error(self, good: Folder) -> None:
        for path in (good.root / "good").iterdir():
            path.write_bytes(b"")
        with pytest.raises(UnreadableImageError, match=r"^none of 2 images .*0\.png cannot be read: it is empty"):
            predict(good)

    def test_small_and_long_images_have_finite_scores(self, good: Folder) -> None:
        for name, size in SMALL.items():
            place(good, name, encode(Image.new("L", size, 90)))
        scores = predict(good)
        assert len(scores) == 2 + len(SMALL)
        assert all(0 <= score <= 1 for score in scores.values())

    @pytest.mark.parametrize(
        ("batch_size", "num_workers", "order"), [(2, 0, range(6)), (2, 2, range(5, -1, -1)), (4, 0, range(5, -1, -1))]
    )
    def test_a_writer_is_told_which_items_were_scored(
        self, good: Folder, batch_size: int, num_workers: int, order: range
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

        sizes = {"batch_size": batch_size, "num_workers": num_workers}
        loader = DataLoader(Subset(dataset, order), collate_fn=ImageBatch.collate, **sizes)
        engine = make_engine(good.root, callbacks=[Writer("batch_and_epoch")])
        engine.predict(Htdgm(), dataloaders=loader, ckpt_path=good.root / "model.ckpt")
        named = {index: Path(path).name for each in written for index, path in each.items()}
        assert named == {index: f"{order[index]}.png" for index in range(6) if order[index] in {0, 1, 4}}

    def test_files_that_anomalib_does_not_list_are_named(self, good: Folder, caplog: pytest.LogCaptureFixture) -> None:
        place(good, "nameless", PNG)
        assert len(predict(good)) == 2
        make_engine(good.root).fit(make_small_model({"iterations": 1}), datamodule=good)
        assert sum("nameless" in each for each in warnings_of(caplog)) == 2

    def test_differnet_leaves_out_too(self, good: Folder) -> None:
        model, engine = Differnet(**SHORT_DIFFERNET), make_engine(good.root)
        engine.fit(model, datamodule=good)
        place(good, "text.png", b"text")
        assert len(engine.predict(model, data_path=good.root / "good")) == 2

    @pytest.mark.parametrize("make", [make_small_model, Devnet, lambda **given: Differnet(pre_trained=False, **given)])
    def test_every_model_may_be_strict_and_saves_nothing_of_it(self, make: Callable[..., AnomalibModule]) -> None:
        assert make().skip_unreadable
        strict = make(skip_unreadable=False)
        assert not strict.skip_unreadable
        assert "skip_unreadable" not in strict.hparams
