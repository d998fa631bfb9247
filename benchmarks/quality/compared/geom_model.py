# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The transformations, the score and the training of GEOM, see ``geom.py``."""

import math
from collections.abc import Iterator
from itertools import count, islice, product

import torch
from anomalib.data import InferenceBatch
from compared.wide_resnet import WideResNet
from torch import nn
from torch.nn import functional as F
from torch.optim import Optimizer

from anomalib_htdgm.models.htdgm.pretext import translate
from anomalib_htdgm.models.precision import choose_dtype

SHIFT_FRACTION = 0.25
"""Length of a translation as a fraction of the image's side."""
TRANSFORMATIONS = list(product((False, True), (0, -1, 1), (0, -1, 1), range(4)))
"""Whether it mirrors left and right; then steps down and to the right; then quarter turns counterclockwise."""
IMAGES_AT_ONCE = 1
"""Images whose 72 copies are classified together: what lies between the layers of more would not stay in the cache."""


def transform_pixels(size: int) -> torch.Tensor:
    """Find where each pixel of a transformed image comes from: all transformations only move pixels.

    Args:
        size (int): Side of the image in pixels.

    Returns:
        torch.Tensor: Indices into the flattened image, of shape ``(72, size * size)``.
    """
    length = int(SHIFT_FRACTION * size)
    pixels = torch.arange(size * size).reshape(1, size, size)
    moved = []
    for flip, down, right, quarter_turns in TRANSFORMATIONS:
        image = pixels.flip(-1) if flip else pixels
        image = translate(image, down * length, right * length)
        moved.append(torch.rot90(image, quarter_turns, (-2, -1)).flatten())
    return torch.stack(moved)


class GeomModel(nn.Module):
    """Scores images by how well their transformations are told apart.

    The score is one minus the paper's simplified normality score, the mean probability of the right transformation. Its
    other score, by Dirichlet distributions fitted to the probabilities of the training images, cannot be estimated from
    one image.

    Args:
        image_size (int): Side in pixels that images are reduced to.
        widen (int): Factor of the network's channels.
    """

    pixels: torch.Tensor

    def __init__(self, image_size: int = 32, widen: int = 4) -> None:
        super().__init__()
        self.image_size = image_size
        self.network = WideResNet(len(TRANSFORMATIONS), widen).to(memory_format=torch.channels_last)
        self.register_buffer("pixels", transform_pixels(image_size), persistent=False)

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Score.

        Args:
            images (torch.Tensor): Images in [-1, 1] of shape ``(B, 3, H, W)``.

        Returns:
            InferenceBatch: ``pred_score`` of shape ``(B,)`` in [0, 1], high where anomalous.
        """
        scores = [self._score(each) for each in self.reduce(images).split(IMAGES_AT_ONCE)]
        return InferenceBatch(pred_score=torch.cat(scores))

    def _score(self, images: torch.Tensor) -> torch.Tensor:
        probabilities = self.classify(self.transform(images)).softmax(dim=1)
        right = probabilities.unflatten(0, (len(images), -1)).diagonal(dim1=1, dim2=2)
        return 1 - right.mean(dim=1)

    def reduce(self, images: torch.Tensor) -> torch.Tensor:
        """Resize images of shape ``(B, 3, H, W)`` to ``(B, 3, image_size, image_size)``, antialiased."""
        size = (self.image_size, self.image_size)
        return images if images.shape[-2:] == size else F.interpolate(images, size, mode="bilinear", antialias=True)

    def transform(self, images: torch.Tensor, which: torch.Tensor | None = None) -> torch.Tensor:
        """Transform images.

        Args:
            images (torch.Tensor): Images of shape ``(B, 3, image_size, image_size)``.
            which (torch.Tensor | None): Indices of those wanted of all ``B * 72`` transformed images, of shape
                ``(N,)``; ``None`` wants all of them.

        Returns:
            torch.Tensor: Transformed images of shape ``(N, 3, image_size, image_size)``, the first image's 72 first,
            in the order of :data:`TRANSFORMATIONS`.
        """
        if which is None:
            which = torch.arange(len(images) * len(TRANSFORMATIONS), device=images.device)
        sources = images[which // len(TRANSFORMATIONS)].permute(0, 2, 3, 1).flatten(1, 2)
        pixels = self.pixels[which % len(TRANSFORMATIONS)][..., None].expand_as(sources)
        return sources.gather(1, pixels).unflatten(1, images.shape[-2:]).permute(0, 3, 1, 2)

    def classify(self, transformed: torch.Tensor) -> torch.Tensor:
        """Tell which transformation was applied to each image.

        Args:
            transformed (torch.Tensor): Transformed images of shape ``(N, 3, image_size, image_size)``.

        Returns:
            torch.Tensor: Logits of shape ``(N, 72)``.
        """
        logits: torch.Tensor = self.network(transformed, choose_dtype("auto", transformed.device))
        return logits


def train(
    model: GeomModel,
    images: torch.Tensor,
    optimizer: Optimizer,
    seed: int = 0,
    epochs: int = 3,
    min_steps: int = 200,
    batch_size: int = 128,
) -> Iterator[torch.Tensor]:
    """Train a model from scratch.

    Nothing is changed until the iterator is advanced, and the model is trained when it is exhausted.

    Args:
        model (GeomModel): The model; its weights are drawn anew.
        images (torch.Tensor): Training images in [-1, 1], of shape ``(N, 3, H, W)``.
        optimizer (Optimizer): Optimiser of the model's parameters.
        seed (int): Seed of the weights and of the order of the images.
        epochs (int): Passes over all transformed images.
        min_steps (int): Least number of steps, for which there are more passes.
        batch_size (int): Transformed images of a step.

    Yields:
        torch.Tensor: Loss of each step, a detached scalar.
    """
    source = torch.Generator().manual_seed(seed)
    model.network.initialize(source)
    model.train()
    images = model.reduce(images)
    number = len(images) * len(TRANSFORMATIONS)
    steps = max(epochs * math.ceil(number / batch_size), min_steps)
    batches = (batch for _ in count() for batch in torch.randperm(number, generator=source).split(batch_size))
    for batch in islice(batches, steps):
        which = batch.to(images.device)
        loss = F.cross_entropy(model.classify(model.transform(images, which)), which % len(TRANSFORMATIONS))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.detach()
    model.eval()
