# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Calibration: the threshold that a training ends with, chosen by validation images, or without them by its own."""

import copy
import logging
import math
from typing import Any, cast

import torch
from anomalib.data import ImageBatch
from anomalib.metrics import F1AdaptiveThreshold
from anomalib.post_processing import PostProcessor
from torch.nn.functional import pad
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import affine, center_crop

from anomalib_htdgm.anomalib_fixes.single_epoch import SingleEpochMixin

from .threshold import (
    GUESSED_RATIO,
    GUESSED_RATIO_OF_GIST,
    LEAST_FIRM,
    LEAST_UNLABELLED,
    Basis,
    doubt_about_unlabelled,
    threshold_above_good,
    threshold_above_most,
)
from .torch_model import HtdgmModel

logger = logging.getLogger(__name__)

MOVES = ((2.0, 0.02, 0.0), (-2.0, 0.0, 0.02), (0.0, -0.02, 0.01), (0.0, 0.01, -0.02))
"""Degrees, and shares of width and height, by which a good part may lie otherwise than the one trained on."""
MOST_SCORED = 20
"""Most training images that a threshold is chosen by: more would tell little, and take longer."""


class CalibrationMixin(SingleEpochMixin):
    """A model that chooses its threshold, and tells by what: :attr:`threshold_chosen_by`."""

    model: HtdgmModel
    device: torch.device
    threshold_chosen_by: Basis = "unknown"
    _digests: dict[str, str]
    _shots: ImageBatch | None = None
    _known_defects: ImageBatch | None = None
    _validated: list[tuple[torch.Tensor, torch.Tensor, bool]]
    _thresholds: dict[str, Any]

    def on_validation_start(self) -> None:
        """Begin to note what a threshold is chosen by."""
        self._validated = []
        self._thresholds = copy.deepcopy(self.post_processor.state_dict()) if self.post_processor else {}

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> Any:  # noqa: ANN401  # Lightning's type lacks batches
        """Score and localise a batch, and note what a threshold is chosen by."""
        scored = super().validation_step(batch, batch_idx)
        scores, maps = cast("torch.Tensor", scored.pred_score), cast("torch.Tensor", scored.anomaly_map)
        is_anomalous = batch.gt_label is not None and bool(batch.gt_label.any())
        # What was trained on scores lower than what was not, and tells nothing; nor does a copy under another name.
        nameless = [""] * len(scores)
        names = zip(batch.image_path or nameless, vars(batch).get("digests", nameless), strict=True)
        is_new = [{*self._digests, *self._digests.values()}.isdisjoint(each) for each in names]
        self._validated.append((scores[is_new].cpu(), maps.flatten(1).amax(dim=1)[is_new].cpu(), is_anomalous))
        return scored

    def on_validation_epoch_end(self) -> None:
        """Choose the threshold at the end of a validation, if no image is labelled as anomalous: else anomalib has.

        anomalib would take the greatest score, which is a defect's if one is among images that nobody has looked at.
        After a training, a few images tell less than those that were trained on, and the threshold stays theirs.
        """
        validated, self._validated = self._validated, []
        if not validated or not isinstance(self.post_processor, PostProcessor):
            return
        scores, maxima = (torch.cat(each) for each in list(zip(*validated, strict=True))[:2])
        least = LEAST_UNLABELLED if self._is_fitting and int(self.model.num_shots) >= LEAST_FIRM else 1
        if any(is_anomalous for *_, is_anomalous in validated):
            self.threshold_chosen_by = "labelled images"
        elif len(scores) >= least:
            set_threshold(self.post_processor, "image", threshold_above_most(scores))
            set_threshold(self.post_processor, "pixel", threshold_above_most(maxima))
            self.threshold_chosen_by = "unlabelled images" if len(scores) >= LEAST_UNLABELLED else "guess"
            logger.info("Threshold by %d validation images, up to a fifth of which may be anomalous", len(scores))
            # The user says that they are good, so they choose nevertheless.
            if doubt := doubt_about_unlabelled(scores):
                logger.warning("%s. If those are defective, the threshold is too high.", doubt)
            if not self._is_fitting:
                self._warn_of_guess()
        else:
            self.post_processor.load_state_dict(self._thresholds)
            if not self._is_fitting:
                logger.warning("All validation images were trained on, and tell nothing: the threshold stays as it is")

    def on_train_end(self) -> None:
        """Warn of a threshold that tells little."""
        super().on_train_end()
        self._warn_of_guess()

    def choose_by_shots(self) -> None:
        """Choose the threshold by the training images, or call the model untrained if that is broken off."""
        try:
            if isinstance(self.post_processor, PostProcessor):
                self._calibrate(self.post_processor)
        except BaseException:
            self.model.is_trained.fill_(False)
            raise

    @torch.no_grad()
    def _calibrate(self, post_processor: PostProcessor) -> None:
        """Choose thresholds by the training images, and known defects; anomalib would compare raw scores with 0.5."""
        assert self._shots is not None  # for the type checker
        digests = list(self._digests.values())
        # The twin of an image is remembered even where the image is not, so it does not tell how unseen ones score.
        alone = [shot for shot, digest in enumerate(digests) if digests.count(digest) == 1]
        alone = alone[:: math.ceil(len(alone) / MOST_SCORED) or 1]
        is_guess = len(alone) < 2  # noqa: PLR2004  # one tells nothing of how good images differ
        if is_guess:
            good = [self._score(_pick(self._shots, 0), move=move) for move in MOVES]
        else:
            good = [self._score(_pick(self._shots, shot), unseen=shot) for shot in alone]
        defects = [] if self._known_defects is None else [self._score(self._known_defects)]
        self.threshold_chosen_by = "training images" if len(alone) >= LEAST_FIRM else "guess"
        for kind, fields in (("image", ["pred_score", "gt_label"]), ("pixel", ["anomaly_map", "gt_mask"])):
            if defects and getattr(defects[0], fields[1]) is not None:
                threshold = _best_threshold([*good, *defects], fields)
                self.threshold_chosen_by = "labelled images"
            else:
                greatest = torch.stack([getattr(each, fields[0]).max() for each in good])
                has_gist = self.model.gist is not None and kind == "image"
                ratio = GUESSED_RATIO_OF_GIST if has_gist else GUESSED_RATIO
                threshold = ratio * greatest.max() if is_guess else threshold_above_good(greatest)
            set_threshold(post_processor, kind, threshold)

    def _warn_of_guess(self) -> None:
        if self.threshold_chosen_by == "guess":
            logger.warning(
                "The threshold is a guess: so few photographs do not tell how much good ones differ. Look through the "
                "images from the highest score down. To make it firm, train on %d good photographs or more, or "
                "validate with twenty that nobody has checked.",
                LEAST_FIRM,
            )

    def _score(
        self, batch: ImageBatch, *, unseen: int | None = None, move: tuple[float, float, float] | None = None
    ) -> ImageBatch:
        """Score images as they are read: one as if it had not been trained on, or moved ones."""
        batch = self.transfer_batch_to_device(copy.copy(batch), self.device, 0)
        if transform := getattr(self.pre_processor, "transform", None):
            batch.image, batch.gt_mask = transform(batch.image, batch.gt_mask)
        images = cast("torch.Tensor", batch.image)
        images = images if move is None else move_images(images, *move)
        scored = self.model(images) if unseen is None else self.model.score_unseen(images, unseen)
        return batch.update(**scored._asdict())


