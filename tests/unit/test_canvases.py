# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Votes and losses on canvases are those on all transformed images, seen one by one."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from anomalib_htdgm.models.htdgm.canvases import Canvases
from anomalib_htdgm.models.htdgm.loss import transformation_loss
from anomalib_htdgm.models.htdgm.networks import MARGIN, Discriminator
from anomalib_htdgm.models.htdgm.transformations import (
    Transformation,
    get_transformations,
    locate_enlarged_votes,
    shift_length,
)

OWN = ["identity", "right", "right+rotate90", "left+rotate90", "flip+up", "flip+down+gray"]
DETAILS = [
    "enlarge",
    "blur+rotate90",
    "identity",
    "enlarge+right+rotate90",
    "enlarge+left+rotate90",
    "blur+flip+up+gray",
]
SETS = pytest.mark.parametrize(
    "transformations", ["full", "grayscale", "rotations", "sharpness", OWN, DETAILS], ids=str
)
MakeDiscriminator = Callable[[int], Discriminator]
MakeImages = Callable[..., torch.Tensor]


def naive_logits(
    discriminator: Discriminator, transformations: list[Transformation], images: torch.Tensor
) -> list[torch.Tensor]:
    """Show the discriminator every transformed image."""
    return [discriminator([each.apply(images)])[0] for each in transformations]


def naive_votes(
    discriminator: Discriminator, transformations: list[Transformation], images: torch.Tensor
) -> torch.Tensor:
    """Let the discriminator vote on every transformed image; on an enlarged one those votes nearest to its own."""
    votes, nearest = [], locate_enlarged_votes(images.shape[-1])
    for index, logits in enumerate(naive_logits(discriminator, transformations, images)):
        right = logits[:, : len(transformations)].log_softmax(dim=1)[:, index]
        is_enlarged = transformations[index].detail == "enlarge"
        votes.append(right[..., nearest, :][..., nearest] if is_enlarged else right)
    return torch.stack(votes, dim=1)


@SETS
@pytest.mark.parametrize("size", [26, 41])
def test_votes_equal_those_on_transformed_images(
    transformations: str | list[str], size: int, make_discriminator: MakeDiscriminator, make_images: MakeImages
) -> None:
    chosen = get_transformations(transformations)
    num_classes = len(chosen)
    discriminator, images, canvases = make_discriminator(num_classes + 1), make_images(2, size), Canvases(chosen, size)
    votes = canvases.log_probabilities(discriminator(canvases.draw(images)))

    expected = naive_votes(discriminator, chosen, images)
    assert expected.std() > 0.1  # the votes do differ from patch to patch
    torch.testing.assert_close(votes, expected, atol=1e-5, rtol=0)


