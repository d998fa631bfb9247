# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""PyTorch model of HTDGM as published: image -> pyramid -> probabilities of the right transformation -> score and map.

Equations and sections are those of the paper (Sheynin, Benaim, Wolf, ICCV 2021). Its score is low where an image is
anomalous; here it is one minus that.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar, cast

import torch
from anomalib.data import InferenceBatch
from torch import nn
from torch.nn import functional as F
from torchvision.utils import make_grid
from typing_extensions import Self

from anomalib_htdgm.models.exporting import chunks, require_training
from anomalib_htdgm.models.htdgm.pretext import Transformation, shift_length
from anomalib_htdgm.models.htdgm.pyramid import Pyramid, Resize, pyramid_sizes
from anomalib_htdgm.validation import check_choice, check_integer, check_number

from .networks import MARGIN, Scale
from .transformations import TRANSFORMATION_SETS

SCALE_FACTOR = 0.75
"""The ratio ``r`` between scales (Sec. 3.4), which is raised until the coarsest has its size (authors' code)."""
SCALES_OF_ONE_WIDTH = 4
"""Scales after which the width doubles (authors' code)."""
KEPT_FRACTION = 0.05
"""Fraction of the patches that a map keeps (Sec. 4.2)."""
IMAGES_AT_ONCE = 1
"""Images that are scored together, since each is seen once for each transformation."""


