# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Training is repeatable, goes from coarse to fine, and learns what it is shown."""

import math
from itertools import product

import pytest
import torch
from torch import nn

from anomalib_htdgm.models.htdgm import training
from anomalib_htdgm.models.htdgm.discriminator import Discriminator

from .textures import assert_identical, make_model, shingles, train

pytestmark = pytest.mark.usefixtures("one_thread")


def state_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@pytest.fixture(scope="module")
def two_images() -> torch.Tensor:
    return torch.cat([shingles(), -shingles(angle=2.0, seed=1) * 0.5 + 0.4])


class TestMembers:
    """Each discriminator of a scale learns from its own share of the images."""

    def test_a_member_does_not_see_the_images_of_another(self, two_images: torch.Tensor) -> None:
        models = [
            train(make_model(num_members=2), images, iterations=3)
            for images in (two_images, torch.cat([two_images[:1], shingles(seed=7)]))
        ]
        for scale in range(2):
            first, second = (model.votes.discriminators[scale] for model in models)
            assert_identical(first[0].state_dict(), second[0].state_dict())
            assert not torch.equal(first[1].last.weight, second[1].last.weight)

    def test_members_of_one_image_differ_by_their_first_weights(self) -> None:
        model = train(make_model(num_members=2), shingles(), iterations=3)
        assert all(
            not torch.equal(first.last.weight, second.last.weight) for first, second in model.votes.discriminators
        )

    def test_every_image_is_one_members(self) -> None:
        votes = make_model(num_members=3).votes
        for number in (1, 2, 3, 7):
            shares = [votes.share_of(member, torch.arange(number)).tolist() for member in range(3)]
            assert all(shares)
            assert sorted({shot for share in shares for shot in share}) == list(range(number))
            assert number < 3 or sum(map(len, shares)) == number


class TestSteps:
    """The iterator yields a step at a time, from coarse to fine, and a seed gives one model, bit for bit."""

    def test_order(self, two_images: torch.Tensor) -> None:
        model = make_model(image_size=20, num_members=3, iterations=4)
        steps = list(training.train(model, two_images))
        assert [(step.scale, step.member, step.iteration) for step in steps] == list(
            product(range(3), range(3), range(4))
        )
        assert training.count_steps(model) == len(steps)
        assert not any(step.loss.requires_grad for step in steps)

    def test_seed_alone_determines_weights_and_scores(self, two_images: torch.Tensor) -> None:
        models = []
        for global_seed, seed in ((1, 0), (2, 0), (1, 3)):
            model = make_model(energy_cells=50, memory_patches=50, votes_from=14)
            torch.manual_seed(global_seed)
            before = torch.get_rng_state()
            models.append(train(model, two_images, 3, seed))
            assert_identical(torch.get_rng_state(), before)
        first, second, other = models
        images = shingles(seed=5)
        assert_identical(second.state_dict(), first.state_dict())
        assert_identical(second(images), first(images))
        assert not torch.equal(other(images).pred_score, first(images).pred_score)

    def test_training_again_starts_from_scratch(self) -> None:
        model = train(make_model(), shingles(), iterations=3)
        expected = state_of(model)
        train(model, shingles(angle=1.0), iterations=3, seed=1)
        assert not torch.equal(
            model.votes.discriminators[0][0].last.weight, expected["votes.discriminators.0.0.last.weight"]
        )
        assert_identical(train(model, shingles(), iterations=3).state_dict(), expected)

    def test_a_step_changes_its_own_scale_only(self) -> None:
        model = make_model(iterations=1)
        (coarse,), (fine,) = model.votes.discriminators
        steps, untouched = training.train(model, shingles()), state_of(fine)
        next(steps)
        assert_identical(state_of(fine), untouched)
        trained = [each.clone() for each in coarse.parameters()]
        next(steps)
        assert_identical([*coarse.parameters()], trained)
        assert not torch.equal(fine.last.weight, untouched["last.weight"])

    def test_a_scale_starts_from_the_weights_of_the_one_before(self) -> None:
        model = train(make_model(), shingles(), iterations=1, rate=1e-12)
        (coarse,), (fine,) = model.votes.discriminators
        torch.testing.assert_close([*fine.parameters()], [*coarse.parameters()])

    def test_model_is_trained_when_the_iterator_is_exhausted(self) -> None:
        model = make_model(iterations=2)
        for _ in range(2):  # the second time, the model was trained before
            steps = training.train(model, shingles())
            for _ in range(4):
                next(steps)
                assert not model.is_trained
                with pytest.raises(RuntimeError, match="has not been trained"):
                    model(shingles())
            assert next(steps, None) is None
            assert model.is_trained


