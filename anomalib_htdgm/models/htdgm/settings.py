# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Settings: everything that a model can be told, with its default and its check."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from anomalib_htdgm.models.precision import Precision
from anomalib_htdgm.validation import check_choice, check_integer, check_number

from .pretext import TransformationSet
from .pyramid import pyramid_sizes
from .region import Outlines, check_region

MOST_TILES = 16
"""Tiles along a side, of an image of 3136 pixels: a hundred would not fit into memory."""

Preset = Literal["defects", "semantic", "semantic_grayscale"]
Vote = Literal["probability", "log_probability"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a model looks at and how it is trained. The defaults are for defects.

    Args:
        k_shot (int): Most training images; this, ``tiles``, ``region`` and ``precision`` are arguments of
            :class:`~anomalib_htdgm.models.htdgm.lightning_model.Htdgm`, which says what they do.
        tiles (int): Number of overlapping tiles along each side of an image, at most :data:`MOST_TILES`.
        region (Outlines | None): Where in an image to look.
        precision (Precision): Type that the discriminators compute in.
        standardize (bool): Whether all images are brought to one brightness and contrast.
        transformations (TransformationSet): What the discriminators tell apart: ``sharpness`` (3: as it is, enlarged,
            blurred), ``rotations`` (4), ``symmetries`` (16, with and without colour) or ``motions`` (9: turns,
            shifts and a flip).
        image_size (int): Side of the finest scale in pixels.
        coarsest_size (int): Side of the coarsest scale in pixels; at least the receptive field of 11.
        scale_factor (float): Ratio between a scale and the next finer one, adapted so that the coarsest scale has
            exactly ``coarsest_size``.
        votes_from (int): Side in pixels of the coarsest scale that has discriminators; 0 gives all scales some. Scales
            of up to this size remember patches.
        width (int): Channels of a discriminator's hidden layers.
        num_members (int): Number of discriminators of each scale, each trained on its share of the images. With two or
            more, training images are scored by members that have not seen them.
        iterations (int): Iterations of training of each member of each scale.
        vote (Vote): What patches vote with: the logarithm weighs confident mistakes more; ``probability`` is Eq. 12's.
        patch_fraction (float): Fraction of patches, the most anomalous, that make the score: small for defects
            (Sec. 3.3), 1 for whole images (Eq. 12).
        memory_patches (int): Most patches of 5x5 pixels that are remembered of each scale; 0 remembers none.
        energy_cells (int): Most cells whose oriented energies are remembered; 0 remembers none.
        gist (bool): Whether layout, edges and colour of whole images score beside the votes.

    Raises:
        ValueError: If one is out of its range, or they contradict one another; the message names it.
    """

    k_shot: int = 10
    tiles: int = 1
    region: Outlines | None = None
    precision: Precision = "auto"
    standardize: bool = True
    transformations: TransformationSet = "sharpness"
    image_size: int = 96
    coarsest_size: int = 24
    scale_factor: float = 0.7
    votes_from: int = 48
    width: int = 16
    num_members: int = 2
    iterations: int = 30
    vote: Vote = "log_probability"
    patch_fraction: float = 0.01
    memory_patches: int = 2000
    energy_cells: int = 4000
    gist: bool = False

    def __post_init__(self) -> None:
        for name in ("k_shot", "tiles", "width", "num_members", "iterations"):
            check_integer(name, getattr(self, name), at_least=1)
        check_number("tiles", self.tiles, at_most=MOST_TILES)
        for name in ("votes_from", "memory_patches", "energy_cells"):
            check_integer(name, getattr(self, name), at_least=0)
        check_number("patch_fraction", self.patch_fraction, above=0, at_most=1)
        for name, allowed in (("precision", Precision), ("transformations", TransformationSet), ("vote", Vote)):
            check_choice(name, getattr(self, name), get_args(allowed))
        for name in ("standardize", "gist"):
            check_choice(name, getattr(self, name), [True, False])
        object.__setattr__(self, "region", check_region(self.region))
        pyramid_sizes(self.image_size, self.coarsest_size, self.scale_factor)
        if self.gist and self.tiles > 1:
            msg = f"tiles: got {self.tiles} for whole images, whose gist scores; only 1 goes with it"
            raise ValueError(msg)

    @property
    def scale_sizes(self) -> list[int]:
        """Sides in pixels of all scales, coarse to fine."""
        return pyramid_sizes(self.image_size, self.coarsest_size, self.scale_factor)

    @property
    def voting_sizes(self) -> list[int]:
        """Sides in pixels of the scales that have discriminators, coarse to fine: the finest one at least."""
        return [size for size in self.scale_sizes if size >= min(self.votes_from, self.image_size)]

    @property
    def remembered_sizes(self) -> list[int]:
        """Sides in pixels of the scales that patches are remembered of, coarse to fine."""
        return [size for size in self.scale_sizes if self.memory_patches and size <= self.votes_from]

    @property
    def num_images(self) -> int:
        """Most training images, or tiles of them."""
        return self.k_shot * self.tiles**2


_SEMANTIC = Settings(
    standardize=False,
    transformations="symmetries",
    image_size=25,
    coarsest_size=25,
    votes_from=0,
    width=32,
    num_members=5,
    iterations=4,
    vote="probability",
    patch_fraction=1.0,
    memory_patches=0,
    energy_cells=0,
    gist=True,
)

PRESETS: dict[Preset, Settings] = {
    "defects": Settings(),
    "semantic": _SEMANTIC,
    "semantic_grayscale": replace(
        _SEMANTIC,
        transformations="motions",
        image_size=14,
        coarsest_size=12,
        scale_factor=0.85,
        num_members=2,
        iterations=30,
    ),
}
"""``defects`` finds spots on a part or a surface. ``semantic`` tells whole images of one subject from those of others,
and ``semantic_grayscale`` those without colour. How they were chosen is in benchmarks/FINDINGS.md."""


def choose_settings(preset: Preset, given: Mapping[str, Any] | None = None, **arguments: Any) -> Settings:
    """Take a preset's settings, but for those that are given.

    Args:
        preset (Preset): Name of the preset.
        given (Mapping[str, Any] | None): Settings by their names.
        **arguments: Settings that have an argument of their own, which is not to be among those.

    Raises:
        ValueError: If there is no such preset or setting, or a setting is out of its range.
    """
    check_choice("preset", preset, get_args(Preset))
    given = {} if given is None else given
    allowed = [field.name for field in fields(Settings) if field.name not in arguments]
    for name in given if isinstance(given, Mapping) else [given]:
        if name not in allowed:
            msg = f"settings: got {name!r}; allowed are values of {', '.join(allowed)}"
            raise ValueError(msg)
    return replace(PRESETS[preset], **given, **arguments)
