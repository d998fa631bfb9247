# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""However a loaded model is called, it gives the same scores, and stays as it is."""

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from anomalib.data import InferenceBatch

from anomalib_htdgm import Htdgm

from .small import TESTED, make_image

IMAGES = torch.stack([make_image(*each) for each in TESTED]) / 255


def test_scores_are_of_fixed_statistics_in_any_mode(small_checkpoint: Path) -> None:
    model = Htdgm.load_from_checkpoint(small_checkpoint)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    given = IMAGES.clone()
    scored = model.train()(IMAGES)
    torch.testing.assert_close(scored.pred_score[:1], model(IMAGES[:1]).pred_score, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    expected = model.eval()(IMAGES)
    assert torch.equal(scored.pred_score, expected.pred_score)
    assert torch.equal(scored.anomaly_map, expected.anomaly_map)
    assert torch.equal(IMAGES, given)


def in_threads(model: Htdgm) -> InferenceBatch:
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(model, [IMAGES] * 8))[-1]


def autocast(model: Htdgm, dtype: torch.dtype) -> InferenceBatch:
    with torch.autocast("cpu", dtype=dtype):
        return model(IMAGES)


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda model: torch.inference_mode()(model)(IMAGES), id="inference_mode"),
        pytest.param(lambda model: copy.deepcopy(model)(IMAGES), id="deepcopy"),
        pytest.param(lambda model: pickle.loads(pickle.dumps(model))(IMAGES), id="pickle"),  # noqa: S301
        pytest.param(lambda model: model(IMAGES.to(memory_format=torch.channels_last)), id="channels_last"),
        pytest.param(lambda model: model(IMAGES.mT.contiguous().mT), id="not contiguous"),
        pytest.param(lambda model: model(IMAGES[:, :1].expand(-1, 3, -1, -1)), id="expanded"),
        pytest.param(lambda model: model(IMAGES.double()), id="float64"),
        pytest.param(lambda model: autocast(model, torch.bfloat16), id="autocast"),
        pytest.param(lambda model: autocast(model, torch.float16), id="autocast to float16"),
        pytest.param(in_threads, id="threads"),
    ],
)
def test_scores_are_the_same_in_every_call(call: Callable[[Htdgm], InferenceBatch], small_checkpoint: Path) -> None:
    model = Htdgm.load_from_checkpoint(small_checkpoint)
    expected, scored = model(IMAGES), call(model)
    assert torch.equal(scored.pred_score, expected.pred_score)
    assert torch.equal(scored.anomaly_map, expected.anomaly_map)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_images_of_few_digits_are_scored_as_they_are(dtype: torch.dtype, small_checkpoint: Path) -> None:
    model = Htdgm.load_from_checkpoint(small_checkpoint)
    expected, scored = model(IMAGES.to(dtype).float()), model(IMAGES.to(dtype))
    assert scored.pred_score.dtype == torch.float32
    assert torch.equal(scored.pred_score, expected.pred_score)


def test_images_of_whole_numbers_are_refused(small_checkpoint: Path) -> None:
    with pytest.raises(TypeError, match="Input tensor should be a float tensor"):
        Htdgm.load_from_checkpoint(small_checkpoint)((IMAGES * 255).to(torch.uint8))
