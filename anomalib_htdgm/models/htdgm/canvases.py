# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Canvases: what a discriminator sees in place of every single transformed image.

A translation by whole pixels with reflection at the border is a crop of one larger, reflected canvas, and a network
without padding commutes with cropping. All transformations that share flip, rotation and colour are therefore crops of
one canvas: a pass over 16 canvases yields the very votes of the 54 transformed images, over 2.7 times fewer pixels.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, cycle
from typing import Any

import torch
from torch import nn

from anomalib_htdgm.models.exporting import chunks

from .networks import MARGIN, NEGLIGIBLE_LOGIT
from .transformations import Detail, Transformation, locate_enlarged_votes, reflect, shift_length, to_grayscale

PIXELS_PER_CHUNK = 2**17
"""Pixels of canvases that a network sees at a time, unless those of one image are more: with 32 channels a layer of
them takes 8 MB in bfloat16, which the caches hold and the allocator reuses."""


FEW_CLASSES = 16
"""Below this number PyTorch's softmax is faster over the first dimension than over the last."""


def log_softmax(logits: torch.Tensor) -> torch.Tensor:
    """Compute log-probabilities over the channels of ``logits``, shape ``(N, C, h, w)``: ``(N, h, w, C)``.

    They are float32, or float64 where the logits are.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    if logits.shape[1] < FEW_CLASSES:
        return logits.log_softmax(dim=1, dtype=dtype).permute(0, 2, 3, 1)
    return logits.permute(0, 2, 3, 1).log_softmax(dim=-1, dtype=dtype)


class Source(nn.Module):
    """What canvases are cut out of: the image, perhaps enlarged or blurred, with or without its colour.

    Args:
        transformation (Transformation): A transformation whose canvas is cut out of it.
        size (int): Side of the image in pixels.
    """

    matrix: torch.Tensor | None

    def __init__(self, transformation: Transformation, size: int) -> None:
        super().__init__()
        self.grayscale, self.is_enlarged = transformation.grayscale, transformation.detail == "enlarge"
        self.register_buffer("matrix", transformation.resampling(size), persistent=False)
        self.size = size if self.matrix is None else len(self.matrix)

    def forward(self, images: torch.Tensor, enlarged: torch.Tensor | None) -> torch.Tensor:
        """Make the source, of shape ``(B, 3, H, H)``, of what :meth:`Canvases.draw` is given."""
        if self.is_enlarged and enlarged is not None:
            images = enlarged
        elif self.matrix is not None:
            images = self.matrix @ images @ self.matrix.T
        return to_grayscale(images) if self.grayscale else images


@dataclass(frozen=True)
class Canvas:
    """One canvas: its source flipped, continued by reflection and rotated, in this order.

    Args:
        flip (bool): Whether it is mirrored.
        quarter_turns (int): Counterclockwise rotation in units of 90 degrees.
        rows (range): Rows of the flipped source that it holds; those outside of it are reflections.
        columns (range): Columns, likewise.
        source_size (int): Side of its source in pixels.
        source_start (int): Position of its source's first pixel among the pixels of all sources.
    """

    flip: bool
    quarter_turns: int
    rows: range
    columns: range
    source_size: int
    source_start: int

    @classmethod
    def spanning(cls, transformations: Sequence[Transformation], source_size: int, source_start: int) -> "Canvas":
        """Make the smallest canvas that all these transformations of an image are crops of."""
        first, shift = transformations[0], shift_length(source_size)
        down = [each.down * shift for each in transformations]
        right = [each.right * shift for each in transformations]
        rows = range(-max(*down, 0), source_size - min(*down, 0))
        columns = range(-max(*right, 0), source_size - min(*right, 0))
        return cls(first.flip, first.quarter_turns, rows, columns, source_size, source_start)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = len(self.rows), len(self.columns)
        return (height, width) if self.quarter_turns % 2 == 0 else (width, height)

    def locate_pixels(self) -> torch.Tensor:
        """Find each pixel of the canvas among the pixels of all sources: positions of shape ``(height, width)``."""
        positions = self.source_start + torch.arange(self.source_size**2).view(self.source_size, -1)
        positions = reflect(positions.fliplr() if self.flip else positions, self.rows, self.columns)
        return torch.rot90(positions, self.quarter_turns)

    @property
    def num_patches(self) -> tuple[int, int]:
        """Number of patches that lie wholly inside, along its height and width."""
        height, width = self.size
        return height - 2 * MARGIN, width - 2 * MARGIN

    def locate_patches(self, transformation: Transformation) -> torch.Tensor:
        """Find the patches of a transformed image, a crop of this canvas, among those of the canvas.

        Returns:
            torch.Tensor: Flat position among the canvas' patches of each patch of the transformed image; integers of
            shape ``(source_size - 10, source_size - 10)``.
        """
        height, width = self.num_patches
        num_votes, shift = self.source_size - 2 * MARGIN, shift_length(self.source_size)
        upright = torch.rot90(torch.arange(height * width).view(height, width), -self.quarter_turns)
        top = -self.rows.start - transformation.down * shift
        left = -self.columns.start - transformation.right * shift
        return torch.rot90(upright[top : top + num_votes, left : left + num_votes], self.quarter_turns)

    def locate_votes(self, transformation: Transformation, size: int) -> torch.Tensor:
        """Find the votes on a transformed image, of ``size`` before, among those on the canvas.

        Returns:
            torch.Tensor: As :meth:`locate_patches`, of shape ``(size - 10, size - 10)``: of an enlarged image, which
            has more patches, the nearest ones.
        """
        patches = self.locate_patches(transformation)
        if transformation.detail != "enlarge":
            return patches
        nearest = locate_enlarged_votes(size)
        return patches[nearest][:, nearest]


class CanvasGroup(nn.Module):
    """Canvases of one size: one batch for the discriminator.

    Args:
        canvases (Sequence[Canvas]): The canvases.
        crops (Sequence[tuple[int, int, Transformation]]): The transformations that are crops of them: index of the
            canvas, index of the transformation, and the transformation.
        size (int): Side of the images in pixels.
    """

    pixels: torch.Tensor
    canvas_indices: torch.Tensor
    transformation_indices: torch.Tensor
    positions: torch.Tensor

    def __init__(self, canvases: Sequence[Canvas], crops: Sequence[tuple[int, int, Transformation]], size: int) -> None:
        super().__init__()
        self.canvases, self.crops = list(canvases), list(crops)
        pixels = torch.stack([canvas.locate_pixels() for canvas in canvases])
        # Half the size of PyTorch's own integers, since exported models hold them.
        self.register_buffer("pixels", pixels.flatten().int(), persistent=False)
        canvas_indices, transformation_indices, transformations = zip(*crops, strict=True)
        pairs = zip(canvas_indices, transformations, strict=True)
        positions = [canvases[index].locate_votes(transformation, size) for index, transformation in pairs]
        self.register_buffer("canvas_indices", torch.tensor(canvas_indices).int()[:, None], persistent=False)
        classes = torch.tensor(transformation_indices).int()[:, None]
        self.register_buffer("transformation_indices", classes, persistent=False)
        self.register_buffer("positions", torch.stack(positions).flatten(1).int(), persistent=False)

    def draw(self, pixels: torch.Tensor) -> torch.Tensor:
        """Draw the canvases of the pixels of all sources of ``B`` images, shape ``(B, number of pixels, 3)``.

        Returns:
            torch.Tensor: Canvases of shape ``(B * num_canvases, 3, height, width)``, in channels-last memory, which
            convolutions are fastest on.
        """
        canvases = pixels.index_select(1, self.pixels)
        return canvases.view(-1, *self.canvases[0].size, 3).permute(0, 3, 1, 2)

    def log_probabilities(self, logits: torch.Tensor, num_classes: int) -> torch.Tensor:
        """Pick, for each transformation, the log-probability of itself at each of its patches.

        The softmax of the logits, on what :meth:`draw` drew, is over the first classes alone, without the fake class.

        Returns:
            torch.Tensor: Shape ``(B, number of transformations in this group, number of patches)``.
        """
        if logits.shape[1] > num_classes:
            logits = logits.to(torch.float32, copy=True)
            logits[:, num_classes] = NEGLIGIBLE_LOGIT  # the fake class, if there is one; those beyond it are negligible
        votes = log_softmax(logits).unflatten(0, (-1, len(self.canvases))).flatten(1)
        height, width = logits.shape[-2:]
        cells = self.canvas_indices * (height * width) + self.positions
        right = votes.index_select(1, (cells * logits.shape[1] + self.transformation_indices).flatten())
        return right.unflatten(1, self.positions.shape)

    def targets(self, num_classes: int) -> torch.Tensor:
        """Mark the transformed images that each patch lies in, as :meth:`Canvases.targets` says."""
        height, width = self.canvases[0].num_patches
        targets = torch.zeros(len(self.canvases), height * width, num_classes)
        for canvas, transformation_index, transformation in self.crops:
            targets[canvas, self.canvases[canvas].locate_patches(transformation).flatten(), transformation_index] = 1.0
        return targets.unflatten(1, (height, width)).to(self.positions.device)


class Canvases(nn.Module):
    """All canvases of a set of transformations at one scale, and where the votes on them belong.

    Args:
        transformations (Sequence[Transformation]): The discriminator's classes, in order.
        size (int): Side of the images at this scale, in pixels.
    """

    order: torch.Tensor
    inverse: torch.Tensor

    def __init__(self, transformations: Sequence[Transformation], size: int) -> None:
        super().__init__()
        self.transformations, self.size = list(transformations), size
        self.num_transformations = len(transformations)
        self.num_votes = size - 2 * MARGIN
        sources = {(each.detail, each.grayscale): Source(each, size) for each in transformations}
        self.sources: Sequence[Source] = nn.ModuleList(sources.values())  # type: ignore[assignment]
        groups = _group(transformations, size, sources)
        self.groups: Sequence[CanvasGroup] = nn.ModuleList(groups)  # type: ignore[assignment]
        pixels = sum(len(group.canvases) * math.prod(group.canvases[0].size) for group in self.groups)
        self.images_per_chunk = max(1, PIXELS_PER_CHUNK // pixels)
        order = torch.cat([group.transformation_indices.flatten() for group in self.groups])
        self.register_buffer("order", order.argsort(), persistent=False)
        cells = torch.arange(len(transformations) * self.num_votes**2).view(-1, self.num_votes, self.num_votes)
        inverse = [each.invert(votes, shift_length(size)) for each, votes in zip(transformations, cells, strict=True)]
        self.register_buffer("inverse", torch.stack(inverse).flatten().int(), persistent=False)

    def __reduce__(self) -> tuple[Callable[..., nn.Module], tuple[Any, ...]]:
        """Be pickled, with a whole model, as what it is made of: the positions are more than all weights."""
        place = torch.empty(0, device=self.order.device)  # a tensor, which a machine without that device can load
        return _remake, (type(self), place, self.transformations, self.size)

    def draw(
        self, images: torch.Tensor, dtype: torch.dtype = torch.float32, enlarged: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """Draw all canvases of images, a few images at a time.

        Args:
            images (torch.Tensor): Images of shape ``(B, 3, size, size)``.
            dtype (torch.dtype): Type of the canvases, in which the discriminator then computes.
            enlarged (torch.Tensor | None): The images in the size of enlarged ones, with the detail that ``images``
                have lost; without them ``images`` are interpolated.

        Returns:
            list[torch.Tensor]: Canvases of shape ``(b * num_canvases, 3, height, width)``: one tensor for each size of
            canvas of the first ``b`` images, then those of the next ones.
        """
        pixels = self.lay_out(images, dtype, enlarged)
        return [group.draw(chunk) for chunk in chunks(pixels, self.images_per_chunk) for group in self.groups]

    def lay_out(
        self, images: torch.Tensor, dtype: torch.dtype = torch.float32, enlarged: torch.Tensor | None = None
    ) -> torch.Tensor:
        """List the pixels of all sources, which :meth:`draw` draws from: shape ``(B, number of pixels, 3)``."""
        pixels = torch.cat([source(images, enlarged).flatten(2) for source in self.sources], dim=2)
        return pixels.to(dtype).transpose(1, 2).contiguous()

    def targets(self) -> list[torch.Tensor]:
        """Mark the transformations whose image each patch of the canvases lies in.

        Returns:
            list[torch.Tensor]: For each size of canvas, zeros and ones of shape
            ``(num_canvases, height - 10, width - 10, num_transformations)``.
        """
        return [group.targets(self.num_transformations) for group in self.groups]

    def log_probabilities(self, logits: Sequence[torch.Tensor]) -> torch.Tensor:
        """Read the votes on every transformed image from the discriminator's output on what :meth:`draw` drew.

        Returns:
            torch.Tensor: Log-probability (at most 0) of the right one among the transformations, the fake class left
            out (Eq. 12), of shape ``(B, num_transformations, num_votes, num_votes)``.
        """
        return self._read(logits, self.num_transformations)

    def _read(self, logits: Sequence[torch.Tensor], num_classes: int) -> torch.Tensor:
        """Read the votes, the softmax being over the first ``num_classes`` classes."""
        groups = cycle(self.groups)
        votes = [group.log_probabilities(part, num_classes) for group, part in zip(groups, logits, strict=False)]
        num_groups = len(self.groups)
        images = [torch.cat(votes[first : first + num_groups], dim=1) for first in range(0, len(votes), num_groups)]
        return torch.cat(images)[:, self.order].unflatten(2, (self.num_votes, self.num_votes))

    def invert(self, votes: torch.Tensor) -> torch.Tensor:
        """Bring votes, of the shape that they are read in, back to where their patches were in the image (Sec. 4.2)."""
        return votes.flatten(1).index_select(1, self.inverse).view_as(votes)


def _remake(
    kind: type[Canvases], place: torch.Tensor, transformations: Sequence[Transformation], size: int
) -> Canvases:
    return kind(transformations, size).to(place.device)


def _group(
    transformations: Sequence[Transformation], size: int, sources: dict[tuple[Detail, bool], Source]
) -> list[CanvasGroup]:
    """Share the transformations out among canvases, and the canvases among groups of one size."""
    ends = accumulate(source.size**2 for source in sources.values())
    starts = dict(zip(sources, [0, *ends], strict=False))
    members: dict[tuple[bool, int, tuple[Detail, bool]], list[int]] = {}
    for index, each in enumerate(transformations):
        source = (each.detail, each.grayscale)
        members.setdefault((each.flip, each.quarter_turns, source), []).append(index)
    groups: dict[tuple[int, int], tuple[list[Canvas], list[tuple[int, int, Transformation]]]] = {}
    for (_, _, source), indices in members.items():
        canvas = Canvas.spanning([transformations[index] for index in indices], sources[source].size, starts[source])
        canvases, crops = groups.setdefault(canvas.size, ([], []))
        crops += [(len(canvases), index, transformations[index]) for index in indices]
        canvases.append(canvas)
    return [CanvasGroup(canvases, crops, size) for canvases, crops in groups.values()]
