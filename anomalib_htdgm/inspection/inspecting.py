# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Inspecting photographs one by one: score, verdict, reasons, and the pictures that show them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray

from anomalib_htdgm import Htdgm
from anomalib_htdgm.data.reading import UnreadableImageError, digest_image, read_image
from anomalib_htdgm.models.htdgm.calibration import set_threshold

from .aligning import move
from .colours import OF_VERDICTS, overlay
from .evidence import BELOW_PEAK, Picture, box_around, crop, dim, draw_outlines, find_similar, outline_regions, shrink
from .expectation import Spread, spread_around, spread_of_unseen, verdict
from .facts import Facts, digests_of, post_processor_of
from .learning import aligned
from .photograph_faults import compare_with, describe_copy, describe_shift, faults_of
from .regions import EVERYWHERE, box_of
from .signals import NOTHING_ALONE, describe, listening, loudest

if TYPE_CHECKING:
    from anomalib_htdgm.models.htdgm.threshold import Basis

THUMBNAIL = 200
"""Longest side in pixels of a thumbnail."""
DETAIL = 96
"""The same of a place beside a similar one."""
OF_THRESHOLD = ("threshold", "raw_threshold", "raw_range", "pixel_threshold", "chosen_by")
"""What of the facts of a model changes with its threshold."""
NOT_READ = "cannot be read"
"""What stands in the place of a verdict where there is none."""


