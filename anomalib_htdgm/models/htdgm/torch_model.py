# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""PyTorch model of HTDGM: image -> (tiles) -> pyramid -> canvases -> discriminators -> votes -> score and map.

Beside the discriminators, a memory of patches at the coarse scales tells what looks different.

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
from typing import Any, get_args

import torch
from anomalib.data import InferenceBatch
from anomalib.data.utils.tiler import Tiler
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torchvision.utils import make_grid

from anomalib_htdgm.models.precision import Precision, choose_dtype
from anomalib_htdgm.validation import check_choice, check_integer, check_number

from .anomaly_map import AnomalyMapGenerator, Localization
from .canvases import Canvases
from .equalization import Equalization, equalize
from .members import members_without
from .memory import BANDS, PatchMemory
from .networks import Discriminator, Generator
from .pyramid import LARGEST_PIXEL, Pyramid, pyramid_sizes, standardize_images
from .score import Vote, anomaly_score, average_votes, combine, patch_anomaly
from .tiles import OverlappingTiler, cut, whole_size
from .transformations import enlarged_size, get_transformation_sets

TILES_PER_PIECE = 16
"""Tiles that are scored at a time: so many make the most of the networks' own pieces, and take some 100 MB."""


class HtdgmModel(nn.Module):
    """A pyramid of patch discriminators that tell transformations apart, and of the generators they are trained with.

    Args:
        input_size (tuple[int, int] | None): Height and width in pixels of the images it is given; ``None`` is the size
            that makes tiles of 256x256 pixels.
        k_shot (int): Most training images that it can be trained on.
        transformations (str | Sequence[str]): Set of transformations, or several sets, each with discriminators of its
            own, see :func:`~anomalib_htdgm.models.htdgm.transformations.get_transformation_sets`.
        image_size (int): Side of the finest scale in pixels.
        coarsest_size (int): Side of the coarsest scale in pixels.
        scale_factor (float): Ratio between a scale and the next finer one.
        fit_scale_factor (bool): Whether ``scale_factor`` is adapted to ``coarsest_size``, see
            :func:`~anomalib_htdgm.models.htdgm.pyramid.pyramid_sizes`.
        votes_from (int): Side in pixels of the coarsest scale that has discriminators; the finest has some in any case.
        memory_patches (int): Most patches that are remembered at each scale of up to ``votes_from`` pixels, see
            :class:`~anomalib_htdgm.models.htdgm.memory.PatchMemory`; 0 scores and localises by votes alone.
        memory_bands (int): Bands of frequencies whose energies patches are compared by; 0 compares pixels only, and
            takes the arithmetic mean over scales, not the geometric one.
        memory_weight (int): How many times the memory counts beside each set of transformations in the geometric mean
            of all, in scores and maps.
        standardize (bool): Whether all images are brought to one brightness and contrast.
        width (int): Channels of the hidden layers at the coarsest scale.
        double_width_every (int | None): Double the width after so many scales; ``None`` keeps one width, so that every
            scale can start from the weights of the scale before.
        adversarial (bool): Whether there are generators, and a class for generated patches.
        members (int): Number of discriminators at each scale, each trained on its share of the images, whose scores and
            maps are averaged. Above 1 there are no generators, and training images can be scored by those that have
            not seen them, see :meth:`score_unseen`.
        vote (Vote): How a patch votes, see :func:`~anomalib_htdgm.models.htdgm.score.patch_anomaly`.
        patch_fraction (float): Fraction of the patches that the score is over, see
            :func:`~anomalib_htdgm.models.htdgm.score.anomaly_score`.
        localization (Localization): Kind of anomaly map, see
            :class:`~anomalib_htdgm.models.htdgm.anomaly_map.AnomalyMapGenerator`.
        equalization (Equalization): Which images have their histogram equalised.
        precision (Precision): What the networks compute in, see
            :func:`~anomalib_htdgm.models.precision.choose_dtype`. Weights, votes and scores are float32 anyway.
        tiles (int): Number of overlapping tiles along each side of an image, each of which is an image of its own to
            all that follows, see :mod:`~anomalib_htdgm.models.htdgm.tiles`; 1 is the image as a whole.

    Raises:
        ValueError: If the arguments contradict one another; the message names them.
    """

    _tiler: Tiler | None = None
    is_trained: torch.Tensor
    num_shots: torch.Tensor
    noise_amplitudes: torch.Tensor

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
            _check_adversarial(members, votes_from, transformations, tiles, standardize=standardize)
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
        self._tiler = tiler
        size = self.input_size if tiler is None else (tiler.tile_size_h, tiler.tile_size_w)
        device = self.num_shots.device
        self.pyramid = Pyramid(self.pyramid.sizes, size).to(device)
        self.enlarged_pyramid = Pyramid(self.enlarged_pyramid.sizes, size).to(device)

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Score and localise.

        Args:
            images (torch.Tensor): Images in [-1, 1] of shape ``(B, 3, H, W)``.

        Returns:
            InferenceBatch: ``pred_score`` of shape ``(B,)`` and ``anomaly_map`` of shape ``(B, 1, H, W)``, both high
            where anomalous: at least 0, and at most 1 if patches vote with probabilities.

        Raises:
            RuntimeError: If the model has not been trained.
        """
        self._require_training()
        # With tiles image by image: all tiles of many would not fit into memory. An exported graph takes batches of any
        # size, so it cannot be cut into pieces.
        whole = self.tiler is None or torch.compiler.is_compiling()
        return _join([self._look(each) for each in ([images] if whole else images.split(1))])

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
            RuntimeError: If the model has not been trained.
            ValueError: If there is no such training image, or no other.
        """
        self._require_training()
        if not 0 <= shot < self.num_shots or self.num_shots == 1:
            msg = f"shot: got {shot}; allowed are 0 to {int(self.num_shots) - 1}, if there are two training images"
            raise ValueError(msg)
        return _join([self._look(image, unseen=shot)])

    def _look(self, images: torch.Tensor, unseen: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Score and localise images, or one image by what was learnt of all training images but one."""
        score = self._score if self.tiler is None else self._score_tiles
        return score(self.prepare(images), images.shape[-2:], unseen)

    def _score_tiles(
        self, images: torch.Tensor, size: torch.Size, unseen: int | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Score prepared images by their most anomalous tiles, and join the tiles' maps to maps of a given size."""
        tiler = copy.copy(self.tiler)  # it takes notes while it cuts, which are not for other threads' images
        assert tiler is not None  # noqa: S101  # for the type checker
        tiles = cut(images, tiler, self.input_size)
        pieces = [tiles] if torch.compiler.is_compiling() else tiles.split(TILES_PER_PIECE)
        scores, maps = zip(*(self._score(each, each.shape[-2:], unseen) for each in pieces), strict=True)
        joined = tiler.untile(torch.cat(maps))
        if joined.shape[-2:] != size:
            joined = F.interpolate(joined, size, mode="bilinear")
        return torch.cat(scores).view(images.shape[0], -1).amax(dim=1), joined

    def _score(self, images: torch.Tensor, size: torch.Size, unseen: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Score prepared images, or tiles, and make their maps, of a given size."""
        pairs = self._reduce_and_enlarge(images)
        sets, scales = range(len(self.transformation_sets)), self.voting_scales
        members = self._members_without(unseen)
        votes = [[self._votes_at(scale, index, members, *pairs[scale]) for scale in scales] for index in sets]
        parts = [self._score_votes(each) for each in votes]
        distances = self._distances([reduced for reduced, _ in pairs], unseen)
        if distances:
            parts += [self._score_distances(distances, unseen)] * self.memory_weight
        anomalies = [[patch_anomaly(average_votes(scale, self.vote), self.vote) for scale in each] for each in votes]
        voting = [[self.canvases_of(scale, index) for scale in scales] for index in sets]
        return combine(parts), self.anomaly_map_generator(anomalies, voting, distances, size)

    def _score_votes(self, votes: Sequence[Sequence[torch.Tensor]]) -> torch.Tensor:
        """Score by the votes of one set, scale by scale, member by member: the mean of what its members would say.

        A member alone has to say on average what all of them say, or training images that some members have not seen
        would score otherwise than others.
        """
        of_members = zip(*votes, strict=True)
        anomalies = [[patch_anomaly(scale, self.vote) for scale in each] for each in of_members]
        scores = [anomaly_score(each, self.patch_fraction) for each in anomalies]
        return sum(scores[1:], scores[0]) / len(scores)

    def _score_distances(self, distances: Sequence[torch.Tensor], unseen: int | None) -> torch.Tensor:
        if not self.memory_bands:
            return anomaly_score(distances, self.patch_fraction)
        pairs = zip(self.memories, distances, strict=True)
        over_usual = [memory.over_usual(scale, are_of_unseen=unseen is not None) for memory, scale in pairs]
        return combine([anomaly_score([scale], self.patch_fraction) for scale in over_usual])

    def votes(self, images: torch.Tensor) -> list[list[torch.Tensor]]:
        """Let every patch of every transformed image vote.

        Args:
            images (torch.Tensor): Images in [-1, 1] of shape ``(B, 3, H, W)``.

        Returns:
            list[list[torch.Tensor]]: For each set of transformations, for each scale whose votes count, coarse to fine,
            the log-probability of the right transformation, of shape ``(B, M, size - 10, size - 10)``, as
            :meth:`Canvases.log_probabilities` defines it. Of several members it is the average, see
            :func:`~anomalib_htdgm.models.htdgm.score.average_votes`. With tiles ``B`` is their number.
        """
        pairs = self.reduce_and_enlarge(images)
        return [
            [
                average_votes(self._votes_at(scale, index, self._members_without(None), *pairs[scale]), self.vote)
                for scale in self.voting_scales
            ]
            for index in range(len(self.transformation_sets))
        ]

    def reduce_and_enlarge(
        self, images: torch.Tensor, *, training: bool = False
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
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
        parts = [self._reduce_and_enlarge(self.cut(self.prepare(each, training=training))) for each in images.split(1)]
        pairs = [zip(*scale, strict=True) for scale in zip(*parts, strict=True)]
        return [(torch.cat(reduced), torch.cat(enlarged)) for reduced, enlarged in pairs]

    def _reduce_and_enlarge(self, images: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        scales = self.pyramid(images)
        if not self.enlarges:
            return list(zip(scales, scales, strict=True))
        # Many an enlarged image is that of a finer scale: all of them but the finest one's, by the default sizes.
        by_size = {each.shape[-1]: each for each in (*scales, *self.enlarged_pyramid(images))}
        return [(each, by_size[enlarged_size(size)]) for size, each in zip(self.pyramid.sizes, scales, strict=True)]

    def _votes_at(
        self, scale: int, set_index: int, members: Sequence[int], reduced: torch.Tensor, enlarged: torch.Tensor
    ) -> list[torch.Tensor]:
        """Let some members vote at one scale."""
        canvases = self.canvases_of(scale, set_index)
        drawn = canvases.draw(reduced, self.dtype, enlarged)
        discriminators = self.discriminators_of(scale, set_index)
        return [canvases.log_probabilities(discriminators[member](drawn)) for member in members]

    def _members_without(self, unseen: int | None) -> Sequence[int]:
        """List the members that vote: all, or those that were not trained on one of the images."""
        if unseen is None:
            return range(self.members)
        return members_without(unseen, self.members, int(self.num_shots))

    def distances(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Measure how far every patch is from those that are remembered.

        Args:
            images (torch.Tensor): Images in [-1, 1] of shape ``(B, 3, H, W)``.

        Returns:
            list[torch.Tensor]: For each scale that has a memory, coarse to fine, distances of shape
            ``(B, 1, size - 4, size - 4)``. With tiles ``B`` is their number.
        """
        return self._distances(self.reduce(images))

    def _distances(self, scales: Sequence[torch.Tensor], unseen: int | None = None) -> list[torch.Tensor]:
        return [memory(reduced, unseen) for memory, reduced in zip(self.memories, scales, strict=False)]

    def remember(self, scales: Sequence[torch.Tensor], source: torch.Generator) -> None:
        """Remember the patches of the training images.

        Args:
            scales (Sequence[torch.Tensor]): What :meth:`reduce` makes of the training images.
            source (torch.Generator): Source of randomness, on the CPU.
        """
        for memory, reduced in zip(self.memories, scales, strict=False):
            memory.remember(reduced, source, int(self.num_shots))

    def canvases_of(self, scale: int, set_index: int = 0) -> Canvases:
        """Return the canvases of one scale for one set of transformations."""
        return self.canvases[scale * len(self.transformation_sets) + set_index]

    def discriminators_of(self, scale: int, set_index: int = 0) -> Sequence[Discriminator]:
        """Return the discriminators of one voting scale for one set of transformations, one for each member."""
        from_first = scale - self.voting_scales[0]
        first = (from_first * len(self.transformation_sets) + set_index) * self.members
        return self.discriminators[first : first + self.members]

    @property
    def dtype(self) -> torch.dtype:
        """Type that the networks compute in."""
        return choose_dtype(self.precision, self.num_shots.device)

    def reduce(self, images: torch.Tensor, *, training: bool = False) -> list[torch.Tensor]:
        """Prepare images, cut them into tiles, if they are to be, and reduce these to every scale.

        Args:
            images (torch.Tensor): Images in [-1, 1] of shape ``(B, 3, H, W)``.
            training (bool): Whether they are the training images.

        Returns:
            list[torch.Tensor]: For each scale, coarse to fine, images of shape ``(B, 3, size, size)``. With tiles ``B``
            is their number: the tiles of an image one after the other.
        """
        scales: list[torch.Tensor] = self.pyramid(self.cut(self.prepare(images, training=training)))
        return scales

    def cut(self, images: torch.Tensor) -> torch.Tensor:
        """Cut prepared images into tiles, if they are to be.

        Args:
            images (torch.Tensor): Images of shape ``(B, 3, H, W)``.

        Returns:
            torch.Tensor: The images as they are, or their tiles, one image's after the other's.
        """
        return images if self.tiler is None else cut(images, copy.copy(self.tiler), self.input_size)

    def prepare(self, images: torch.Tensor, *, training: bool = False) -> torch.Tensor:
        """Equalise and standardise images, if they are to be.

        It is done to whole images: a tile's brightness is news, and the noise of a blank one is not to be blown up.

        Args:
            images (torch.Tensor): Images in [-1, 1] of shape ``(B, 3, H, W)``.
            training (bool): Whether they are the training images.

        Returns:
            torch.Tensor: Images of the same shape.
        """
        # Sums go through memory in its order, so another layout would move a score's last bit.
        images = images.contiguous().clamp(-LARGEST_PIXEL, LARGEST_PIXEL)
        if self.equalization == "both" or (training and self.equalization == "train"):
            images = equalize(images)
        return standardize_images(images) if self.standardize else images

    @torch.no_grad()
    def sample(self, num_images: int, seed: int = 0) -> list[torch.Tensor]:
        """Generate random images; the training images they are modelled on take turns (Eqs. 1-2, 13-14).

        Args:
            num_images (int): Number of images ``B``.
            seed (int): Seed of the noise.

        Returns:
            list[torch.Tensor]: For each scale, coarse to fine, images in [-1, 1] of shape ``(B, 3, size, size)``.

        Raises:
            RuntimeError: If the model has not been trained, or trained without generators.
        """
        self._require_generators()
        shots = torch.arange(num_images, device=self.num_shots.device) % self.num_shots
        source = torch.Generator().manual_seed(seed)
        return [images.clamp(-1, 1) for images in self.generate(shots, len(self.generators), source)]

    @torch.no_grad()
    def reconstruct(self) -> list[torch.Tensor]:
        """Generate the training images from their fixed noise (Eqs. 8, 15-16).

        Returns:
            list[torch.Tensor]: For each scale, coarse to fine, images in [-1, 1] of shape ``(k, 3, size, size)``.

        Raises:
            RuntimeError: If the model has not been trained, or trained without generators.
        """
        self._require_generators()
        shots = torch.arange(int(self.num_shots), device=self.num_shots.device)
        return [images.clamp(-1, 1) for images in self.generate(shots, len(self.generators))]

    def picture(self, num_images: int = 4, seed: int = 0) -> torch.Tensor:
        """Draw reconstructions and random images as one picture: a row for each scale, coarse to fine.

        Args:
            num_images (int): Number of random images; they stand to the right of the reconstructions.
            seed (int): Seed of the noise.

        Returns:
            torch.Tensor: The picture in [0, 1], of shape ``(3, height, width)``.

        Raises:
            RuntimeError: If the model has not been trained, or trained without generators.
        """
        size = self.pyramid.sizes[-1]
        rows = [torch.cat(pair) for pair in zip(self.reconstruct(), self.sample(num_images, seed), strict=True)]
        enlarged = [F.interpolate(row, (size, size), mode="nearest") for row in rows]
        return make_grid(torch.cat(enlarged) / 2 + 0.5, nrow=len(rows[0]))

    def generate(
        self, shots: torch.Tensor, num_scales: int, source: torch.Generator | None = None
    ) -> list[torch.Tensor]:
        """Generate images scale by scale.

        Args:
            shots (torch.Tensor): Index of the training image that each is modelled on, shape ``(B,)``.
            num_scales (int): Number of scales, from the coarsest.
            source (torch.Generator | None): Source of the noise, on the CPU; ``None`` takes the fixed noise, which
                reconstructs the training images.

        Returns:
            list[torch.Tensor]: For each scale, coarse to fine, images of shape ``(B, 3, size, size)``.
        """
        images: list[torch.Tensor] = []
        for scale in range(num_scales):
            noise = self.fixed_noise(scale)[shots] if source is None else self.draw_noise(scale, len(shots), source)
            images.append(self.generate_scale(scale, noise, self.enlarge(images[-1:], scale, noise), shots))
        return images

    def enlarge(self, coarser: Sequence[torch.Tensor], scale: int, noise: torch.Tensor) -> torch.Tensor:
        """Make of the images of the scale before what a scale starts from.

        Args:
            coarser (Sequence[torch.Tensor]): The images of the scale before, of shape ``(B, 3, size, size)``; none at
                the coarsest scale.
            scale (int): Index of the scale that starts.
            noise (torch.Tensor): Its noise, whose shape the result has.

        Returns:
            torch.Tensor: Images of the size of this scale, in [-1, 1] before they were enlarged: what a generator
            overdoes must not grow from scale to scale. Zeros at the coarsest scale.
        """
        if not coarser:
            return torch.zeros_like(noise)
        return self.pyramid.upsample(coarser[0].clamp(-1, 1), scale - 1)

    def fixed_noise(self, scale: int) -> torch.Tensor:
        """Return the noise that a scale reconstructs the training images from, shape ``(k_shot, 3, size, size)``."""
        noise: torch.Tensor = getattr(self, f"fixed_noise_{scale}")
        return noise

    def draw_noise(self, scale: int, num_images: int, source: torch.Generator) -> torch.Tensor:
        """Draw noise from N(0, 1) for one scale; at the coarsest it is the same in all channels (authors' code).

        Args:
            scale (int): Index of the scale.
            num_images (int): Number of images ``B``.
            source (torch.Generator): Source of randomness, on the CPU.

        Returns:
            torch.Tensor: Noise of shape ``(B, 3, size, size)``, on the device of the model.
        """
        size, channels = self.pyramid.sizes[scale], 3 if scale else 1
        noise = torch.randn(num_images, channels, size, size, generator=source).expand(-1, 3, -1, -1)
        return noise.to(self.num_shots.device, non_blocking=True)

    def generate_scale(
        self, scale: int, noise: torch.Tensor, previous: torch.Tensor, shots: torch.Tensor, *, learning: bool = False
    ) -> torch.Tensor:
        """Generate images of one scale.

        Args:
            scale (int): Index of the scale.
            noise (torch.Tensor): Noise from N(0, 1) of shape ``(B, 3, size, size)``; the scale's amplitude is applied
                to it here.
            previous (torch.Tensor): What :meth:`enlarge` makes of the scale before, of the same shape.
            shots (torch.Tensor): Index of the training image that each is modelled on, shape ``(B,)``.
            learning (bool): Whether the batch norm takes the statistics of these images.

        Returns:
            torch.Tensor: Images of shape ``(B, 3, size, size)``.
        """
        amplitudes = self.noise_amplitudes[scale, shots][:, None, None, None]
        images: torch.Tensor = self.generators[scale](
            amplitudes * noise, previous, shots, self.dtype, learning=learning
        )
        return images

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:  # noqa: ANN401
        """Load what was saved by earlier versions, too; refuse too many shots."""
        if state_dict.get(f"{prefix}is_trained"):
            self._drop_untrained_scales(state_dict, prefix)
        older = state_dict.pop(f"{prefix}fixed_noise", None)
        if older is not None and self.adversarial:
            finer = {scale: torch.zeros_like(self.fixed_noise(scale)) for scale in range(1, len(self.generators))}
            state_dict |= {f"{prefix}fixed_noise_{scale}": noise for scale, noise in {0: older, **finer}.items()}
        super()._load_from_state_dict(state_dict, prefix, *args)
        if not 0 <= self.num_shots <= self.k_shot:
            msg = f"{prefix}num_shots: got {int(self.num_shots)}; allowed are 0 to k_shot, {self.k_shot}"
            args[-1].append(msg)  # PyTorch's list of errors

    def _drop_untrained_scales(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Leave out discriminators that voted at no scale: the finer ones once started from these."""
        beginning = f"{prefix}discriminators."
        names = [name for name in state_dict if name.startswith(beginning)]
        numbers = {int(name.removeprefix(beginning).partition(".")[0]) for name in names}
        surplus = len(numbers) - len(self.discriminators)
        if surplus != self.voting_scales[0] * len(self.transformation_sets) * self.members:
            return
        saved = {name: state_dict.pop(name) for name in names}
        for name, weights in saved.items():
            number, _, rest = name.removeprefix(beginning).partition(".")
            if int(number) >= surplus:
                state_dict[f"{beginning}{int(number) - surplus}.{rest}"] = weights

    def _require_training(self) -> None:
        # An exported graph cannot hold this question, and a trained model answers it at export.
        if not torch.compiler.is_compiling() and not self.is_trained:
            msg = (
                "Htdgm has not been trained, or not to the end: fit it, resume its training (fit with ckpt_path), or "
                "load a checkpoint of a trained model, before it can score"
            )
            raise RuntimeError(msg)

    def _require_generators(self) -> None:
        self._require_training()
        if not self.adversarial:
            msg = "fake_weight: the model was trained with 0, without generators; sampling needs a positive fake_weight"
            raise RuntimeError(msg)


def _join(outputs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> InferenceBatch:
    scores, maps = zip(*outputs, strict=True)
    return InferenceBatch(pred_score=torch.cat(scores), anomaly_map=torch.cat(maps))


def _check_adversarial(
    members: int, votes_from: int, transformations: str | Sequence[str], tiles: int, *, standardize: bool
) -> None:
    """Refuse what does not go with generators: they play against one discriminator, and make images in [-1, 1].

    Nor do they make tiles: each of k images has a number that a generator is told, and is in every iteration.
    """
    for name, given, allowed, is_allowed in (
        ("members", members, 1, members == 1),
        ("votes_from", votes_from, 0, votes_from == 0),
        ("transformations", transformations, "one set", len(get_transformation_sets(transformations)) == 1),
        ("standardize", standardize, False, not standardize),
        ("tiles", tiles, 1, tiles == 1),
    ):
        if not is_allowed:
            with_generators = "a model with generators (fake_weight above 0)"
            msg = f"{name}: got {given!r} for {with_generators}; only {allowed} goes with them"
            raise ValueError(msg)
