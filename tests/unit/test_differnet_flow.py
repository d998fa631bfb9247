# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""DifferNet's rotation, flow and loss against obvious oracles."""

import numpy as np
import pytest
import torch
from kornia.geometry.transform import rotate as kornia_rotate
from torch import nn

from anomalib_htdgm.models.differnet.flow import create_flow, negative_log_likelihood
from anomalib_htdgm.models.differnet.rotation import rotate

from .textures import noise


def test_each_image_is_turned_by_its_own_angle() -> None:
    images, degrees = noise(4, 3, 30, 47), torch.tensor([10.0, -75.0, 200.0, 359.0])
    torch.testing.assert_close(rotate(images, degrees), kornia_rotate(images, degrees), atol=1e-4, rtol=0)


@pytest.mark.parametrize("num_features", [6, 7])
def test_log_determinant_is_that_of_the_jacobian(num_features: int) -> None:
    torch.manual_seed(0)
    flow = create_flow(num_features, coupling_blocks=3, hidden_width=8).double()
    features = 5 * noise(2, num_features).double()
    z, log_determinant = flow(features)
    for row, value in zip(features, log_determinant, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda each: flow(each[None])[0][0], row)
        torch.testing.assert_close(value, torch.linalg.slogdet(jacobian).logabsdet)
    torch.testing.assert_close(flow(z, rev=True)[0], features)
    assert log_determinant.abs().min() > 0.01


def test_clamp_bounds_the_scaling() -> None:
    flow = create_flow(2, coupling_blocks=1, hidden_width=8)
    for parameter in flow.parameters():
        if parameter.requires_grad:
            nn.init.constant_(parameter, 100)
    _, log_determinant = flow(torch.ones(1, 2))
    assert log_determinant.item() == pytest.approx(2 * 3 * 0.636 * np.pi / 2, rel=1e-4)


def test_permutations_are_fixed_and_differ_from_block_to_block() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    flows = [create_flow(64, coupling_blocks=2, hidden_width=4) for _ in range(2)]
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    first, second = (flow.state_dict() for flow in flows)
    assert torch.equal(first["module_list.0.perm"], second["module_list.0.perm"])
    assert not torch.equal(first["module_list.0.perm"], first["module_list.2.perm"])


def test_subnetworks_have_three_hidden_layers() -> None:
    flow = create_flow(768, coupling_blocks=1, hidden_width=10)
    widths = [tuple(layer.weight.shape[::-1]) for layer in flow.modules() if isinstance(layer, nn.Linear)]
    assert widths == 2 * [(384, 10), (10, 10), (10, 10), (10, 768)]


def test_loss_is_the_gaussian_log_likelihood_but_for_a_constant() -> None:
    z, log_determinant = noise(3, 5), noise(3, seed=1)
    normal = torch.distributions.Normal(0, 1)
    expected = -(normal.log_prob(z).sum(dim=1) + log_determinant) / 5
    constant = np.log(2 * np.pi) / 2
    torch.testing.assert_close(negative_log_likelihood(z, log_determinant) + constant, expected)
