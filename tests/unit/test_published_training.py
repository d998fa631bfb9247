# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Training with generators is the published training: a plain, slow twin takes the same steps."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from anomalib_htdgm.models.htdgm import canvases
from anomalib_htdgm.models.htdgm.discriminator import Discriminator, Generator
from anomalib_htdgm.models.htdgm.torch_model import HtdgmModel
from anomalib_htdgm.models.htdgm.training import Training

from .published import PublishedTraining
from .textures import VOTES_ALONE, shingles

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def float64(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compute in float64: in float32 Adam and batch norm grow the last bits into 1e-3 within a few iterations."""
    monkeypatch.setattr(HtdgmModel, "dtype", torch.float64)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(default)


def resize(images: torch.Tensor, size: int) -> torch.Tensor:
    return F.interpolate(images, (size, size), mode="bicubic", antialias=True)


def modules_of(network: Discriminator | Generator) -> list[nn.Module]:
    """List the layers of a network as the twin has them."""
    pairs = zip(network.convolutions[:-1], network.norms, strict=True)
    return [*(layer for pair in pairs for layer in pair), network.convolutions[-1]]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("double_width_every", [None, 1], ids=["weights handed on", "widths doubled"])
@pytest.mark.parametrize(
    ("num_images", "pixels_per_chunk"), [(1, 2**17), (2, 2**17), (2, 1)], ids=["one", "two at once", "two in chunks"]
)
def test_losses_and_networks_are_those_of_the_twin(
    double_width_every: int | None, num_images: int, pixels_per_chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canvases, "PIXELS_PER_CHUNK", pixels_per_chunk)
    images = torch.cat([shingles(size=32), shingles(size=32, angle=1.0, seed=1)])[:num_images]
    arguments = VOTES_ALONE | {"image_size": 16, "coarsest_size": 13, "width": 8, "transformations": "rotations"}
    model = HtdgmModel((32, 32), num_images, adversarial=True, double_width_every=double_width_every, **arguments)
    training = Training(
        iterations=10, discriminator_steps=3, generator_steps=3, fake_weight=1.0, reestimate_statistics=False
    )
    reals = [resize(images, size) for size in model.pyramid.sizes]
    twin = PublishedTraining(reals, [each.width for each in model.votes.networks], resize, seed=3)
    losses = [{name: loss.item() for name, loss in step.losses.items()} for step in training.run(model, images, seed=3)]
    expected = list(twin.run(10))
    assert len(losses) == len(expected) == 20
    assert expected[19]["discriminator_loss"] < 0.9 * expected[0]["discriminator_loss"]
    for index, (each, other) in enumerate(zip(losses, expected, strict=True)):
        assert each == pytest.approx(other, rel=1e-4), index
    torch.testing.assert_close(model.noise_amplitudes, torch.stack(twin.amplitudes), atol=1e-6, rtol=0)
    for networks, twins in ((model.votes.networks, twin.discriminators), (model.generators, twin.generators)):
        for network, other in zip(networks, twins, strict=True):
            for module, its_twin in zip(modules_of(network), (m for m in other if list(m.parameters())), strict=True):
                torch.testing.assert_close(module.state_dict(), its_twin.state_dict(), atol=1e-4, rtol=1e-4)
