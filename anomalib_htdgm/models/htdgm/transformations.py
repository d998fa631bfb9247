# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The transformations that a discriminator learns to tell apart, and the named sets of them.

A transformation is ``T = gray^g . rot90^d . translate(b, c) . flip^a``, applied from right to left (section 3.1 of the
paper and section 1 of its supplement). Translations move the content by 15 % of the image and reflect it at the border
(``dcba|abcd|dcba``). Beyond the paper's, an image may first of all be enlarged or blurred: a patch of a texture without
direction cannot tell which way up it is, but it can tell its size and sharpness.

Example:
    >>> transformation = Transformation.from_name("flip+right+rotate90")
    >>> transformation
    Transformation(flip=True, right=1, down=0, quarter_turns=1, grayscale=False)
    >>> len(TRANSFORMATION_SETS["full"]), len(TRANSFORMATION_SETS["grayscale"]), len(TRANSFORMATION_SETS["rotations"])
    (54, 42, 4)
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, get_args

import torch
from kornia.color import rgb_to_grayscale
from kornia.geometry.transform import hflip

from .networks import MARGIN
from .pyramid import resize_matrix

Detail = Literal["as it is", "enlarge", "blur"]

SHIFT_FRACTION = 0.15
"""Length of a translation as a fraction of the image's side (supplement, section 1)."""
ENLARGEMENT = 1.5
"""Factor by which enlarged images are larger."""
BLUR = 1.7
"""Factor by which blurred images are reduced before they are brought back to their size."""


def shift_length(size: int) -> int:
    """Return the pixels that a translation moves an image of ``size`` by ``size`` pixels."""
    return int(SHIFT_FRACTION * size)


def enlarged_size(size: int) -> int:
    """Return the side of an enlarged image of ``size`` by ``size`` pixels."""
    return round(ENLARGEMENT * size)


def to_grayscale(images: torch.Tensor) -> torch.Tensor:
    """Replace the three channels of ``images``, shape ``(..., 3, H, W)``, by their luminance."""
    return rgb_to_grayscale(images).expand_as(images)


def reflect(images: torch.Tensor, rows: range, columns: range) -> torch.Tensor:
    """Cut a window out of an endless plane that ``images`` continue by reflection, edge included (``dcba|abcd|dcba``).

    ``torch.nn.functional.pad`` only has the reflection that leaves the edge out.

    Args:
        images (torch.Tensor): Images or maps of shape ``(..., H, W)``.
        rows (range): Rows of the window; ``range(H)`` are the image's own.
        columns (range): Columns of the window.

    Returns:
        torch.Tensor: The window, of shape ``(..., len(rows), len(columns))``.
    """
    for dimension, window in ((-2, rows), (-1, columns)):
        length = images.shape[dimension]
        if window != range(length):
            position = torch.arange(window.start, window.stop, device=images.device) % (2 * length)
            images = images.index_select(dimension, torch.minimum(position, 2 * length - 1 - position))
    return images


@dataclass(frozen=True)
class Transformation:
    """One transformation of an image.

    Args:
        flip (bool): Mirror left and right, first of all.
        right (int): Translate the content to the right (1), to the left (-1) or not (0).
        down (int): Translate the content down (1), up (-1) or not (0).
        quarter_turns (int): Rotate counterclockwise by that many times 90 degrees, 0 to 3.
        grayscale (bool): Drop the colour, last of all.
        detail (Detail): ``enlarge`` by :data:`ENLARGEMENT` (image and translations grow), ``blur`` as if the image had
            been smaller by :data:`BLUR`, or ``as it is``; before all else.
    """

    flip: bool = False
    right: int = 0
    down: int = 0
    quarter_turns: int = 0
    grayscale: bool = False
    detail: Detail = "as it is"

    @property
    def name(self) -> str:
        """Its steps in the order of application, such as ``flip+right+up+rotate90+gray``."""
        steps = [
            "" if self.detail == "as it is" else self.detail,
            "flip" if self.flip else "",
            {1: "right", -1: "left"}.get(self.right, ""),
            {1: "down", -1: "up"}.get(self.down, ""),
            f"rotate{90 * self.quarter_turns}" if self.quarter_turns else "",
            "gray" if self.grayscale else "",
        ]
        return "+".join(step for step in steps if step) or "identity"

    @classmethod
    def from_name(cls, name: str) -> "Transformation":
        """Make a transformation of its :attr:`name`.

        Raises:
            ValueError: If no transformation has that name.
        """
        if name not in _BY_NAME:
            msg = (
                f"transformations: {name!r} is not a transformation; give 'identity', or steps in this order, joined "
                "by '+', each at will: enlarge | blur, flip, right | left, down | up, rotate90 | rotate180 | "
                "rotate270, gray"
            )
            raise ValueError(msg)
        return _BY_NAME[name]

    def apply(self, images: torch.Tensor) -> torch.Tensor:
        """Transform square images of shape ``(..., 3, H, H)``; their side is another one if they are enlarged."""
        matrix = self.resampling(images.shape[-1])
        images = images if matrix is None else matrix @ images @ matrix.T
        images = hflip(images) if self.flip else images
        images = self._translate(images, shift_length(images.shape[-1]))
        images = torch.rot90(images, self.quarter_turns, (-2, -1))
        return to_grayscale(images) if self.grayscale else images

    def resampling(self, size: int) -> torch.Tensor | None:
        """Make the matrix that enlarges or blurs images of side ``size``, in pixels: ``matrix @ images @ matrix.T``.

        Returns:
            torch.Tensor | None: Matrix of shape ``(H', size)``; ``None`` where the detail stays as it is.
        """
        if self.detail == "enlarge":
            return resize_matrix(size, enlarged_size(size))
        if self.detail == "blur":
            smaller = max(1, round(size / BLUR))
            return resize_matrix(smaller, size) @ resize_matrix(size, smaller)
        return None

    def invert(self, maps: torch.Tensor, shift: int) -> torch.Tensor:
        """Bring maps of the transformed image back to where their content was in the image.

        What a translation pushed out of the image cannot come back: the strip it leaves is filled by reflection.

        Args:
            maps (torch.Tensor): Square maps of shape ``(..., h, h)``, of the image's own size: enlarging is not undone.
            shift (int): Pixels of the map that correspond to a translation.

        Returns:
            torch.Tensor: Maps of the same shape, in the image's own orientation.
        """
        maps = torch.rot90(maps, -self.quarter_turns, (-2, -1))
        maps = self._translate(maps, -shift)
        return hflip(maps) if self.flip else maps

    def _translate(self, images: torch.Tensor, length: int) -> torch.Tensor:
        height, width = images.shape[-2:]
        top, left = -self.down * length, -self.right * length
        return reflect(images, range(top, top + height), range(left, left + width))


