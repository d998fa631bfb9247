# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What a threshold is chosen by, and that the checkpoint tells: the training images, and images with labels."""

from pathlib import Path

import pytest
import torch
from anomalib.data import Folder, ImageBatch, MVTecAD
from anomalib.engine import Engine
from anomalib.metrics import F1AdaptiveThreshold
from anomalib.post_processing import PostProcessor

from anomalib_htdgm import FewLabelledAnomalies, Htdgm

from .conftest import assert_equal_states
from .small import fit
from .walls import Train, make_model, open_folder, read, verdicts


@pytest.mark.parametrize(("k_shot", "basis"), [(1, "guess"), (2, "guess"), (3, "training images")])
def test_shots_alone(walls: Path, train_on_walls: Train, k_shot: int, basis: str) -> None:
    model, checkpoint, said = train_on_walls(k_shot)
    assert model.threshold_chosen_by == basis
    assert ("The threshold is a guess" in said) == (basis == "guess")
    loaded = Htdgm.load_from_checkpoint(checkpoint)
    assert loaded.threshold_chosen_by == basis
    assert loaded.post_processor.image_threshold == model.post_processor.image_threshold > 0
    if k_shot > 1:
        assert verdicts(loaded, walls / "new") == [True] * 3 + [False] * 3


def test_one_whole_image_does_not_make_all_others_anomalous(walls: Path, engine: Engine) -> None:
    model = make_model(k_shot=1, preset="semantic", settings={"num_members": 2})
    engine.fit(model, datamodule=open_folder(walls, 1))
    assert model.threshold_chosen_by == "guess"
    assert verdicts(model, walls / "new")[3:] == [False] * 3


def test_shots_are_scored_as_if_they_had_not_been_seen(walls: Path, train_on_walls: Train) -> None:
    model = train_on_walls(4).model
    images = model.pre_processor(read(walls / "good"))
    seen = model.model(images).pred_score
    unseen = torch.cat([model.model.score_unseen(images[shot : shot + 1], shot).pred_score for shot in range(4)])
    new = model.model(model.pre_processor(read(walls / "new")[3:])).pred_score
    assert seen.max() < unseen.min()
    assert unseen.min() / 1.3 < new.median() < 1.3 * unseen.max()
    assert unseen.max() < model.post_processor.image_threshold < 2 * unseen.max()


def test_twins_do_not_tell_how_good_images_differ(walls: Path, tmp_path: Path, engine: Engine) -> None:
    (tmp_path / "twins").mkdir()
    for index in range(3):
        (tmp_path / "twins" / f"{index}.png").write_bytes((walls / "good" / "0.png").read_bytes())
    model = make_model(k_shot=3)
    engine.fit(model, datamodule=open_folder(tmp_path, 3, normal_dir="twins"))
    assert model.threshold_chosen_by == "guess"
    image = model.pre_processor(read(tmp_path / "twins")[:1])
    assert model.post_processor.image_threshold > 1.2 * model.model(image).pred_score


def test_labelled_images_choose_as_anomalib_does(wall: MVTecAD, engine: Engine) -> None:
    model = make_model(k_shot=3, evaluator=False, post_processor=PostProcessor(enable_normalization=False))
    engine.fit(model, datamodule=wall)
    assert model.threshold_chosen_by == "labelled images"
    expected = F1AdaptiveThreshold(fields=["pred_score", "gt_label"])
    for batch in wall.val_dataloader():
        outputs = model.model(model.pre_processor(batch.image))
        expected.update(ImageBatch(image=batch.image, gt_label=batch.gt_label, pred_score=outputs.pred_score))
    assert model.post_processor.image_threshold == expected.compute()


def test_labels_without_masks_leave_the_threshold_of_pixels_to_the_shots(
    walls: Path, engine: Engine, train_on_walls: Train
) -> None:
    model, alone = make_model(k_shot=3), train_on_walls(3).model
    labelled = {"test_split_mode": "from_dir", "normal_test_dir": "new", "abnormal_dir": "unlabelled"}
    engine.fit(model, datamodule=open_folder(walls, 3, **labelled))
    assert model.threshold_chosen_by == "labelled images"
    assert model.post_processor.image_threshold != alone.post_processor.image_threshold
    assert model.post_processor.pixel_threshold == alone.post_processor.pixel_threshold


@pytest.mark.parametrize("mask_dir", ["ground_truth/gravel", None])
def test_known_defects_choose_where_there_are_no_validation_images(
    mvtec_root: Path, tmp_path: Path, mask_dir: str | None
) -> None:
    """Three good photographs, five of defects, all of them known; the networks are as if there were none."""
    splits = {"test_split_mode": "none", "val_split_mode": "same_as_test", "num_workers": 0}
    alone = Folder("wall", "train/good", root=mvtec_root / "wall", **splits)
    defects = {"abnormal_dir": "test/gravel", "mask_dir": mask_dir}
    labelled = FewLabelledAnomalies(Folder("wall", "train/good", root=mvtec_root / "wall", **splits, **defects), 5)
    without, model = make_model(k_shot=3), make_model(k_shot=3)
    fit(without, alone, tmp_path)
    fit(model, labelled, tmp_path)
    assert model.threshold_chosen_by == "labelled images"
    assert_equal_states(model.model, without.model)
    assert verdicts(model, mvtec_root / "wall" / "train" / "good") == [False] * 3
    assert verdicts(model, mvtec_root / "wall" / "test" / "gravel") == [True] * 5
    same_pixels = model.post_processor.pixel_threshold == without.post_processor.pixel_threshold
    assert same_pixels == (mask_dir is None)


def test_validation_images_decide(wall: MVTecAD, engine: Engine) -> None:
    model, datamodule = make_model(k_shot=3), FewLabelledAnomalies(wall, 2)
    engine.fit(model, datamodule=datamodule)
    threshold = model.post_processor.image_threshold.clone()
    engine.validate(model, datamodule=datamodule)
    assert model.post_processor.image_threshold == threshold
