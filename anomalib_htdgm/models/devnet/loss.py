# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What image scores are trained with: the deviation loss of DevNet, or the focal loss of FLOS."""

from typing import Literal

import torch
from torchvision.ops import sigmoid_focal_loss

Loss = Literal["deviation", "focal"]

MARGIN = 5.0
"""Standard deviations that the deviation loss wants anomalies to be above the mean."""
NUM_REFERENCE = 5000
"""Scores that are drawn from the prior, anew for each batch."""

FOCAL_ALPHA = 0.5
"""Weight of the anomalous images in the focal loss; of the normal ones it is the rest. Batches are balanced already.
(Lin et al. take 0.25 for batches that are not.)"""
FOCAL_GAMMA = 2.0
"""How much less the focal loss weighs what is told well: the exponent of Lin et al."""


def deviation_loss(scores: torch.Tensor, is_anomalous: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Compute the deviation loss: scores of normal images are like the prior's, those of anomalies far above.

    Scores are counted in standard deviations from the mean of scores drawn from the prior. Normal images pay their
    distance from that mean, anomalous ones what they lack to be :data:`MARGIN` above it (Pang et al. 2021; the loss is
    that of the authors' earlier deviation networks, KDD 2019).

    Args:
        scores (torch.Tensor): Image scores of shape ``(B,)``.
        is_anomalous (torch.Tensor): Booleans of shape ``(B,)``.
        reference (torch.Tensor): Scores drawn from the prior N(0, 1), of shape ``(N,)``.

    Returns:
        torch.Tensor: Mean over the images, a scalar of at least 0.
    """
    deviations = (scores - reference.mean()) / reference.std()
    return torch.where(is_anomalous, (MARGIN - deviations).clamp(min=0), deviations.abs()).mean()


def focal_loss(scores: torch.Tensor, is_anomalous: torch.Tensor) -> torch.Tensor:
    """Compute the mean focal loss of image scores taken for logits (Lin et al., ICCV 2017, Eq. 5).

    Both arguments have the shape ``(B,)``.
    """
    labels = is_anomalous.to(scores.dtype)
    loss: torch.Tensor = sigmoid_focal_loss(scores, labels, FOCAL_ALPHA, FOCAL_GAMMA, reduction="mean")
    return loss
