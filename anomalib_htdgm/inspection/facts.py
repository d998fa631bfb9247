# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What is known of a model, and what it says of a photograph, in what JSON has."""

from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from anomalib.post_processing import PostProcessor

from anomalib_htdgm import Htdgm, __version__
from anomalib_htdgm.data.reading import digest_image

from .expectation import Spread, spread_around, spread_of_unseen

NOT_READ = "cannot be read"
"""What stands in the place of a verdict where there is none."""


@dataclass(frozen=True)
class Facts:
    """What is known of a model.

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

    def band_at(self, threshold: float) -> tuple[float, float]:
        """Give the raw scores around a threshold, a score, between which the verdict is ``look at it``."""
        spread: Spread = spread_of_unseen(list(self.unseen.values())) or spread_around(self.raw_threshold)
        return spread.band(self.raw_at(threshold))


@dataclass(frozen=True)
class Finding:
    """What a model says of a photograph.

    Args:
        score (float | None): Anomaly score, as the model gives it to anomalib.
        raw (float | None): Raw score, at least 0.
        verdict (str): ``good``, ``look at it``, ``anomalous`` or ``cannot be read``, at the model's own threshold.
        faults (list[str]): What is wrong with the photograph itself, a sentence each.
        copy (str): Which photograph it is a copy of; empty if it is none. It says nothing against it.
        moved (str): How far it was moved to be aligned; empty if it was not.
        why (str): Which signal spoke, and where a similar place is.
        digest (str): Digest of its pixels, which copies have in common.
        problem (str): Why there is no score; empty if there is one.
    """

    score: float | None = None
    raw: float | None = None
    verdict: str = NOT_READ
    faults: list[str] = field(default_factory=list)
    copy: str = ""
    moved: str = ""
    why: str = ""
    digest: str = ""
    problem: str = ""

    def verdict_at(self, band: tuple[float, float]) -> str:
        """Give the verdict, by the raw scores between which good ones cannot tell; one with faults is never good."""
        if self.raw is None:
            return NOT_READ
        if self.raw > band[1]:
            return "anomalous"
        return "look at it" if self.raw > band[0] or self.faults else "good"

    def reason_of(self, verdict: str) -> str:
        """Say all that there is to say, in sentences; of a good one not which signal spoke."""
        why = "" if verdict == "good" else self.why
        return " ".join(each for each in (self.problem, *self.faults, self.copy, self.moved, why) if each)


def describe(
    model: Htdgm,
    checkpoint: Path,
    images: dict[str, torch.Tensor],
    settings: dict[str, Any],
    unseen: dict[str, float],
    usual: dict[str, float],
) -> Facts:
    """Put together what is known of a model that was learnt from images in [0, 1], see :class:`Facts`."""
    processor = post_processor_of(model)
    score = float(processor.normalized_image_threshold)
    raw_range, pixel_range = processor.image_max - processor.image_min, processor.pixel_max - processor.pixel_min
    pixel = processor.pixel_threshold + (processor.normalized_pixel_threshold - 0.5) * pixel_range
    return Facts(
        digest=digest_of(checkpoint),
        made=now(),
        good=digests_of(images),
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


def now() -> str:
    """Tell the time, in ISO 8601, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")
