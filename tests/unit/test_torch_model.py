# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The torch model scores and localises images of any size, each for itself."""

import io
import math
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from anomalib_htdgm.models.htdgm.scoring import top_mean
from anomalib_htdgm.models.htdgm.torch_model import HtdgmModel

from .naive import score_of, votes_of
from .textures import assert_identical, make_model, shingles, train

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = 64
MakeImages = Callable[..., torch.Tensor]
EVERYTHING = {"transformations": "sharpness", "votes_from": 26, "standardize": True}
EVERYTHING |= {"memory_patches": 300, "energy_cells": 300}
WHOLE = {"gist": True, "vote": "probability", "patch_fraction": 1.0}
KINDS = pytest.mark.parametrize("kind", [{}, EVERYTHING, WHOLE], ids=["votes alone", "everything", "whole"])


def small_model(**settings: object) -> HtdgmModel:
    """Make a model of three scales, 20, 26 and 32 pixels, that votes on rotations unless told otherwise."""
    return make_model(**{"image_size": 32, "coarsest_size": 20, "width": 8, **settings})


@pytest.mark.parametrize("transformations", ["sharpness", "symmetries"])
def test_votes_score_and_localise_as_the_obvious_way_does(transformations: str) -> None:
    model = train(small_model(transformations=transformations), shingles(), iterations=5)
    image = shingles(seed=1)
    output, views = model(image), model.reduce(image)
    for scale, (task, discriminators) in enumerate(zip(model.votes.tasks, model.votes.discriminators, strict=True)):
        votes = model.votes.votes(task, discriminators, views)[0, 0]
        torch.testing.assert_close(votes, torch.cat(votes_of(model, image, scale)), atol=1e-3, rtol=0)
    score, anomaly_map = score_of(model, image)
    torch.testing.assert_close(output.pred_score, score, atol=1e-3, rtol=0)
    torch.testing.assert_close(output.anomaly_map, anomaly_map, atol=1e-3, rtol=0)


@KINDS
@pytest.mark.parametrize("size", [(64, 64), (11, 11), (256, 200), (300, 13)], ids=str)
def test_images_of_any_size(kind: dict[str, object], size: tuple[int, int], make_images: MakeImages) -> None:
    model = train(small_model(**kind), shingles())
    output = model(F.interpolate(make_images(2, 64), size, mode="bilinear"))
    assert output.pred_score.shape == (2,)
    assert output.anomaly_map.shape == (2, 1, *size)
    for result in (output.pred_score, output.anomaly_map):
        assert result.isfinite().all()
        assert result.min() >= 0
    assert output.anomaly_map.max() > 0


@KINDS
def test_scores_do_not_depend_on_the_batch_and_little_on_the_precision(kind: dict[str, object]) -> None:
    model = train(small_model(**kind), shingles(), iterations=30, rate=5e-3)
    images = torch.cat([shingles(angle=seed, seed=seed) for seed in range(8)])
    outputs = []
    for precision in ("float32", "bfloat16"):
        model.votes.precision = precision
        outputs.append(model(images))
        parts = [model(part) for part in images.split(3)]
        alone = [torch.cat(each) for each in zip(*((part.pred_score, part.anomaly_map) for part in parts), strict=True)]
        expected = [outputs[-1].pred_score, outputs[-1].anomaly_map]
        torch.testing.assert_close(alone, expected, rtol=1e-4, atol=1e-4)
    expected, output = outputs
    assert not torch.equal(output.pred_score, expected.pred_score)
    assert output.pred_score.dtype == output.anomaly_map.dtype == torch.float32
    assert (output.pred_score - expected.pred_score).abs().max() < 0.05 * expected.pred_score.std()
    assert (output.anomaly_map - expected.anomaly_map).abs().mean() < 0.05 * expected.anomaly_map.std()


def test_score_is_the_geometric_mean_of_the_signals(make_images: MakeImages) -> None:
    model = train(small_model(**EVERYTHING), shingles(), iterations=5)
    images = make_images(3, SIZE)
    views = model.reduce(images)
    tasks = zip(model.votes.tasks, model.votes.discriminators, strict=True)
    votes = torch.stack([top_mean(-model.votes.votes(*each, views)[0], 0.01).mean(dim=1) for each in tasks])
    distances = torch.stack([top_mean(each[:, 0], 0.01) for each in model.patches.distances(views)])
    energies = model.energies(views).score
    scores = torch.stack([votes.mean(dim=0), distances.log().mean(dim=0).exp(), energies])
    torch.testing.assert_close(model(images).pred_score, scores.log().mean(dim=0).exp())


def test_gist_multiplies_how_improbable_the_right_answers_are(make_images: MakeImages) -> None:
    model = train(small_model(**WHOLE), shingles(), iterations=5)
    images = make_images(3, SIZE)
    views = model.reduce(images)
    tasks = zip(model.votes.tasks, model.votes.discriminators, strict=True)
    probabilities = torch.stack([model.votes.votes(*each, views)[0].exp().mean(dim=(1, 2, 3)) for each in tasks])
    expected = (model.gist(views).score / probabilities.mean(dim=0)).sqrt()
    torch.testing.assert_close(model(images).pred_score, expected)


