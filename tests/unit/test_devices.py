# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Models on another device than the CPU: PyTorch's ``meta``, which only computes shapes, or a GPU if there is one."""

from io import BytesIO
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from anomalib_htdgm.models.htdgm import training as module
from anomalib_htdgm.models.htdgm.pyramid import Pyramid
from anomalib_htdgm.models.htdgm.torch_model import HtdgmModel
from anomalib_htdgm.models.htdgm.training import Training

from .textures import VOTES_ALONE, shingles, train


class Transfers(TorchDispatchMode):
    """Lists operations that take tensors from one device to another or, told on the CPU alone, numbers of Python."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        del types
        result = func(*args, **(kwargs or {}))
        tensors = [each for each in tree_leaves((args, kwargs, result)) if isinstance(each, torch.Tensor)]
        devices = {tensor.device.type for tensor in tensors}
        if len(devices) > 1 or func is torch.ops.aten.lift_fresh.default:  # `torch.tensor`, `new_tensor`
            self.seen.append(str(func))
        return result


@pytest.mark.parametrize(("device", "expected"), [("cpu", []), ("meta", ["aten._to_copy.default"])])
def test_an_iteration_waits_for_nothing_but_its_noise(
    device: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is asked of the images, once, has no answer on this device.
    monkeypatch.setattr(module, "_check", lambda *_: None)
    monkeypatch.setattr(module, "_share_of_images", lambda _member, _model, images: images)
    sizes = {"image_size": 25, "coarsest_size": 25, "width": 4}
    model = HtdgmModel((32, 32), transformations="symmetries", adversarial=True, **sizes, **VOTES_ALONE)
    model.to(device).requires_grad_()
    optimizers = [SGD(each.parameters()) for each in (*model.votes.networks, *model.generators)]
    schedule = Training(iterations=3, discriminator_steps=2, generator_steps=2, fake_weight=1.0)
    run = schedule.run(model, shingles().to(device), optimizers=optimizers)
    next(run)
    with Transfers() as transfers:
        next(run)
    assert transfers.seen == expected


def test_a_pickled_model_goes_where_it_is_loaded_to() -> None:
    file = BytesIO()
    torch.save(Pyramid([11, 16], (32, 32)), file)
    file.seek(0)
    loaded: nn.Module = torch.load(file, map_location="meta", weights_only=False)
    assert {tensor.device.type for tensor in loaded.buffers()} == {"meta"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_float32_is_the_same_on_a_gpu() -> None:
    model = train(HtdgmModel((64, 64), image_size=32, width=8, precision="float32"), shingles(), iterations=3)
    images = torch.cat([shingles(), shingles(angle=0.3, seed=1)])
    expected, scored = model(images), model.to("cuda")(images.to("cuda"))
    torch.testing.assert_close(scored.pred_score.cpu(), expected.pred_score, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scored.anomaly_map.cpu(), expected.anomaly_map, rtol=1e-3, atol=1e-4)
