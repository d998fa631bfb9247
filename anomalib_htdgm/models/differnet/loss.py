# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Loss of the flow: the negative log-likelihood of the features (Eq. 4)."""

import torch


def negative_log_likelihood(z: torch.Tensor, log_determinant: torch.Tensor) -> torch.Tensor:
    """Compute, but for a constant, the negative log-likelihood per feature, of shape ``(B,)``.

    Args:
        z (torch.Tensor): The flow's output, of shape ``(B, d)``.
        log_determinant (torch.Tensor): Logarithm of the flow's absolute Jacobian determinant, of shape ``(B,)``.
    """
    return (z.square().sum(dim=1) / 2 - log_determinant) / z.shape[1]
