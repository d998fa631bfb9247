# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Canvases: what a discriminator sees in place of every single transformed image.

A translation by whole pixels with reflection at the border is a crop of one larger, reflected canvas, and a network
without padding commutes with cropping. All transformations that share flip, rotation and colour are therefore crops of
one canvas: a pass over 16 canvases yields the very votes of the 54 transformed images, over 2.7 times fewer pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from kornia.geometry.transform import hflip
from torch import nn

from .networks import MARGIN
from .transformations import Transformation, reflect, shift_length, to_grayscale


@dataclass(frozen=True)
class Canvas:
    """One canvas: the image flipped, continued by reflection, rotated and stripped of colour, in this order.

    Args:
        flip (bool): Whether it is mirrored.
        quarter_turns (int): Counterclockwise rotation in units of 90 degrees.
        grayscale (bool): Whether it is without colour.
        rows (range): Rows of the flipped image that it holds; those outside of the image are reflections.
        columns (range): Columns, likewise.
    """

    flip: bool
    quarter_turns: int
    grayscale: bool
    rows: range
    columns: range

    @classmethod
    def spanning(cls, transformations: Sequence[Transformation], size: int) -> "Canvas":
        """Make the smallest canvas that all these transformations of an image of ``size`` pixels are crops of."""
        first, shift = transformations[0], shift_length(size)
        down = [each.down * shift for each in transformations]
        right = [each.right * shift for each in transformations]
        rows = range(-max(*down, 0), size - min(*down, 0))
        columns = range(-max(*right, 0), size - min(*right, 0))
        return cls(first.flip, first.quarter_turns, first.grayscale, rows, columns)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = len(self.rows), len(self.columns)
        return (height, width) if self.quarter_turns % 2 == 0 else (width, height)

    def draw(self, images: torch.Tensor) -> torch.Tensor:
        """Draw the canvas of images of shape ``(B, 3, H, H)``."""
        canvas = reflect(hflip(images) if self.flip else images, self.rows, self.columns)
        canvas = torch.rot90(canvas, self.quarter_turns, (-2, -1))
        return to_grayscale(canvas) if self.grayscale else canvas

    def locate_votes(self, transformation: Transformation, size: int) -> torch.Tensor:
        """Find the votes on a transformed image among the votes on the canvas.

        Args:
            transformation (Transformation): A transformation that is a crop of this canvas.
            size (int): Side of the image in pixels.

        Returns:
            torch.Tensor: Flat position in the canvas' map of votes for each vote on the transformed image; integers of
            shape ``(size - 10, size - 10)``.
        """
        height, width = self.size
        num_votes, shift = size - 2 * MARGIN, shift_length(size)
        positions = torch.arange((height - 2 * MARGIN) * (width - 2 * MARGIN)).view(height - 2 * MARGIN, -1)
        upright = torch.rot90(positions, -self.quarter_turns)
        top = -self.rows.start - transformation.down * shift
        left = -self.columns.start - transformation.right * shift
        return torch.rot90(upright[top : top + num_votes, left : left + num_votes], self.quarter_turns)


