# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Evidence is where the defect is, colours follow the threshold, and faults of photographs are found."""

import cv2
import numpy as np
import pytest
import torch
from torchvision.transforms.v2.functional import adjust_brightness, gaussian_blur, resize

from anomalib_htdgm.inspection.colours import OF_VERDICTS, colours_of, legend, overlay
from anomalib_htdgm.inspection.evidence import box_around, crop, draw_outlines, find_similar, outline_regions
from anomalib_htdgm.inspection.photograph_faults import compare_with, faults_of, find_odd
from anomalib_htdgm.inspection.signals import NOTHING_ALONE, describe


def spots(*places: tuple[int, int, float]) -> np.ndarray:
    """Make a map with spots of some height at rows and columns of 128x128 pixels."""
    rows, columns = np.mgrid[:128, :128]
    return sum(high * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 50) for row, column, high in places)


def test_outlines_are_around_what_is_above_the_threshold() -> None:
    heat = spots((30, 90, 3.0), (100, 20, 2.0), (64, 64, 0.5))
    regions = outline_regions(heat, 1.0)
    assert len(regions) == 2  # the third spot is below the threshold
    for contour, (column, row) in zip(regions, ((90, 30), (20, 100)), strict=True):  # the strangest first
        assert cv2.pointPolygonTest(contour * 128, (column, row), measureDist=False) > 0
        assert heat[tuple((contour * 128 - 0.5).round().astype(int).T[::-1])].min() >= 1.0
    (peak,) = outline_regions(heat, 10.0, most=1)  # nothing is: around the peak
    assert np.abs(peak.mean(axis=0) * 128 - (90, 30)).max() < 2
    assert outline_regions(np.ones((8, 8)), 2.0)
    assert len(outline_regions(heat, 0.1, most=1)) == 1


def test_the_box_has_the_defect_and_the_similar_place_is_the_place_of_another_photograph() -> None:
    source = np.random.default_rng(0)
    good = [cv2.resize(source.integers(0, 256, (64, 64, 3), np.uint8), (256, 256)) for _ in range(3)]
    new = np.roll(good[1], (20, -30), axis=(0, 1))
    new[60:70, 180:190] = 255
    box = box_around(outline_regions(spots((32, 92, 3.0)), 1.0)[0])
    assert box.left < 180 / 256 < 190 / 256 < box.left + box.side
    assert box.top < 60 / 256 < 70 / 256 < box.top + box.side
    number, similar = find_similar(new, box, good)
    assert number == 1
    assert (similar.left - box.left) * 256 == pytest.approx(30, abs=1)
    assert (similar.top - box.top) * 256 == pytest.approx(-20, abs=1)
    assert crop(good[1], similar).shape == crop(new, box).shape
    assert find_similar(new, box, []) is None


def test_nothing_below_the_threshold_looks_as_what_is_above() -> None:
    values = np.linspace(0, 2, 201)
    grey = cv2.cvtColor(colours_of(values[None]), cv2.COLOR_RGB2LAB)[0, :, 0].astype(int)
    assert (np.diff(grey) >= -1).all()  # it can be read in grey
    assert grey[101] - grey[100] > 40  # with a step at the threshold
    red, _, blue = colours_of(values[None])[0].astype(int).T
    assert (red[:101] <= blue[:101]).all()  # nothing below is red, or yellow
    assert (red[102:] > blue[102:]).all()
    picture = np.full((50, 40, 3), 200, np.uint8)
    covered = overlay(picture, np.pad(np.full((2, 2), 1.5), 2))
    assert (covered[0] == 200).all()
    assert covered[25, 20, 2] < 150
    assert legend()[0] == "#{:02x}{:02x}{:02x}".format(*colours_of(np.zeros((1, 1)))[0, 0])


def test_outlines_are_drawn_in_the_verdicts_colour() -> None:
    picture = np.zeros((400, 300, 3), np.uint8)
    drawn = draw_outlines(picture, outline_regions(spots((64, 64, 2.0)), 1.0), OF_VERDICTS["anomalous"])
    assert not picture.any()
    assert (drawn == np.array([*bytes.fromhex(OF_VERDICTS["anomalous"][1:])])).all(axis=2).any()
    assert drawn[:120].sum() == 0


@pytest.fixture(scope="module")
def photographs() -> dict[str, torch.Tensor]:
    source = torch.Generator().manual_seed(0)
    coarse = [torch.rand(3, 24, 24, generator=source) * 0.8 + 0.1 for _ in range(4)]
    return {f"{number}.png": resize(each, [96, 96], antialias=True) for number, each in enumerate(coarse)}


def test_faults_of_photographs_are_said_in_sentences(photographs: dict[str, torch.Tensor]) -> None:
    new = photographs.pop("3.png")
    good = compare_with([*photographs.values()])
    white = new.clone()
    white[:, :40] = 1
    black = new.clone()
    black[:, :40] = 0
    for image, fault in (
        (gaussian_blur(new, [15, 15], [4.0, 4.0]), "It is blurred"),
        (adjust_brightness(new, 0.1), "It is much darker"),
        (white, "It is overexposed: 42% of it is white"),
        (black, "It is underexposed: 42% of it is black"),
        (new[:, :48], "It is 96x48 pixels"),
        (new.mean(dim=0, keepdim=True).expand(3, -1, -1), "It is grey, the good ones are coloured"),
        (resize(new, [40, 40], antialias=True), "It is much smaller: it has 40x40 pixels, the good ones 96x96"),
    ):
        sentences = faults_of(image, good)
        assert any(each.startswith(fault) for each in sentences), (fault, sentences)
        assert all(each.endswith(".") for each in sentences)
    for image in (new, new.flip(-1), adjust_brightness(new, 0.8), new * 0.9 + 0.05, resize(new, [70, 70])):
        assert faults_of(image, good) == []
    assert faults_of(new, compare_with([])) == []


def test_a_good_photograph_that_is_unlike_the_others_is_found() -> None:
    assert find_odd([1.0, 1.1, 2.5, 0.95]) == [2]
    assert find_odd([1.0, 1.1, 1.3, 0.9]) == []
    assert find_odd([1.0, 9.0]) == []  # of two nobody knows which


def test_the_signal_that_spoke_is_the_one_farthest_above_the_usual() -> None:
    said = {"sharpness": 6.0, "appearance": 0.9, "texture": 30.0}
    usual = {"sharpness": 2.0, "appearance": 0.1, "texture": 25.0}
    assert describe(said, usual) == "No good one has a place that looks like this (appearance is 9.0 times the usual)."
    assert describe(usual, usual) == NOTHING_ALONE
    assert describe(said, {}) == ""
