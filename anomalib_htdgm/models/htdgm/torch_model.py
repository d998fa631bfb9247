# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""PyTorch model of HTDGM: image -> (region) -> (tiles) -> pyramid -> signals -> combination -> score and map.

The signals are the votes of discriminators, a memory of patches at the coarse scales, which tells what looks different,
and one of oriented energies, which tells what has another texture; for whole images votes and their gist.

Example:
    >>> import torch
    >>> from anomalib_htdgm.models.htdgm.settings import Settings
    >>> from anomalib_htdgm.models.htdgm.torch_model import HtdgmModel
    >>> from anomalib_htdgm.models.htdgm.training import train
    >>> model = HtdgmModel(Settings(k_shot=1, iterations=2), input_size=(64, 64))
    >>> shots = torch.rand(1, 3, 64, 64) * 2 - 1
    >>> losses = [step.loss for step in train(model, shots)]
    >>> model(torch.rand(4, 3, 64, 64) * 2 - 1).pred_score.shape
    torch.Size([4])
"""

import copy
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from anomalib.data import InferenceBatch
from torch import nn

from anomalib_htdgm.models.exporting import chunks, require_training
from anomalib_htdgm.models.precision import without_tf32

from .energies import OrientedEnergies
from .gist import Gist
from .patches import Patches
from .pyramid import LARGEST_PIXEL, Pyramid, standardize_images
from .region import Region, frame_size
from .scoring import AnomalyMapGenerator, combine
from .settings import Settings
from .signals import Signal, Views
from .tiles import OverlappingTiler, by_tiles, cut, whole_size
from .votes import Votes

if TYPE_CHECKING:
    from anomalib.data.utils.tiler import Tiler


def default_size(settings: Settings) -> tuple[int, int]:
    """Choose height and width of images whose tiles, or else whose region, have 256x256 pixels."""
    size = whole_size(settings.tiles)
    return size if settings.region is None else frame_size(settings.region, size)


class HtdgmModel(nn.Module):
    """Signals that score, and the pyramid of images that they look at.

    Args:
        settings (Settings): What it looks at.
        input_size (tuple[int, int] | None): Height and width in pixels of the images it is given; ``None`` is the size
            that makes tiles of 256x256 pixels, or a region of that size.

    Attributes:
        tiler (Tiler | None): Cuts images, if they are to be cut; anomalib's ``TilerConfigurationCallback`` sets it.
    """

    is_trained: torch.Tensor
    num_shots: torch.Tensor
    _knows_shots = False

    def __init__(self, settings: Settings, input_size: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.settings = settings
        self.input_size = tuple(input_size or default_size(settings))
        self.region = None if settings.region is None else Region(settings.region, self.input_size)
        looked_at = self.looked_at = self.input_size if self.region is None else self.region.size
        self.tiler: Tiler | None = OverlappingTiler(looked_at, settings.tiles) if settings.tiles > 1 else None
        self.votes = Votes(settings)
        self.patches = Patches(settings) if settings.remembered_sizes else None
        self.energies = OrientedEnergies(settings) if settings.energy_cells else None
        self.gist = Gist() if settings.gist else None
        sizes = sorted({size for signal in self.signals for size in signal.sizes})
        self.pyramid = Pyramid(sizes, (self.tiler.tile_size_h, self.tiler.tile_size_w) if self.tiler else looked_at)
        self.anomaly_map_generator = AnomalyMapGenerator(settings.image_size)
        self.register_buffer("is_trained", torch.tensor(False))
        self.register_buffer("num_shots", torch.tensor(0))
        self.requires_grad_(False)  # until it is trained

    @property
    def signals(self) -> list[Signal]:
        """What scores."""
        return [each for each in (self.votes, self.patches, self.energies, self.gist) if each is not None]

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Score and localise.

        Args:
            images (torch.Tensor): Images in [-1, 1] of shape ``(B, 3, H, W)``.

        Returns:
            InferenceBatch: ``pred_score`` of shape ``(B,)`` and ``anomaly_map`` of shape ``(B, 1, H, W)``, both at
            least 0 and high where anomalous.

        Raises:
            RuntimeError: If the model has not been trained.
        """
        require_training(self.is_trained, "Htdgm")
        # With tiles image by image: all tiles of many would not fit into memory.
        scored = [self._score(each) for each in ([images] if self.tiler is None else chunks(images, 1))]
        scores, maps = zip(*scored, strict=True)
        return InferenceBatch(pred_score=torch.cat(scores), anomaly_map=torch.cat(maps))

    def score_unseen(self, image: torch.Tensor, shot: int) -> InferenceBatch:
        """Score and localise a training image as if it had not been seen: by what was learnt of the others.

        Memories leave it out, and the discriminators that were trained on it do not vote. What was trained on all
        images, as a single member is, votes nevertheless.

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
        require_training(self.is_trained, "Htdgm")
        if not self._knows_shots:
            msg = "score_unseen: the model was loaded, and only a training notes which patch is of which image"
            raise RuntimeError(msg)
        if not 0 <= shot < self.num_shots or self.num_shots == 1:
            msg = f"shot: got {shot}; allowed are 0 to {int(self.num_shots) - 1}, if there are two training images"
            raise ValueError(msg)
        score, anomaly_map = self._score(image, unseen=shot)
        return InferenceBatch(pred_score=score, anomaly_map=anomaly_map)

    def _score(self, images: torch.Tensor, unseen: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Score and localise images, or one image by what was learnt of all training images but one."""
        prepared, score = self.prepare(images), partial(self._combine, unseen=unseen)
        with without_tf32(images.device):
            scored = score(prepared) if self.tiler is None else by_tiles(prepared, self.tiler, self.looked_at, score)
        return scored if self.region is None else (scored[0], self.region.paste(scored[1], images.shape[-2:]))

    def _combine(self, images: torch.Tensor, unseen: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Score prepared images, or tiles, by all signals, and make their maps, of the same size."""
        views = self.pyramid(images)
        opinions = [signal(views, unseen) for signal in self.signals]
        pairs = zip(self.signals, opinions, strict=True)
        weights = [signal.map_weight for signal, opinion in pairs if opinion.scales]
        maps = self.anomaly_map_generator([each.scales for each in opinions if each.scales], weights, images.shape[-2:])
        return combine([each.score for each in opinions]), maps

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

    def reduce(self, images: torch.Tensor) -> Views:
        """Prepare images, cut them into tiles, if they are to be, and reduce these to all sizes that are looked at.

        Args:
            images (torch.Tensor): Images in [-1, 1] of shape ``(B, 3, H, W)``.

        Returns:
            Views: For each side in pixels, images of shape ``(B, 3, side, side)``. With tiles ``B`` is their number:
            the tiles of an image one after the other.
        """
        if self.tiler is None:
            views: Views = self.pyramid(self.prepare(images))
            return views
        # Image by image, since the tiles are far larger than what they are reduced to.
        tiles = (cut(self.prepare(each), copy.copy(self.tiler), self.looked_at) for each in images.split(1))
        reduced = [self.pyramid(each) for each in tiles]
        return {size: torch.cat([each[size] for each in reduced]) for size in reduced[0]}

    def share_of(self, member: int, views: Views) -> Views:
        """Choose what a member is trained on of the training images: all tiles of an image are one member's."""
        by_image = {size: each.unflatten(0, (int(self.num_shots), -1)) for size, each in views.items()}
        return {size: self.votes.share_of(member, each).flatten(0, 1) for size, each in by_image.items()}

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """Cut images in [-1, 1] of shape ``(B, 3, H, W)`` to the region, and standardise them, if they are to be.

        It is done to whole images: a tile's brightness is news, and the noise of a blank one is not to be blown up.

        Raises:
            ValueError: If anomalib's callback has set a tiler, and whole images are what is looked at.
        """
        if self.tiler is not None and self.gist is not None:
            msg = "tiler: got one for whole images, whose gist scores; only None goes with it"
            raise ValueError(msg)
        standardized = self._standardize(images)
        return standardized if self.region is None else self.region.fill(standardized)

    def remember_outside(self, images: torch.Tensor) -> None:
        """Remember what is outside the region in training images in [-1, 1] of shape ``(k, 3, H, W)``."""
        if self.region is not None:
            self.region.remember(self._standardize(images))

    def _standardize(self, images: torch.Tensor) -> torch.Tensor:
        images = images if self.region is None else self.region.cut(images)
        # Sums go through memory in its order: one layout gives one score.
        images = images.contiguous().clamp(-LARGEST_PIXEL, LARGEST_PIXEL)
        mask = None if self.region is None else self.region.mask
        return standardize_images(images, mask) if self.settings.standardize else images

    def _load_from_state_dict(self, *args: Any) -> None:
        self._knows_shots = False
        super()._load_from_state_dict(*args)