def test_members_score_on_average_as_each_of_them_alone(make_images: MakeImages) -> None:
    shots, images = torch.cat([shingles(), shingles(seed=1)]), make_images(3, SIZE)
    model = train(small_model(num_members=2), shots, iterations=5)
    alone = []
    for member in range(2):
        single = train(small_model(), shots, iterations=1)
        for scale in range(3):
            (only,) = single.votes.discriminators[scale]
            only.load_state_dict(model.votes.discriminators[scale][member].state_dict())
        alone.append(single(images).pred_score)
    torch.testing.assert_close(model(images).pred_score, torch.stack(alone).mean(dim=0))
    for shot, other in ((0, 1), (1, 0)):  # which has not seen it
        torch.testing.assert_close(model.score_unseen(images[:1], shot).pred_score, alone[other][:1])


def test_there_is_no_such_training_image() -> None:
    model = train(small_model(k_shot=3), torch.cat([shingles(), shingles(seed=1)]))
    for shot in (-1, 2):
        with pytest.raises(ValueError, match=f"^shot: got {shot}; allowed are 0 to 1"):
            model.score_unseen(shingles(), shot)


@KINDS
def test_state_dict_holds_the_whole_model(kind: dict[str, object], make_images: MakeImages) -> None:
    model = train(small_model(**kind), torch.cat([shingles(), shingles(seed=1)]))
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    fresh = small_model(**kind).eval()
    with pytest.raises(RuntimeError, match="not been trained"):
        fresh(shingles())
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert_identical(fresh(make_images(3, SIZE)), model(make_images(3, SIZE)))
    with pytest.raises(RuntimeError, match=r"^score_unseen: the model was loaded"):
        fresh.score_unseen(shingles(), 0)


@pytest.mark.training
class TestDefects:
    """Defects on images that the model has not seen."""

    # Energies do not tell how a part is turned, which these defects are made of: test_energies.py has others.
    KINDS = ({}, EVERYTHING | {"energy_cells": 0, "transformations": "rotations"})

    @pytest.fixture(scope="class", params=KINDS, ids=["votes alone", "and patches"])
    def model(self, request: pytest.FixtureRequest) -> HtdgmModel:
        # After 30 iterations a map's maximum on a defect is 2.7 to 85 times that on a good image, by the seed.
        return train(small_model(**request.param), shingles(), iterations=60, rate=5e-3)

    @pytest.mark.parametrize("defect", ["rotated by 45 degrees", "upside down", "noise"])
    @pytest.mark.parametrize("position", [(8, 8), (24, 24), (36, 40)], ids=str)
    def test_scored_and_found(
        self, model: HtdgmModel, defect: str, position: tuple[int, int], make_images: MakeImages
    ) -> None:
        other = {
            "rotated by 45 degrees": shingles(angle=0.3 + math.pi / 4, seed=2),
            "upside down": shingles(angle=0.3 + math.pi, seed=2),
            "noise": make_images(1, SIZE),
        }[defect]
        clean = shingles(seed=1)
        rows, columns = (slice(start, start + 16) for start in position)
        damaged = clean.clone()
        damaged[..., rows, columns] = other[..., rows, columns]

        output = model(torch.cat([clean, damaged]))
        assert output.pred_score[1] > 3 * output.pred_score[0]
        # No patch of 11 of 32 pixels has its centre in the margin: the map is that of the outermost patch there.
        peak = divmod(output.anomaly_map[1, 0].flatten().argmax().item(), SIZE)
        row, column = (min(max(each, 10), SIZE - 11) for each in peak)
        assert rows.start <= row < rows.stop
        assert columns.start <= column < columns.stop
        assert output.anomaly_map[1].max() > 2 * output.anomaly_map[0].max()

    def test_all_shots_are_normal(self) -> None:
        kinds = [shingles(angle) for angle in (0.3, 1.9, 3.5)]
        unseen = torch.cat([shingles(angle, seed=1) for angle in (0.3, 1.9, 3.5)])
        of_one, of_three = (
            train(small_model(k_shot=3, width=16), images, iterations=40, rate=5e-3)
            for images in (kinds[0], torch.cat(kinds))
        )
        scores = of_one(unseen).pred_score
        assert scores[1:].min() > 3 * scores[0]
        assert (3 * of_three(unseen).pred_score[1:] < scores[1:]).all()


def test_brightness_and_contrast_do_not_matter() -> None:
    image, changes = shingles(angle=0.5, seed=1), ((0.5, 0.4), (0.3, -0.6), (1.5, 0.0))
    images = torch.cat([image, *(gain * image + offset for gain, offset in changes)])
    as_they_are, standardized = (
        train(small_model(standardize=each), shingles(), 30, rate=5e-3)(images).pred_score for each in (False, True)
    )
    torch.testing.assert_close(standardized, standardized[:1].expand(4), rtol=1e-3, atol=0)
    assert ((as_they_are[1:] / as_they_are[0] - 1).abs() > 1e-2).all()
