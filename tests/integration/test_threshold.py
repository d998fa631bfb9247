# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What a threshold is chosen by, in every way that a user comes by one, and that the checkpoint tells."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data import Folder, ImageBatch, ImageItem, MVTecAD
from anomalib.engine import Engine
from anomalib.post_processing import PostProcessor
from PIL import Image
from skimage import data as photographs
from torch.utils.data import DataLoader
from torchvision.tv_tensors import Image as TensorImage

from anomalib_htdgm import FewLabelledAnomalies, FewShot, Htdgm

from .small import make_engine

NUM_UNLABELLED = 10
SMALL = {"iterations": 8, "image_size": 48, "memory_patches": 300, "energy_cells": 300}
Trained = Callable[[int], tuple[Htdgm, Path]]


@pytest.fixture(scope="module")
def walls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Crops of a brick wall: good ones, unlabelled ones of which two are defective, and ones to test on."""
    root = tmp_path_factory.mktemp("walls")
    brick, gravel, source = photographs.brick(), photographs.gravel(), np.random.default_rng(0)
    for folder, number, defective in (("good", 4, 0), ("unlabelled", NUM_UNLABELLED, 2), ("new", 6, 3)):
        (root / folder).mkdir()
        for index in range(number):
            top, left = source.integers(0, 384, 2)
            image = brick[top : top + 128, left : left + 128].copy()
            if index < defective:
                image[30:90, 30:90] = gravel[:60, :60]
            Image.fromarray(image).save(root / folder / f"{index}.png")
    return root


def make_model(**arguments: object) -> Htdgm:
    return Htdgm(**{"precision": "float32", "settings": SMALL, **arguments})


@pytest.fixture(scope="module")
def trained(walls: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Train on that many shots alone, once for all tests that only read the model or its checkpoint."""

    @cache
    def train(k_shot: int) -> tuple[Htdgm, Path]:
        model, engine = make_model(k_shot=k_shot), make_engine(tmp_path_factory.mktemp("trained"))
        engine.fit(model, datamodule=open_folder(walls, k_shot))
        return model, Path(engine.best_model_path)

    return train


def open_folder(walls: Path, k_shot: int, **arguments: object) -> FewShot:
    usual = {"test_split_mode": "none", "val_split_mode": "same_as_test", "num_workers": 0}
    return FewShot(Folder("wall", "good", root=walls, **usual | arguments), k_shot=k_shot)


def unlabelled(walls: Path, k_shot: int) -> FewShot:
    """Shots, and photographs that nobody has looked at, all of which anomalib has to take for good ones."""
    modes = {"test_split_mode": "from_dir", "val_split_mode": "same_as_test"}
    return open_folder(walls, k_shot, normal_test_dir="unlabelled", **modes)


def verdicts(model: Htdgm, walls: Path) -> list[bool]:
    return [bool(model.eval()(read(path)).pred_label) for path in sorted((walls / "new").iterdir())]


def read(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.stack([np.asarray(Image.open(path))] * 3)[None] / np.float32(255))


@pytest.mark.parametrize(("k_shot", "basis"), [(1, "guess"), (2, "guess"), (3, "training images")])
def test_shots_alone(walls: Path, engine: Engine, k_shot: int, basis: str, caplog: pytest.LogCaptureFixture) -> None:
    model = make_model(k_shot=k_shot)
    engine.fit(model, datamodule=open_folder(walls, k_shot))
    assert model.threshold_chosen_by == basis
    assert ("The threshold is a guess" in caplog.text) == (basis == "guess")
    loaded = Htdgm.load_from_checkpoint(engine.best_model_path)
    assert loaded.threshold_chosen_by == basis
    assert loaded.post_processor.image_threshold == model.post_processor.image_threshold > 0
    if k_shot > 1:
        assert verdicts(loaded, walls) == [True] * 3 + [False] * 3


def test_one_whole_image_does_not_make_all_others_anomalous(walls: Path, engine: Engine) -> None:
    model = make_model(k_shot=1, preset="semantic", settings={"num_members": 2})
    engine.fit(model, datamodule=open_folder(walls, 1))
    assert model.threshold_chosen_by == "guess"
    assert verdicts(model, walls)[3:] == [False] * 3


@pytest.mark.parametrize("gist", [False, True])
def test_shots_are_scored_as_if_they_had_not_been_seen(walls: Path, engine: Engine, *, gist: bool) -> None:
    model = make_model(k_shot=4, settings=SMALL | {"gist": gist})
    engine.fit(model, datamodule=open_folder(walls, 4))
    shots = torch.cat([read(path) for path in sorted((walls / "good").iterdir())])
    images = model.pre_processor(shots)
    seen = model.model(images).pred_score
    unseen = torch.cat([model.model.score_unseen(images[shot : shot + 1], shot).pred_score for shot in range(4)])
    new = model.model(model.pre_processor(torch.cat([read(walls / "new" / f"{index}.png") for index in (3, 4, 5)])))
    assert seen.max() < unseen.min()
    assert unseen.min() / 1.3 < new.pred_score.median() < 1.3 * unseen.max()
    assert unseen.max() < model.post_processor.image_threshold < 2 * unseen.max()


