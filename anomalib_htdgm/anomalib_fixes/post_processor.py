# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""A post-processor whose labels follow its threshold without normalisation, too.

anomalib 2.7 compares raw scores with 0.5 where ``enable_normalization`` is off.
"""

import torch
from anomalib.post_processing import PostProcessor
from torch import nn


class ThresholdingPostProcessor(PostProcessor):
    """anomalib's post-processor, whose threshold is of the scores that it gives: normalised or raw ones."""

    @property
    def normalized_image_threshold(self) -> torch.Tensor:
        """Score above which an image is anomalous."""
        if self.enable_normalization:
            return super().normalized_image_threshold
        return _raw_threshold(self.image_threshold, self.image_min, self.image_max, self.image_sensitivity)

    @property
    def normalized_pixel_threshold(self) -> torch.Tensor:
        """Value of a map above which a pixel is anomalous."""
        if self.enable_normalization:
            return super().normalized_pixel_threshold
        return _raw_threshold(self.pixel_threshold, self.pixel_min, self.pixel_max, self.pixel_sensitivity)


def adopt_post_processor(post_processor: nn.Module | None) -> nn.Module | None:
    """Let anomalib's own post-processor follow its threshold; those of other makes stay as they are."""
    if type(post_processor) is not PostProcessor:
        return post_processor
    adopted = ThresholdingPostProcessor(**post_processor.checkpoint_config())
    adopted.load_state_dict(post_processor.state_dict())
    return adopted


def _raw_threshold(
    threshold: torch.Tensor, least: torch.Tensor, greatest: torch.Tensor, sensitivity: float
) -> torch.Tensor:
    """Undo the normalisation of ``1 - sensitivity``; a range that nobody has measured moves no threshold."""
    moved = threshold + (0.5 - sensitivity) * (greatest - least)
    return torch.where(moved.isnan(), threshold, moved)
