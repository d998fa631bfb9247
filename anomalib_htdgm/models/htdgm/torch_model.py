# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""PyTorch model of HTDGM: image -> (tiles) -> pyramid -> canvases -> discriminators -> votes -> score and map.

Beside the discriminators, a memory of patches at the coarse scales tells what looks different, and one of oriented
energies what has another texture; for whole images their gist does.

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
from typing import Any, TypeAlias, get_args

import torch
from anomalib.data import InferenceBatch
from anomalib.data.utils.tiler import Tiler
from torch import nn

from anomalib_htdgm.models.precision import Precision
from anomalib_htdgm.models.tracing import pieces
from anomalib_htdgm.validation import check_choice, check_integer, check_number

from .anomaly_map import AnomalyMapGenerator, Localization
from .canvases import Canvases
from .energies import OrientedEnergies
from .equalization import Equalization, equalize
from .generation import GenerationMixin, check_adversarial
from .gist import Gist
from .members import members_without
from .memory import BANDS, PatchMemory
from .networks import Discriminator, Generator
from .pyramid import LARGEST_PIXEL, Pyramid, pyramid_sizes, standardize_images
from .score import Vote, anomaly_score, average_votes, combine, patch_anomaly
from .tiles import OverlappingTiler, by_tiles, cut, whole_size
from .transformations import enlarged_size, get_transformation_sets

LEAST_PROBABILITY = 2e-5
"""What no mean probability is taken to be below, so that its reciprocal is finite, in half precision, too."""