_BY_NAME = {
    transformation.name: transformation
    for transformation in (
        Transformation(*steps)
        for steps in product((False, True), (0, 1, -1), (0, 1, -1), range(4), (False, True), get_args(Detail))
    )
}

_ROTATIONS = [Transformation(quarter_turns=turns) for turns in range(4)]

# The groups of the supplement's table: indices 1-32, 33-38 and 39-42 ...
_COLOUR = (
    [Transformation(*steps) for steps in product((False, True), (0, 1), (0, 1), range(4))]
    + [Transformation(*steps, -1) for steps in product((False, True), (-1, 0, 1))]
    + [Transformation(*steps) for steps in product((False, True), (-1,), (0, 1))]
)
# ... and, without colour, 43-50, 51-52 and 53-54.
_GRAY = (
    [Transformation(flip, 0, 0, turns, True) for flip, turns in product((False, True), range(4))]  # noqa: FBT003
    + [Transformation(right=right, grayscale=True) for right in (-1, 1)]
    + [Transformation(down=down, grayscale=True) for down in (-1, 1)]
)

TRANSFORMATION_SETS: dict[str, list[Transformation]] = {
    "full": _COLOUR + _GRAY,
    "grayscale": _COLOUR,
    "rotations": _ROTATIONS,
    "symmetries": [each for each in _COLOUR + _GRAY if not each.right and not each.down],
    "sharpness": [Transformation(), Transformation(detail="enlarge"), Transformation(detail="blur")],
}
"""The published sets: all 54 for colour images, 42 for grey ones, and four rotations (the paper's "Ours2"). Beside them
the eight symmetries of the square, with and without colour (16): the 54 without the translations, which a patch tells
only where it holds the reflected border; and ``sharpness``, for patches that have no direction."""


def locate_enlarged_votes(size: int) -> torch.Tensor:
    """Find, for each row of votes on an image, the row of votes on the enlarged image that is nearest to it.

    Returns:
        torch.Tensor: Indices of shape ``(size - 10,)``.
    """
    enlarged = enlarged_size(size)
    centres = (torch.arange(size - 2 * MARGIN) + MARGIN + 0.5) * (enlarged / size)
    return (centres - MARGIN).long().clamp(0, enlarged - 2 * MARGIN - 1)


def get_transformation_sets(transformations: str | Sequence[str]) -> list[list[Transformation]]:
    """Look up one or several sets of transformations, each as :func:`get_transformations` gives it.

    Args:
        transformations (str | Sequence[str]): Name of a published set, or names of several, or the names of one's own
            transformations, which make one set.

    Raises:
        ValueError: As :func:`get_transformations`; also if a set is named twice.
    """
    names = [transformations] if isinstance(transformations, str) else transformations
    if not isinstance(names, Iterable) or not all(name in TRANSFORMATION_SETS for name in names) or not names:
        return [get_transformations(transformations)]
    if len(set(names)) < len(names):
        msg = f"transformations: got {list(names)}; give every set once"
        raise ValueError(msg)
    return [get_transformations(name) for name in names]


def get_transformations(transformations: str | Sequence[str]) -> list[Transformation]:
    """Look up a set of transformations, in the order of the discriminator's classes.

    Args:
        transformations (str | Sequence[str]): Name of a published set (a key of ``TRANSFORMATION_SETS``), or the names
            of one's own transformations, at least two.

    Raises:
        ValueError: If a name is unknown or repeated, or if there is nothing to tell apart.
    """
    if isinstance(transformations, str) and transformations in TRANSFORMATION_SETS:
        return list(TRANSFORMATION_SETS[transformations])
    if isinstance(transformations, str) or not isinstance(transformations, Iterable):
        known = ", ".join(TRANSFORMATION_SETS)
        msg = f"transformations: got {transformations!r}; allowed are {known} or a list of names of transformations"
        raise ValueError(msg)
    chosen = [Transformation.from_name(name) for name in transformations]
    if len(chosen) < 2 or len(set(chosen)) < len(chosen):  # noqa: PLR2004  # one class cannot be discriminated
        msg = f"transformations: got {list(transformations)}; give two or more, all different"
        raise ValueError(msg)
    return chosen