@pytest.mark.training
class TestLearning:
    """Discriminators learn to tell the transformations of the training image."""

    def test_right_transformation_is_told_at_every_scale(self) -> None:
        model = make_model(image_size=24, coarsest_size=16, width=8, transformations="symmetries")
        train(model, shingles(), iterations=160, rate=5e-3)
        views = model.reduce(shingles())
        told = [
            model.votes.votes(task, each, views).exp().mean()
            for task, each in zip(model.votes.tasks, model.votes.discriminators, strict=True)
        ]
        assert len(told) == 3
        assert min(told) > 0.75  # chance is a sixteenth

    def test_precisions_learn_alike(self, two_images: torch.Tensor) -> None:
        losses = []
        for precision in ("float32", "bfloat16"):
            model = make_model(precision=precision, width=16, iterations=30)
            losses.append([step.loss.item() for step in training.train(model, two_images)])
            assert {weight.dtype for weight in model.parameters()} == {torch.float32}
        assert losses[0] != losses[1]
        assert losses[0][29] < 0.9 * losses[0][0]
        assert losses[1][29] < 0.9 * losses[1][0]
        assert losses[1][0] == pytest.approx(losses[0][0], rel=1e-3)

    def test_constant_images_train_and_score_finitely(self) -> None:
        constant = torch.ones(1, 3, 64, 64)
        output = train(make_model(), constant, iterations=10, rate=5e-3)(torch.cat([constant, shingles()]))
        # Four equal images get the same four probabilities, whose logarithms' mean is at most that of a quarter.
        assert output.pred_score[0] > math.log(4) - 0.01
        assert output.pred_score.isfinite().all()
        assert output.anomaly_map.isfinite().all()


def test_the_loss_is_the_mean_cross_entropy_over_transformed_images(two_images: torch.Tensor) -> None:
    """Where a crop is the whole image, an iteration sees all transformed images of some shots."""
    model = make_model(image_size=13, coarsest_size=13, iterations=1)
    steps = training.train(model, two_images)
    loss = next(steps).loss
    again = make_model(image_size=13, coarsest_size=13)
    (discriminator,) = again.votes.discriminators[0]
    discriminator.initialize(torch.Generator().manual_seed(0))
    (transformed,) = again.votes.tasks[0](again.reduce(two_images))
    votes = discriminator(transformed.images.flatten(0, 1), learning=True).log_softmax(dim=1)
    right = [each[index].mean() for shot in votes.unflatten(0, (2, 4)) for index, each in enumerate(shot)]
    torch.testing.assert_close(loss, -torch.stack(right).mean())


def test_reestimated_statistics_are_those_of_the_images() -> None:
    discriminator = Discriminator(4, width=8)
    discriminator.initialize(torch.Generator().manual_seed(0))
    images = shingles()
    for _ in range(3):
        discriminator(images * 2 + 1, learning=True)
    running = discriminator(images)
    discriminator.reestimate_statistics(images)
    batch = discriminator(images, learning=True)
    torch.testing.assert_close(discriminator(images), batch, rtol=0.02, atol=1e-3)
    assert (running - batch).abs().max() > 0.1 * batch.abs().max()


@pytest.mark.parametrize("pixel", [math.nan, math.inf])
def test_images_that_are_not_finite_leave_the_model_as_it_was(pixel: float, two_images: torch.Tensor) -> None:
    model = train(make_model(), shingles(), iterations=1)
    before = state_of(model)
    with pytest.raises(ValueError, match=r"images: number 1 .*NaN or infinite"):
        next(training.train(model, torch.cat([two_images[:1], torch.full((1, 3, 64, 64), pixel)])))
    assert_identical(state_of(model), before)
    assert model(shingles()).pred_score.isfinite().all()
