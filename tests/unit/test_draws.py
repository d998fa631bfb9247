# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The draw of k shots: at random, always the same."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import seed_everything

from anomalib_htdgm.data.few_shot import draw_shots


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
        ((10, 1, -1), "seed: got -1; allowed are integers of at least 0"),
    ],
)
def test_bad_arguments(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_shots(*arguments)