class CanvasGroup(nn.Module):
    """Canvases of one size: one batch for the discriminator.

    Args:
        canvases (Sequence[Canvas]): The canvases.
        crops (Sequence[tuple[int, int, torch.Tensor]]): The transformations that are crops of them: index of the
            canvas, index of the transformation, and positions of its votes as :meth:`Canvas.locate_votes` gives them.
    """

    canvas_indices: torch.Tensor
    transformation_indices: torch.Tensor
    positions: torch.Tensor

    def __init__(self, canvases: Sequence[Canvas], crops: Sequence[tuple[int, int, torch.Tensor]]) -> None:
        super().__init__()
        self.canvases = list(canvases)
        canvas_indices, transformation_indices, positions = zip(*crops, strict=True)
        self.register_buffer("canvas_indices", torch.tensor(canvas_indices)[:, None], persistent=False)
        self.register_buffer("transformation_indices", torch.tensor(transformation_indices)[:, None], persistent=False)
        self.register_buffer("positions", torch.stack(positions).flatten(1), persistent=False)

    def draw(self, images: torch.Tensor) -> torch.Tensor:
        """Draw the canvases of images of shape ``(B, 3, H, H)``: shape ``(B * num_canvases, 3, height, width)``."""
        return torch.stack([canvas.draw(images) for canvas in self.canvases], dim=1).flatten(0, 1)

    def log_probabilities(self, logits: torch.Tensor, num_classes: int) -> torch.Tensor:
        """Pick, for each transformation, the log-probability of itself at each of its patches.

        Args:
            logits (torch.Tensor): The discriminator's output on what :meth:`draw` drew.
            num_classes (int): Classes that the softmax is over, the first ones; leaves out the fake class.

        Returns:
            torch.Tensor: Shape ``(B, number of transformations in this group, number of patches)``.
        """
        logits = logits[:, :num_classes].flatten(2).unflatten(0, (-1, len(self.canvases)))
        log_partition = logits.logsumexp(dim=2)
        right = logits[:, self.canvas_indices, self.transformation_indices, self.positions]
        return right - log_partition[:, self.canvas_indices, self.positions]

    def targets(self, num_classes: int) -> torch.Tensor:
        """Mark which transformations' crops contain each patch of the canvases.

        Args:
            num_classes (int): Number of channels wanted, at least the number of transformations.

        Returns:
            torch.Tensor: Zeros and ones of shape ``(num_canvases, num_classes, height - 10, width - 10)``.
        """
        height, width = (length - 2 * MARGIN for length in self.canvases[0].size)
        targets = torch.zeros(len(self.canvases), num_classes, height * width, device=self.positions.device)
        targets[self.canvas_indices, self.transformation_indices, self.positions] = 1.0
        return targets.unflatten(2, (height, width))


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
        self.num_transformations = len(transformations)
        self.num_votes = size - 2 * MARGIN
        self.groups: Sequence[CanvasGroup] = nn.ModuleList(_group(transformations, size))  # type: ignore[assignment]
        order = torch.cat([group.transformation_indices.flatten() for group in self.groups])
        self.register_buffer("order", order.argsort(), persistent=False)
        cells = torch.arange(self.num_votes**2).view(self.num_votes, -1)
        inverse = [each.invert(cells, shift_length(size)).flatten() for each in transformations]
        self.register_buffer("inverse", torch.stack(inverse), persistent=False)

    def draw(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Draw all canvases of images.

        Args:
            images (torch.Tensor): Images of shape ``(B, 3, size, size)``.

        Returns:
            list[torch.Tensor]: Canvases of shape ``(B * num_canvases, 3, height, width)``, one tensor for each size.
        """
        return [group.draw(images) for group in self.groups]

    def log_probabilities(self, logits: Sequence[torch.Tensor]) -> torch.Tensor:
        """Read the votes on every transformed image from those on the canvases.

        Args:
            logits (Sequence[torch.Tensor]): The discriminator's output on what :meth:`draw` drew.

        Returns:
            torch.Tensor: Log-probability (at most 0) of the right one among the transformations, the fake class left
            out (Eq. 12), of shape ``(B, num_transformations, num_votes, num_votes)``.
        """
        votes = [
            group.log_probabilities(part, self.num_transformations)
            for group, part in zip(self.groups, logits, strict=True)
        ]
        return torch.cat(votes, dim=1)[:, self.order].unflatten(2, (self.num_votes, self.num_votes))

    def invert(self, votes: torch.Tensor) -> torch.Tensor:
        """Bring the votes on transformed images back to where their patches were in the image (Sec. 4.2).

        Args:
            votes (torch.Tensor): Votes of shape ``(B, num_transformations, num_votes, num_votes)``.

        Returns:
            torch.Tensor: Votes of the same shape, in the image's own orientation.
        """
        return votes.flatten(2).gather(2, self.inverse.expand(votes.shape[0], -1, -1)).view_as(votes)


def _group(transformations: Sequence[Transformation], size: int) -> list[CanvasGroup]:
    """Share the transformations out among canvases, and the canvases among groups of one size."""
    members: dict[tuple[bool, int, bool], list[int]] = {}
    for index, each in enumerate(transformations):
        members.setdefault((each.flip, each.quarter_turns, each.grayscale), []).append(index)
    groups: dict[tuple[int, int], tuple[list[Canvas], list[tuple[int, int, torch.Tensor]]]] = {}
    for indices in members.values():
        canvas = Canvas.spanning([transformations[index] for index in indices], size)
        canvases, crops = groups.setdefault(canvas.size, ([], []))
        crops += [(len(canvases), index, canvas.locate_votes(transformations[index], size)) for index in indices]
        canvases.append(canvas)
    return [CanvasGroup(*group) for group in groups.values()]
