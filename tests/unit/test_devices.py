# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Models on a GPU, if there is one."""

import pytest
import torch

from anomalib_htdgm.models.htdgm.settings import Settings
from anomalib_htdgm.models.htdgm.torch_model import HtdgmModel

from .textures import shingles, train


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_float32_is_the_same_on_a_gpu() -> None:
    model = train(HtdgmModel(Settings(image_size=32, width=8, precision="float32"), (64, 64)), shingles(), iterations=3)
    images = torch.cat([shingles(), shingles(angle=0.3, seed=1)])
    expected, scored = model(images), model.to("cuda")(images.to("cuda"))
    torch.testing.assert_close(scored.pred_score.cpu(), expected.pred_score, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scored.anomaly_map.cpu(), expected.anomaly_map, rtol=1e-3, atol=1e-4)
