# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Training of the discriminators: scale after scale, member after member (Eq. 4, Sec. 3.4)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

import torch
from torch.nn import functional as F
from torch.optim import Adam, Optimizer

from .discriminator import MARGIN, Discriminator
from .pretext import Transformed
from .torch_model import HtdgmModel

LEARNING_RATE = 5e-4
BETAS = (0.5, 0.999)
"""Adam's, as published."""
CROP_SIZE = 48
"""Side of a crop in pixels, of whose pixels nearly two thirds are centres of patches."""
PIXELS_PER_ITERATION = 2 * CROP_SIZE**2
"""Pixels of each transformation that an iteration sees."""
ITERATIONS_FOR_STATISTICS = 20
"""Iterations whose crops make a finished discriminator's batch-norm statistics: of fewer, ten shots score worse."""


@dataclass(frozen=True)
class TrainingStep:
    """What one iteration did.

    Args:
        scale (int): Index of the scale it trained, among those that vote.
        member (int): Index of the discriminator of that scale.
        iteration (int): Index of the iteration of that discriminator.
        loss (torch.Tensor): Cross entropy of telling the transformations, a detached scalar.
    """

    scale: int
    member: int
    iteration: int
    loss: torch.Tensor


def configure_optimizer(model: HtdgmModel) -> Optimizer:
    """Make the optimiser of all discriminators: each step changes those alone that have a gradient."""
    return Adam(model.votes.parameters(), lr=LEARNING_RATE, betas=BETAS, fused=True)


def count_steps(model: HtdgmModel) -> int:
    """Count the steps that :func:`train` takes."""
    return len(model.votes.tasks) * model.settings.num_members * model.settings.iterations


def train(
    model: HtdgmModel,
    images: torch.Tensor,
    seed: int = 0,
    optimizer: Optimizer | None = None,
    augment: Callable[[int], torch.Tensor] | None = None,
) -> Iterator[TrainingStep]:
    """Train a model on a few images, from scratch.

    Nothing is changed until the iterator is advanced, and the model is trained when it is exhausted.

    Args:
        model (HtdgmModel): The model; its weights are drawn anew.
        images (torch.Tensor): The k training images in [-1, 1], of shape ``(k, 3, H, W)``.
        seed (int): Seed of weights and order.
        optimizer (Optimizer | None): As :func:`configure_optimizer` makes it, the default.
        augment (Callable[[int], torch.Tensor] | None): Gives, for the number of an iteration of the whole training,
            what the discriminators see in it in place of the images, of their shape; ``None`` shows the images.
            Statistics and memories are of the images in any case.

    Yields:
        TrainingStep: ``iterations`` steps for each member of each scale, coarse to fine.

    Raises:
        ValueError: If an image has pixels that are not finite.
    """
    for index, image in enumerate(images):
        if not image.isfinite().all():
            msg = f"images: number {index} has pixels that are NaN or infinite; allowed are finite values"
            raise ValueError(msg)
    rng = torch.Generator().manual_seed(seed)
    model.is_trained.fill_(False)
    model.num_shots.fill_(len(images))
    model.votes.requires_grad_(True)
    optimizer = configure_optimizer(model) if optimizer is None else optimizer
    model.remember_outside(images)
    votes, views, numbers = model.votes, model.reduce(images), count()
    for scale, task in enumerate(votes.tasks):
        for member, discriminator in enumerate(votes.discriminators[scale]):
            if scale:
                discriminator.load_state_dict(votes.discriminators[scale - 1][member].state_dict())
            else:
                discriminator.initialize(rng)
            crops = Crops(task(model.share_of(member, views)), PIXELS_PER_ITERATION, votes.dtype)
            for iteration in range(model.settings.iterations):
                if augment is not None:
                    augmented = model.reduce(augment(next(numbers)))
                    crops.transformed = task(model.share_of(member, augmented))
                with _one_thread():
                    loss = _step(discriminator, optimizer, *crops.draw(rng))
                yield TrainingStep(scale, member, iteration, loss)
            crops.transformed = task(model.share_of(member, views))
            discriminator.reestimate_statistics(crops.draw(rng, ITERATIONS_FOR_STATISTICS)[0])
    model.fit(views, rng)
    model.is_trained.fill_(True)
    model.requires_grad_(False)


