# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""HtdgmPublished is trained as published: a plain, slow twin takes the same steps."""

import pytest
import torch
from torch.nn import functional as F

from anomalib_htdgm.models.htdgm_published import training
from anomalib_htdgm.models.htdgm_published.torch_model import HtdgmPublishedModel
from anomalib_htdgm.models.htdgm_published.training import Schedule, equalize, train

from .published import PublishedTraining
from .textures import shingles

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = {"input_size": (28, 28), "image_size": 20, "coarsest_size": 15, "width": 4}


def resize(images: torch.Tensor, size: int) -> torch.Tensor:
    return F.interpolate(images, (size, size), mode="bicubic", antialias=True)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("num_images", [1, 2])
def test_losses_and_networks_are_those_of_the_twin(num_images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both over five scales, of which the last is twice as wide, and whose learning rates fall early."""
    for owner, name in ((training, "DECAY_ITERATIONS"), (PublishedTraining, "milestones")):
        monkeypatch.setattr(owner, name, (2, 4))
    images = torch.cat([shingles(size=28), shingles(size=28, angle=1.0, seed=1)])[:num_images]
    model = HtdgmPublishedModel((28, 28), num_images, image_size=28, coarsest_size=11, width=4)
    widths = [each.width for each in model.scales]
    assert widths == [4, 4, 4, 4, 8]
    twin = PublishedTraining([resize(images, size) for size in model.pyramid.sizes], widths, resize, seed=3)
    steps = train(model, images, Schedule(iterations=5), seed=3)
    for index, (losses, expected) in enumerate(zip(steps, twin.run(5), strict=True)):
        assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, rel=1e-4), index
    amplitudes = torch.stack([each.noise_amplitudes for each in model.scales])
    torch.testing.assert_close(amplitudes, torch.stack(twin.amplitudes), atol=1e-6, rtol=0)
    for scale, discriminator, generator in zip(model.scales, twin.discriminators, twin.generators, strict=True):
        for network, other in ((scale.discriminator, discriminator), (scale.generator, generator)):
            torch.testing.assert_close(network.state_dict(), other.state_dict(), atol=1e-4, rtol=1e-4)


def test_without_generators_only_transformations_are_told_apart() -> None:
    model = HtdgmPublishedModel(**SMALL, has_generators=False)
    losses = list(train(model, shingles(size=28), Schedule(iterations=15, fake_weight=0.0)))
    assert {*losses[0]} == {"discriminator_loss"}
    assert losses[-1]["discriminator_loss"] < 0.9 * losses[0]["discriminator_loss"]
    assert model.scales[0].discriminator[-1].out_channels == 4
    with pytest.raises(RuntimeError, match=r"^fake_weight: the model was trained with 0, without generators"):
        model.sample(1)


def test_reestimated_statistics_are_of_the_real_images() -> None:
    model = HtdgmPublishedModel(**SMALL)
    list(train(model, shingles(size=28), Schedule(iterations=2, steps=1, reestimate_statistics=True)))
    for scale, reduced in zip(model.scales, model.pyramid(shingles(size=28)).values(), strict=True):
        first = scale.discriminator[0](model.transform(reduced))
        torch.testing.assert_close(scale.discriminator[1].running_mean, first.mean(dim=(0, 2, 3)))
        torch.testing.assert_close(scale.discriminator[1].running_var, first.transpose(0, 1).flatten(1).var(dim=1))


def test_equalising_spreads_the_brightness_and_keeps_the_hue() -> None:
    image = torch.linspace(-0.1, 0.1, 64).expand(1, 3, 64, 64) * torch.tensor([1.0, 0.5, 0.5])[:, None, None]
    equalized = equalize(image)
    assert equalized.shape == image.shape
    assert -1 <= equalized.min() <= equalized.max() <= 1
    assert equalized.std() > 1.2 * image.std()
    before, after = image / 2 + 0.5, equalized / 2 + 0.5
    torch.testing.assert_close(after[:, 1] / after[:, 0], before[:, 1] / before[:, 0], atol=1e-3, rtol=0)
