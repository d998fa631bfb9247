# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What is unlike all good photographs as a whole is said, and what differs as parts do is not."""

import pytest
import torch
from skimage import data as photographs
from torchvision.transforms.v2.functional import adjust_brightness, gaussian_blur, resize, rgb_to_grayscale

from anomalib_htdgm.data.appearance import appearance_of, differences

COFFEE = torch.from_numpy(photographs.coffee().copy()).permute(2, 0, 1) / 255  # 400x600, coloured
GREY = rgb_to_grayscale(COFFEE, num_output_channels=3)
GOOD = [appearance_of(COFFEE[:, top : top + 360, 20 : top + 560]) for top in (0, 20, 40)]


@pytest.mark.parametrize(
    ("new", "said"),
    [
        (COFFEE.transpose(1, 2), "it is 400x600 pixels, the good ones 540x360, so it is squashed"),
        (torch.rand(3, 12, 2000, generator=torch.Generator().manual_seed(0)), "2000x12"),
        (torch.zeros(3, 400, 600), "darker"),
        (COFFEE * 0.1, "darker"),
        (1 - 0.1 * COFFEE, "brighter"),
        (torch.full((3, 400, 600), 0.4), "blank"),
        (gaussian_blur(COFFEE, [49, 49], [12.0, 12.0]), "blurred"),
        (resize(resize(COFFEE, [16, 24], antialias=True), [400, 600]), "blurred"),
        (GREY, "grey"),
    ],
)
def test_what_is_unlike_the_good_ones_is_said(new: torch.Tensor, said: str) -> None:
    assert any(said in each for each in differences(appearance_of(new), GOOD))


@pytest.mark.parametrize(
    "new",
    [
        COFFEE,
        COFFEE.flip(2),
        resize(COFFEE, [100, 150], antialias=True),
        adjust_brightness(COFFEE, 0.6),
        gaussian_blur(COFFEE, [9, 9], [2.0, 2.0]),
        torch.where(torch.arange(600) < 150, 0.2, COFFEE),  # a quarter of the picture is covered
    ],
)
def test_what_parts_differ_by_is_not(new: torch.Tensor) -> None:
    assert differences(appearance_of(new), GOOD) == []


def test_colour_among_grey_ones_is_said() -> None:
    assert differences(appearance_of(COFFEE), [appearance_of(GREY)]) == ["it is coloured, the good ones are grey"]


def test_without_good_ones_there_is_nothing_to_say() -> None:
    assert differences(appearance_of(COFFEE), []) == []