@dataclass(frozen=True)
class Finding:
    """What a model says of a photograph, in what JSON has.

    Args:
        score (float): Anomaly score, as the model gives it to anomalib.
        raw (float): Raw score, at least 0.
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
        """Give the verdict at another threshold, by its band."""
        return NOT_READ if self.raw is None else verdict(self.raw, band, has_faults=bool(self.faults))

    def reason_of(self, verdict: str) -> str:
        """Say all that there is to say, in sentences; of a good one not which signal spoke."""
        why = "" if verdict == "good" else self.why
        return " ".join(each for each in (self.problem, *self.faults, self.copy, self.moved, why) if each)


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
        spread (Spread | None): How good photographs' scores are spread; ``None`` asks the good ones, or else guesses.
    """

    def __init__(
        self,
        model: Htdgm,
        facts: Facts,
        good: dict[str, torch.Tensor],
        reference: Picture | None = None,
        spread: Spread | None = None,
    ) -> None:
        self.model, self.facts, self.reference = model.eval(), facts, reference
        self.spread = spread or spread_of(facts)
        self.good = compare_with({name: self._looked_at(aligned(each, reference)[0]) for name, each in good.items()})
        self.good.names.update({digest: name for name, digest in digests_of(good).items()})
        self._good_pictures = [(name, to_picture(image, 512)) for name, image in good.items()]
        self._seen: dict[str, str] = {}

    @property
    def band(self) -> tuple[float, float]:
        """Raw scores between which the verdict is ``look at it``."""
        return self.spread.band(self.facts.raw_threshold)

    def follow(self, facts: Facts) -> None:
        """Take over another threshold of the same model, which is at a score of 0.5."""
        before, self.facts, self.spread = self.facts, facts, spread_of(facts)
        if all(getattr(before, name) == getattr(facts, name) for name in OF_THRESHOLD):
            return
        for kind, threshold in (("image", facts.raw_threshold), ("pixel", facts.pixel_threshold)):
            set_threshold(post_processor_of(self.model), kind, torch.tensor(threshold))
        post_processor_of(self.model).image_sensitivity = 0.5
        self.model.threshold_chosen_by = cast("Basis", facts.chosen_by)

    def remember(self, digest: str, name: str) -> None:
        """Note a photograph that was inspected before, so that copies of it are found."""
        self._seen.setdefault(digest, name)

    def inspect(self, path: Path, name: str | None = None, *, remembers: bool = True) -> Result:
        """Inspect a photograph, whatever its file is.

        Args:
            path (Path): Its file.
            name (str | None): Its name; ``None`` is the file's.
            remembers (bool): Whether later copies of it are to be found; a server would remember ever more.
        """
        try:
            image = torch.as_tensor(read_image(path, as_tensor=True)).as_subclass(torch.Tensor)
        except UnreadableImageError as error:
            text = str(error).replace(f"image {path} cannot be read", "It cannot be read").replace(str(path), path.name)
            return Result(Finding(problem=f"{text}."), None, {})
        moved, shift = aligned(image, self.reference)
        raw, score, heat, said = self._score(moved)
        heat = _move_back(heat, shift, image.shape[-2:])
        digest = digest_image(image)
        faults = faults_of(self._looked_at(moved), self.good)
        twin = self.good.names.get(digest) or self._seen.get(digest)
        if remembers:
            self.remember(digest, name or path.name)
        result = verdict(raw, self.band, has_faults=bool(faults))
        pictures, similar = self.draw(image, heat, result)
        loud = loudest(said, self.facts.usual)
        why = "" if loud is None else describe(*loud) if loud[1] > 1 else NOTHING_ALONE
        if similar:
            why = f"{why} The most similar place is in {similar}.".strip()
        copy = describe_copy(twin) if twin else ""
        how_far = describe_shift(shift, image.shape[-2:])
        return Result(Finding(score, raw, result, faults, copy, how_far, why, digest), heat, pictures)

    def _looked_at(self, image: torch.Tensor) -> torch.Tensor:
        """Cut an image to the box around the region: what is wrong with the rest of it is no matter."""
        region, (height, width) = self.facts.settings.get("region"), image.shape[-2:]
        left, top, right, bottom = box_of(region or EVERYWHERE)
        row, column = int(top * height), int(left * width)
        return image[:, row : max(round(bottom * height), row + 1), column : max(round(right * width), column + 1)]

    @torch.inference_mode()
    def _score(self, image: torch.Tensor) -> tuple[float, float, NDArray[np.float32], dict[str, float]]:
        """Score as anomalib does, but raw first: what bands and outlines are made of."""
        batch = image[None].to(self.model.device)
        prepared = self.model.pre_processor(batch) if self.model.pre_processor else batch
        with listening(self.model.model.signals) as heard:
            raw = self.model.model(prepared)
        scaled = post_processor_of(self.model)(raw)
        said = {name: max(scores) for name, scores in heard.items() if scores}
        heat = raw.anomaly_map[0, 0].float().cpu().numpy()
        return float(raw.pred_score), float(scaled.pred_score), heat, said

    def draw(
        self,
        image: torch.Tensor | Picture,
        heat: NDArray[np.float32],
        result: str,
        pixel_threshold: float | None = None,
        longest: int = THUMBNAIL,
    ) -> tuple[dict[str, Picture], str | None]:
        """Draw a photograph; and if it is not good, where it is not, and the most similar place of a good one.

        Args:
            image (torch.Tensor | Picture): The photograph, in [0, 1], of shape ``(3, H, W)``, or a picture of it.
            heat (NDArray): Its raw map, of shape ``(h, w)``.
            result (str): Its verdict, which gives the outline its colour.
            pixel_threshold (float | None): Raw value of the map that outline and colours are tied to; ``None`` is the
                model's own.
            longest (int): Longest side in pixels of what is drawn.

        Returns:
            tuple[dict[str, Picture], str | None]: Pictures ``photograph``, ``heat``, ``place`` and ``similar``, as far
            as there are any, and the name of the good photograph with the similar place, if there are several.
        """
        # As its outline: where no place is above the limit, the strangest one is, since all together are anomalous.
        limit = min(pixel_threshold or self.facts.pixel_threshold, BELOW_PEAK * float(heat.max()))
        picture = to_picture(image, 512) if isinstance(image, torch.Tensor) else image
        thumbnail = shrink(picture, longest)
        if result == "good":
            return {"photograph": thumbnail}, None
        regions = outline_regions(heat, limit)
        pictures = {
            "photograph": draw_outlines(thumbnail, regions, OF_VERDICTS[result]),
            "heat": dim(overlay(thumbnail, heat / limit), heat > 0),  # the map is 0 outside the region
        }
        if not regions or not self._good_pictures:
            return pictures, None
        box = box_around(regions[0])
        similar = find_similar(picture, box, [each for _, each in self._good_pictures])
        if similar is None:
            return pictures, None
        name, good = self._good_pictures[similar.number]
        pictures["place"] = shrink(crop(picture, box), DETAIL)
        pictures["similar"] = shrink(crop(good, similar.box), DETAIL)
        return pictures, name if len(self._good_pictures) > 1 else None


def spread_of(facts: Facts) -> Spread:
    """Learn how good photographs' scores are spread from what is known of a model, or guess."""
    return spread_of_unseen(list(facts.unseen.values())) or spread_around(facts.raw_threshold)


def _move_back(heat: NDArray[np.float32], shift: tuple[int, int], size: Sequence[int]) -> NDArray[np.float32]:
    """Move the map of a photograph that was aligned to where the photograph lies; of what was not in it, there is 0."""
    rows, columns = heat.shape
    right, down = round(-shift[0] * columns / size[1]), round(-shift[1] * rows / size[0])
    moved: NDArray[np.float32] = move(heat[None], right, down)[0]
    return moved


def to_picture(image: torch.Tensor, longest: int) -> Picture:
    """Make a picture of an image in [0, 1] of shape ``(3, H, W)``, reduced to a longest side in pixels."""
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return shrink(np.ascontiguousarray(pixels), longest)
