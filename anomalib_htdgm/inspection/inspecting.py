# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Inspecting photographs one by one: score, verdict, reasons, and the pictures that show them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray

from anomalib_htdgm import Htdgm
from anomalib_htdgm.data.reading import UnreadableImageError, digest_image
from anomalib_htdgm.models.htdgm.calibration import set_threshold

from .aligning import move
from .colours import OF_VERDICTS, overlay
from .evidence import Picture, box_around, crop, dim, draw_outlines, find_similar, limit_of, outline_regions, shrink
from .facts import Facts, Finding, digests_of, post_processor_of
from .learning import aligned, prepare, read
from .photograph_faults import compare_with, describe_shift, faults_of
from .pictures import DETAIL, to_picture
from .regions import EVERYWHERE, box_of
from .signals import describe, listening

if TYPE_CHECKING:
    from anomalib_htdgm.models.htdgm.threshold import Basis

THUMBNAIL = 200
"""Longest side in pixels of a thumbnail."""


class Result(NamedTuple):
    """A finding, the raw map of shape ``(h, w)``, and pictures by their names; none of a file that cannot be read."""

    finding: Finding
    heat: NDArray[np.float32] | None
    pictures: dict[str, Picture]


class Inspector:
    """Inspects photographs by a model.

    Args:
        model (Htdgm): The model.
        facts (Facts): What is known of it.
        good (dict[str, torch.Tensor]): The good photographs to compare with, in [0, 1] and of shape ``(3, H, W)``, by
            their names.
        reference (Picture | None): What photographs are aligned with, as the model's were; ``None`` if they were not.
    """

    def __init__(
        self, model: Htdgm, facts: Facts, good: dict[str, torch.Tensor], reference: Picture | None = None
    ) -> None:
        self.model, self.facts, self.reference = model.eval(), facts, reference
        self.good = compare_with([self._looked_at(aligned(each, reference)[0]) for each in good.values()])
        self._pictures = {name: to_picture(image) for name, image in good.items()}
        self._seen = {digest: name for name, digest in digests_of(good).items()}

    def follow(self, facts: Facts) -> None:
        """Take over another threshold of the same model, which is at a score of 0.5."""
        self.facts = facts
        processor = post_processor_of(self.model)
        set_threshold(processor, "image", torch.tensor(facts.raw_threshold))
        set_threshold(processor, "pixel", torch.tensor(facts.pixel_threshold))
        processor.image_sensitivity = 0.5
        self.model.threshold_chosen_by = cast("Basis", facts.chosen_by)

    def remember(self, digest: str, name: str) -> None:
        """Note a photograph that was inspected before, so that copies of it are found."""
        self._seen.setdefault(digest, name)

    def inspect(self, path: Path, name: str | None = None, *, remembers: bool = True) -> Result:
        """Inspect a photograph, whatever its file is.

        A server does not remember it, to find copies, as it would remember ever more.
        """
        try:
            image = read(path)
        except UnreadableImageError as error:
            text = str(error).replace(f"image {path} cannot be read", "It cannot be read").replace(str(path), path.name)
            return Result(Finding(problem=f"{text}."), None, {})
        size, digest = image.shape[-2:], digest_image(image)
        twin = self._seen.get(digest)
        if remembers:
            self.remember(digest, name or path.name)
        moved, shift = aligned(image, self.reference)
        raw, score, heat, said = self._score(moved)
        heat = _move_back(heat, shift, size)
        finding = Finding(
            score,
            raw,
            faults=faults_of(self._looked_at(moved), self.good),
            copy=f"It is a copy of {twin}." if twin not in (None, name or path.name) else "",
            moved=describe_shift(shift, size),
            digest=digest,
        )
        verdict = finding.verdict_at(self.facts.band_at(self.facts.threshold))
        pictures, similar = self.draw(to_picture(image), heat, verdict, self.facts.pixel_threshold)
        place = f"The most similar place is in {similar}." if similar else ""
        is_high = raw > self.facts.band_at(self.facts.threshold)[0]  # else it is its faults that are to be looked at
        spoke = describe(said, self.facts.usual) if is_high else ""
        why = " ".join(each for each in (spoke, place) if each)
        return Result(replace(finding, verdict=verdict, why=why), heat, pictures)

    def _looked_at(self, image: torch.Tensor) -> torch.Tensor:
        """Cut an image to the box around the region: what is wrong with the rest of it is no matter."""
        region, (height, width) = self.facts.settings.get("region"), image.shape[-2:]
        left, top, right, bottom = box_of(region or EVERYWHERE)
        row, column = int(top * height), int(left * width)
        return image[:, row : max(round(bottom * height), row + 1), column : max(round(right * width), column + 1)]

    @torch.inference_mode()
    def _score(self, image: torch.Tensor) -> tuple[float, float, NDArray[np.float32], dict[str, float]]:
        """Score as anomalib does, but raw first: what bands and outlines are made of."""
        with listening(self.model.model.signals) as heard:
            raw = self.model.model(prepare(self.model, image))
        scaled = post_processor_of(self.model)(raw)
        said = {name: max(scores) for name, scores in heard.items() if scores}
        heat = raw.anomaly_map[0, 0].float().cpu().numpy()
        return float(raw.pred_score), float(scaled.pred_score), heat, said

    def draw(
        self, picture: Picture, heat: NDArray[np.float32], verdict: str, threshold: float, longest: int = THUMBNAIL
    ) -> tuple[dict[str, Picture], str | None]:
        """Draw a photograph; and if it is not good, where it is not, and the most similar place of a good one.

        Args:
            picture (Picture): The photograph.
            heat (NDArray): Its raw map, of shape ``(h, w)``.
            verdict (str): Its verdict, which gives the outline its colour.
            threshold (float): Raw value of the map that outline and colours are tied to.
            longest (int): Longest side in pixels of what is drawn.

        Returns:
            tuple[dict[str, Picture], str | None]: Pictures ``photograph``, ``heat``, ``place`` and ``similar``, as far
            as there are any, and the name of the good photograph with the similar place, if there are several.
        """
        thumbnail = shrink(picture, longest)
        if verdict == "good":
            return {"photograph": thumbnail}, None
        contours = outline_regions(heat, threshold)
        # Colours are as the outline: where no place is above the threshold, the strangest one is yellow.
        relative = heat / limit_of(heat, threshold)
        pictures = {
            "photograph": draw_outlines(thumbnail, contours, OF_VERDICTS[verdict]),
            "heat": dim(overlay(thumbnail, relative), heat > 0),  # the map is 0 outside the region
        }
        box = box_around(contours[0]) if contours else None
        similar = box and find_similar(picture, box, list(self._pictures.values()))
        if not (box and similar):
            return pictures, None
        index, place = similar
        name, good = list(self._pictures.items())[index]
        pictures |= {"place": shrink(crop(picture, box), DETAIL), "similar": shrink(crop(good, place), DETAIL)}
        return pictures, name if len(self._pictures) > 1 else None


def _move_back(heat: NDArray[np.float32], shift: tuple[int, int], size: Sequence[int]) -> NDArray[np.float32]:
    """Move the map of a photograph that was aligned to where the photograph lies; of what was not in it, there is 0."""
    rows, columns = heat.shape
    right, down = round(-shift[0] * columns / size[1]), round(-shift[1] * rows / size[0])
    moved: NDArray[np.float32] = move(heat[None], right, down)[0]
    return moved
