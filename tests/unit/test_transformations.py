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
    get_transformation_sets,
    get_transformations,
    locate_enlarged_votes,
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
def test_applies_the_steps_in_order(size: int) -> None:
    image = torch.rand(3, size, size, generator=torch.Generator().manual_seed(0))
    for transformation in FULL:
        expected = apply_in_numpy(transformation, image.numpy())
        np.testing.assert_allclose(transformation.apply(image), expected, atol=1e-6, err_msg=transformation.name)


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


@pytest.mark.parametrize("size", [25, 40])
def test_enlarged_images_show_the_same_in_more_pixels(size: int) -> None:
    rows, columns = torch.meshgrid(*[(torch.arange(size) + 0.5) / size] * 2, indexing="ij")
    enlarged = Transformation(detail="enlarge").apply(torch.stack([rows, columns, rows * columns]))
    finer = (torch.arange(round(1.5 * size)) + 0.5) / round(1.5 * size)
    inside = slice(4, -4)  # a bicubic interpolation does not go on beyond the border as a ramp does
    expected = torch.stack([*torch.meshgrid(finer, finer, indexing="ij"), finer[:, None] * finer])
    torch.testing.assert_close(enlarged[:, inside, inside], expected[:, inside, inside], atol=1e-4, rtol=0)


def test_blurred_images_keep_their_brightness_and_lose_their_detail() -> None:
    stripes = torch.tensor([0.0, 1.0]).repeat(20).expand(3, 40, 40)
    blurred = Transformation(detail="blur").apply(stripes)
    assert blurred.mean().item() == pytest.approx(0.5, abs=0.01)
    assert blurred[:, 8:-8, 8:-8].std() < 0.2 * stripes.std()
    ramp = torch.linspace(0, 1, 40).expand(3, 40, 40)
    torch.testing.assert_close(Transformation(detail="blur").apply(ramp)[..., 4:-4], ramp[..., 4:-4], atol=0.01, rtol=0)


def test_votes_on_enlarged_images_are_the_nearest() -> None:
    for size in range(11, 60):
        enlarged = round(1.5 * size)
        places = (torch.arange(enlarged - 10) + 5.5) / enlarged  # of the centres of patches, in fractions of the image
        for vote, nearest in enumerate(locate_enlarged_votes(size)):
            distances = (places - (vote + 5.5) / size).abs()
            assert distances[nearest].item() == pytest.approx(distances.min().item(), abs=1e-6)


@pytest.mark.parametrize(
    ("names", "sizes"),
    [
        ("full", [54]),
        (["full"], [54]),
        (["rotations", "sharpness"], [4, 3]),
        (["sharpness", "rotations"], [3, 4]),
        (["identity", "enlarge+flip"], [2]),
    ],
)
def test_one_or_several_sets(names: str | list[str], sizes: list[int]) -> None:
    assert [len(each) for each in get_transformation_sets(names)] == sizes


@pytest.mark.parametrize("names", [["rotations", "identity"], ["enlarge+blur", "flip"]])
def test_sets_that_make_no_sense(names: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^transformations: "):
        get_transformation_sets(names)


def test_sets_have_the_supplements_groups() -> None:
    assert {name: len(each) for name, each in TRANSFORMATION_SETS.items()} == {
        "full": 54,
        "grayscale": 42,
        "rotations": 4,
        "symmetries": 16,
        "sharpness": 3,
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