def test_only_training_images_can_be_unseen(walls: Path, engine: Engine) -> None:
    model = make_model(k_shot=5)
    engine.fit(model, datamodule=open_folder(walls, 4))
    for shot in (-1, 4, 9):
        with pytest.raises(ValueError, match=f"^shot: got {shot}; allowed are 0 to 3"):
            model.model.score_unseen(torch.zeros(1, 3, 64, 64), shot)


def test_a_loaded_model_does_not_know_its_training_images(trained: Trained) -> None:
    loaded = Htdgm.load_from_checkpoint(trained(3)[1]).model
    with pytest.raises(RuntimeError, match=r"^score_unseen: the model was loaded"):
        loaded.score_unseen(torch.zeros(1, 3, 64, 64), 1)


def test_twins_do_not_tell_how_good_images_differ(walls: Path, tmp_path: Path, engine: Engine) -> None:
    (tmp_path / "twins").mkdir()
    for index in range(3):
        (tmp_path / "twins" / f"{index}.png").write_bytes((walls / "good" / "0.png").read_bytes())
    twins = Folder("twins", "twins", root=tmp_path, test_split_mode="none", val_split_mode="same_as_test")
    model = make_model(k_shot=3)
    engine.fit(model, datamodule=twins)
    assert model.threshold_chosen_by == "guess"
    image = model.pre_processor(read(walls / "good" / "0.png"))
    assert model.post_processor.image_threshold > 1.2 * model.model(image).pred_score


@pytest.mark.parametrize("k_shot", [1, 3])
def test_unlabelled_images_in_fit(walls: Path, engine: Engine, k_shot: int) -> None:
    """Of ten photographs that anomalib is told are good two are not, and the threshold is below them."""
    model = make_model(k_shot=k_shot)
    datamodule = unlabelled(walls, k_shot)
    engine.fit(model, datamodule=datamodule)
    assert model.threshold_chosen_by == "unlabelled images"
    assert verdicts(model, walls) == [True] * 3 + [False] * 3
    assert verdicts(Htdgm.load_from_checkpoint(engine.best_model_path), walls) == [True] * 3 + [False] * 3
    found = list(engine.predict(model, data_path=walls / "unlabelled"))
    labels = torch.cat([batch.pred_label for batch in found])
    assert labels[:2].all()
    assert labels.sum() <= 3
    masks = torch.cat([batch.pred_mask.flatten(1).any(dim=1) for batch in found])
    assert masks[:2].all()
    assert masks.sum() <= 4


def test_few_validation_images_tell_less_than_the_shots(walls: Path, tmp_path: Path, trained: Trained) -> None:
    (tmp_path / "few").mkdir()
    for index in range(2):
        (tmp_path / "few" / f"{index}.png").write_bytes((walls / "unlabelled" / f"{index + 5}.png").read_bytes())
    modes = {"test_split_mode": "from_dir", "val_split_mode": "same_as_test"}
    bases = {}
    for k_shot in (1, 3):
        model = make_model(k_shot=k_shot)
        few = open_folder(walls, k_shot, normal_test_dir=tmp_path / "few", **modes)
        Engine(logger=False, default_root_dir=tmp_path, accelerator="cpu").fit(model, datamodule=few)
        bases[k_shot] = model.threshold_chosen_by
    assert bases == {1: "guess", 3: "training images"}
    assert model.post_processor.image_threshold == trained(3)[0].post_processor.image_threshold


def test_training_images_are_no_validation_images(walls: Path, tmp_path: Path, engine: Engine) -> None:
    """A folder is often given twice; what was trained on scores far below what was not."""
    modes = {"test_split_mode": "from_dir", "val_split_mode": "same_as_test"}
    model, alone = make_model(k_shot=3), make_model(k_shot=3)
    engine.fit(model, datamodule=open_folder(walls, 4, normal_test_dir="good", **modes))
    Engine(logger=False, default_root_dir=tmp_path, accelerator="cpu").fit(alone, datamodule=open_folder(walls, 4))
    assert model.threshold_chosen_by == "training images"
    assert model.post_processor.image_threshold == alone.post_processor.image_threshold


