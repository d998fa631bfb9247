# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Losses of generator and discriminator, on canvases or windows of them (Eqs. 4-11, 15-18).

A patch of a canvas belongs to the crops of several transformations at once, so its target is that *set*: summed over
the set, the cross entropies over a canvas are those over all transformed images.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional as F  # noqa: N812

from .canvases import log_softmax


def transformation_loss(
    logits: Sequence[torch.Tensor], targets: Sequence[torch.Tensor], *, fake: bool = False
) -> torch.Tensor:
    """Compute the cross entropy of telling each transformation, ``CE(D(T_i(x)), i)``.

    Args:
        logits (Sequence[torch.Tensor]): The discriminator's output on canvases, or windows of them, each of shape
            ``(B * num_canvases, num_outputs, height, width)``.
        targets (Sequence[torch.Tensor]): For each of them the transformations whose image a patch lies in, see
            :meth:`Canvases.targets`, of shape ``(B or 1, num_canvases, height, width, num_transformations)``.
        fake (bool): Whether they are canvases of generated images, and the right answer is the class that comes after
            the transformations: ``CE(D(T_i(G(z))), fake)``.

    Returns:
        torch.Tensor: The loss, a scalar: a mean over the patches of each transformation, then over transformations.
    """
    pairs = list(zip(targets, logits, strict=True))
    # Targets of one image may hold for several.
    sums = [
        len(output) / (target.shape[0] * target.shape[1]) * target.sum(dim=(0, 1, 2, 3)) for target, output in pairs
    ]
    counts = torch.stack(sums).sum(dim=0)
    weights_of_classes = 1 / (counts.clamp(min=1) * counts.count_nonzero())
    terms = []
    for target, output in pairs:
        votes = log_softmax(output).unflatten(0, (-1, target.shape[1]))  # (B, num_canvases, h, w, num_outputs)
        weights = target * weights_of_classes
        fake_class = target.shape[-1]  # the transformations come before it, padding after it
        right = votes[..., fake_class] * weights.sum(dim=-1) if fake else votes[..., :fake_class] * weights
        terms.append(right.sum())
    return -torch.stack(terms).sum()


def reconstruction_loss(reconstructions: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Compute the mean squared error of reconstructions (Eqs. 9 and 17, squared as in the authors' code)."""
    return F.mse_loss(reconstructions, images)
