# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Losses of generator and discriminator, on canvases (Eqs. 4-11, 15-18).

A patch of a canvas belongs to the crops of several transformations at once, so its target is that *set*: summed over
the set, the cross entropies over a canvas are those over all transformed images.
"""

from collections.abc import Iterable, Sequence
from itertools import cycle
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812

from .canvases import Canvases, log_softmax
from .networks import count_outputs


class TransformationLoss(nn.Module):
    """Cross entropies of one scale's votes, each a mean over patches, transformations and images.

    Args:
        canvases (Canvases): The canvases of that scale.
        fake_class (bool): Whether the discriminator has, as its last class, one for generated patches.
    """

    def __init__(self, canvases: Canvases, *, fake_class: bool) -> None:
        super().__init__()
        self.num_terms = canvases.num_transformations * canvases.num_votes**2
        fake, num_outputs = canvases.num_transformations, count_outputs(canvases.num_transformations + fake_class)
        self.targets = [group.targets(num_outputs) for group in canvases.groups]
        counts = [target.sum(dim=1, keepdim=True) for target in self.targets]
        self.fake_targets = [F.pad(count, (fake, num_outputs - fake - 1)) for count in counts] if fake_class else []
        self.num_canvases = [len(group.canvases) for group in canvases.groups]

    def forward(self, logits: Iterable[torch.Tensor]) -> torch.Tensor:
        """Compute the cross entropy of telling each transformation, ``CE(D(T_i(x)), i)``.

        Args:
            logits (Iterable[torch.Tensor]): The discriminator's output on canvases as :meth:`Canvases.draw` draws them.
                Of each tensor only the gradient is kept.

        Returns:
            torch.Tensor: The loss, a scalar.
        """
        return self._mean(logits, self.targets)

    def fake(self, logits: Iterable[torch.Tensor]) -> torch.Tensor:
        """Compute the cross entropy of telling that patches are generated, ``CE(D(T_i(G(z))), fake)``.

        Args:
            logits (Iterable[torch.Tensor]): The discriminator's output on the canvases of generated images.

        Returns:
            torch.Tensor: The loss, a scalar.
        """
        return self._mean(logits, self.fake_targets)

    def _mean(self, logits: Iterable[torch.Tensor], targets: Sequence[torch.Tensor]) -> torch.Tensor:
        terms, num_images = [], 0
        for part, (target, num_canvases) in zip(
            logits, cycle(zip(targets, self.num_canvases, strict=True)), strict=False
        ):
            terms.append(_SetCrossEntropy.apply(part, target))
            num_images += len(part) // num_canvases
        return torch.stack(terms).sum() / (self.num_terms * num_images / len(targets))


class _SetCrossEntropy(torch.autograd.Function):
    """Sum of cross entropies, several for a patch: the gradient is known at once, so nothing else need be kept."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
        """Compute the sum over the canvases of some images.

        Args:
            ctx (Any): For the gradient.
            logits (torch.Tensor): Shape ``(b * num_canvases, num_outputs, height, width)``.
            targets (torch.Tensor): How often each class is right, for all patches of an image's canvases: shape
                ``(num_canvases * height * width, num_outputs)``.
        """
        votes = log_softmax(logits)
        log_probabilities = votes.reshape(-1, *targets.shape)
        negative_targets = -targets.to(log_probabilities.dtype)
        loss = (log_probabilities.flatten(1) @ negative_targets.flatten()).sum()
        # The softmax times the number of targets, less the targets.
        gradient = torch.ops.aten._log_softmax_backward_data(  # noqa: SLF001
            negative_targets.expand_as(log_probabilities), log_probabilities, -1, log_probabilities.dtype
        )
        ctx.save_for_backward(gradient.to(logits.dtype).view(votes.shape).permute(0, 3, 1, 2))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:  # noqa: ANN401
        """Compute the gradient of the logits."""
        (of_logits,) = ctx.saved_tensors
        return of_logits * gradient, None


def reconstruction_loss(reconstructions: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Compute the mean squared error of reconstructions (Eqs. 9 and 17, squared as in the authors' code).

    Args:
        reconstructions (torch.Tensor): Reconstructions of shape ``(k, 3, H, W)``.
        images (torch.Tensor): The training images at that scale, of the same shape.

    Returns:
        torch.Tensor: The loss, a scalar.
    """
    return F.mse_loss(reconstructions, images)
