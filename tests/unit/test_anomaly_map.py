# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Maps are high where the anomalous patches are, whichever transformation and scale told."""

import math
from collections.abc import Callable, Sequence

import pytest
import torch

from anomalib_htdgm.models.htdgm.anomaly_map import AnomalyMapGenerator
from anomalib_htdgm.models.htdgm.networks import MARGIN
from anomalib_htdgm.models.htdgm.transformations import Transformation, get_transformations
from anomalib_htdgm.models.htdgm.votes import Localization, Votes

SIZES = (25, 32, 41)
NAMES = ["identity", "rotate90", "flip", "flip+rotate270", "rotate180", "flip+rotate90+gray", "right", "up+rotate90"]
LOCALIZATIONS = pytest.mark.parametrize("localization", ["multi_scale", "finest_scale"])
OUTPUTS = pytest.mark.parametrize("output", [(41, 41), (256, 256), (37, 123)], ids=str)


def make_votes(
    localization: Localization, transformations: str | list[str] = "rotations", sizes: Sequence[int] = SIZES
) -> Votes:
    sets, widths = [get_transformations(transformations)], [4] * len(sizes)
    return Votes(sizes, sets, widths, 1, "probability", 1.0, localization, "float32", has_fakes=False, is_alone=True)


def no_anomalies(votes: Votes, num_images: int = 1) -> list[torch.Tensor]:
    number = len(votes.transformation_sets[0])
    return [torch.zeros(num_images, number, size - 10, size - 10) for size in votes.scale_sizes]


def random_anomalies(votes: Votes) -> list[torch.Tensor]:
    source = torch.Generator().manual_seed(0)
    return [torch.rand(each.shape, generator=source) for each in no_anomalies(votes)]