@SETS
@pytest.mark.parametrize("size", [26, 41])
def test_losses_and_gradients_equal_those_on_transformed_images(
    transformations: str | list[str], size: int, make_discriminator: MakeDiscriminator, make_images: MakeImages
) -> None:
    chosen = get_transformations(transformations)
    fake = len(chosen)
    discriminator, images, canvases = make_discriminator(fake + 1), make_images(2, size), Canvases(chosen, size)
    weights = list(discriminator.parameters())

    logits = discriminator(canvases.draw(images))
    targets = [each[None] for each in canvases.targets()]
    losses = [transformation_loss(logits, targets, fake=is_fake) for is_fake in (False, True)]
    gradients = [torch.autograd.grad(each, weights, retain_graph=True) for each in losses]

    parts = naive_logits(discriminator, chosen, images)
    expected = [
        torch.stack(
            [F.cross_entropy(part, torch.full_like(part[:, 0], target, dtype=torch.long)) for target, part in pairs]
        ).mean()
        for pairs in (list(enumerate(parts)), [(fake, part) for part in parts])
    ]
    expected_gradients = [torch.autograd.grad(each, weights, retain_graph=True) for each in expected]
    torch.testing.assert_close(losses, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradients, expected_gradients, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("transformations", ["full", "rotations"])
def test_images_in_pieces_are_as_good_as_all_at_once(
    transformations: str, make_discriminator: MakeDiscriminator, make_images: MakeImages
) -> None:
    chosen, images, results = get_transformations(transformations), make_images(5, 25), []
    for images_per_chunk in (2, 5):
        canvases = Canvases(chosen, 25)
        canvases.images_per_chunk = images_per_chunk
        discriminator = make_discriminator(len(chosen) + 1)
        drawn = canvases.draw(images)
        targets = [each[None] for each in canvases.targets()] * (len(drawn) // len(canvases.groups))
        logits = discriminator(drawn, learning=True)
        total = sum(transformation_loss(logits, targets, fake=is_fake) for is_fake in (False, True))
        gradients = torch.autograd.grad(total, list(discriminator.parameters()))
        votes = canvases.log_probabilities(discriminator(drawn))
        results.append((total, gradients, votes))
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-3)


def test_enlarged_images_are_taken_with_their_detail(make_images: MakeImages) -> None:
    canvases, enlarged = Canvases(get_transformations("sharpness"), 20), make_images(2, 30, seed=1)
    drawn = [canvases.draw(make_images(2, 20), enlarged=each) for each in (None, enlarged)]
    assert torch.equal(drawn[1][0], drawn[0][0])
    assert torch.equal(drawn[1][1], enlarged)
    assert not torch.equal(drawn[0][1], enlarged)


@pytest.mark.parametrize("transformations", ["full", "grayscale", "rotations", "sharpness", OWN], ids=str)
def test_inversion_puts_votes_where_their_patches_were(transformations: str | list[str]) -> None:
    size = 41
    shift = shift_length(size)
    chosen = get_transformations(transformations)
    image = torch.arange(float(size * size)).view(1, 1, size, size).expand(1, 3, -1, -1)
    inside = slice(MARGIN, size - MARGIN)
    # A "vote" that is the number of the pixel in the centre of the patch.
    # Neither enlarging nor blurring moves a patch, but they would change the number.
    chosen = [replace(each, detail="as it is") for each in chosen]
    votes = torch.stack([each.apply(image)[:, 0, inside, inside] for each in chosen], dim=1)
    restored = Canvases(get_transformations(transformations), size).invert(votes)
    core = slice(shift, size - 2 * MARGIN - shift)  # what no translation pushes out
    expected = image[:, :1, inside, inside].expand_as(restored)
    torch.testing.assert_close(restored[..., core, core], expected[..., core, core])


def test_full_set_needs_the_pixels_of_sixteen_canvases(make_images: MakeImages) -> None:
    canvases = Canvases(get_transformations("full"), 64).draw(make_images(1, 64))
    assert sum(len(group) for group in canvases) == 16
    pixels = sum(group[:, 0].numel() for group in canvases)
    assert pixels == 3 * 82**2 + 6 * 73**2 + 7 * 64**2
    assert 2.6 < 54 * 64**2 / pixels < 2.8


def test_batch_norm_shares_statistics_among_sizes(
    make_discriminator: MakeDiscriminator, make_images: MakeImages
) -> None:
    images = make_images(4, 30)
    together, apart = make_discriminator(5), make_discriminator(5)
    expected = together([images], learning=True)[0]
    votes = torch.cat(apart([images[:1], images[1:]], learning=True))
    torch.testing.assert_close(votes, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(apart.state_dict(), together.state_dict(), atol=1e-5, rtol=1e-4)


def test_reestimated_statistics_are_those_of_the_canvases(
    make_discriminator: MakeDiscriminator, make_images: MakeImages
) -> None:
    discriminator = make_discriminator(5)
    canvases = [make_images(2, 40), make_images(3, 30, seed=1)]
    before = discriminator(canvases)
    discriminator.reestimate_statistics(canvases)
    after = discriminator(canvases)
    expected = discriminator(canvases, learning=True)
    assert not torch.allclose(before[0], expected[0], atol=0.1)
    # Running variances are unbiased, those of a batch are not: a factor of 1 / number of pixels.
    torch.testing.assert_close(after, expected, atol=1e-2, rtol=1e-2)
