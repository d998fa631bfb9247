# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""DifferNet: features, score and map against obvious oracles."""

import numpy as np
import pytest
import timm
import torch
from kornia.geometry.transform import rotate as kornia_rotate
from scipy.ndimage import gaussian_filter
from torch import nn
from torch.nn import functional as F
from torchvision.transforms.functional import normalize
from torchvision.transforms.v2.functional import resize

from anomalib_htdgm.models.differnet.batches import ShuffledBatches
from anomalib_htdgm.models.differnet.flow import create_flow
from anomalib_htdgm.models.differnet.torch_model import DiffernetModel

from .textures import noise

BACKBONE = "test_resnet"


def make_model(test_rotations: int = 6, map_rotations: int = 5) -> DiffernetModel:
    model = DiffernetModel(
        BACKBONE,
        image_sizes=(48, 32),
        coupling_blocks=2,
        hidden_width=16,
        test_rotations=test_rotations,
        map_rotations=map_rotations,
        precision="float32",
    )
    model.initialize(seed=0, pre_trained=False)
    model.is_trained.fill_(True)
    return model.eval()


def test_features_are_pooled_at_each_size() -> None:
    model, images = make_model(), noise(2, 3, 96, 96)
    model.image_sizes = (96, 48, 32)
    network = timm.create_model(BACKBONE, num_classes=0, global_pool="avg").eval()
    network.load_state_dict(model.backbone.state_dict())
    normalized = normalize(images, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    with torch.no_grad():
        pooled = [network(normalized[..., ::step, ::step]) for step in (1, 2, 3)]
        torch.testing.assert_close(model.features(images), torch.cat(pooled, dim=1))


def test_images_of_another_size_are_brought_to_the_first() -> None:
    model, images = make_model(), noise(2, 3, 60, 40)
    resized = resize(images, [48, 48], antialias=True)
    torch.testing.assert_close(model.features(images), model.features(resized), atol=1e-5, rtol=1e-4)


def test_features_in_bfloat16_are_nearly_the_same() -> None:
    model, images = make_model(), noise(2, 3, 96, 96)
    expected = model.features(images)
    model.precision = "bfloat16"
    features = model.features(images)
    assert features.dtype == torch.float32
    assert 0 < (features - expected).norm() / expected.norm() < 0.05


def test_score_is_the_mean_over_rotations() -> None:
    model, images = make_model(test_rotations=6), noise(3, 3, 48, 48)
    expected = torch.zeros(3)
    with torch.no_grad():
        for degrees in (0, 60, 120, 180, 240, 300):
            z, _ = model.flow(model.features(kornia_rotate(images, torch.full((3,), float(degrees)))))
            expected += z.square().sum(dim=1) / 2 / z.shape[1] / 6
        torch.testing.assert_close(model(images).pred_score, expected.log1p(), atol=1e-4, rtol=1e-3)


def test_map_is_the_gradient_of_the_loss() -> None:
    model, images = make_model(map_rotations=1), noise(2, 3, 48, 48).requires_grad_()
    z, log_determinant = model.flow(model.features(images))
    (z.square().sum() / 2 - log_determinant.sum()).div(z.shape[1]).backward()
    expected = torch.from_numpy(gaussian_filter(images.grad.numpy(), (0, 0, 3, 3), mode="mirror", radius=12))
    expected = expected.abs().sum(dim=1, keepdim=True)
    with torch.inference_mode():
        torch.testing.assert_close(
            model(images).anomaly_map, expected.log1p(), atol=1e-3 * expected.max().item(), rtol=0
        )


class Brightness(nn.Module):
    """Stands in for a backbone: lets only bright pixels through, so that gradients, too, are only there."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.relu()


@pytest.mark.parametrize("map_rotations", [1, 4, 5])
def test_map_shows_the_place_whatever_the_rotation(map_rotations: int) -> None:
    model = make_model(map_rotations=map_rotations)
    model.backbone, model.flow = Brightness(), create_flow(6, coupling_blocks=1, hidden_width=8)
    images = torch.zeros(2, 3, 48, 48)
    images[0, :, 20:24, 8:12] = 1
    images[1, :, 30:34, 34:38] = 1
    maps = model(images).anomaly_map
    assert maps.shape == (2, 1, 48, 48)
    for each, (row, column) in zip(maps[:, 0], ((21.5, 9.5), (31.5, 35.5)), strict=True):
        weights = each / each.sum()
        rows, columns = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")
        assert (weights * rows).sum() == pytest.approx(row, abs=1)
        assert (weights * columns).sum() == pytest.approx(column, abs=1)
        assert weights[(rows - row).hypot(columns - column) > 20].sum() < 1e-6


def test_an_image_is_scored_and_localised_for_itself() -> None:
    model, images = make_model(), noise(3, 3, 48, 48)
    together, alone = model(images), model(images[1:2])
    torch.testing.assert_close(together.pred_score[1:2], alone.pred_score)
    torch.testing.assert_close(together.anomaly_map[1:2], alone.anomaly_map)


def test_training_makes_the_image_more_likely_than_others() -> None:
    model, images = make_model(map_rotations=0), F.interpolate(noise(1, 3, 6, 6), (48, 48))
    optimizer = torch.optim.Adam(model.train().trainable_parameters(), lr=1e-3)
    source = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(60):
        loss = model.loss(images.repeat(4, 1, 1, 1), 360 * torch.rand(4, generator=source))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.5
    model.eval()
    assert model(images).pred_score < model(noise(1, 3, 48, 48, seed=3)).pred_score


def test_the_backbone_stays_as_it_is() -> None:
    model = make_model()
    before = {name: tensor.clone() for name, tensor in model.backbone.state_dict().items()}
    model.train()
    assert model.flow.training
    model.loss(noise(2, 3, 48, 48), torch.zeros(2)).backward()
    assert all(parameter.grad is None for parameter in model.backbone.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.backbone.state_dict().items())


def test_batches_pass_over_all_images_in_new_orders() -> None:
    images = torch.arange(7.0).view(7, 1, 1, 1).expand(-1, 3, 4, 4)
    batches = ShuffledBatches(images, batch_size=3, passes=4, seed=1)
    served = [batch.image[:, 0, 0, 0].tolist() for batch in batches]
    assert len(batches) == len(served) == 12
    assert [len(batch) for batch in served] == [3, 3, 1] * 4
    passes = [[*served[start], *served[start + 1], *served[start + 2]] for start in range(0, 12, 3)]
    assert all(sorted(order) == list(range(7)) for order in passes)
    assert len({tuple(order) for order in passes}) == 4
    assert [batch.image[:, 0, 0, 0].tolist() for batch in batches] == served


def test_an_untrained_model_does_not_score() -> None:
    model = make_model()
    model.initialize(0, pre_trained=False)
    with pytest.raises(RuntimeError, match="has not been trained"):
        model(noise(1, 3, 48, 48))
