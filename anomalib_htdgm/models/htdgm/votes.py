# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Votes: at each scale, discriminators tell which transformation was applied to each patch (Sec. 3.2, 3.3).

Patches whose transformation they cannot tell are anomalous. They are trained in
:mod:`~anomalib_htdgm.models.htdgm.training`, scale by scale.
"""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from anomalib_htdgm.models.precision import Precision, choose_dtype
from anomalib_htdgm.validation import check_choice

from .canvases import Canvases
from .members import members_without
from .networks import MARGIN, Discriminator
from .score import Vote, anomaly_score, average_votes, patch_anomaly
from .signals import Opinion, Signal, Views
from .transformations import Transformation, enlarged_size

Localization = Literal["multi_scale", "finest_scale"]

KEPT_FRACTION = 0.05
"""Fraction of the patches that the paper's map keeps (Sec. 4.2)."""
LEAST_PROBABILITY = 2e-5
"""What no mean probability is taken to be below, so that its reciprocal is finite, in half precision, too."""


class Votes(Signal):
    """Discriminators of all scales that vote, sets of transformations and members.

    Args:
        scale_sizes (Sequence[int]): Sides in pixels of the scales that vote, coarse to fine.
        transformation_sets (Sequence[Sequence[Transformation]]): Sets of transformations, each of which has
            discriminators of its own.
        widths (Sequence[int]): Channels of each scale's hidden layers.
        members (int): Number of discriminators of one scale and set.
        has_fakes (bool): Whether there is a class for generated patches.
        is_alone (bool): Whether nothing else scores.
        vote (Vote): What patches vote with.
        patch_fraction (float): Fraction of patches, the most anomalous, that make the score.
        localization (Localization): ``finest_scale`` is the paper's map: at the finest scale, the mean over
            transformations of the 5 % most anomalous patches of each, the others set to 0. ``multi_scale`` shows, for
            each patch, the transformation that is told worst, at every scale.
        precision (Precision): What discriminators compute in.

    Raises:
        ValueError: If ``vote``, ``localization`` or ``precision`` is none of theirs.
    """

    def __init__(
        self,
        scale_sizes: Sequence[int],
        transformation_sets: Sequence[Sequence[Transformation]],
        widths: Sequence[int],
        members: int,
        vote: Vote,
        patch_fraction: float,
        localization: Localization,
        precision: Precision,
        *,
        has_fakes: bool,
        is_alone: bool,
    ) -> None:
        super().__init__()
        check_choice("vote", vote, get_args(Vote))
        check_choice("localization", localization, get_args(Localization))
        check_choice("precision", precision, get_args(Precision))
        self.scale_sizes = list(scale_sizes)
        self.transformation_sets = list(transformation_sets)
        self.members, self.vote, self.patch_fraction = members, vote, patch_fraction
        self.localization, self.precision, self.is_alone = localization, precision, is_alone
        self.enlarges = any(each.detail == "enlarge" for one_set in transformation_sets for each in one_set)
        self.sizes = sorted({*scale_sizes, *(enlarged_size(size) for size in scale_sizes if self.enlarges)})
        canvases = (nn.ModuleList(Canvases(each, size) for each in transformation_sets) for size in scale_sizes)
        self.canvases: Sequence[Sequence[Canvases]] = nn.ModuleList(canvases)  # type: ignore[assignment]
        discriminators = (
            nn.ModuleList(
                nn.ModuleList(Discriminator(len(each) + has_fakes, width) for _ in range(members))
                for each in transformation_sets
            )
            for width in widths
        )
        self.discriminators: Sequence[Sequence[Sequence[Discriminator]]] = nn.ModuleList(discriminators)  # type: ignore[assignment]

    @property
    def networks(self) -> list[Discriminator]:
        """All discriminators: scale by scale, set by set, member by member."""
        return [each for of_scale in self.discriminators for of_set in of_scale for each in of_set]

    @property
    def dtype(self) -> torch.dtype:
        """Type that the discriminators compute in."""
        return choose_dtype(self.precision, self.canvases[0][0].order.device)

    def fit(self, views: Views, rng: torch.Generator, num_shots: int) -> None:
        """Note how many images there are: the discriminators have been trained."""
        del views, rng
        self.num_shots = num_shots

    def forward(self, views: Views, unseen: int | None = None) -> Opinion:
        """Score and localise by votes; members that were trained on ``unseen`` have none.

        Where all were trained on it, as a single member is, all vote on it.
        """
        members: Sequence[int] = range(self.members)
        if unseen is not None:
            members = members_without(unseen, self.members, self.num_shots)
        votes = self.votes(views, members)
        anomalies = [[[patch_anomaly(each, self.vote) for each in scale] for scale in of_set] for of_set in votes]
        if self.vote == "probability" and not self.is_alone:
            scores = [self._score_probabilities(of_set) for of_set in votes]
        else:
            scores = [self._score(of_set) for of_set in anomalies]
        return Opinion(scores, [self.locate(of_set, index) for index, of_set in enumerate(anomalies)])

    def votes(self, views: Views, members: Sequence[int]) -> list[list[list[torch.Tensor]]]:
        """Let members vote: set by set, scale by scale, member by member.

        Returns:
            list[list[list[torch.Tensor]]]: Log-probabilities of the right transformation, of shape
            ``(B, M, size - 10, size - 10)``, as :meth:`Canvases.log_probabilities` defines them.
        """
        sets, scales = range(len(self.transformation_sets)), range(len(self.scale_sizes))
        return [[self._votes_at(scale, index, members, views) for scale in scales] for index in sets]

    def average(self, views: Views) -> list[list[torch.Tensor]]:
        """Average the votes of all members: set by set, scale by scale, as :meth:`votes`."""
        every = self.votes(views, range(self.members))
        return [[average_votes(scale, self.vote) for scale in of_set] for of_set in every]

    def locate(self, anomalies: Sequence[Sequence[torch.Tensor]], set_index: int = 0) -> list[torch.Tensor]:
        """Bring one set's anomalies back to where they are in the image.

        Args:
            anomalies (Sequence[Sequence[torch.Tensor]]): Scale by scale, member by member, patch anomalies of shape
                ``(B, M, size - 10, size - 10)``.
            set_index (int): Index of the set of transformations.

        Returns:
            list[torch.Tensor]: Scales of the map, of shape ``(B, 1, size, size)``.
        """
        canvases = [of_scale[set_index] for of_scale in self.canvases]
        of_members = [_mean(scale) for scale in anomalies]
        if self.localization == "finest_scale":
            finest = canvases[-1].invert(_keep_most_anomalous(of_members[-1]))
            return [F.pad(finest.mean(dim=1, keepdim=True), [MARGIN] * 4)]
        worst = [each.invert(scale).amax(dim=1, keepdim=True) for scale, each in zip(of_members, canvases, strict=True)]
        return [F.pad(each, [MARGIN] * 4, mode="replicate") for each in worst]

    def pair(self, scale: int, views: Views) -> tuple[torch.Tensor, torch.Tensor]:
        """Look up images at one scale, and in the size that enlarging gives; twice the former if nothing enlarges."""
        reduced = views[self.scale_sizes[scale]]
        return reduced, views[enlarged_size(self.scale_sizes[scale])] if self.enlarges else reduced

    def _votes_at(self, scale: int, set_index: int, members: Sequence[int], views: Views) -> list[torch.Tensor]:
        """Let some members vote at one scale."""
        reduced, enlarged = self.pair(scale, views)
        canvases, discriminators = self.canvases[scale][set_index], self.discriminators[scale][set_index]
        drawn = canvases.draw(reduced, self.dtype, enlarged)
        return [canvases.log_probabilities(discriminators[member](drawn)) for member in members]

    def _score(self, anomalies: Sequence[Sequence[torch.Tensor]]) -> torch.Tensor:
        """Score by one set's anomalies, scale by scale, member by member: the mean of what its members would say."""
        # A member alone has to say on average what all of them say, or what some have not seen would score otherwise.
        return _mean([anomaly_score(of_member, self.patch_fraction) for of_member in zip(*anomalies, strict=True)])

    def _score_probabilities(self, votes: Sequence[Sequence[torch.Tensor]]) -> torch.Tensor:
        """Score by one set's votes such that twice the score is twice the anomaly, for a product with others."""
        # 1 - p hardly differs from 1 where there are many transformations; p differs, unless it is what is left of 1 in
        # half precision.
        wrong = self._score([[-each.exp() for each in scale] for scale in votes])
        return 1 / (-wrong).clamp(min=LEAST_PROBABILITY)


def _mean(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack([*tensors]).mean(dim=0)


def _keep_most_anomalous(anomalies: torch.Tensor) -> torch.Tensor:
    patches = anomalies.flatten(2)
    kept = patches.topk(math.ceil(KEPT_FRACTION * patches.shape[-1]), dim=-1)
    return torch.zeros_like(patches).scatter(2, kept.indices, kept.values).view_as(anomalies)
