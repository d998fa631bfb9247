# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The draw of k shots: at random, always the same; and AnomalyDINO's protocol."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import seed_everything

from anomalib_htdgm.data.few_shot import draw_shots, sorted_slice


def test_known_draws() -> None:
    """Published results stay repeatable only if these draws never change."""
    assert draw_shots(209, 5, seed=0) == [6, 25, 41, 178, 206]
    assert draw_shots(10, 3, seed=1) == [4, 7, 8]


def test_distinct_ascending_and_in_range_and_fewer_are_among_more() -> None:
    for seed in range(10):
        few, some, many = (draw_shots(50, number, seed) for number in (1, 5, 10))
        assert many == sorted(set(many))
        assert len(many) == 10
        assert set(few) < set(some) < set(many) <= set(range(50))
    assert draw_shots(3, 5, seed=0) == [0, 1, 2]


def test_neither_reads_nor_moves_global_random_states() -> None:
    for state in (1, 2):
        following = []
        for draws in (True, False):
            seed_everything(state, verbose=False)
            assert not draws or draw_shots(10, 3, seed=1) == [4, 7, 8]
            following.append((random.random(), np.random.rand(), torch.rand(1).item()))  # noqa: NPY002, S311
        assert following[0] == following[1]


def test_every_image_has_its_turn() -> None:
    counts = np.bincount([draw_shots(8, 1, seed)[0] for seed in range(400)], minlength=8)
    assert counts.min() > 25  # 50 expected, standard deviation 6.6
    assert counts.max() < 80


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((10, 0, 0), "k_shot: got 0; allowed are integers of at least 1"),
        ((10, True, 0), "k_shot: got True; allowed are integers"),
        ((0, 1, 0), "num_images: got 0; allowed are integers of at least 1"),
        ((10, 1, -1), "seed: got -1; allowed are integers of at least 0"),
    ],
)
@pytest.mark.parametrize("function", [draw_shots, sorted_slice])
def test_bad_arguments(function: Any, arguments: tuple[Any, ...], message: str) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match=message):
        function(*arguments)


@pytest.mark.parametrize(("k_shot", "seed"), [(1, 0), (1, 9), (2, 4), (3, 2), (10, 0)])
def test_is_the_slice_of_anomaly_dino(k_shot: int, seed: int) -> None:
    files = list(range(10))
    assert sorted_slice(10, k_shot, seed) == files[seed * k_shot : (seed + 1) * k_shot]


def test_a_slice_beyond_the_last_image() -> None:
    with pytest.raises(ValueError, match=r"seed is 2: .* images 8 to 11, but there are only 10\. .* seeds: 0 to 1"):
        sorted_slice(10, 4, seed=2)
    with pytest.raises(ValueError, match="Allowed seeds: none, k_shot is too large"):
        sorted_slice(3, 4, seed=0)
