# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Images that nobody has looked at choose a threshold; training images, copies of them and too few others do not."""

from pathlib import Path

import pytest
import torch
from anomalib.data import ImageBatch, ImageItem
from anomalib.engine import Engine
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.tv_tensors import Image as TensorImage

from anomalib_htdgm import Htdgm

from .small import make_engine
from .walls import FROM_FOLDER, Train, make_model, open_folder, read, unlabelled, verdicts


@pytest.mark.parametrize("k_shot", [1, 3])
def test_unlabelled_images_in_fit(walls: Path, engine: Engine, k_shot: int) -> None:
    """Of ten photographs that anomalib is told are good two are not, and the threshold is below them."""
    model = make_model(k_shot=k_shot)
    engine.fit(model, datamodule=unlabelled(walls, k_shot))
    assert model.threshold_chosen_by == "unlabelled images"
    loaded = Htdgm.load_from_checkpoint(engine.best_model_path)
    assert verdicts(loaded, walls / "new") == [True] * 3 + [False] * 3
    found = loaded(read(walls / "unlabelled"))
    assert found.pred_label[:2].all()
    assert found.pred_label.sum() <= 3
    has_mask = found.pred_mask.flatten(1).any(dim=1)
    assert has_mask[:2].all()
    assert has_mask.sum() <= 4


def test_unlabelled_images_in_the_validation_of_a_finished_checkpoint(
    walls: Path, train_on_walls: Train, tmp_path: Path
) -> None:
    loaded = Htdgm.load_from_checkpoint(train_on_walls(1).checkpoint)
    guessed = loaded.post_processor.image_threshold.clone()
    second = make_engine(tmp_path / "second")
    second.validate(loaded, datamodule=unlabelled(walls, 1))
    assert loaded.threshold_chosen_by == "unlabelled images"
    assert loaded.post_processor.image_threshold != guessed
    second.trainer.save_checkpoint(tmp_path / "firm.ckpt")
    firm = Htdgm.load_from_checkpoint(tmp_path / "firm.ckpt")
    assert firm.threshold_chosen_by == "unlabelled images"
    assert verdicts(firm, walls / "new") == [True] * 3 + [False] * 3


@pytest.mark.parametrize(("k_shot", "basis"), [(1, "guess"), (3, "training images")])
def test_few_validation_images_tell_less_than_the_shots(
    walls: Path, tmp_path: Path, engine: Engine, train_on_walls: Train, k_shot: int, basis: str
) -> None:
    (tmp_path / "few").mkdir()
    for index in range(2):
        (tmp_path / "few" / f"{index}.png").write_bytes((walls / "unlabelled" / f"{index + 5}.png").read_bytes())
    model = make_model(k_shot=k_shot)
    engine.fit(model, datamodule=open_folder(walls, k_shot, normal_test_dir=tmp_path / "few", **FROM_FOLDER))
    assert model.threshold_chosen_by == basis
    of_shots = train_on_walls(k_shot).model.post_processor.image_threshold
    assert (model.post_processor.image_threshold == of_shots) == (k_shot == 3)


@pytest.mark.parametrize("are_copies", [False, True])
def test_training_images_are_no_validation_images(
    walls: Path, tmp_path: Path, engine: Engine, train_on_walls: Train, *, are_copies: bool
) -> None:
    """A folder is often given twice, or with copies under other names, in another format, and turned."""
    folder, clockwise = tmp_path / "copies", Image.Exif()
    folder.mkdir()
    clockwise[0x0112] = 6
    for path in (walls / "good").iterdir():
        with Image.open(path) as image:
            image.transpose(Image.Transpose.ROTATE_90).save(folder / f"x{path.stem}.tiff", exif=clockwise)
    given, model = folder if are_copies else "good", make_model(k_shot=4)
    engine.fit(model, datamodule=open_folder(walls, 4, normal_test_dir=given, **FROM_FOLDER))
    assert model.threshold_chosen_by == "training images"
    assert model.post_processor.image_threshold == train_on_walls(4).model.post_processor.image_threshold


@pytest.mark.parametrize("num_others", [0, 1])
def test_nor_are_they_in_memory(
    walls: Path, engine: Engine, train_on_walls: Train, caplog: pytest.LogCaptureFixture, num_others: int
) -> None:
    """Even in one batch with an image of another size, to which the others are resized."""
    model = Htdgm.load_from_checkpoint(train_on_walls(4).checkpoint)
    others = [torch.rand(3, 200, 150, generator=torch.Generator().manual_seed(0))] * num_others
    items = [ImageItem(image=TensorImage(image)) for image in [*others, *read(walls / "good")]]
    engine.validate(model, dataloaders=DataLoader(items, batch_size=5, collate_fn=ImageBatch.collate))
    assert ("All validation images were trained on" in caplog.text) == (num_others == 0)
    assert model.threshold_chosen_by == ("training images" if num_others == 0 else "guess")  # of one new image
    chosen = train_on_walls(4).model.post_processor.image_threshold
    assert (model.post_processor.image_threshold == chosen) == (num_others == 0)