def draw_map(votes: Votes, anomalies: Sequence[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
    """Draw the map of one set's anomalies, scale by scale."""
    generator = AnomalyMapGenerator(votes.scale_sizes[-1], smooth=votes.localization == "multi_scale")
    return generator([votes.locate([[each] for each in anomalies])], [1], size)


def assert_peak(anomaly_map: torch.Tensor, row: float, column: float, size: int) -> None:
    """Check that the maximum is at the pixel with this centre, given in pixels of an image of ``size`` pixels."""
    height, width = anomaly_map.shape[-2:]
    assert anomaly_map.max() > 0
    found = divmod(anomaly_map.flatten().argmax().item(), width)
    for position, length, expected in zip(found, (height, width), (row, column), strict=True):
        # Half a pixel of the finest scale, where maps are added up, and half a pixel of the map.
        tolerance = 0.5 / SIZES[-1] + 0.5 / length + 1e-6
        assert (position + 0.5) / length == pytest.approx((expected + 0.5) / size, abs=tolerance)


@OUTPUTS
@pytest.mark.parametrize("position", [(1, 1), (3, 11), (13, 13)], ids=str)
@pytest.mark.parametrize("scale", range(len(SIZES)))
def test_one_patch_is_found_at_every_scale(scale: int, position: tuple[int, int], output: tuple[int, int]) -> None:
    votes = make_votes("multi_scale")
    anomalies = no_anomalies(votes)
    row, column = position
    anomalies[scale][0, 0, row, column] = 1  # the first transformation is the identity
    (anomaly_map,) = draw_map(votes, anomalies, output)
    assert anomaly_map.shape == (1, *output)
    assert_peak(anomaly_map, row + MARGIN, column + MARGIN, SIZES[scale])


def test_the_outermost_patch_tells_of_the_border_beside_it() -> None:
    votes = make_votes("multi_scale")
    anomalies = no_anomalies(votes)
    anomalies[-1][0, 0, 0, 12] = 1
    (anomaly_map,) = draw_map(votes, anomalies, (SIZES[-1],) * 2)
    assert divmod(anomaly_map.flatten().argmax().item(), SIZES[-1]) == (0, 12 + MARGIN)


@OUTPUTS
@pytest.mark.parametrize("position", [(0, 0), (3, 25), (30, 30)], ids=str)
def test_one_patch_is_found_at_the_finest_scale(position: tuple[int, int], output: tuple[int, int]) -> None:
    votes = make_votes("finest_scale")
    anomalies = no_anomalies(votes)
    row, column = position
    anomalies[-1][0, 0, row, column] = 1
    (anomaly_map,) = draw_map(votes, anomalies, output)
    assert anomaly_map.shape == (1, *output)
    assert_peak(anomaly_map, row + MARGIN, column + MARGIN, SIZES[-1])
    if output == (41, 41):
        assert anomaly_map[0, row + MARGIN, column + MARGIN] == 0.25  # of four transformations
        assert anomaly_map.count_nonzero() == 1


@LOCALIZATIONS
@pytest.mark.parametrize("name", NAMES)
def test_patches_of_transformed_images_are_brought_back(localization: Localization, name: str) -> None:
    votes = make_votes(localization, NAMES)
    anomalies = no_anomalies(votes)
    row, column = 6, 19
    anomalies[-1][0, NAMES.index(name), row, column] = 1
    (anomaly_map,) = draw_map(votes, anomalies, (SIZES[-1],) * 2)

    # Where the centre of that patch was before the image was transformed.
    numbered = torch.arange(float(SIZES[-1] ** 2)).view(1, SIZES[-1], SIZES[-1]).expand(3, -1, -1)
    origin = Transformation.from_name(name).apply(numbered)[0, row + MARGIN, column + MARGIN].round().int().item()
    assert divmod(anomaly_map.flatten().argmax().item(), SIZES[-1]) == divmod(origin, SIZES[-1])


@pytest.mark.parametrize(("size", "kept"), [(30, 20), (50, 80), (64, 146)])  # 5 % of 400, 1600 and 2916, rounded up
@pytest.mark.parametrize("index", range(4))
def test_finest_scale_keeps_five_percent_of_each_transformation(size: int, kept: int, index: int) -> None:
    votes = make_votes("finest_scale", sizes=[size])
    (anomalies,) = no_anomalies(votes, 2)
    anomalies[:, index] = torch.rand(2, size - 10, size - 10, generator=torch.Generator().manual_seed(index)) + 0.1
    maps = draw_map(votes, [anomalies], (size, size))
    for anomaly_map, patches in zip(maps, anomalies[:, index], strict=True):
        assert anomaly_map.count_nonzero() == kept
        found = anomaly_map.flatten().sort(descending=True).values[:kept]
        torch.testing.assert_close(found, patches.flatten().sort(descending=True).values[:kept] / 4)


def test_only_the_finest_of_scales_matters_to_finest_scale() -> None:
    votes = make_votes("finest_scale")
    anomalies = random_anomalies(votes)
    expected = draw_map(votes, anomalies, (50, 50))
    assert torch.equal(draw_map(votes, [10 * each for each in anomalies[:-1]] + anomalies[-1:], (50, 50)), expected)
    assert not torch.equal(draw_map(votes, [*anomalies[:-1], anomalies[-1].flip(2)], (50, 50)), expected)


def test_all_scales_and_the_worst_transformation_matter_to_multi_scale() -> None:
    votes = make_votes("multi_scale")
    anomalies = random_anomalies(votes)
    before = draw_map(votes, anomalies, (50, 50))
    for scale in range(len(SIZES)):
        changed = [each + 1 if index == scale else each for index, each in enumerate(anomalies)]
        # A third of the map, up to the border, where no patch has its centre.
        torch.testing.assert_close(draw_map(votes, changed, (50, 50)) - before, torch.full((1, 1, 50, 50), 1 / 3))
    # A transformation that is told better than another everywhere makes no difference.
    anomalies = [torch.stack([each[:, 0], *[torch.zeros_like(each[:, 0])] * 3], dim=1) for each in anomalies]
    expected = draw_map(votes, anomalies, (50, 50))
    for each in anomalies:
        each[:, 1:] = each[:, 0].min() / 2
    assert torch.equal(draw_map(votes, anomalies, (50, 50)), expected)


def test_the_papers_margin_without_votes_is_not_anomalous() -> None:
    votes = make_votes("finest_scale")
    (anomaly_map,) = draw_map(votes, [torch.ones_like(each) for each in no_anomalies(votes)], (SIZES[-1],) * 2)
    inside = anomaly_map[0, MARGIN:-MARGIN, MARGIN:-MARGIN]
    assert anomaly_map.sum().item() == pytest.approx(inside.sum().item())
    assert inside.sum().item() == pytest.approx(math.ceil(0.05 * 31**2))


def test_maps_are_multiplied_by_their_weights(make_images: Callable[..., torch.Tensor]) -> None:
    maps = make_images(2, 41)[:, :, None].abs() + 0.1  # of two images three signals' maps
    generator = AnomalyMapGenerator(41, smooth=False)
    scales = [[maps[:, index]] for index in range(3)]
    logarithms = [weight * maps[:, index].log() for index, weight in enumerate((1, 1, 4))]
    torch.testing.assert_close(generator(scales, (1, 1, 4), (41, 41)), (sum(logarithms) / 6).exp())
