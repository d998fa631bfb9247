# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""However a loaded model is called, it gives the same scores, and stays as it is."""

import torch

from anomalib_htdgm import Htdgm

from .stored import CHECKPOINT, TESTED, make_image

IMAGES = torch.stack([make_image(*each) for each in TESTED]) / 255


def test_scores_are_of_fixed_statistics_in_any_mode() -> None:
    model = Htdgm.load_from_checkpoint(CHECKPOINT)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    scored = model.train()(IMAGES)
    assert torch.equal(scored.pred_score[:1], model(IMAGES[:1]).pred_score)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    expected = model.eval()(IMAGES)
    assert torch.equal(scored.pred_score, expected.pred_score)
    assert torch.equal(scored.anomaly_map, expected.anomaly_map)
