# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The gist of an image is its layout, its edges and its colour, and tells how far it is from a few others."""

import math

import pytest
import torch
from torch.nn import functional as F

from anomalib_htdgm.models.htdgm.gist import Gist

SIZE = 32


@pytest.fixture
def photographs() -> torch.Tensor:
    """Six images of noise of several grains and colours, in [-1, 1]."""
    source = torch.Generator().manual_seed(0)
    grains = [torch.rand(1, 3, size, size, generator=source) for size in (4, 8, 16, 32, 5, 9)]
    images = torch.cat([F.interpolate(each, SIZE, mode="bicubic") for each in grains])
    return images.clamp(0, 1) * 2 - 1


def remember(images: torch.Tensor) -> Gist:
    gist = Gist()
    gist.fit({SIZE: images}, torch.Generator(), len(images))
    return gist


def measure(gist: Gist, images: torch.Tensor, unseen: int | None = None) -> torch.Tensor:
    opinion = gist({SIZE: images}, unseen)
    assert not opinion.scales
    return opinion.score


def slow_gist(image: torch.Tensor) -> list[float]:
    """Describe one image, of shape ``(3, 32, 32)``, pixel by pixel, with angles in place of filters."""
    red, green, blue = image
    grey = (0.2989 * red + 0.587 * green + 0.114 * blue).tolist()
    cells = image.unflatten(2, (8, 4)).unflatten(1, (8, 4)).mean(dim=(2, 4))
    layout = (cells - cells.mean()) / (cells - cells.mean()).square().mean().sqrt() / math.sqrt(2 * 192)
    colour = [float((channel - torch.tensor(grey)).mean()) / 0.27 for channel in (red, blue)]
    slopes = torch.zeros(8, SIZE, SIZE)
    for row in range(SIZE):
        for column in range(SIZE):
            right = grey[row][min(column + 1, SIZE - 1)] - grey[row][max(column - 1, 0)]
            down = grey[min(row + 1, SIZE - 1)][column] - grey[max(row - 1, 0)][column]
            for index in range(8):
                # The angle between the slope and the direction, either way round.
                angle = abs((math.atan2(down, right) - index * math.pi / 8 + math.pi / 2) % math.pi - math.pi / 2)
                beside = math.cos(math.pi / 8)
                share = max(0.0, math.cos(angle) - beside) / (1 - beside)
                slopes[index, row, column] = math.hypot(right, down) * share
    parts = slopes.unflatten(2, (4, 8)).unflatten(1, (4, 8)).mean(dim=(2, 4))
    whole, parts = slopes.mean(dim=(1, 2)).sqrt() / 0.2, parts.sqrt() / 1.5
    return [*layout.flatten().tolist(), *colour, *whole.tolist(), *parts.flatten().tolist()]


def test_equals_a_slow_loop(photographs: torch.Tensor) -> None:
    gists = Gist().describe(photographs)
    for gist, photograph in zip(gists, photographs, strict=True):
        torch.testing.assert_close(gist, torch.tensor(slow_gist(photograph)), atol=1e-4, rtol=1e-3)


def test_distance_is_over_the_variation_of_what_was_seen(photographs: torch.Tensor) -> None:
    gist = remember(photographs[:4])
    seen, new = gist.describe(photographs[:4]), gist.describe(photographs[4:])
    variances = (3 * seen.var(dim=0) + 20 * 1.5 / 330) / 23
    expected = ((new - seen.mean(dim=0)).square() / variances).mean(dim=1).sqrt()
    torch.testing.assert_close(measure(gist, photographs[4:]), expected)


def test_an_unseen_image_is_measured_by_the_others(photographs: torch.Tensor) -> None:
    for number in (2, 5):
        gist, of_others = remember(photographs[:number]), remember(photographs[1:number])
        expected = measure(of_others, photographs[:1])
        torch.testing.assert_close(measure(gist, photographs[:1], unseen=0), expected)


def test_one_image_is_enough_and_its_copies_are_near(photographs: torch.Tensor) -> None:
    gist = remember(photographs[:1])
    distances = measure(gist, photographs)
    assert distances[0] == 0
    assert distances[1:].min() > 0.5
    moved = photographs[:1].roll(1, dims=3) * 0.9
    assert 0 < measure(gist, moved) < 0.5 * distances[1:].min()


def test_blank_images_have_a_gist() -> None:
    blank = torch.zeros(2, 3, SIZE, SIZE)
    assert measure(remember(blank), blank).tolist() == [0, 0]
