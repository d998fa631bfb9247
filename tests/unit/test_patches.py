# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The memory measures how far a patch is from the most similar one of the training images, at any quarter turn."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from anomalib_htdgm.models.htdgm import patches as patches_module
from anomalib_htdgm.models.htdgm.patches import COMPONENTS, RIDGE, PatchMemory

from .textures import shingles

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = 16
MakeImages = Callable[..., torch.Tensor]


def remember(images: torch.Tensor, num_patches: int = 10**6, k_shot: int = 3, seed: int = 0) -> PatchMemory:
    memory = PatchMemory(SIZE, k_shot, num_patches)
    memory.remember(images, torch.Generator().manual_seed(seed))
    return memory


def list_patches(image: np.ndarray) -> list[np.ndarray]:
    """List all patches of 5x5 pixels of an image of shape ``(3, SIZE, SIZE)``, row by row."""
    rows = columns = range(SIZE - 4)
    return [image[:, row : row + 5, column : column + 5].flatten() for row in rows for column in columns]


def slow_whitening(images: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Compute directions and mean that whiten the patches of all turned images."""
    turned = [np.rot90(each.double().numpy(), turns, (1, 2)) for each in images for turns in range(4)]
    pixels = np.stack([patch for image in turned for patch in list_patches(image)])
    variances, directions = np.linalg.eigh(np.cov(pixels.T, bias=True))
    scales = np.sqrt(variances[-COMPONENTS:] + RIDGE * variances.mean())
    return directions[:, -COMPONENTS:] / scales, pixels.mean(axis=0)


def slow_distances(images: torch.Tensor, tests: torch.Tensor) -> np.ndarray:
    """Compute, patch by patch, the distance to the nearest patch of all turned images, by their components."""
    turned = [np.rot90(each.double().numpy(), turns, (1, 2)) for each in images for turns in range(4)]
    directions, mean = slow_whitening(images)

    def describe(image: np.ndarray) -> np.ndarray:
        return (np.stack(list_patches(image)) - mean) @ directions / np.sqrt(COMPONENTS)

    def energy_around(described: np.ndarray) -> np.ndarray:
        grid, energies = (described**2).sum(axis=1).reshape(SIZE - 4, SIZE - 4), []
        for row, column in [divmod(place, SIZE - 4) for place in range((SIZE - 4) ** 2)]:
            rows, columns = (np.clip(np.arange(middle - 1, middle + 2), 0, SIZE - 5) for middle in (row, column))
            energies.append(grid[rows][:, columns].mean())
        return np.array(energies)

    remembered = np.concatenate([describe(image) for image in turned])
    least = min(energy_around(describe(image.double().numpy())).min() for image in images)
    distances = []
    for image in tests.double().numpy():
        described = describe(image)
        nearest = [np.sqrt(((remembered - patch) ** 2).sum(axis=1)).min() for patch in described]
        distances.append(np.array(nearest) + np.maximum(np.log2(least / energy_around(described)), 0))
    return np.reshape(distances, (len(tests), 1, SIZE - 4, SIZE - 4))


@pytest.mark.parametrize("num_images", [1, 3])
def test_distances_equal_those_of_a_slow_search(num_images: int, make_images: MakeImages) -> None:
    # Grey patches have 25 components, so that none of equal variance is left out and another not.
    images, tests = (make_images(*each)[:, :1].expand(-1, 3, -1, -1) for each in ((num_images, SIZE), (2, SIZE, 1)))
    np.testing.assert_allclose(remember(images)(tests).numpy(), slow_distances(images, tests), rtol=1e-3)


def test_what_is_strange_where_good_images_differ_counts_for_less(make_images: MakeImages) -> None:
    """The left half of all images is one, the right half another one in each."""
    images = make_images(5, SIZE)
    images[..., : SIZE // 2] = images[:1, ..., : SIZE // 2]
    good, strange = images[:4], images[4:]
    memory = remember(good, k_shot=4)
    assert memory.usual[..., :3].mean() < 0.6
    assert memory.usual[..., -3:].mean() > 1.5
    torch.testing.assert_close(memory.over_usual(memory(strange)), memory(strange) / memory.usual)
    for shot, image in enumerate(good.split(1)):  # what the others tell of places is much the same
        distances = memory(image, shot)
        usual = distances / memory.over_usual(distances, are_of_unseen=True)
        assert usual[..., -3:].mean() > 1.5
        assert not torch.equal(usual, memory.usual)


def test_two_images_do_not_tell_what_is_usual_where(make_images: MakeImages) -> None:
    memory = remember(make_images(2, SIZE))
    assert torch.equal(memory.usual, torch.ones_like(memory.usual))


@pytest.mark.parametrize("unseen", [0, 2])
def test_an_unseen_image_is_compared_with_the_others_alone(unseen: int, make_images: MakeImages) -> None:
    images, tests = make_images(3, SIZE), make_images(2, SIZE, seed=1)
    memory = remember(images)
    others = remember(images)
    bank, kept = others.bank, others.bank.shots != unseen
    bank.features, bank.half_squares = bank.features[kept], bank.half_squares[kept]
    assert torch.equal(memory(tests, unseen), others(tests))
    assert memory(images[unseen : unseen + 1]).max() < 0.01
    assert memory(images[unseen : unseen + 1], unseen).mean() > 0.3  # noise is like no other noise


def test_all_tiles_of_an_unseen_image_are_left_out(make_images: MakeImages) -> None:
    tiles = make_images(6, SIZE)
    memory = PatchMemory(SIZE, 6, 10**6)
    memory.remember(tiles, torch.Generator().manual_seed(0), num_shots=2)
    seen, unseen = memory(tiles, unseen=1).flatten(1).mean(dim=1).split(3)
    assert seen.max() < 0.01
    assert unseen.min() > 0.3


def test_what_is_blank_is_far_where_no_good_patch_is(make_images: MakeImages) -> None:
    """By pixels a blank patch, the mean of all, is nearer than a good one."""
    images, tests, blank = make_images(1, SIZE), make_images(1, SIZE, seed=1), torch.zeros(1, 3, SIZE, SIZE)
    assert remember(images)(blank).min() > remember(images)(tests).max()
    assert remember(torch.cat([images, blank]))(blank).max() < 0.1


def test_a_strange_spot_is_far_and_in_its_place() -> None:
    image = shingles(size=SIZE)
    damaged = image.clone()
    damaged[..., 9, 5] += 1.5
    (distances,) = remember(image)(damaged)
    row, column = divmod(distances.flatten().argmax().item(), SIZE - 4)
    assert max(abs(row + 2 - 9), abs(column + 2 - 5)) <= 2
    distances[0, 9 - 4 : 9 + 1, 5 - 4 : 5 + 1] = 0
    assert distances.max() < 0.01


def test_of_too_many_patches_a_random_choice_is_kept(make_images: MakeImages) -> None:
    images, tests = make_images(2, SIZE), make_images(2, SIZE, seed=1)
    full, some, again, other = (
        remember(images, number, seed=seed) for number, seed in ((10**6, 0), (50, 0), (50, 0), (50, 1))
    )
    assert len(full.bank.features) == 3 * 4 * (SIZE - 4) ** 2
    assert len(some.bank.features) == 50
    assert (some(tests) > full(tests) - 1e-4).all()
    assert torch.equal(some(tests), again(tests))
    assert not torch.equal(some(tests), other(tests))


def test_of_many_images_some_patches_of_each_are_chosen_from(
    make_images: MakeImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patches_module, "UNFOLDED_PATCHES", 4 * 6 * 10)  # ten of each of six images at each turn
    images = make_images(6, SIZE)
    memory = remember(images, k_shot=6)
    assert memory.bank.half_squares.isfinite().sum() == 4 * 6 * 10
    distances = memory(images)
    upright = (distances < 0.01).sum(dim=(1, 2, 3))  # of the ten at no turn; patches of noise are like no others
    assert upright.tolist() == [10] * 6
    assert distances.median() > 0.1


def test_fewer_shots_than_places_leave_the_rest_empty(make_images: MakeImages) -> None:
    images, tests = make_images(1, SIZE), make_images(2, SIZE, seed=1)
    torch.testing.assert_close(remember(images, k_shot=3)(tests), remember(images, k_shot=1)(tests))
    memory = remember(make_images(3, SIZE, seed=2))
    memory.remember(images, torch.Generator().manual_seed(0))  # forgets what it knew
    assert torch.equal(memory(tests), remember(images)(tests))


def test_distances_of_what_is_nothing_like_good_images_fit_into_half_precision(make_images: MakeImages) -> None:
    memory = remember(0.005 * make_images(3, SIZE))
    spot = 0.005 * make_images(1, SIZE, seed=1)
    spot[..., 6:9, 6:9] = -0.8
    expected = memory(spot)
    assert expected.max() > 20  # of good ones none is above 3
    distances = memory.half()(spot.half())
    assert distances.isfinite().all()
    torch.testing.assert_close(distances.max().float(), expected.max(), rtol=0.02, atol=0)
