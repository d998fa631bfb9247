# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Labels say what is above the threshold, whether scores are normalised or not."""

import pytest
import torch
from anomalib.data import ImageBatch, InferenceBatch
from anomalib.post_processing import PostProcessor

from anomalib_htdgm.anomalib_fixes.post_processor import ThresholdingPostProcessor, adopt_post_processor

RAW = torch.tensor([1.0, 2.9, 3.1, 5.9])


def adopt(**settings: object) -> PostProcessor:
    """Adopt a post-processor whose threshold is 3 for images, and 30 for pixels."""
    adopted = adopt_post_processor(PostProcessor(**settings))
    for kind, threshold in (("image", 3.0), ("pixel", 30.0)):
        getattr(adopted, f"_{kind}_threshold").fill_(threshold)
        getattr(adopted, f"{kind}_min").fill_(0)
        getattr(adopted, f"{kind}_max").fill_(2 * threshold)
    return adopted


@pytest.mark.parametrize("sensitivity", [0.1, 0.5, 0.6])
def test_raw_and_normalised_scores_have_the_same_labels(sensitivity: float) -> None:
    settings = {"image_sensitivity": sensitivity, "pixel_sensitivity": sensitivity}
    maps = (10 * RAW).view(1, 1, 2, 2).expand(4, 1, 2, 2)
    labels, masks = [], []
    for enabled in (True, False):
        post_processor = adopt(enable_normalization=enabled, **settings)
        given = post_processor(InferenceBatch(pred_score=RAW, anomaly_map=maps))
        batch = ImageBatch(image=torch.zeros(4, 3, 2, 2), pred_score=RAW, anomaly_map=maps[:, 0])
        post_processor.post_process_batch(batch)
        assert torch.equal(batch.pred_label, given.pred_label)
        assert torch.equal(batch.pred_mask, given.pred_mask[:, 0])
        assert enabled or torch.equal(given.pred_score, RAW)
        labels.append(given.pred_label)
        masks.append(given.pred_mask)
    assert torch.equal(labels[0], 1 - sensitivity < RAW / 6)
    assert torch.equal(labels[0], labels[1])
    assert torch.equal(masks[0], masks[1])


def test_without_a_range_the_threshold_is_as_it_is() -> None:
    post_processor = adopt(enable_normalization=False, image_sensitivity=0.2)
    post_processor.image_min.fill_(torch.nan)  # as after a validation with labels, which measures none
    assert post_processor.normalized_image_threshold == 3


def test_settings_are_kept_and_other_makes_left_alone() -> None:
    class Own(PostProcessor):
        """A post-processor of somebody's own."""

    own = Own()
    assert adopt_post_processor(own) is own
    assert adopt_post_processor(None) is None
    adopted = adopt(enable_normalization=False, pixel_sensitivity=0.7)
    assert isinstance(adopted, ThresholdingPostProcessor)
    assert (adopted.enable_normalization, adopted.pixel_sensitivity) == (False, 0.7)
