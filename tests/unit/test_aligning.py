# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Shifted photographs are moved back to where the first good one lies; what is alike nowhere stays."""

import numpy as np
import pytest
from numpy.typing import NDArray

from anomalib_htdgm.inspection.aligning import align, find_shift, move, reference_of

HEIGHT, WIDTH = 256, 512


def part(right: int = 0, down: int = 0) -> NDArray[np.float32]:
    """Make a photograph of a dark, notched plate on a bright ground."""
    picture = np.full((3, HEIGHT, WIDTH), 0.8, np.float32)
    picture[:, 70 + down : 190 + down, 130 + right : 380 + right] = 0.3
    picture[1, 100 + down : 130 + down, 200 + right : 240 + right] = 0.9
    return picture


@pytest.mark.parametrize(("right", "down"), [(0, 0), (40, 0), (-60, 20), (8, -30)])
def test_a_shifted_part_is_moved_back(right: int, down: int) -> None:
    moved, shift = align(part(right, down), reference_of(part()))
    assert shift == (-right, -down)
    np.testing.assert_allclose(moved, part(), atol=2 / 255)


def test_what_was_not_in_the_photograph_is_as_in_the_reference() -> None:
    reference, seen = part(), part(60, 30)
    seen[:, :, :70] = 0.5
    moved, (right, down) = align(seen, reference_of(reference))
    assert (right, down) == (-60, -30)
    np.testing.assert_allclose(moved[:, down:, :], reference[:, down:, :], atol=2 / 255)
    np.testing.assert_allclose(moved[:, :, right:], reference[:, :, right:], atol=2 / 255)
    assert (moved[:, 0, 0] == seen[:, 30, 60]).all()


@pytest.mark.parametrize("kind", ["noise", "blank", "too far"])
def test_what_is_alike_nowhere_stays(kind: str) -> None:
    noise = np.random.default_rng(0).random((3, HEIGHT, WIDTH), np.float32)
    pictures = {"noise": noise, "blank": np.full_like(noise, 0.5), "too far": part(130)}
    assert find_shift(pictures[kind], reference_of(part())) == (0, 0)


def test_to_move_there_and_back_leaves_what_stayed_in_the_picture() -> None:
    picture = np.random.default_rng(0).random((2, 20, 30), np.float32)
    back = move(move(picture, 4, -3), -4, 3)
    np.testing.assert_array_equal(back[:, 3:, :26], picture[:, 3:, :26])
    assert (back[:, :3] == 0).all()
    assert (back[:, :, 26:] == 0).all()
