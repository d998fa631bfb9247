# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Votes: at each scale, discriminators tell which transformation was applied to each patch (Sec. 3.2, 3.3).

Patches whose transformation they cannot tell are anomalous. They are trained in
:mod:`~anomalib_htdgm.models.htdgm.training`, scale by scale.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn
from torch.nn import functional as F

from anomalib_htdgm.models.exporting import chunks
from anomalib_htdgm.models.precision import choose_dtype

from .discriminator import MARGIN, Discriminator
from .pretext import TRANSFORMATIONS, PretextTask
from .scoring import top_mean
from .settings import Settings
from .signals import Opinion, Signal, Views

PIXELS_PER_CHUNK = 2**17
"""Pixels of transformed images that a discriminator sees at a time, unless those of one image are more: with 32
channels a layer of them takes 8 MB in bfloat16, which the caches hold and the allocator reuses."""
LEAST_PROBABILITY = 2e-5
"""What no mean probability is taken to be below, so that its reciprocal is finite, in half precision, too."""


class Votes(Signal):
    """An ensemble of discriminators for each scale that votes.

    Args:
        settings (Settings): The model's.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.num_members, self.precision = settings.num_members, settings.precision
        self.vote, self.patch_fraction = settings.vote, settings.patch_fraction
        transformations = TRANSFORMATIONS[settings.transformations]
        tasks = (PretextTask(transformations, size) for size in settings.voting_sizes)
        self.tasks = cast("Sequence[PretextTask]", nn.ModuleList(tasks))
        members = range(settings.num_members)
        discriminators = (
            nn.ModuleList(Discriminator(len(transformations), settings.width) for _ in members) for _ in self.tasks
        )
        self.discriminators = cast("Sequence[Sequence[Discriminator]]", nn.ModuleList(discriminators))
        self.sizes = sorted({size for task in self.tasks for size in task.sizes})

    @property
    def dtype(self) -> torch.dtype:
        """Type that the discriminators compute in."""
        return choose_dtype(self.precision, self.tasks[0].nearest.device)

    def fit(self, views: Views, rng: torch.Generator, num_shots: int) -> None:
        """Note how many images there are: the discriminators have been trained."""
        del views, rng
        self.num_shots = num_shots

    def forward(self, views: Views, unseen: int | None = None) -> Opinion:
        """Score and localise by votes; members that were trained on ``unseen`` have none.

        Where all were trained on it, as a single member is, all vote on it.
        """
        members = range(self.num_members) if unseen is None else self._members_without(unseen)
        scores, maps = [], []
        for task, discriminators in zip(self.tasks, self.discriminators, strict=True):
            votes = self.votes(task, [discriminators[member] for member in members], views)
            # With many transformations 1 - p hardly differs from 1, so its order is looked for in p.
            anomalies = -votes if self.vote == "log_probability" else -votes.exp()
            scores.append(top_mean(anomalies, self.patch_fraction).mean(dim=(0, 2)))
            anomalies = anomalies if self.vote == "log_probability" else 1 + anomalies
            worst = task.invert(anomalies.mean(dim=0)).amax(dim=1, keepdim=True)
            maps.append(F.pad(worst, [MARGIN] * 4, mode="replicate"))
        score = torch.stack(scores).mean(dim=0)
        # Twice the score is to be twice the anomaly.
        return Opinion(score if self.vote == "log_probability" else 1 / (-score).clamp(min=LEAST_PROBABILITY), maps)

    def votes(self, task: PretextTask, discriminators: Sequence[Discriminator], views: Views) -> torch.Tensor:
        """Let discriminators of one scale vote.

        Args:
            task (PretextTask): The scale's pretext task.
            discriminators (Sequence[Discriminator]): Some of its discriminators.
            views (Views): Images.

        Returns:
            torch.Tensor: Log-probabilities of the right transformation (Eq. 12), at most 0, of shape
            ``(discriminators, B, transformations, size - 10, size - 10)``.
        """
        per_chunk = max(1, PIXELS_PER_CHUNK // (len(task.transformations) * task.size**2))
        parts = zip(*(chunks(views[size], per_chunk) for size in task.sizes), strict=True)
        chunked = [dict(zip(task.sizes, part, strict=True)) for part in parts]
        return torch.cat([self._vote(task, discriminators, each) for each in chunked], dim=1)

    def _vote(self, task: PretextTask, discriminators: Sequence[Discriminator], views: Views) -> torch.Tensor:
        classes, votes = [], []
        for transformed in task(views):
            batch = transformed.images.flatten(0, 1).to(self.dtype)
            logits = torch.stack([each(batch) for each in discriminators])
            votes.append(task.read(transformed.classes, logits.unflatten(1, (-1, len(transformed.classes)))))
            classes += transformed.classes
        return torch.cat(votes, dim=2)[:, :, [classes.index(index) for index in range(len(classes))]]

    def share_of(self, member: int, images: torch.Tensor) -> torch.Tensor:
        """Choose the images that a member is trained on: every image is one member's, and none is left without.

        Members take turns where there are fewer images than members.
        """
        return images[member % len(images) :: self.num_members]  # of five images, member 0 of 2 has 0, 2 and 4

    def _members_without(self, shot: int) -> Sequence[int]:
        """List the members that were not trained on an image; all of them if all were."""
        shots, every = torch.arange(self.num_shots), range(self.num_members)
        return [member for member in every if shot not in self.share_of(member, shots)] or every
