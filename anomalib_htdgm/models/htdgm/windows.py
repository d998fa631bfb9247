# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Windows: what an iteration of the training sees of the canvases of all training images.

A discriminator votes on patches of 11x11 pixels, so it can learn from a part of a canvas as well as from a whole one:
a window's votes are those of the canvas, at the same patches. Windows of one size, from few images, make an iteration
cost the same at every scale and for any number of shots.
"""

import torch

from .canvases import Canvases, CanvasGroup
from .networks import MARGIN

WINDOW_SIZE = 48
"""Side of a window in pixels, of whose pixels nearly two thirds are centres of patches."""


class Windows:
    """Draws windows of the canvases of some images at random.

    Args:
        canvases (Canvases): The canvases.
        most_pixels (int): Most pixels that are drawn of each canvas at a time, but for a single window.
    """

    def __init__(self, canvases: Canvases, most_pixels: int) -> None:
        self.canvases, self.targets = canvases, canvases.targets()
        smallest = min(min(canvas.size) for group in canvases.groups for canvas in group.canvases)
        self.size = min(WINDOW_SIZE, smallest)
        self.number, self.is_whole = max(1, most_pixels // self.size**2), self.size == smallest
        self.turns = torch.empty(0, dtype=torch.long)

    def show(self, images: torch.Tensor, dtype: torch.dtype, enlarged: torch.Tensor) -> None:
        """Draw from these images from now on; their number is that of any shown before.

        Args:
            images (torch.Tensor): The images, of shape ``(k, 3, size, size)``.
            dtype (torch.dtype): Type of the windows.
            enlarged (torch.Tensor): The images in the size of enlarged ones, see :meth:`Canvases.draw`.
        """
        self.pixels = self.canvases.lay_out(images, dtype, enlarged)

    def draw(self, rng: torch.Generator, times: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw windows. All images take their turn before one has another; each canvas has a place of its own.

        Args:
            rng (torch.Generator): Source of randomness, on the CPU.
            times (int): Factor of their number.

        Returns:
            tuple[torch.Tensor, torch.Tensor]: Windows of shape ``(N * num_canvases, 3, size, size)``, and which
            transformations their patches tell, as :meth:`Canvases.targets` marks it, of shape
            ``(N, num_canvases, size - 10, size - 10, num_transformations)``.
        """
        # A window that is the whole canvas is drawn of each image but once.
        number = min(times * self.number, len(self.pixels)) if self.is_whole else times * self.number
        while len(self.turns) < number:
            self.turns = torch.cat([self.turns, torch.randperm(len(self.pixels), generator=rng)])
        turns, self.turns = self.turns[:number], self.turns[number:]
        parts = [self._draw(*pair, turns, rng) for pair in zip(self.canvases.groups, self.targets, strict=True)]
        windows, targets = zip(*parts, strict=True)
        joined = torch.cat(windows, dim=1).flatten(0, 1)
        return joined.permute(0, 3, 1, 2), torch.cat(targets, dim=1)

    def _draw(
        self, group: CanvasGroup, targets: torch.Tensor, turns: torch.Tensor, rng: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw windows of the canvases of one size: ``(N, n, size, size, 3)``, and their targets."""
        number, (height, width) = len(group.canvases), group.canvases[0].size
        shape = len(turns), number
        rows, columns = (self._choose_places(side - self.size, shape, rng) for side in (height, width))
        chosen = torch.stack([turns[:, None].expand_as(rows), rows, columns])
        # One transfer for all; what follows is computed on the device, in shapes that broadcast to (N, n, side, side).
        image, row, column = chosen.to(self.pixels.device, non_blocking=True)[..., None, None]
        canvas = torch.arange(number, device=row.device)[:, None, None]
        pixel = torch.arange(self.size, device=row.device)
        patch = torch.arange(self.size - 2 * MARGIN, device=row.device)
        places = (canvas * height + row + pixel[:, None]) * width + column + pixel
        positions = group.pixels[places.flatten()].view(places.shape) + image * self.pixels.shape[1]
        windows = self.pixels.flatten(0, 1)[positions.flatten()].unflatten(0, places.shape)
        return windows, targets[canvas, row + patch[:, None], column + patch]

    def _choose_places(self, last: int, shape: tuple[int, int], rng: torch.Generator) -> torch.Tensor:
        """Choose places from 0 to ``last``, of which the ends come so often that borders are seen as often as the rest.

        If all places came alike, the outermost patch would be seen from one place, where others are from dozens.
        """
        beyond = self.size - 2 * MARGIN - 1
        return torch.randint(-beyond, last + beyond + 1, shape, generator=rng).clamp(0, last)
