# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""From what is said of patches to one anomaly score for each image, and from several scores to one."""

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import torch

Vote = Literal["probability", "log_probability"]


def average_votes(log_probabilities: Iterable[torch.Tensor], vote: Vote) -> torch.Tensor:
    """Average the votes of several discriminators: log-probabilities of the right transformation, all of one shape.

    Returns:
        torch.Tensor: Logarithm of the mean probability, or mean log-probability, of the same shape.
    """
    votes = torch.stack([*log_probabilities])
    return votes.logsumexp(dim=0) - math.log(len(votes)) if vote == "probability" else votes.mean(dim=0)


def patch_anomaly(log_probabilities: torch.Tensor, vote: Vote) -> torch.Tensor:
    """Turn the log-probability of the right transformation into an anomaly, high where patches are anomalous.

    Args:
        log_probabilities (torch.Tensor): Any shape, at most 0.
        vote (Vote): ``probability`` gives 1 - p, in [0, 1], the paper's vote (Eq. 12) turned around;
            ``log_probability`` gives -log p, at least 0, which weighs confident mistakes more.

    Returns:
        torch.Tensor: Anomalies of the same shape.
    """
    return 1 - log_probabilities.exp() if vote == "probability" else -log_probabilities


def anomaly_score(anomalies: Sequence[torch.Tensor], patch_fraction: float) -> torch.Tensor:
    """Compute the anomaly score of images: high means anomalous.

    Args:
        anomalies (Sequence[torch.Tensor]): Patch anomalies of every scale, each of shape ``(B, M, h, h)``.
        patch_fraction (float): Fraction of the patches, the most anomalous ones of each scale and transformation, that
            are averaged: 1 for whole images (Eq. 12), a few percent for defects (Sec. 3.3); in (0, 1].

    Returns:
        torch.Tensor: Scores of shape ``(B,)``: means over these patches, over transformations and over scales.
    """
    scores = []
    for scale in anomalies:
        patches = scale.flatten(2)
        num_patches = max(1, math.ceil(patch_fraction * patches.shape[-1] - 1e-9))  # 0.07 * 100 is above 7
        scores.append(patches.topk(num_patches, dim=-1).values.mean(dim=(1, 2)))
    return torch.stack(scores).mean(dim=0)


def combine(parts: Sequence[torch.Tensor], weights: Sequence[int] | None = None) -> torch.Tensor:
    """Combine scores or maps of several kinds, whose units have nothing to do with each other.

    Their geometric mean orders images alike whatever the units are, so that there is nothing to calibrate: to be twice
    as anomalous in one respect counts as much as in another.

    Args:
        parts (Sequence[torch.Tensor]): Scores or maps, at least 0, all of one shape ``(B, ...)``.
        weights (Sequence[int] | None): How many times each of them counts; ``None`` counts each once.

    Returns:
        torch.Tensor: Their geometric mean, of the same shape; a single part as it is. It is finite where the parts are.
    """
    if len(parts) == 1:
        return parts[0]
    weights = weights or [1] * len(parts)
    # Roots first: a product of all parts is soon above half precision's largest number.
    roots = [part.pow(weight / sum(weights)) for part, weight in zip(parts, weights, strict=True)]
    return math.prod(roots[1:], start=roots[0]).clamp(max=torch.finfo(roots[0].dtype).max)
