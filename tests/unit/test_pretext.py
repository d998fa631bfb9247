# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Transformations turn, enlarge and blur as they say, and what is said of patches comes back to where they were."""

import pytest
import torch

from anomalib_htdgm.models.htdgm.discriminator import MARGIN
from anomalib_htdgm.models.htdgm.pretext import TRANSFORMATIONS, PretextTask, enlarged_size
from anomalib_htdgm.models.htdgm.pyramid import Pyramid
from anomalib_htdgm.models.htdgm_published.transformations import TRANSFORMATION_SETS

from .naive import apply
from .textures import shingles

SIZE = 32
SETS = {**TRANSFORMATIONS, "full": TRANSFORMATION_SETS["full"]}  # the last is the published model's
EVERY_SET = pytest.mark.parametrize("name", SETS)


def transform(name: str, images: torch.Tensor) -> list[torch.Tensor]:
    """List the transformed images in the order of the classes."""
    task = PretextTask(SETS[name], SIZE)
    groups = task(Pyramid(task.sizes, images.shape[-2:])(images))
    found = {index: group.images[:, place] for group in groups for place, index in enumerate(group.classes)}
    return [found[index] for index in range(len(found))]


@EVERY_SET
def test_images_are_transformed_as_step_by_step(name: str) -> None:
    images = torch.cat([shingles(), shingles(angle=1.0, seed=1)])
    transformed = transform(name, images)
    assert len(transformed) == {"sharpness": 3, "rotations": 4, "symmetries": 16, "motions": 9, "full": 54}[name]
    for each, actual in zip(SETS[name], transformed, strict=True):
        torch.testing.assert_close(actual, apply(each, images, SIZE), atol=2e-4, rtol=0)
    for index, first in enumerate(transformed):
        assert not any(first.shape == other.shape and torch.equal(first, other) for other in transformed[:index])


@EVERY_SET
@pytest.mark.parametrize("place", [(9, 12), (13, 10)], ids=str)
def test_votes_of_patches_are_brought_back_to_their_place(name: str, place: tuple[int, int]) -> None:
    """A spot in the image is found at its place by what is read and inverted of every transformed image."""
    task, (row, column) = PretextTask(SETS[name], SIZE), place
    views = {}
    for size in task.sizes:
        ratio = size / SIZE
        views[size] = torch.zeros(1, 3, size, size)
        views[size][..., int((row + MARGIN + 0.5) * ratio), int((column + MARGIN + 0.5) * ratio)] = 1
    number = len(task.transformations)
    votes: dict[int, torch.Tensor] = {}
    for group in task(views):
        centres = group.images[:, :, :1, MARGIN:-MARGIN, MARGIN:-MARGIN]
        read = task.read(
            group.classes,
            5
            * centres.expand(-1, -1, number, -1, -1)
            * torch.eye(number)[group.classes].view(1, len(group.classes), number, 1, 1),
        )
        votes |= {index: read[:, place] for place, index in enumerate(group.classes)}
    upright = task.invert(torch.stack([votes[index] for index in range(number)], dim=1))
    for each in upright[0]:
        peak = divmod(int(each.argmax()), SIZE - 2 * MARGIN)
        assert max(abs(peak[0] - row), abs(peak[1] - column)) <= (0 if name != "sharpness" else 1)


def test_what_is_read_is_the_log_probability_of_the_right_one() -> None:
    task = PretextTask(TRANSFORMATIONS["sharpness"], SIZE)
    logits = torch.randn(2, 2, 3, SIZE - 10, SIZE - 10, generator=torch.Generator().manual_seed(0))
    read = task.read([0, 2], logits)
    for place, index in enumerate((0, 2)):
        exponentials = logits[:, place].exp()
        torch.testing.assert_close(read[:, place].exp(), exponentials[:, index] / exponentials.sum(dim=1))
    assert task.read([1], torch.zeros(1, 1, 3, *[enlarged_size(SIZE) - 10] * 2)).shape == (1, 1, SIZE - 10, SIZE - 10)
