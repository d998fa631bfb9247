# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Transformations apply as the supplement says, invert, and name themselves."""

from collections import Counter

import numpy as np
import pytest
import torch

from anomalib_htdgm.models.htdgm.transformations import (
    TRANSFORMATION_SETS,
    Transformation,
    get_transformations,
    shift_length,
)

FULL = TRANSFORMATION_SETS["full"]
LUMINANCE = np.array([0.299, 0.587, 0.114])[:, None, None]


def apply_in_numpy(transformation: Transformation, image: np.ndarray) -> np.ndarray:
    """Apply gray^g . rot90^d . translate(b, c) . flip^a step by step."""
    size, shift = image.shape[-1], int(0.15 * image.shape[-1])
    if transformation.flip:
        image = image[..., ::-1]
    padded = np.pad(image, [(0, 0), (shift, shift), (shift, shift)], mode="symmetric")
    top, left = shift - transformation.down * shift, shift - transformation.right * shift
    image = np.rot90(padded[:, top : top + size, left : left + size], transformation.quarter_turns, (1, 2))
    return np.broadcast_to((LUMINANCE * image).sum(0), image.shape) if transformation.grayscale else image


@pytest.mark.parametrize("size", [25, 40])
@pytest.mark.parametrize("transformation", FULL, ids=lambda each: each.name)
def test_applies_the_steps_in_order(transformation: Transformation, size: int) -> None:
    image = torch.rand(3, size, size, generator=torch.Generator().manual_seed(0))
    expected = apply_in_numpy(transformation, image.numpy())
    np.testing.assert_allclose(transformation.apply(image).numpy(), expected, atol=1e-6)


def test_translation_reflects_the_edge_pixel_too() -> None:
    row = torch.arange(20.0).expand(3, 20, 20)
    assert Transformation(right=1).apply(row)[0, 0, :6].tolist() == [2, 1, 0, 0, 1, 2]
    assert Transformation(right=-1).apply(row)[0, 0, -6:].tolist() == [17, 18, 19, 19, 18, 17]


@pytest.mark.parametrize("transformation", FULL, ids=lambda each: each.name)
def test_inverse_brings_back_all_that_was_not_pushed_out(transformation: Transformation) -> None:
    size = 40
    shift = shift_length(size)
    image = torch.arange(float(size * size)).view(1, size, size).expand(3, -1, -1)
    restored = transformation.invert(transformation.apply(image), shift)

    flipped_right = -transformation.right if transformation.flip else transformation.right
    survives = torch.zeros(size, size, dtype=torch.bool)
    rows = range(max(0, -transformation.down * shift), size - max(0, transformation.down * shift))
    columns = range(max(0, -flipped_right * shift), size - max(0, flipped_right * shift))
    survives[rows.start : rows.stop, columns.start : columns.stop] = True
    assert survives.sum() >= (size - shift) ** 2
    torch.testing.assert_close(restored[:, survives], image[:, survives])


def test_sets_have_the_supplements_groups() -> None:
    assert {name: len(each) for name, each in TRANSFORMATION_SETS.items()} == {
        "full": 54,
        "grayscale": 42,
        "rotations": 4,
        "symmetries": 16,
    }
    assert set(TRANSFORMATION_SETS["symmetries"]) <= set(FULL)
    assert not any(each.right or each.down for each in TRANSFORMATION_SETS["symmetries"])
    assert all(len(set(each)) == len(each) for each in TRANSFORMATION_SETS.values())
    assert FULL[:42] == TRANSFORMATION_SETS["grayscale"]
    turns = Counter((each.grayscale, each.quarter_turns) for each in FULL)
    # Indices 1-32 bring eight of each rotation, 33-42 ten without; 43-50 two of each, 51-54 four without.
    assert turns == {(False, 0): 18, (False, 1): 8, (False, 2): 8, (False, 3): 8} | {
        (True, 0): 6,
        (True, 1): 2,
        (True, 2): 2,
        (True, 3): 2,
    }
    translations = {(each.right, each.down) for each in FULL if not each.grayscale and not each.quarter_turns}
    assert translations == {(right, down) for right in (-1, 0, 1) for down in (-1, 0, 1)}


def test_names_identify_transformations() -> None:
    assert Transformation().name == "identity"
    assert len({each.name for each in FULL}) == len(FULL)
    assert [Transformation.from_name(each.name) for each in FULL] == FULL


def test_own_list_keeps_its_order() -> None:
    own = get_transformations(["rotate90", "identity", "flip+left+gray"])
    assert own == [
        Transformation(quarter_turns=1),
        Transformation(),
        Transformation(flip=True, right=-1, grayscale=True),
    ]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("rotation", "rotations"),
        (["identity", "rotate45"], "rotate45"),
        (["identity"], "two or more"),
        (["flip"] * 2, "different"),
    ],
)
def test_unknown_sets_are_refused(given: str | list[str], named: str) -> None:
    with pytest.raises(ValueError, match=f"transformations: .*{named}"):
        get_transformations(given)
