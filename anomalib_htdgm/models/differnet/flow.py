# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The normalizing flow: coupling blocks between fixed permutations (Sec. 3.1), and its loss."""

from functools import partial

import torch
from FrEIA.framework import SequenceINN
from FrEIA.modules import GLOWCouplingBlock, PermuteRandom
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

CLAMP = 3.0
"""Bound alpha of the scaling: a block scales a feature by ``exp(-alpha)`` to ``exp(alpha)`` (authors' code)."""


def create_flow(num_features: int, coupling_blocks: int, hidden_width: int) -> SequenceINN:
    """Make the flow from features ``y`` to ``z``, which is normally distributed for good images.

    Args:
        num_features (int): Number of features ``d``.
        coupling_blocks (int): Number of coupling blocks, each of which has a permutation before it.
        hidden_width (int): Width of the three hidden layers of each subnetwork; a block has two subnetworks.

    Returns:
        SequenceINN: From features of shape ``(B, d)`` to ``z`` of shape ``(B, d)`` and the logarithm of the absolute
        Jacobian determinant, of shape ``(B,)``; with ``rev=True`` the other way.
    """
    flow = SequenceINN(num_features)
    with isolate_rng(include_cuda=False):  # FrEIA draws permutations by seeding NumPy's global state
        for block in range(coupling_blocks):
            flow.append(PermuteRandom, seed=block)  # kept in the state dictionary
            flow.append(
                GLOWCouplingBlock,
                subnet_constructor=partial(_create_subnetwork, hidden_width=hidden_width),
                clamp=CLAMP,
                clamp_activation=_squash,
            )
    return flow


def negative_log_likelihood(z: torch.Tensor, log_determinant: torch.Tensor) -> torch.Tensor:
    """Compute, but for a constant, the negative log-likelihood per feature, of shape ``(B,)`` (Eq. 4).

    Args:
        z (torch.Tensor): The flow's output, of shape ``(B, d)``.
        log_determinant (torch.Tensor): Logarithm of the flow's absolute Jacobian determinant, of shape ``(B,)``.
    """
    return (z.square().sum(dim=1) / 2 - log_determinant) / z.shape[1]


def _create_subnetwork(num_inputs: int, num_outputs: int, hidden_width: int) -> nn.Sequential:
    """Make the network that computes scale and shift of one half of the features from the other half."""
    return nn.Sequential(
        nn.Linear(num_inputs, hidden_width),
        nn.ReLU(),
        nn.Linear(hidden_width, hidden_width),
        nn.ReLU(),
        nn.Linear(hidden_width, hidden_width),
        nn.ReLU(),
        nn.Linear(hidden_width, num_outputs),
    )


def _squash(scale: torch.Tensor) -> torch.Tensor:
    """Squash scales to (-1, 1), as FrEIA's own "ATAN" does, which is a lambda and would not let a model be pickled."""
    return 0.636 * scale.atan()