class HtdgmPublishedModel(nn.Module):
    """Discriminators that tell transformations of patches apart, at every scale, and the generators they play against.

    Arguments that are not listed are those of :class:`~.lightning_model.HtdgmPublished`.

    Args:
        input_size (tuple[int, int]): Height and width in pixels of the images that it is given.
        has_generators (bool): Whether there are generators, and a class for generated patches.

    Raises:
        ValueError: If an argument is out of its range; the message names it.
    """

    transformation_sets: ClassVar[dict[str, list[Transformation]]] = TRANSFORMATION_SETS
    is_trained: torch.Tensor
    num_shots: torch.Tensor

    def __init__(
        self,
        input_size: tuple[int, int] = (256, 256),
        k_shot: int = 1,
        transformations: str = "rotations",
        image_size: int = 64,
        coarsest_size: int = 25,
        width: int = 32,
        patch_fraction: float = 0.05,
        *,
        has_generators: bool = True,
    ) -> None:
        super().__init__()
        check_integer("k_shot", k_shot, at_least=1)
        check_choice("transformations", transformations, [*self.transformation_sets])
        check_integer("width", width, at_least=1)
        check_number("patch_fraction", patch_fraction, above=0, at_most=1)
        self.transformations = self.transformation_sets[transformations]
        self.k_shot, self.patch_fraction, self.has_generators = k_shot, patch_fraction, has_generators
        sizes = pyramid_sizes(image_size, coarsest_size, SCALE_FACTOR)
        self.pyramid = Pyramid(sizes, input_size)
        self.upsample = nn.ModuleList(Resize((size, size), finer) for size, finer in pairwise(sizes))
        num_outputs = self.fake_class + has_generators
        scales = (
            Scale(size, width * 2 ** (scale // SCALES_OF_ONE_WIDTH), num_outputs, k_shot, has_generator=has_generators)
            for scale, size in enumerate(sizes)
        )
        self.scales = cast("Sequence[Scale]", nn.ModuleList(scales))
        self.register_buffer("is_trained", torch.tensor(False))
        self.register_buffer("num_shots", torch.tensor(0))
        self.train()

    @property
    def classes(self) -> list[int]:
        """The discriminator's class of each transformation."""
        return list(range(len(self.transformations)))

    @property
    def fake_class(self) -> int:
        """The class of generated patches: it comes last, as in the authors' code. The paper's number is 0."""
        return max(self.classes) + 1

    def train(self, mode: bool = True) -> Self:
        """Set the mode, but not of batch norm: only the scale that is being trained takes statistics of its images."""
        super().train(mode)
        for each in self.scales:
            each.eval()
        return self

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Score and localise.

        Args:
            images (torch.Tensor): Images in [-1, 1] of shape ``(B, 3, H, W)``.

        Returns:
            InferenceBatch: ``pred_score`` of shape ``(B,)`` and ``anomaly_map`` of shape ``(B, 1, H, W)``, both in
            [0, 1] and high where anomalous.

        Raises:
            RuntimeError: If the model has not been trained.
        """
        require_training(self.is_trained, "HtdgmPublished")
        reduced = self.pyramid(images.contiguous())
        anomalies = [1 - self.probabilities(scale, reduced[scale.size]) for scale in self.scales]
        score = torch.stack([self._score(each) for each in anomalies]).mean(dim=0)
        finest = self._locate(anomalies[-1])
        return InferenceBatch(pred_score=score, anomaly_map=F.interpolate(finest, images.shape[-2:], mode="bilinear"))

    def transform(self, images: torch.Tensor) -> torch.Tensor:
        """Make ``T_1(x), ..., T_M(x)`` of images of shape ``(B, 3, H, H)``: shape ``(M * B, 3, H, H)``."""
        return torch.cat([each.apply(images) for each in self.transformations])

    def probabilities(self, scale: Scale, images: torch.Tensor) -> torch.Tensor:
        """Compute, for each patch of each transformed image, the probability of the right transformation (Eq. 12).

        Args:
            scale (Scale): The scale.
            images (torch.Tensor): Images of its size, shape ``(B, 3, size, size)``.

        Returns:
            torch.Tensor: Probabilities of shape ``(B, M, size - 10, size - 10)``.
        """
        probabilities = []
        for chunk in chunks(images, IMAGES_AT_ONCE):
            logits = scale.discriminator(self.transform(chunk)).chunk(len(self.classes))
            right = [self._right(each, index) for each, index in zip(logits, self.classes, strict=True)]
            probabilities.append(torch.stack(right, dim=1))
        return torch.cat(probabilities)

    def _right(self, logits: torch.Tensor, index: int) -> torch.Tensor:
        """Compute the probability of one class, without the fake class: ``[D^n*(T_i(x))_p]_i`` of Eq. 12."""
        return logits[:, : self.fake_class].softmax(dim=1)[:, index]

    def _score(self, anomalies: torch.Tensor) -> torch.Tensor:
        """Average one scale's most anomalous patches over all transformations (Sec. 3.3); all of them in Eq. 12."""
        return _most_anomalous(anomalies, self.patch_fraction).values.mean(dim=(1, 2))

    def _locate(self, anomalies: torch.Tensor) -> torch.Tensor:
        """Make the map of the finest scale (Sec. 4.2), of shape ``(B, 1, size, size)``.

        Of each transformation the most anomalous patches are kept, the others are 0; all are transformed back.
        """
        patches = anomalies.flatten(2)
        kept = _most_anomalous(anomalies, KEPT_FRACTION)
        kept_alone = torch.zeros_like(patches).scatter(2, kept.indices, kept.values).view_as(anomalies)
        shift = shift_length(self.pyramid.sizes[-1])
        pairs = zip(self.transformations, kept_alone.unbind(dim=1), strict=True)
        upright = torch.stack([each.invert(votes, shift) for each, votes in pairs], dim=1)
        return F.pad(upright.mean(dim=1, keepdim=True), [MARGIN] * 4)

    def draw_noise(self, scale: int, num_images: int, rng: torch.Generator) -> torch.Tensor:
        """Draw ``z^n`` from N(0, 1) on the CPU, of shape ``(num_images, 3, size, size)``.

        At the coarsest scale it is the same in all channels (authors' code).
        """
        size, channels = self.pyramid.sizes[scale], 3 if scale else 1
        noise = torch.randn(num_images, channels, size, size, generator=rng)
        return noise.expand(-1, 3, -1, -1).to(self.num_shots.device)

    def generate(self, shots: torch.Tensor, num_scales: int, rng: torch.Generator | None = None) -> list[torch.Tensor]:
        """Generate images of the first scales, of random noise (Eqs. 1-2, 13-14) or of fixed noise (Eqs. 7-8, 15-16).

        Args:
            shots (torch.Tensor): Index of the training image that each is modelled on, shape ``(B,)``.
            num_scales (int): Number of scales, from the coarsest.
            rng (torch.Generator | None): Source of the noise, on the CPU; ``None`` takes the fixed noise.

        Returns:
            list[torch.Tensor]: For each scale, coarse to fine, images of shape ``(B, 3, size, size)``.
        """
        images: list[torch.Tensor] = []
        for index in range(num_scales):
            scale = self.scales[index]
            noise = scale.fixed_noise if rng is None else self.draw_noise(index, len(shots), rng)
            images.append(scale.generate(noise, self.enlarge(images, len(shots)), shots))
        return images

    def enlarge(self, images: Sequence[torch.Tensor], number: int) -> torch.Tensor:
        """Enlarge the last of what :meth:`generate` gives, for the next scale; the coarsest starts from zeros.

        Images are brought to [-1, 1] before: what a generator overdoes must not grow from scale to scale.
        """
        if not images:
            size = self.pyramid.sizes[0]
            return self.scales[0].fixed_noise.new_zeros(number, 3, size, size)
        enlarged: torch.Tensor = self.upsample[len(images) - 1](images[-1].clamp(-1, 1))
        return enlarged

    @torch.no_grad()
    def sample(self, num_images: int, seed: int = 0) -> list[torch.Tensor]:
        """Generate random images; the training images they are modelled on take turns (Eqs. 1-2, 13-14).

        Returns:
            list[torch.Tensor]: For each scale, coarse to fine, images in [-1, 1] of shape ``(B, 3, size, size)``.
        """
        self._require_generators()
        shots = torch.arange(num_images, device=self.num_shots.device) % self.num_shots
        rng = torch.Generator().manual_seed(seed)
        return [images.clamp(-1, 1) for images in self.generate(shots, len(self.scales), rng)]

    @torch.no_grad()
    def reconstruct(self) -> list[torch.Tensor]:
        """Generate the training images from their fixed noise (Eqs. 7-8, 15-16).

        Returns:
            list[torch.Tensor]: For each scale, coarse to fine, images in [-1, 1] of shape ``(k, 3, size, size)``.
        """
        self._require_generators()
        shots = torch.arange(int(self.num_shots), device=self.num_shots.device)
        return [images.clamp(-1, 1) for images in self.generate(shots, len(self.scales))]

    def picture(self, num_images: int = 4, seed: int = 0) -> torch.Tensor:
        """Draw reconstructions, and random images to their right, as one picture: a row for each scale, coarse to fine.

        Returns:
            torch.Tensor: The picture in [0, 1], of shape ``(3, height, width)``.
        """
        size = self.pyramid.sizes[-1]
        rows = [torch.cat(pair) for pair in zip(self.reconstruct(), self.sample(num_images, seed), strict=True)]
        enlarged = [F.interpolate(row, (size, size), mode="nearest") for row in rows]
        return make_grid(torch.cat(enlarged) / 2 + 0.5, nrow=len(rows[0]))

    def _require_generators(self) -> None:
        require_training(self.is_trained, "HtdgmPublished")
        if not self.has_generators:
            msg = "fake_weight: the model was trained with 0, without generators; sampling needs a positive fake_weight"
            raise RuntimeError(msg)


def _most_anomalous(anomalies: torch.Tensor, fraction: float) -> torch.return_types.topk:
    """Find the most anomalous patches of each image and transformation, ``f_n^i`` of Sec. 3.3."""
    patches = anomalies.flatten(2)
    return patches.topk(max(1, math.ceil(fraction * patches.shape[-1] - 1e-9)), dim=-1)  # 0.07 * 100 is above 7