Pairs: TypeAlias = list[tuple[torch.Tensor, torch.Tensor]]
"""Images at every scale, coarse to fine, and the same images in the size that enlarging them gives."""


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
        coarsest_size: int = 12,
        scale_factor: float = 0.7,
        fit_scale_factor: bool = True,
        votes_from: int = 48,
        memory_patches: int = 2000,
        memory_bands: int = 16,
        memory_weight: int = 2,
        energy_cells: int = 0,
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
            ("memory_weight", memory_weight, 1),
            ("energy_cells", energy_cells, 0),
            ("votes_from", votes_from, 0),
        ):
            check_integer(name, given, at_least=least)
        check_number("patch_fraction", patch_fraction, above=0, at_most=1)
        check_choice("memory_bands", memory_bands, BANDS)
        check_choice("vote", vote, get_args(Vote))
        check_choice("equalization", equalization, get_args(Equalization))
        check_choice("precision", precision, get_args(Precision))
        self.k_shot = k_shot
        self.adversarial = adversarial
        self.members = members
        self.vote = vote
        self.patch_fraction = patch_fraction
        self.memory_bands = memory_bands
        self.memory_weight = memory_weight
        self.equalization = equalization
        self.precision = precision
        self.standardize = standardize
        self.transformation_sets = get_transformation_sets(transformations)
        if adversarial:
            check_adversarial(members, votes_from, transformations, tiles, standardize=standardize)
        sizes = pyramid_sizes(image_size, coarsest_size, scale_factor, fit=fit_scale_factor)
        widths = [width * 2 ** (scale // (double_width_every or len(sizes))) for scale in range(len(sizes))]
        self.pyramid = Pyramid(sizes, self.input_size)
        self.enlarges = any(each.detail == "enlarge" for one_set in self.transformation_sets for each in one_set)
        enlarged = {enlarged_size(size) for size in sizes} if self.enlarges else set()
        self.enlarged_pyramid = Pyramid(sorted(enlarged - set(sizes)), self.input_size)
        self.voting_scales = [scale for scale, size in enumerate(sizes) if size >= min(votes_from, image_size)]
        canvases = (Canvases(each, size) for size in sizes for each in self.transformation_sets)
        self.canvases: Sequence[Canvases] = nn.ModuleList(canvases)  # type: ignore[assignment]
        num_classes = [len(each) + adversarial for each in self.transformation_sets]
        discriminators = (
            Discriminator(number, width)
            for width in widths[self.voting_scales[0] :]
            for number in num_classes
            for _ in range(members)
        )
        self.discriminators: Sequence[Discriminator] = nn.ModuleList(discriminators)  # type: ignore[assignment]
        remembered = [size for size in sizes if memory_patches and size <= votes_from]
        memories = (PatchMemory(size, k_shot * tiles**2, memory_patches, memory_bands) for size in remembered)
        self.memories: Sequence[PatchMemory] = nn.ModuleList(memories)  # type: ignore[assignment]
        capacity = k_shot * tiles**2
        self.energies = OrientedEnergies(self.input_size, capacity, energy_cells) if energy_cells else None
        self.gist = Gist(self.input_size) if gist else None
        generators = (Generator(width) for width in widths if adversarial)
        self.generators: Sequence[Generator] = nn.ModuleList(generators)  # type: ignore[assignment]
        self.anomaly_map_generator = AnomalyMapGenerator(localization, image_size, memory_weight)
        self.register_buffer("is_trained", torch.tensor(False))  # noqa: FBT003
        self.register_buffer("num_shots", torch.tensor(0))
        for scale, size in enumerate(sizes if adversarial else []):
            self.register_buffer(f"fixed_noise_{scale}", torch.zeros(k_shot, 3, size, size))
        self.register_buffer("noise_amplitudes", torch.zeros(len(sizes), k_shot))
        if tiles > 1:
            self.tiler = OverlappingTiler(self.input_size, tiles)
        self.requires_grad_(False)  # noqa: FBT003  # until it is trained

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
        self.enlarged_pyramid = Pyramid(self.enlarged_pyramid.sizes, size).to(device)
        if self.energies is not None:
            self.energies.pyramid = Pyramid(self.energies.pyramid.sizes, size).to(device)

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
        return _join([self._look(each) for each in ([images] if self.tiler is None else pieces(images, 1))])

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
        return _join([self._look(image, unseen=shot)])

    def _look(self, images: torch.Tensor, unseen: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Score and localise images, or one image by what was learnt of all training images but one."""
        prepared, score = self.prepare(images), partial(self._score, unseen=unseen)
        return score(prepared) if self.tiler is None else by_tiles(prepared, self.tiler, self.input_size, score)

    def _score(self, images: torch.Tensor, unseen: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Score prepared images, or tiles, and make their maps, of the same size."""
        pairs = self._reduce_and_enlarge(images)
        votes = self._votes(pairs, unseen)
        anomalies = [[[patch_anomaly(each, self.vote) for each in scale] for scale in of_set] for of_set in votes]
        distances = self._distances([reduced for reduced, _ in pairs], unseen)
        if self.gist is not None and self.vote == "probability":
            parts = [self._score_probabilities(of_set) for of_set in votes]
        else:
            parts = [self._score_anomalies(of_set) for of_set in anomalies]
        if self.gist is not None:
            parts += [self.gist(images, are_unseen=unseen is not None)]
        if distances:
            parts += [self._score_distances(distances, unseen)] * self.memory_weight
        energies = None
        if self.energies is not None:
            energies = self.energies(images, unseen)
            parts.append(self.energies.score(energies))
        of_members = [[_mean(scale) for scale in of_set] for of_set in anomalies]
        sets = range(len(self.transformation_sets))
        voting = [[self.canvases_of(scale, index) for scale in self.voting_scales] for index in sets]
        return combine(parts), self.anomaly_map_generator(of_members, voting, distances, images.shape[-2:], energies)

    def _votes(self, pairs: Pairs, unseen: int | None = None) -> list[list[list[torch.Tensor]]]:
        """Let discriminators vote, not those trained on ``unseen``: set by set, scale by scale, member by member."""
        members: Sequence[int] = range(self.members)
        if unseen is not None:
            members = members_without(unseen, self.members, int(self.num_shots))
        sets, scales = range(len(self.transformation_sets)), self.voting_scales
        return [[self._votes_at(scale, index, members, *pairs[scale]) for scale in scales] for index in sets]

    def _votes_at(
        self, scale: int, set_index: int, members: Sequence[int], reduced: torch.Tensor, enlarged: torch.Tensor
    ) -> list[torch.Tensor]:
        """Let some members vote at one scale."""
        canvases = self.canvases_of(scale, set_index)
        drawn = canvases.draw(reduced, self.dtype, enlarged)
        discriminators = self.discriminators_of(scale, set_index)
        return [canvases.log_probabilities(discriminators[member](drawn)) for member in members]

    def _distances(self, scales: Sequence[torch.Tensor], unseen: int | None = None) -> list[torch.Tensor]:
        return [memory(reduced, unseen) for memory, reduced in zip(self.memories, scales, strict=False)]

    def _score_anomalies(self, anomalies: Sequence[Sequence[torch.Tensor]]) -> torch.Tensor:
        """Score by one set's anomalies, scale by scale, member by member: the mean of what its members would say."""
        # A member alone has to say on average what all of them say, or what some have not seen would score otherwise.
        return _mean([anomaly_score(of_member, self.patch_fraction) for of_member in zip(*anomalies, strict=True)])

    def _score_probabilities(self, votes: Sequence[Sequence[torch.Tensor]]) -> torch.Tensor:
        """Score by one set's votes such that twice the score is twice the anomaly, for a product with a distance."""
        # One less a probability hardly differs from 1 where there are many transformations; the probability differs,
        # unless it is what is left of 1 in half precision.
        wrong = self._score_anomalies([[-each.exp() for each in scale] for scale in votes])
        return 1 / (-wrong).clamp(min=LEAST_PROBABILITY)

    def _score_distances(self, distances: Sequence[torch.Tensor], unseen: int | None) -> torch.Tensor:
        if not self.memory_bands:
            return anomaly_score(distances, self.patch_fraction)
        pairs = zip(self.memories, distances, strict=True)
        over_usual = [memory.over_usual(scale, are_of_unseen=unseen is not None) for memory, scale in pairs]
        return combine([anomaly_score([scale], self.patch_fraction) for scale in over_usual])

    def votes(self, images: torch.Tensor) -> list[list[torch.Tensor]]:
        """Let every patch of every transformed image vote, of images in [-1, 1] of shape ``(B, 3, H, W)``.

        Returns:
            list[list[torch.Tensor]]: For each set of transformations, for each scale whose votes count, coarse to fine,
            the log-probability of the right transformation, of shape ``(B, M, size - 10, size - 10)``, as
            :meth:`Canvases.log_probabilities` defines it. Of several members it is the average, see
            :func:`~anomalib_htdgm.models.htdgm.score.average_votes`. With tiles ``B`` is their number.
        """
        every = self._votes(self.reduce_and_enlarge(images))
        return [[average_votes(scale, self.vote) for scale in of_set] for of_set in every]

    def distances(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Measure how far every patch of images in [-1, 1], of shape ``(B, 3, H, W)``, is from the remembered ones.

        Returns:
            list[torch.Tensor]: For each scale that has a memory, coarse to fine, distances of shape
            ``(B, 1, size - 4, size - 4)``. With tiles ``B`` is their number.
        """
        return self._distances(self.reduce(images))

    def remember(self, images: torch.Tensor, scales: Sequence[torch.Tensor], source: torch.Generator) -> None:
        """Remember the training images: their patches, their energies, and their gist.

        Args:
            images (torch.Tensor): The training images in [-1, 1], of shape ``(k, 3, H, W)``.
            scales (Sequence[torch.Tensor]): What :meth:`reduce` makes of them.
            source (torch.Generator): Source of randomness, on the CPU.
        """
        for memory, reduced in zip(self.memories, scales, strict=False):
            memory.remember(reduced, source, int(self.num_shots))
        if self.energies is not None:
            self.energies.remember(self._cut(self.prepare(images, training=True)), source, int(self.num_shots))
        if self.gist is not None:
            self.gist.remember(self.prepare(images, training=True))
        self._knows_shots = True

    def canvases_of(self, scale: int, set_index: int = 0) -> Canvases:
        """Return the canvases of one scale for one set of transformations."""
        return self.canvases[scale * len(self.transformation_sets) + set_index]

    def discriminators_of(self, scale: int, set_index: int = 0) -> Sequence[Discriminator]:
        """Return the discriminators of one voting scale for one set of transformations, one for each member."""
        from_first = scale - self.voting_scales[0]
        first = (from_first * len(self.transformation_sets) + set_index) * self.members
        return self.discriminators[first : first + self.members]

    def reduce(self, images: torch.Tensor, *, training: bool = False) -> list[torch.Tensor]:
        """Prepare images, cut them into tiles, if they are to be, and reduce these to every scale.

        Args:
            images (torch.Tensor): Images in [-1, 1] of shape ``(B, 3, H, W)``.
            training (bool): Whether they are the training images.

        Returns:
            list[torch.Tensor]: For each scale, coarse to fine, images of shape ``(B, 3, size, size)``. With tiles ``B``
            is their number: the tiles of an image one after the other.
        """
        scales: list[torch.Tensor] = self.pyramid(self._cut(self.prepare(images, training=training)))
        return scales

    def reduce_and_enlarge(self, images: torch.Tensor, *, training: bool = False) -> Pairs:
        """Reduce images to every scale, and to the size of each scale's enlarged images.

        Args:
            images (torch.Tensor): Images in [-1, 1] of shape ``(B, 3, H, W)``.
            training (bool): Whether they are the training images.

        Returns:
            list[tuple[torch.Tensor, torch.Tensor]]: For each scale, coarse to fine, what :meth:`reduce` gives, and the
            same images in the size that enlarging them gives; the former twice where no transformation enlarges.
        """
        if self.tiler is None:
            return self._reduce_and_enlarge(self.prepare(images, training=training))
        # Image by image, since the tiles are far larger than what they are reduced to.
        parts = [self._reduce_and_enlarge(self._cut(self.prepare(each, training=training))) for each in images.split(1)]
        pairs = [zip(*scale, strict=True) for scale in zip(*parts, strict=True)]
        return [(torch.cat(reduced), torch.cat(enlarged)) for reduced, enlarged in pairs]

    def _reduce_and_enlarge(self, images: torch.Tensor) -> Pairs:
        scales = self.pyramid(images)
        if not self.enlarges:
            return list(zip(scales, scales, strict=True))
        # Many an enlarged image is that of a finer scale: all of them but the finest one's, by the default sizes.
        by_size = {each.shape[-1]: each for each in (*scales, *self.enlarged_pyramid(images))}
        return [(each, by_size[enlarged_size(size)]) for size, each in zip(self.pyramid.sizes, scales, strict=True)]

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
        # Sums go through memory in its order, so another layout would move a score's last bit.
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


def _mean(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    # Elementwise: the result for an image must not depend on the images beside it.
    return sum(tensors[1:], tensors[0]) / len(tensors)


def _join(outputs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> InferenceBatch:
    scores, maps = zip(*outputs, strict=True)
    return InferenceBatch(pred_score=torch.cat(scores), anomaly_map=torch.cat(maps))
