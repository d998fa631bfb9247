# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""PyTorch model of HTDGM: image -> (tiles) -> pyramid -> signals -> combination -> score and map.

The signals are the votes of discriminators, a memory of patches at the coarse scales, which tells what looks different,
and one of oriented energies, which tells what has another texture; for whole images votes and their gist.

Example:
    >>> import torch
    >>> from anomalib_htdgm.models.htdgm.torch_model import HtdgmModel
    >>> from anomalib_htdgm.models.htdgm.training import Training
    >>> model = HtdgmModel(input_size=(64, 64), k_shot=1)
    >>> shots = torch.rand(1, 3, 64, 64) * 2 - 1
    >>> for step in Training(iterations=2).run(model, shots):
    ...     losses = step.losses
    >>> model(torch.rand(4, 3, 64, 64) * 2 - 1).pred_score.shape
    torch.Size([4])
"""

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any, get_args

import torch
from anomalib.data import InferenceBatch
from anomalib.data.utils.tiler import Tiler
from torch import nn

from anomalib_htdgm.models.exporting import chunks
from anomalib_htdgm.models.precision import Precision, without_tf32
from anomalib_htdgm.validation import check_choice, check_integer, check_number

from .anomaly_map import AnomalyMapGenerator
from .energies import OrientedEnergies
from .equalization import Equalization, equalize
from .generation import GenerationMixin, check_adversarial
from .gist import Gist
from .networks import Generator
from .patches import Patches
from .pyramid import LARGEST_PIXEL, Pyramid, pyramid_sizes, standardize_images
from .score import Vote, combine
from .signals import Signal, Views
from .tiles import OverlappingTiler, by_tiles, cut, whole_size
from .transformations import get_transformation_sets
from .votes import Localization, Votes


class HtdgmModel(GenerationMixin):
    """A pyramid of patch discriminators that tell transformations apart, and of the generators they are trained with.

    Arguments that are not listed are those of :class:`~anomalib_htdgm.models.htdgm.lightning_model.Htdgm`.

    Args:
        input_size (tuple[int, int] | None): Height and width in pixels of the images it is given; ``None`` is the size
            that makes tiles of 256x256 pixels.
        k_shot (int): Most training images that it can be trained on.
        adversarial (bool): Whether there are generators, and a class for generated patches: whether the training's
            ``fake_weight`` is above 0.

    Raises:
        ValueError: If the arguments contradict one another; the message names them.
    """

    _tiler: Tiler | None = None
    _knows_shots = False

    def __init__(
        self,
        input_size: tuple[int, int] | None = None,
        k_shot: int = 1,
        transformations: str | Sequence[str] = "sharpness",
        image_size: int = 96,
        coarsest_size: int = 24,
        scale_factor: float = 0.7,
        fit_scale_factor: bool = True,
        votes_from: int = 48,
        memory_patches: int = 2000,
        energy_cells: int = 4000,
        gist: bool = False,
        standardize: bool = True,
        width: int = 16,
        double_width_every: int | None = None,
        adversarial: bool = False,
        members: int = 2,
        vote: Vote = "log_probability",
        patch_fraction: float = 0.01,
        localization: Localization = "multi_scale",
        equalization: Equalization = "none",
        precision: Precision = "auto",
        tiles: int = 1,
    ) -> None:
        super().__init__()
        self.input_size = tuple(input_size or whole_size(tiles))
        for name, given, least in (
            ("tiles", tiles, 1),
            ("k_shot", k_shot, 1),
            ("width", width, 1),
            ("double_width_every", 1 if double_width_every is None else double_width_every, 1),
            ("members", members, 1),
            ("memory_patches", memory_patches, 0),
            ("energy_cells", energy_cells, 0),
            ("votes_from", votes_from, 0),
        ):
            check_integer(name, given, at_least=least)
        check_number("patch_fraction", patch_fraction, above=0, at_most=1)
        check_choice("equalization", equalization, get_args(Equalization))
        self.k_shot = k_shot
        self.adversarial = adversarial
        self.equalization = equalization
        self.precision = precision
        self.standardize = standardize
        if adversarial:
            check_adversarial(members, votes_from, transformations, tiles, standardize=standardize)
        sizes = pyramid_sizes(image_size, coarsest_size, scale_factor, fit=fit_scale_factor)
        widths = [width * 2 ** (scale // (double_width_every or len(sizes))) for scale in range(len(sizes))]
        capacity = k_shot * tiles**2
        remembered = [size for size in sizes if memory_patches and size <= votes_from]
        voting = [scale for scale, size in enumerate(sizes) if size >= min(votes_from, image_size)]
        self.votes = Votes(
            [sizes[scale] for scale in voting],
            get_transformation_sets(transformations),
            [widths[scale] for scale in voting],
            members,
            vote,
            patch_fraction,
            localization,
            precision,
            has_fakes=adversarial,
            is_alone=not (gist or remembered or energy_cells),
        )
        self.patches = Patches(remembered, capacity, memory_patches, patch_fraction) if remembered else None
        self.energies = OrientedEnergies(capacity, energy_cells) if energy_cells else None
        self.gist = Gist() if gist else None
        self.pyramid = Pyramid(sizes, self.input_size)
        further = {size for signal in self.signals for size in signal.sizes} - set(sizes)
        self.further_pyramid = Pyramid(sorted(further), self.input_size)
        generators = (Generator(width) for width in widths if adversarial)
        self.generators: Sequence[Generator] = nn.ModuleList(generators)  # type: ignore[assignment]
        self.anomaly_map_generator = AnomalyMapGenerator(image_size, smooth=localization == "multi_scale")
        self.register_buffer("is_trained", torch.tensor(False))  # noqa: FBT003
        self.register_buffer("num_shots", torch.tensor(0))
        for scale, size in enumerate(sizes if adversarial else []):
            self.register_buffer(f"fixed_noise_{scale}", torch.zeros(k_shot, 3, size, size))
        self.register_buffer("noise_amplitudes", torch.zeros(len(sizes), k_shot))
        if tiles > 1:
            self.tiler = OverlappingTiler(self.input_size, tiles)
        self.requires_grad_(False)  # noqa: FBT003  # until it is trained

    @property
    def signals(self) -> list[Signal]:
        """What scores."""
        return [each for each in (self.votes, self.patches, self.energies, self.gist) if each is not None]

    @property
    def tiler(self) -> Tiler | None:
        """Tiler that cuts images, if any; anomalib's ``TilerConfigurationCallback`` sets it."""
        return self._tiler

    @tiler.setter
    def tiler(self, tiler: Tiler | None) -> None:
        if tiler is not None and self.adversarial:
            msg = "tiler: got one for a model with generators (fake_weight above 0); only None goes with them"
            raise ValueError(msg)
        if tiler is not None and self.gist is not None:
            msg = "gist: got True for images that are cut into tiles (tiles, tiler); only False goes with them"
            raise ValueError(msg)
        self._tiler = tiler
        size = self.input_size if tiler is None else (tiler.tile_size_h, tiler.tile_size_w)
        device = self.num_shots.device
        self.pyramid = Pyramid(self.pyramid.sizes, size).to(device)
        self.further_pyramid = Pyramid(self.further_pyramid.sizes, size).to(device)

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Score and localise.

        Args:
            images (torch.Tensor): Images in [-1, 1] of shape ``(B, 3, H, W)``.

        Returns:
            InferenceBatch: ``pred_score`` of shape ``(B,)`` and ``anomaly_map`` of shape ``(B, 1, H, W)``, both high
            where anomalous: at least 0, and at most 1 if patches vote with probabilities and nothing else scores.

        Raises:
            RuntimeError: If the model has not been trained.
        """
        self._require_training()
        # With tiles image by image: all tiles of many would not fit into memory.
        return _join([self._score_images(each) for each in ([images] if self.tiler is None else chunks(images, 1))])

    def score_unseen(self, image: torch.Tensor, shot: int) -> InferenceBatch:
        """Score and localise a training image as if it had not been seen: by what was learnt of the others.

        The memory leaves out its patches, and the discriminators that were trained on it do not vote. What was trained
        on all images, as a single member is, votes on it all the same.

        Args:
            image (torch.Tensor): The training image in [-1, 1], of shape ``(1, 3, H, W)``.
            shot (int): Its index among the training images, of which there must be two or more.

        Returns:
            InferenceBatch: As :meth:`forward`'s.

        Raises:
            RuntimeError: If the model has not been trained, or was loaded: only a training notes which patch of the
                memory is of which image.
            ValueError: If there is no such training image, or no other.
        """
        self._require_training()
        if not self._knows_shots:
            msg = "score_unseen: the model was loaded, and only a training notes which patch is of which image"
            raise RuntimeError(msg)
        if not 0 <= shot < self.num_shots or self.num_shots == 1:
            msg = f"shot: got {shot}; allowed are 0 to {int(self.num_shots) - 1}, if there are two training images"
            raise ValueError(msg)
        return _join([self._score_images(image, unseen=shot)])

    def _score_images(self, images: torch.Tensor, unseen: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Score and localise images, or one image by what was learnt of all training images but one."""
        prepared, score = self.prepare(images), partial(self._combine_signals, unseen=unseen)
        with without_tf32(images.device):
            return score(prepared) if self.tiler is None else by_tiles(prepared, self.tiler, self.input_size, score)

    def _combine_signals(self, images: torch.Tensor, unseen: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Score prepared images, or tiles, and make their maps, of the same size."""
        views = self._reduce(images)
        opinions = [signal(views, unseen) for signal in self.signals]
        scores = [score for opinion in opinions for score in opinion.scores]
        maps = [scales for opinion in opinions for scales in opinion.maps]
        pairs = zip(self.signals, opinions, strict=True)
        weights = [signal.map_weight for signal, opinion in pairs for _ in opinion.maps]
        return combine(scores), self.anomaly_map_generator(maps, weights, images.shape[-2:])

    def fit(self, views: Views, rng: torch.Generator) -> None:
        """Let the signals remember the training images, once the discriminators are trained.

        Args:
            views (Views): What :meth:`reduce` makes of them.
            rng (torch.Generator): Source of randomness, on the CPU.
        """
        with without_tf32(self.num_shots.device):
            for signal in self.signals:
                signal.fit(views, rng, int(self.num_shots))
        self._knows_shots = True

    def reduce(self, images: torch.Tensor, *, training: bool = False) -> Views:
        """Prepare images, cut them into tiles, if they are to be, and reduce these to all sizes that are looked at.

        Args:
            images (torch.Tensor): Images in [-1, 1] of shape ``(B, 3, H, W)``.
            training (bool): Whether they are the training images.

        Returns:
            Views: For each side in pixels, images of shape ``(B, 3, side, side)``. With tiles ``B`` is their number:
            the tiles of an image one after the other.
        """
        if self.tiler is None:
            return self._reduce(self.prepare(images, training=training))
        # Image by image, since the tiles are far larger than what they are reduced to.
        views = [self._reduce(self._cut(self.prepare(each, training=training))) for each in images.split(1)]
        return {size: torch.cat([each[size] for each in views]) for size in views[0]}

    def _reduce(self, images: torch.Tensor) -> Views:
        pyramids = (self.pyramid, self.further_pyramid)
        return {size: view for pyramid in pyramids for size, view in zip(pyramid.sizes, pyramid(images), strict=True)}

    def _cut(self, images: torch.Tensor) -> torch.Tensor:
        """Cut prepared images into tiles, if they are to be: one image's after the other's."""
        return images if self.tiler is None else cut(images, copy.copy(self.tiler), self.input_size)

    def prepare(self, images: torch.Tensor, *, training: bool = False) -> torch.Tensor:
        """Equalise and standardise images in [-1, 1] of shape ``(B, 3, H, W)``, if they are to be.

        It is done to whole images: a tile's brightness is news, and the noise of a blank one is not to be blown up.

        Args:
            images (torch.Tensor): The images.
            training (bool): Whether they are the training images.
        """
        # Sums go through memory in its order: one layout gives one score.
        images = images.contiguous().clamp(-LARGEST_PIXEL, LARGEST_PIXEL)
        if self.equalization == "both" or (training and self.equalization == "train"):
            images = equalize(images)
        return standardize_images(images) if self.standardize else images

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:  # noqa: ANN401
        """Refuse too many shots."""
        self._knows_shots = False
        super()._load_from_state_dict(state_dict, prefix, *args)
        if not 0 <= self.num_shots <= self.k_shot:
            msg = f"{prefix}num_shots: got {int(self.num_shots)}; allowed are 0 to k_shot, {self.k_shot}"
            args[-1].append(msg)  # PyTorch's list of errors


def _join(outputs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> InferenceBatch:
    scores, maps = zip(*outputs, strict=True)
    return InferenceBatch(pred_score=torch.cat(scores), anomaly_map=torch.cat(maps))
