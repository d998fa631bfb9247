# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The obvious way to score by votes: every transformed image of every patch by itself, one scale after the other."""

import math

import torch
from torch.nn import functional as F

from anomalib_htdgm.models.htdgm.discriminator import MARGIN, NEGATIVE_SLOPE, Discriminator
from anomalib_htdgm.models.htdgm.pretext import TRANSFORMATIONS, Transformation, enlarged_size
from anomalib_htdgm.models.htdgm.torch_model import HtdgmModel


def convolve(network: Discriminator, images: torch.Tensor) -> torch.Tensor:
    """Pass images, shape ``(N, 3, H, W)``, through the five layers of a network, batch norm apart."""
    for convolution, norm in zip(network.hidden, network.norms, strict=True):
        images = F.leaky_relu(norm.eval()(convolution(images)), NEGATIVE_SLOPE)
    output: torch.Tensor = network.last(images)
    return output


def resize(images: torch.Tensor, size: int) -> torch.Tensor:
    return F.interpolate(images, (size, size), mode="bicubic", antialias=True)


def apply(transformation: Transformation, image: torch.Tensor, size: int) -> torch.Tensor:
    """Transform a whole image, reduced to a scale of ``size`` pixels, step by step."""
    enlarges = transformation.detail == "enlarge"
    reduced = resize(image, enlarged_size(size) if enlarges else size)
    if transformation.detail == "blur":
        reduced = resize(resize(reduced, round(size / 1.7)), size)
    if transformation.flip:
        reduced = reduced.flip(3)
    side, shift = reduced.shape[-1], int(0.15 * reduced.shape[-1])
    rows, columns = (
        [_reflect(place - shift * each, side) for place in range(side)]
        for each in (transformation.down, transformation.right)
    )
    reduced = reduced[:, :, rows][:, :, :, columns]
    for _ in range(transformation.quarter_turns):
        reduced = reduced.transpose(2, 3).flip(2)
    if transformation.grayscale:
        red, green, blue = reduced.unbind(dim=1)
        reduced = torch.stack([0.299 * red + 0.587 * green + 0.114 * blue] * 3, dim=1)
    return reduced


def _reflect(place: int, side: int) -> int:
    """Find the pixel that stands for one outside of the image, edge included: ``dcba|abcd|dcba``."""
    return -1 - place if place < 0 else min(place, 2 * side - 1 - place)


def undo(transformation: Transformation, votes: torch.Tensor) -> torch.Tensor:
    """Bring a map of votes, ``(1, h, h)``, back to where they were in the image."""
    for _ in range(transformation.quarter_turns):
        votes = votes.flip(1).transpose(1, 2)
    return votes.flip(2) if transformation.flip else votes


def votes_of(model: HtdgmModel, image: torch.Tensor, scale: int, member: int = 0) -> list[torch.Tensor]:
    """Let a member vote on every transformed image: log-probabilities of the right one, ``(1, h, h)`` each."""
    size, votes = model.settings.voting_sizes[scale], []
    for index, each in enumerate(TRANSFORMATIONS[model.settings.transformations]):
        logits = convolve(model.votes.discriminators[scale][member], apply(each, image, size))
        right = logits.log_softmax(dim=1)[:, index]
        if each.detail == "enlarge":  # the patch whose centre is nearest
            number, ratio = size - 2 * MARGIN, enlarged_size(size) / size
            nearest = [int((place + MARGIN + 0.5) * ratio - MARGIN) for place in range(number)]
            right = right[:, nearest][:, :, nearest]
        votes.append(right)
    return votes


@torch.inference_mode()
def score_of(model: HtdgmModel, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Score and localise one image by the votes of one member alone, of log-probabilities."""
    scores, maps, finest = [], [], model.settings.image_size
    for scale in range(len(model.settings.voting_sizes)):
        votes = votes_of(model, image, scale)
        kept = math.ceil(model.settings.patch_fraction * votes[0].numel())
        scores.append(torch.stack([-each.flatten().sort().values[:kept].mean() for each in votes]).mean())
        pairs = zip(TRANSFORMATIONS[model.settings.transformations], votes, strict=True)
        worst = torch.stack([-undo(*pair) for pair in pairs]).amax(dim=0)
        padded = F.pad(worst[None], [MARGIN] * 4, mode="replicate")
        maps.append(F.interpolate(padded, (finest, finest), mode="bilinear"))
    anomaly_map = model.anomaly_map_generator.blur(torch.stack(maps).mean(dim=0))
    return torch.stack(scores).mean()[None], F.interpolate(anomaly_map, image.shape[-2:], mode="bilinear")
