# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Htdgm does not train on known defects, but they choose its threshold where there are no validation images."""

from pathlib import Path

import torch
from anomalib.data import AnomalibDataModule, Folder, MVTecAD
from anomalib.engine import Engine

from anomalib_htdgm import FewLabelledAnomalies, Htdgm

from .conftest import assert_equal_states
from .small import make_engine


def fit(datamodule: AnomalibDataModule, directory: Path) -> Htdgm:
    model = Htdgm(k_shot=3, precision="float32", settings={"iterations": 5, "image_size": 48, "memory_patches": 500})
    make_engine(directory).fit(model, datamodule=datamodule)
    return model


def test_weights_are_the_same_and_the_threshold_separates(mvtec_root: Path, engine: Engine, tmp_path: Path) -> None:
    def folder(**arguments: object) -> Folder:
        # Three good photographs, five of defects, all of them known: nothing is left to validate on.
        splits = {"test_split_mode": "none", "val_split_mode": "same_as_test", "num_workers": 0}
        return Folder("wall", "train/good", root=mvtec_root / "wall", **splits, **arguments)

    without = fit(folder(), tmp_path)
    for mask_dir in ("ground_truth/gravel", None):
        defects = folder(abnormal_dir="test/gravel", mask_dir=mask_dir)
        model = fit(FewLabelledAnomalies(defects, n_anomalies=5), tmp_path)
        assert_equal_states(model.model, without.model)
        for directory in ("train/good", "test/gravel"):
            batches = engine.predict(model, data_path=mvtec_root / "wall" / directory)
            labels = torch.cat([batch.pred_label for batch in batches])
            assert (labels == (directory == "test/gravel")).all()
        same_pixels = model.post_processor.pixel_threshold == without.post_processor.pixel_threshold
        assert same_pixels == (mask_dir is None)


def test_validation_images_decide(wall: MVTecAD, engine: Engine, tmp_path: Path) -> None:
    datamodule = FewLabelledAnomalies(wall, 2)
    model = fit(datamodule, tmp_path)
    threshold = model.post_processor.image_threshold.clone()
    engine.validate(model, datamodule=datamodule)
    assert model.post_processor.image_threshold == threshold
