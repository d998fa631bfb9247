# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What is to be known of a model to explain its verdicts."""

from dataclasses import dataclass, field
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from anomalib.post_processing import PostProcessor

from anomalib_htdgm import Htdgm, __version__
from anomalib_htdgm.data.reading import digest_image

from .state import now


@dataclass(frozen=True)
class Facts:
    """What is known of a model, in what JSON has.

    Args:
        digest (str): Digest of its checkpoint.
        made (str): When it was made, in ISO 8601.
        good (dict[str, str]): Digests of the good photographs' pixels by their names.
        settings (dict[str, Any]): Arguments of the model that were chosen.
        versions (dict[str, str]): Versions of the packages that scores depend on.
        chosen_by (str): What the threshold was chosen by.
        threshold (float): Score in [0, 1] above which photographs are anomalous.
        raw_threshold (float): The same as a raw score.
        raw_range (float): Raw scores that a score of 0 and one of 1 are apart.
        pixel_threshold (float): Raw value of a map above which a pixel is anomalous.
        unseen (dict[str, float]): By their names, raw scores of good photographs as if they had not been seen.
        usual (dict[str, float]): By the signals' names, what they say of good photographs that they have not seen.
    """

    digest: str
    made: str
    good: dict[str, str]
    settings: dict[str, Any]
    versions: dict[str, str]
    chosen_by: str
    threshold: float
    raw_threshold: float
    raw_range: float
    pixel_threshold: float
    unseen: dict[str, float] = field(default_factory=dict)
    usual: dict[str, float] = field(default_factory=dict)

    def raw_at(self, score: float) -> float:
        """Give the raw score that is shown as a score."""
        return self.raw_threshold + (score - self.threshold) * self.raw_range

    def score_at(self, raw: float) -> float:
        """Give the score that a raw one is shown as, before it is cut off at 0 and 1."""
        return self.threshold + (raw - self.raw_threshold) / self.raw_range


def describe(
    model: Htdgm,
    checkpoint: Path,
    good: dict[str, str],
    settings: dict[str, Any],
    unseen: dict[str, float],
    usual: dict[str, float],
) -> Facts:
    """Put together what is known of a model, see :class:`Facts`."""
    processor = post_processor_of(model)
    score = float(processor.normalized_image_threshold)
    raw_range, pixel_range = processor.image_max - processor.image_min, processor.pixel_max - processor.pixel_min
    pixel = processor.pixel_threshold + (processor.normalized_pixel_threshold - 0.5) * pixel_range
    return Facts(
        digest=digest_of(checkpoint),
        made=now(),
        good=good,
        settings=settings,
        versions={"anomalib-htdgm": __version__, **{name: version(name) for name in ("anomalib", "torch")}},
        chosen_by=model.threshold_chosen_by,
        threshold=score,
        raw_threshold=float(processor.image_threshold + (score - 0.5) * raw_range),
        raw_range=float(raw_range),
        pixel_threshold=float(pixel),
        unseen=unseen,
        usual=usual,
    )


def digests_of(images: dict[str, torch.Tensor]) -> dict[str, str]:
    """Take the digests of images by their names."""
    return {name: digest_image(image) for name, image in images.items()}


def digest_of(checkpoint: Path) -> str:
    """Take the digest of a checkpoint, which tells one model from another."""
    return sha256(checkpoint.read_bytes()).hexdigest()


def post_processor_of(model: Htdgm) -> PostProcessor:
    """Give the model's post-processor.

    Raises:
        ValueError: If it has none of anomalib's, and so no threshold.
    """
    if not isinstance(model.post_processor, PostProcessor):
        msg = f"post_processor: got {type(model.post_processor).__name__}; allowed is anomalib's PostProcessor"
        raise ValueError(msg)
    return model.post_processor
