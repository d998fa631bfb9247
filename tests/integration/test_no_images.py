# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What is no data set of images is refused by what is wanted instead, and before a training is lost to it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from anomalib.data import Folder, ImageBatch
from anomalib.data.utils import ValSplitMode
from torch.utils.data import DataLoader

from anomalib_htdgm import Htdgm

from .small import make_engine, make_small_model

pytestmark = pytest.mark.thorough


@pytest.mark.parametrize("collate", [None, ImageBatch.collate], ids=["PyTorch's", "anomalib's"])
@pytest.mark.parametrize("item", [(torch.zeros(3, 64, 64), 0), {"image": torch.zeros(3, 64, 64)}, None, "0.png"])
def test_in_every_way(
    item: object, collate: Callable[..., object] | None, good: Folder, small_checkpoint: Path
) -> None:
    loader = DataLoader([item] * 2, collate_fn=collate)
    for way in ("validate", "test", "predict"):
        with pytest.raises(TypeError, match=r"dataloaders: got .*ImageItem"):
            getattr(make_engine(good.root), way)(Htdgm(), dataloaders=loader, ckpt_path=small_checkpoint)
    model = make_small_model()
    good.setup()
    with pytest.raises(TypeError, match=r"dataloaders: got .*ImageItem"):
        make_engine(good.root).fit(model, train_dataloaders=loader)
    assert not model.model.is_trained
    with pytest.raises(TypeError, match=r"dataloaders: got .*ImageItem"):
        make_engine(good.root).fit(model, train_dataloaders=good.train_dataloader(), val_dataloaders=loader)


def test_no_validation_images_to_be_split_off(good: Folder) -> None:
    good.val_split_mode = ValSplitMode.NONE
    with pytest.raises(ValueError, match=r"^val_split_mode: got 'none', .*'same_as_test'"):
        make_engine(good.root).fit(make_small_model(), datamodule=good)