def _pick(batch: ImageBatch, index: int) -> ImageBatch:
    """Pick one image of a batch."""
    fields = {name: getattr(batch, name) for name in ("image", "gt_label", "gt_mask")}
    return ImageBatch(**{name: None if each is None else each[index : index + 1] for name, each in fields.items()})


def move_images(images: torch.Tensor, degrees: float, right: float, down: float) -> torch.Tensor:
    """Turn images by ``degrees`` and shift them by shares of their size; what comes into view is reflected."""
    height, width = images.shape[-2:]
    margins = [width // 8] * 2 + [height // 8] * 2  # more than what comes into view
    shift = [round(right * width), round(down * height)]
    padded = pad(images, margins, mode="reflect")
    moved = affine(padded, degrees, shift, scale=1.0, shear=[0.0, 0.0], interpolation=InterpolationMode.BILINEAR)
    return center_crop(moved, [height, width])


def set_threshold(post_processor: PostProcessor, kind: str, threshold: torch.Tensor) -> None:
    """Let 0.5 be the threshold of images or pixels, and 1 twice as anomalous."""
    getattr(post_processor, f"_{kind}_threshold").copy_(threshold)
    getattr(post_processor, f"{kind}_min").fill_(0)
    getattr(post_processor, f"{kind}_max").copy_(2 * threshold)


def _best_threshold(batches: list[ImageBatch], fields: list[str]) -> torch.Tensor:
    """Find the threshold of the highest F1, in the middle between the scores on its two sides."""
    metric = F1AdaptiveThreshold(fields=fields)
    for batch in batches:
        metric.update(batch)
    lowest_anomalous = metric.compute()  # anomalib takes it for normal: only what is above a threshold is anomalous
    scores = torch.cat([getattr(batch, fields[0]).flatten() for batch in batches])
    normal = scores[scores < lowest_anomalous]
    return (lowest_anomalous + (normal.max() if len(normal) else 0)) / 2
