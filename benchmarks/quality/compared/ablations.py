# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Variants of HTDGM in the paper's Table 1 that are more than other arguments: (b), (c) and (f).

(a), (d) and (e) are arguments of ``HtdgmPublished``, and (g) is in ``geom.py``; ``conf/model/table1_*.yaml`` has all.
"""

from typing import Any, ClassVar, cast

import torch
from anomalib.data import ImageBatch, InferenceBatch
from anomalib.pre_processing import PreProcessor
from compared.trivial import Untrained
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import nn
from torchvision.transforms.v2.functional import resize

from anomalib_htdgm import HtdgmPublished
from anomalib_htdgm.anomalib_fixes.pre_processor import configure_pre_processor
from anomalib_htdgm.models.htdgm.pretext import Transformation
from anomalib_htdgm.models.htdgm_published.torch_model import HtdgmPublishedModel
from anomalib_htdgm.models.htdgm_published.transformations import TRANSFORMATION_SETS


class RealOrFakeModel(HtdgmPublishedModel):
    """Its discriminators tell real from generated patches, whatever transformation was applied to them."""

    transformation_sets: ClassVar = TRANSFORMATION_SETS | {"identity": [Transformation()]}

    @property
    def classes(self) -> list[int]:
        """All transformed images are of one class: real."""
        return [0] * len(self.transformations)

    def _right(self, logits: torch.Tensor, index: int) -> torch.Tensor:
        """Compute the probability of "real", beside "generated"."""
        return logits.softmax(dim=1)[:, index]


class RealOrFake(HtdgmPublished):
    """HTDGM whose discriminators tell real from generated patches, whatever transformation was applied to them.

    With ``transformations="identity"`` it is variant (b), M = 1; with a set, they are augmentations, variant (c). The
    score is the probability that patches are real, a mean over the transformed images. The paper draws
    augmentations at random; here each training step sees all of them, whose mean loss is what random ones have on
    average.
    """

    torch_model: ClassVar = RealOrFakeModel


class MeanSquaredDistance(Untrained):
    """Variant (f): the mean squared difference between an image and the training images, averaged over these.

    Args:
        image_size (int): Side in pixels that images are compared at; the paper's is 64.
        **components: Pre-processor, post-processor, evaluator and visualizer, as anomalib's models take them.
    """

    def __init__(self, image_size: int = 64, **components: Any) -> None:
        super().__init__(**components)
        self.model: DistanceModel = DistanceModel(image_size)

    def training_step(self, batch: ImageBatch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
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