def _step(
    discriminator: Discriminator, optimizer: Optimizer, crops: torch.Tensor, classes: torch.Tensor
) -> torch.Tensor:
    """Learn to tell the transformations of patches (Eq. 4)."""
    optimizer.zero_grad()
    logits = discriminator(crops, learning=True).float()
    loss = F.cross_entropy(logits, classes[:, None, None].expand(-1, *logits.shape[2:]))
    loss.backward()
    optimizer.step()
    return loss.detach()


class Crops:
    """Draws crops of transformed images at random.

    A discriminator votes on patches of 11x11 pixels, so it can learn from a crop as well as from a whole image. Crops
    of one size, of few images, make an iteration cost the same at every scale and for any number of shots.

    Args:
        transformed (Sequence[Transformed]): The transformed images, which may be replaced by others of their shape.
        num_pixels (int): Most pixels that are drawn of each transformation at a time, but for a single crop.
        dtype (torch.dtype): Type of the crops.
    """

    def __init__(self, transformed: Sequence[Transformed], num_pixels: int, dtype: torch.dtype) -> None:
        self.transformed, self.dtype = transformed, dtype
        self.num_images = len(transformed[0].images)
        smallest = min(each.images.shape[-1] for each in transformed)
        self.size = min(CROP_SIZE, smallest)
        self.number, self.is_whole = max(1, num_pixels // self.size**2), self.size == smallest
        self.turns = torch.empty(0, dtype=torch.long)

    def draw(self, rng: torch.Generator, times: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw crops. All images take their turn before one has another; each transformation has a place of its own.

        Args:
            rng (torch.Generator): Source of randomness, on the CPU.
            times (int): Factor of their number.

        Returns:
            tuple[torch.Tensor, torch.Tensor]: Crops of shape ``(n, 3, size, size)``, and the index of the
            transformation of each, of shape ``(n,)``.
        """
        # A crop that is the whole image is drawn of each image but once.
        number = min(times * self.number, self.num_images) if self.is_whole else times * self.number
        while len(self.turns) < number:
            self.turns = torch.cat([self.turns, torch.randperm(self.num_images, generator=rng)])
        turns, self.turns = self.turns[:number], self.turns[number:]
        drawn = [crop for each in self.transformed for crop in self._crop(each, turns.tolist(), rng)]
        classes = [index for each in self.transformed for _ in turns for index in each.classes]
        return torch.stack(drawn).to(self.dtype), torch.tensor(classes, device=drawn[0].device)

    def _crop(self, transformed: Transformed, turns: Sequence[int], rng: torch.Generator) -> Iterator[torch.Tensor]:
        """Cut one crop of each transformed image of those whose turn it is."""
        last, shape = transformed.images.shape[-1] - self.size, (len(turns), len(transformed.classes))
        rows, columns = self._choose_places(last, shape, rng), self._choose_places(last, shape, rng)
        for image, *places in zip(turns, rows.tolist(), columns.tolist(), strict=True):
            for index, (row, column) in enumerate(zip(*places, strict=True)):
                yield transformed.images[image, index, :, row : row + self.size, column : column + self.size]

    def _choose_places(self, last: int, shape: tuple[int, int], rng: torch.Generator) -> torch.Tensor:
        """Choose places from 0 to ``last``, of which the ends come so often that borders are seen as often as the rest.

        If all places came alike, the outermost patch would be seen from one place, where others are from dozens.
        """
        beyond = self.size - 2 * MARGIN - 1
        return torch.randint(-beyond, last + beyond + 1, shape, generator=rng).clamp(0, last)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute in one thread: for crops, two are no faster, and where others are at work they wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
