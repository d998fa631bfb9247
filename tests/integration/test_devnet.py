# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""DevNet finds defects, has two maps, and needs both kinds of images."""

from pathlib import Path

import pytest
import torch
from anomalib.data import MVTecAD
from anomalib.data.utils import split_by_label
from anomalib.engine import Engine
from anomalib.models import get_model

from anomalib_htdgm import Devnet, FewLabelledAnomalies

from .conftest import assert_equal_states
from .small import SHORT_DEVNET, fit

LONGER = SHORT_DEVNET | {"epochs": 3, "steps_per_epoch": 20, "learning_rate": 2e-3, "rotation": 0.0}


@pytest.fixture
def labelled(wall: MVTecAD) -> FewLabelledAnomalies:
    """Take two of the five defects for training."""
    return FewLabelledAnomalies(wall, n_anomalies=2)


@pytest.fixture(scope="module")
def checkpoint(mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    datamodule = FewLabelledAnomalies(MVTecAD(root=mvtec_root, category="wall", num_workers=0), n_anomalies=2)
    return fit(get_model("devnet", **LONGER), datamodule, tmp_path_factory.mktemp("fit"))


@pytest.mark.training
def test_test_finds_unseen_defects(checkpoint: Path, labelled: FewLabelledAnomalies, engine: Engine) -> None:
    (metrics,) = engine.test(Devnet(**SHORT_DEVNET), datamodule=labelled, ckpt_path=checkpoint)
    assert metrics["image_AUROC"] > 0.9
    assert metrics["pixel_AUROC"] > 0.6


def test_one_trained_model_has_both_maps(
    checkpoint: Path, labelled: FewLabelledAnomalies, engine: Engine, mvtec_root: Path
) -> None:
    image = mvtec_root / "wall" / "test" / "gravel" / "000.png"
    model = Devnet.load_from_checkpoint(checkpoint)
    maps, scores = {}, {}
    for explanation in ("gradient", "scores"):
        model.model.explanation = explanation
        engine.validate(model, datamodule=labelled)  # threshold and range of the pixels are the map's
        (metrics,) = engine.test(model, datamodule=labelled)
        assert metrics["pixel_AUROC"] > 0.6, explanation
        (prediction,) = engine.predict(model, data_path=image)
        maps[explanation], scores[explanation] = prediction.anomaly_map, prediction.pred_score
    assert maps["gradient"].shape == maps["scores"].shape == (1, 64, 64)
    assert not torch.allclose(maps["gradient"], maps["scores"], atol=0.01)
    assert torch.equal(scores["gradient"], scores["scores"])


def test_a_checkpoint_keeps_every_choice(labelled: FewLabelledAnomalies, tmp_path: Path) -> None:
    choices = {"ranking": "absolute", "explanation": "scores", "loss": "focal"}
    model = Devnet(**SHORT_DEVNET | {"image_sizes": (96,)} | choices)
    loaded, images = Devnet.load_from_checkpoint(fit(model, labelled, tmp_path)), torch.rand(2, 3, 70, 90)
    assert_equal_states(loaded, model)
    assert torch.equal(loaded.eval()(images).anomaly_map, model.eval()(images).anomaly_map)


def test_learning_rate_falls_every_ten_epochs(labelled: FewLabelledAnomalies, engine: Engine) -> None:
    model = Devnet(**SHORT_DEVNET | {"batch_size": 2, "epochs": 21, "steps_per_epoch": 1})
    engine.fit(model, datamodule=labelled)
    assert engine.trainer.global_step == 21
    assert engine.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(2e-6)


def test_both_kinds_of_images_are_needed(
    wall: MVTecAD, labelled: FewLabelledAnomalies, engine: Engine, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"no labelled anomalies.*FewLabelledAnomalies"):
        engine.fit(Devnet(**SHORT_DEVNET), datamodule=wall)
    labelled.setup()
    _, labelled.train_data = split_by_label(labelled.train_data)
    with pytest.raises(ValueError, match="datamodule: its training set has no normal images"):
        engine.fit(Devnet(**SHORT_DEVNET), datamodule=labelled)
    assert not list(tmp_path.rglob("*.ckpt"))
