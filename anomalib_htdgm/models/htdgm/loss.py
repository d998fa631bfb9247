# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Losses of generator and discriminator, on canvases (Eqs. 4-11, 15-18).

A patch of a canvas belongs to the crops of several transformations at once, so its target is that *set*: summed over
the set, the cross entropies over a canvas are those over all transformed images.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from .canvases import Canvases


class TransformationLoss(nn.Module):
    """Cross entropies of one scale's votes, each a mean over patches, transformations and images.

    Args:
        canvases (Canvases): The canvases of that scale.
        fake_class (bool): Whether the discriminator has, as its last class, one for generated patches.
    """

    def __init__(self, canvases: Canvases, *, fake_class: bool) -> None:
        super().__init__()
        self.num_terms = canvases.num_transformations * canvases.num_votes**2
        num_classes = canvases.num_transformations + fake_class
        self.targets = [group.targets(num_classes) for group in canvases.groups]

    def forward(self, logits: Sequence[torch.Tensor]) -> torch.Tensor:
        """Compute the cross entropy of telling each transformation, ``CE(D(T_i(x)), i)``.

        Args:
            logits (Sequence[torch.Tensor]): The discriminator's output on the canvases of ``B`` images, one tensor of
                shape ``(B * num_canvases, num_classes, height, width)`` for each size of canvas.

        Returns:
            torch.Tensor: The loss, a scalar.
        """
        terms = []
        for part, target in zip(logits, self.targets, strict=True):
            targets = target.repeat(len(part) // len(target), 1, 1, 1)
            terms.append(F.cross_entropy(part, targets, reduction="sum"))
        return torch.stack(terms).sum() / self._count(logits)

    def fake(self, logits: Sequence[torch.Tensor]) -> torch.Tensor:
        """Compute the cross entropy of telling that patches are generated, ``CE(D(T_i(G(z))), fake)``.

        Args:
            logits (Sequence[torch.Tensor]): The discriminator's output on the canvases of generated images.

        Returns:
            torch.Tensor: The loss, a scalar.
        """
        terms = []
        for part, target in zip(logits, self.targets, strict=True):
            crops_per_patch = target.sum(dim=1).repeat(len(part) // len(target), 1, 1)
            terms.append((crops_per_patch * (part.logsumexp(dim=1) - part[:, -1])).sum())
        return torch.stack(terms).sum() / self._count(logits)

    def _count(self, logits: Sequence[torch.Tensor]) -> int:
        return self.num_terms * (len(logits[0]) // len(self.targets[0]))


def reconstruction_loss(reconstructions: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Compute the mean squared error of reconstructions (Eqs. 9 and 17, squared as in the authors' code).

    Args:
        reconstructions (torch.Tensor): Reconstructions of shape ``(k, 3, H, W)``.
        images (torch.Tensor): The training images at that scale, of the same shape.

    Returns:
        torch.Tensor: The loss, a scalar.
    """
    return F.mse_loss(reconstructions, images)