def test_nor_are_copies_of_them(walls: Path, tmp_path: Path, engine: Engine, trained: Trained) -> None:
    """Under other names, in another format, and turned: what counts is what one sees."""
    (tmp_path / "copies").mkdir()
    for path in (walls / "good").iterdir():
        with Image.open(path) as image:
            image.transpose(Image.Transpose.ROTATE_90).save(
                tmp_path / "copies" / f"x{path.stem}.tiff", exif=clockwise()
            )
    modes = {"test_split_mode": "from_dir", "val_split_mode": "same_as_test"}
    model = make_model(k_shot=4)
    engine.fit(model, datamodule=open_folder(walls, 4, normal_test_dir=tmp_path / "copies", **modes))
    assert model.threshold_chosen_by == "training images"
    assert model.post_processor.image_threshold == trained(4)[0].post_processor.image_threshold


def clockwise() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@pytest.mark.parametrize("num_others", [0, 1])
def test_nor_are_they_in_memory(walls: Path, engine: Engine, caplog: pytest.LogCaptureFixture, num_others: int) -> None:
    """Even in one batch with an image of another size, to which the others are resized."""
    model = make_model(k_shot=4)
    engine.fit(model, datamodule=open_folder(walls, 4))
    images = [
        torch.from_numpy(np.stack([np.asarray(Image.open(path)) / 255] * 3)) for path in (walls / "good").iterdir()
    ]
    others = [torch.rand(3, 200, 150, generator=torch.Generator().manual_seed(0))] * num_others
    items = [ImageItem(image=TensorImage(image)) for image in others + images]
    engine.validate(model, dataloaders=DataLoader(items, batch_size=5, collate_fn=ImageBatch.collate))
    assert ("All validation images were trained on" in caplog.text) == (num_others == 0)
    assert model.threshold_chosen_by == ("training images" if num_others == 0 else "guess")  # of one new image


def test_a_validation_on_training_images_leaves_the_threshold(
    walls: Path, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    modes = {"test_split_mode": "from_dir", "val_split_mode": "same_as_test"}
    model = make_model(k_shot=4)
    engine.fit(model, datamodule=open_folder(walls, 4))
    chosen = model.post_processor.image_threshold.clone()
    for each in (model, Htdgm.load_from_checkpoint(engine.best_model_path)):
        caplog.clear()
        engine.validate(each, datamodule=open_folder(walls, 4, normal_test_dir="good", **modes))
        assert "All validation images were trained on" in caplog.text
        assert each.post_processor.image_threshold == chosen
        assert each.threshold_chosen_by == "training images"


def test_unlabelled_images_in_the_validation_of_a_finished_checkpoint(
    walls: Path, trained: Trained, tmp_path: Path
) -> None:
    loaded = Htdgm.load_from_checkpoint(trained(1)[1])
    guessed = loaded.post_processor.image_threshold.clone()
    second = make_engine(tmp_path / "second")
    second.validate(loaded, datamodule=unlabelled(walls, 1))
    assert loaded.threshold_chosen_by == "unlabelled images"
    assert loaded.post_processor.image_threshold != guessed
    second.trainer.save_checkpoint(tmp_path / "firm.ckpt")
    firm = Htdgm.load_from_checkpoint(tmp_path / "firm.ckpt")
    assert firm.threshold_chosen_by == "unlabelled images"
    assert verdicts(firm, walls) == [True] * 3 + [False] * 3


def test_labelled_images_choose_as_anomalib_does(wall: MVTecAD, engine: Engine) -> None:
    model = make_model(k_shot=3, post_processor=PostProcessor(enable_normalization=False))
    engine.fit(model, datamodule=wall)
    assert model.threshold_chosen_by == "labelled images"
    wall.setup()
    expected = PostProcessor()
    for batch in wall.val_dataloader():
        images = model.pre_processor(batch.image)
        outputs = ImageBatch(image=batch.image, gt_label=batch.gt_label, **model.model(images)._asdict())
        expected._image_threshold_metric.update(outputs)  # noqa: SLF001
    assert model.post_processor.image_threshold == expected._image_threshold_metric.compute()  # noqa: SLF001


def test_labels_without_masks_leave_the_threshold_of_pixels_to_the_shots(
    walls: Path, engine: Engine, tmp_path: Path
) -> None:
    model, alone = make_model(k_shot=3), make_model(k_shot=3)
    labelled = {"test_split_mode": "from_dir", "normal_test_dir": "new", "abnormal_dir": "unlabelled"}
    engine.fit(model, datamodule=open_folder(walls, 3, **labelled))
    make_engine(tmp_path / "alone").fit(alone, datamodule=open_folder(walls, 3))
    assert model.threshold_chosen_by == "labelled images"
    assert model.post_processor.image_threshold != alone.post_processor.image_threshold
    assert model.post_processor.pixel_threshold == alone.post_processor.pixel_threshold


def test_known_defects_choose_with_the_shots(wall: MVTecAD, tmp_path: Path) -> None:
    model = make_model(k_shot=3)
    unvalidated = make_engine(tmp_path, limit_val_batches=0)
    unvalidated.fit(model, datamodule=FewLabelledAnomalies(wall, 2))
    assert model.threshold_chosen_by == "labelled images"
