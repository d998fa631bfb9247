# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Oriented energies: textures are told apart, however they are turned, by what good images do not agree on."""

import math

import pytest
import torch
from skimage import data as photographs
from torch.nn import functional as F

from anomalib_htdgm.models.htdgm.energies import GRID, NUM_FEATURES, SIZES, OrientedEnergies
from anomalib_htdgm.models.htdgm.pyramid import Pyramid, standardize_images
from anomalib_htdgm.models.htdgm.settings import Settings
from anomalib_htdgm.models.htdgm.signals import Views

from .textures import assert_identical

SIZE = 256
pytestmark = pytest.mark.usefixtures("one_thread")


def crops(name: str, number: int) -> torch.Tensor:
    """Cut crops of 256x256 pixels out of a photograph, of one brightness and contrast."""
    photograph = torch.from_numpy(getattr(photographs, name)().copy()).float()
    places = [(0, 0), (0, 256), (256, 0), (256, 256), (128, 128)][:number]
    images = torch.stack([photograph[top : top + SIZE, left : left + SIZE] for top, left in places])
    return standardize_images(images[:, None].expand(-1, 3, -1, -1) / 127.5 - 1)


def view(images: torch.Tensor) -> Views:
    pyramid = Pyramid(SIZES, (SIZE, SIZE))
    return pyramid(images)


def describe(energies: OrientedEnergies, images: torch.Tensor) -> torch.Tensor:
    return energies.describe([*view(images).values()])


def remember(images: torch.Tensor, num_cells: int = 2000) -> OrientedEnergies:
    energies = OrientedEnergies(Settings(k_shot=len(images), energy_cells=num_cells))
    energies.fit(view(images), torch.Generator().manual_seed(0), len(images))
    return energies


@pytest.fixture(scope="module")
def shots() -> torch.Tensor:
    return crops("brick", 3)


@pytest.fixture(scope="module")
def bricks(shots: torch.Tensor) -> OrientedEnergies:
    return remember(shots)


def test_a_wave_has_its_energy_where_it_runs() -> None:
    energies, across = OrientedEnergies(Settings()), torch.arange(SIZE)
    for orientation in range(8):
        angle = orientation * math.pi / 8
        wave = torch.cos(2 * math.pi * 0.3 * (across * math.cos(angle) + across[:, None] * math.sin(angle)))
        measured = energies._energies(wave[None, None])[0, :, 8:-8, 8:-8].mean(dim=(1, 2))  # noqa: SLF001
        assert measured.argmax() == orientation
        assert measured[(orientation + 4) % 8] < 0.1 * measured.max()


def test_energies_are_those_of_a_sum_over_pixels(shots: torch.Tensor) -> None:
    energies = OrientedEnergies(Settings())
    grey = shots[:1, :1]
    cell, values = (slice(80, 88), slice(160, 168)), []
    for cosine, sine in zip(*energies.filters.chunk(2), strict=True):
        total = 0.0
        for row in range(cell[0].start, cell[0].stop):
            for column in range(cell[1].start, cell[1].stop):
                window = grey[0, 0, row - 4 : row + 5, column - 4 : column + 5]
                total += math.hypot((window * cosine[0]).sum(), (window * sine[0]).sum())
        values.append(total / 64)
    measured = energies._energies(grey)[0, :, 10, 20]  # noqa: SLF001
    torch.testing.assert_close(measured, torch.tensor(values), atol=2e-3, rtol=1e-3)


def test_a_turned_image_has_the_same_texture_elsewhere(shots: torch.Tensor) -> None:
    energies = OrientedEnergies(Settings())
    described = describe(energies, shots[:1])
    assert described.shape == (1, NUM_FEATURES, GRID, GRID)
    turned = describe(energies, torch.rot90(shots[:1], 1, (2, 3)))
    torch.testing.assert_close(torch.rot90(described, 1, (2, 3)), turned, atol=2e-3, rtol=1e-3)


def test_distances_are_those_to_the_nearest_cell(bricks: OrientedEnergies, shots: torch.Tensor) -> None:
    images = crops("gravel", 2)
    compared = F.conv2d(describe(bricks, images), bricks.metric, bricks.offset).permute(0, 2, 3, 1).flatten(0, 2)
    cells = bricks.bank.features[:, :, 0, 0]
    expected = torch.stack([(row - cells).norm(dim=1).min() for row in compared])
    torch.testing.assert_close(bricks(view(images)).scales[0].flatten(), expected, atol=2e-3, rtol=1e-3)
    others = cells[bricks.bank.shots != 1]
    compared = F.conv2d(describe(bricks, shots[1:2]), bricks.metric, bricks.offset).permute(0, 2, 3, 1).flatten(0, 2)
    expected = torch.stack([(row - others).norm(dim=1).min() for row in compared])
    torch.testing.assert_close(bricks(view(shots[1:2]), unseen=1).scales[0].flatten(), expected, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("number", [1, 3])
def test_another_texture_is_found_in_its_place(number: int) -> None:
    energies = remember(crops("brick", number))
    image = crops("brick", 5)[4:].clone()
    good = energies(view(image)).score
    image[:, :, 96:160, 64:128] = crops("gravel", 1)[:, :, :64, :64]
    score, (distances,) = energies(view(image))
    assert score > 1.5 * good
    torch.testing.assert_close(score, distances.flatten().sort().values[-103:].mean()[None])  # a tenth of 1024
    row, column = divmod(int(distances.argmax()), GRID)
    assert 11 <= row <= 20
    assert 7 <= column <= 16


def test_an_image_scores_alike_alone_and_among_others_and_once_loaded(
    bricks: OrientedEnergies, shots: torch.Tensor
) -> None:
    together = bricks(view(shots)).scales[0]
    alone = bricks(view(shots[1:2])).scales[0]
    torch.testing.assert_close(together[1:2], alone, atol=2e-3, rtol=0)  # of what is remembered it is the root of 0
    loaded = OrientedEnergies(Settings(k_shot=len(shots), energy_cells=2000))
    loaded.load_state_dict(bricks.state_dict())
    assert torch.equal(loaded(view(shots)).scales[0], together)
    assert_identical(remember(shots).state_dict(), bricks.state_dict())


@pytest.mark.parametrize("number", [1, 2])
def test_blank_images_are_finite(number: int, shots: torch.Tensor) -> None:
    blank = torch.zeros(number, 3, SIZE, SIZE)
    energies = remember(blank)
    assert energies(view(blank)).scales[0].max() < 0.1
    assert energies(view(shots)).scales[0].isfinite().all()
    assert remember(shots[:number])(view(blank)).scales[0].isfinite().all()
