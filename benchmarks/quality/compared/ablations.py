# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Variants of HTDGM in the paper's Table 1 that are more than other arguments: (b), (c) and (f).

(a), (d) and (e) are arguments of ``Htdgm``, and (g) is in ``geom.py``; ``conf/model/table1_*.yaml`` has all of them.
"""

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from anomalib.data import ImageBatch, InferenceBatch
from anomalib.pre_processing import PreProcessor
from compared.trivial import Untrained
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torchvision.transforms.v2.functional import resize

from anomalib_htdgm import Htdgm
from anomalib_htdgm.models.htdgm.canvases import Canvases
from anomalib_htdgm.models.htdgm.discriminator import NEGLIGIBLE_LOGIT, Discriminator, count_outputs
from anomalib_htdgm.models.htdgm.transformations import TRANSFORMATION_SETS, Transformation
from anomalib_htdgm.models.pre_processor import configure_pre_processor


class RealOrFake(Htdgm):
    """HTDGM whose discriminators tell real from generated patches, whatever transformation was applied to them.

    With ``identity`` alone it is variant (b), M = 1; with a set of transformations they are augmentations, variant (c).
    The score is the probability that patches are real, a mean over the transformed images. The paper draws
    augmentations at random; here each training step sees all of them, whose mean loss is what random ones have on
    average.

    Args:
        transformations (str): Name of a set of transformations, or of one transformation.
        **arguments: As ``Htdgm`` takes them; ``fake_weight`` is to be above 0.
    """

    def __init__(self, transformations: str = "identity", **arguments: Any) -> None:  # noqa: ANN401
        super().__init__(transformations="rotations", **arguments)  # replaced below, since they would be told apart
        chosen = TRANSFORMATION_SETS.get(transformations) or [Transformation.from_name(transformations)]
        widths = [each.width for each in self.model.votes.networks]
        canvases = (nn.ModuleList([AugmentedCanvases(chosen, size)]) for size in self.model.pyramid.sizes)
        discriminators = (
            nn.ModuleList([nn.ModuleList([TwoClassDiscriminator(len(chosen), width)])]) for width in widths
        )
        self.model.votes.transformation_sets = [chosen]
        self.model.votes.canvases = nn.ModuleList(canvases)  # type: ignore[assignment]
        self.model.votes.discriminators = nn.ModuleList(discriminators)  # type: ignore[assignment]
        self.model.requires_grad_(False)  # noqa: FBT003  # until it is trained, as all of HtdgmModel


class TwoClassDiscriminator(Discriminator):
    """Tells real from generated patches in the form of a discriminator that tells transformations.

    The probability of being real is shared out evenly among the transformations: each cross entropy of telling one is
    that of "real" plus the logarithm of their number, and its gradient is that of "real".

    Args:
        num_transformations (int): Number ``M`` of the transformations.
        width (int): Channels of the hidden layers.
    """

    def __init__(self, num_transformations: int, width: int) -> None:
        super().__init__(2, width)
        self.num_transformations = num_transformations

    def forward(self, canvases: Sequence[torch.Tensor], *, learning: bool = False) -> list[torch.Tensor]:
        """Compute logits of the M equal classes and of the fake class, as :meth:`Discriminator.forward` does."""
        return [self._share_out(logits) for logits in super().forward(canvases, learning=learning)]

    def _share_out(self, logits: torch.Tensor) -> torch.Tensor:
        number = self.num_transformations
        real, fake = (logits[:, index : index + 1] for index in range(2))
        shared = torch.cat([(real - math.log(number)).expand(-1, number, -1, -1), fake], dim=1)
        return F.pad(shared, [0] * 5 + [count_outputs(number + 1) - number - 1], value=NEGLIGIBLE_LOGIT)


class AugmentedCanvases(Canvases):
    """Canvases whose votes are for "real", as :class:`TwoClassDiscriminator` has shared it out."""

    def log_probabilities(self, logits: Sequence[torch.Tensor]) -> torch.Tensor:
        """Read the log-probability that patches are real: the fake class counts, and the M shares are added up."""
        return self._read(logits, self.num_transformations + 1) + math.log(self.num_transformations)


class MeanSquaredDistance(Untrained):
    """Variant (f): the mean squared difference between an image and the training images, averaged over these.

    Args:
        image_size (int): Side in pixels that images are compared at; the paper's is 64.
        **components: Pre-processor, post-processor, evaluator and visualizer, as anomalib's models take them.
    """

    def __init__(self, image_size: int = 64, **components: Any) -> None:  # noqa: ANN401
        super().__init__(**components)
        self.model: DistanceModel = DistanceModel(image_size)

    def training_step(self, batch: ImageBatch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:  # noqa: ANN401
        """Remember the training images."""
        self.model.remember(cast("torch.Tensor", batch.image))
        return super().training_step(batch, *args, **kwargs)

    @staticmethod
    def configure_pre_processor(image_size: tuple[int, int] | None = None) -> PreProcessor:
        """Make the default pre-processor, Htdgm's: colours are not weighted."""
        return configure_pre_processor(image_size)


class DistanceModel(nn.Module):
    """Holds the training images.

    Args:
        image_size (int): Side in pixels that images are compared at.
    """

    images: torch.Tensor

    def __init__(self, image_size: int) -> None:
        super().__init__()
        self.image_size = image_size
        self.register_buffer("images", torch.empty(0, 3, image_size, image_size))

    def remember(self, images: torch.Tensor) -> None:
        """Add training images of shape ``(B, 3, H, W)``."""
        self.images = torch.cat([self.images, self._reduce(images)])

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Score images of shape ``(B, 3, H, W)``."""
        differences = self._reduce(images)[:, None] - self.images
        return InferenceBatch(pred_score=differences.square().flatten(1).mean(dim=1))

    def _reduce(self, images: torch.Tensor) -> torch.Tensor:
        return resize(images, [self.image_size, self.image_size], antialias=True)
