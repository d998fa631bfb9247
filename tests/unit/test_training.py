# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Training is repeatable, goes from coarse to fine as published, and learns what it is shown."""

import math
from itertools import product

import pytest
import torch
from torch import nn

from anomalib_htdgm import Htdgm
from anomalib_htdgm.models.htdgm.torch_model import HtdgmModel
from anomalib_htdgm.models.htdgm.training import Training

from .textures import VOTES_ALONE, assert_identical, shingles, train

pytestmark = pytest.mark.usefixtures("one_thread")

TWO_KINDS = pytest.mark.parametrize("fake_weight", [0.0, 1.0], ids=["discriminators", "adversarial"])


def tiny_model(**arguments: object) -> HtdgmModel:
    """Make a model of two scales, 13 and 16 pixels, that votes on rotations only."""
    sizes = {"input_size": (32, 32), "image_size": 16, "coarsest_size": 13, "width": 4}
    return HtdgmModel(**sizes | VOTES_ALONE | {"transformations": "rotations"} | arguments)


def state_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@pytest.fixture(scope="module")
def two_images() -> torch.Tensor:
    return torch.cat([shingles(), -shingles(angle=2.0, seed=1) * 0.5 + 0.4])


@pytest.fixture(scope="module")
def generative_model(two_images: torch.Tensor) -> HtdgmModel:
    """A model of up to three images, trained with generators on two."""
    model = tiny_model(k_shot=3, width=8, adversarial=True)
    return train(model, two_images, iterations=30, learning_rate=5e-3, fake_weight=1.0)


class TestWindows:
    """An iteration sees windows of a few images, or all images as they are."""

    def test_windows_of_all_pixels_train_as_all_images_do(self, two_images: torch.Tensor) -> None:
        losses = []
        for pixels in (None, 2 * 16**2):  # two images at the finer scale, and no more at the coarser one
            training, model = Training(pixels_per_iteration=pixels), tiny_model(k_shot=2, precision="float32")
            losses.append([step.losses["discriminator_loss"].item() for step in training.run(model, two_images)])
        assert losses[1] == pytest.approx(losses[0], rel=5e-3)

    def test_an_iteration_costs_the_same_whatever_the_number_of_shots(self) -> None:
        """What a discriminator is shown has one size for one image and for nine, at a coarse and at a fine scale."""
        shown = []
        for k_shot in (1, 9):
            model = HtdgmModel((80, 80), k_shot, image_size=72, coarsest_size=50, width=4, memory_patches=0)
            for discriminator in model.votes.networks:
                discriminator.register_forward_pre_hook(lambda _, inputs: shown.append(sum(map(torch.numel, *inputs))))
            images = torch.cat([shingles(size=80, seed=seed) for seed in range(k_shot)])
            train(model, images, iterations=1, reestimate_statistics=False)
        assert shown[: len(shown) // 2] == shown[len(shown) // 2 :]
        assert len(set(shown[::2])) == len(set(shown[1::2])) == 1


class TestMembers:
    """Each discriminator of a scale learns from its own share of the images."""

    def test_a_member_does_not_see_the_images_of_another(self, two_images: torch.Tensor) -> None:
        models = [
            train(tiny_model(k_shot=2, members=2), images, iterations=3)
            for images in (two_images, torch.cat([two_images[:1], shingles(seed=7)]))
        ]
        for scale in range(2):
            first, second = (model.votes.discriminators[scale][0] for model in models)
            assert_identical(first[0].state_dict(), second[0].state_dict())
            assert not torch.equal(first[1].convolutions[0].weight, second[1].convolutions[0].weight)

    def test_members_of_one_image_differ_by_their_first_weights(self) -> None:
        model = train(tiny_model(members=2), shingles(), iterations=3)
        assert [step for step in range(2) if torch.equal(*_first_weights(model, step))] == []

    @pytest.mark.parametrize(("members", "fake_weight"), [(3, 0.0), (1, 1.0)])
    def test_steps_go_from_coarse_to_fine(self, members: int, fake_weight: float, two_images: torch.Tensor) -> None:
        model = tiny_model(k_shot=2, image_size=20, members=members, adversarial=fake_weight > 0)
        steps = list(Training(iterations=4, fake_weight=fake_weight).run(model, two_images))
        assert model.pyramid.sizes == [13, 17, 20]
        expected = list(product(range(3), range(members), range(4)))
        assert [(step.scale, step.member, step.iteration) for step in steps] == expected
        assert not any(loss.requires_grad for step in steps for loss in step.losses.values())


def _first_weights(model: HtdgmModel, scale: int) -> list[torch.Tensor]:
    return [each.convolutions[0].weight for each in model.votes.discriminators[scale][0]]


class TestRepeatability:
    """A seed gives one model, bit for bit."""

    @TWO_KINDS
    def test_seed_alone_determines_weights_and_scores(self, fake_weight: float, two_images: torch.Tensor) -> None:
        models = []
        for global_seed, seed in ((1, 0), (2, 0), (1, 3)):
            torch.manual_seed(global_seed)
            model = tiny_model(k_shot=2, adversarial=fake_weight > 0)
            for _ in Training(iterations=3, fake_weight=fake_weight).run(model, two_images, seed):
                torch.rand(global_seed)  # others draw from the global state meanwhile
            models.append(model)
        first, second, other = models
        images = shingles(seed=5)
        assert_identical(second.state_dict(), first.state_dict())
        assert_identical(second(images).pred_score, first(images).pred_score)
        assert_identical(second(images).anomaly_map, first(images).anomaly_map)
        assert not torch.equal(other(images).pred_score, first(images).pred_score)
        for networks in (
            zip(first.votes.networks, other.votes.networks, strict=True),
            zip(first.generators, other.generators, strict=True),
        ):
            for one, another in networks:
                assert not torch.equal(one.convolutions[0].weight, another.convolutions[0].weight)

    @TWO_KINDS
    def test_global_random_state_is_left_alone(self, fake_weight: float) -> None:
        model = tiny_model(adversarial=fake_weight > 0)
        before = torch.get_rng_state()
        train(model, shingles(), iterations=2, fake_weight=fake_weight)
        assert_identical(torch.get_rng_state(), before)

    def test_training_again_starts_from_scratch(self) -> None:
        model = train(tiny_model(), shingles(), iterations=3)
        expected = state_of(model)
        train(model, shingles(angle=1.0), iterations=3, seed=1)
        assert not torch.equal(
            model.votes.networks[0].convolutions[0].weight,
            expected["votes.discriminators.0.0.0.convolutions.0.weight"],
        )
        assert_identical(train(model, shingles(), iterations=3).state_dict(), expected)


class TestSteps:
    """The iterator yields a step at a time."""

    def test_a_step_changes_its_own_scale_only(self) -> None:
        model = tiny_model()
        steps = Training(iterations=1).run(model, shingles())
        fine = state_of(model.votes.networks[1])
        next(steps)
        coarse = state_of(model.votes.networks[0])
        assert_identical(state_of(model.votes.networks[1]), fine)
        next(steps)
        coarse_parameters = {name: coarse[name] for name, _ in model.votes.networks[0].named_parameters()}
        assert_identical(
            {name: value.detach() for name, value in model.votes.networks[0].named_parameters()},
            coarse_parameters,
        )
        assert not torch.equal(model.votes.networks[1].convolutions[0].weight, fine["convolutions.0.weight"])

    def test_model_is_trained_when_the_iterator_is_exhausted(self) -> None:
        model = tiny_model()
        for _ in range(2):  # the second time, the model was trained before
            steps = Training(iterations=2).run(model, shingles())
            for _ in range(4):
                next(steps)
                assert not model.is_trained
                with pytest.raises(RuntimeError, match="has not been trained"):
                    model(shingles())
            assert next(steps, None) is None
            assert model.is_trained

    def test_number_of_discriminator_and_generator_steps(self) -> None:
        kwargs = {"iterations": 2, "fake_weight": 1.0, "discriminator_steps": 3, "generator_steps": 2}
        training, model = Training(**kwargs), tiny_model(adversarial=True)
        optimizers = training.configure_optimizers(model)
        list(training.run(model, shingles(), optimizers=optimizers))
        taken = [next(iter(each.state.values()))["step"].item() for each in optimizers]
        assert taken == [6, 6, 4, 4]  # two iterations of two discriminators and two generators


@pytest.mark.training
class TestLearning:
    """Discriminators learn to tell the transformations of the training image."""

    @pytest.mark.parametrize(
        "transformations",
        ["rotations", ["identity", "flip", "rotate90+gray", "rotate270", "flip+right+rotate180"]],
        ids=str,
    )
    def test_right_transformation_is_told_at_every_scale(self, transformations: str | list[str]) -> None:
        sizes = {"input_size": (64, 64), "image_size": 24, "coarsest_size": 16, "width": 8}
        model = HtdgmModel(**sizes, **VOTES_ALONE, transformations=transformations)
        train(model, shingles(), iterations=80, learning_rate=5e-3)  # 40 leave 0.74 to 0.98, by seed and last digits
        votes = model.votes.average(model.reduce(shingles()))[0]
        assert len(votes) == 3
        assert all(scale.exp().mean() > 0.75 for scale in votes)  # chance is 0.25 and 0.2

    @pytest.mark.parametrize("fake_weight", [0.0, 1.0])
    def test_precisions_learn_alike(self, fake_weight: float) -> None:
        images = torch.cat([shingles(), shingles(angle=1.0, seed=3)])
        losses = []
        for precision in ("float32", "bfloat16"):
            model = tiny_model(precision=precision, width=16, adversarial=fake_weight > 0, k_shot=2)
            # With generators five times this rate leaves the 30th loss anywhere, by the seed and the last digits.
            steps = Training(iterations=30, learning_rate=1e-3, fake_weight=fake_weight).run(model, images)
            losses.append([step.losses["discriminator_loss"].item() for step in steps])
            assert {weight.dtype for weight in model.parameters()} == {torch.float32}
        assert losses[0] != losses[1]
        assert losses[0][29] < 0.5 * losses[0][0]
        assert losses[1][29] < 0.5 * losses[1][0]
        assert losses[1][0] == pytest.approx(losses[0][0], rel=1e-3)

    def test_transformations_of_an_image_without_structure_cannot_be_told(self) -> None:
        model = tiny_model(precision="float32")
        train(model, torch.zeros(1, 3, 32, 32), iterations=10, learning_rate=5e-3)
        for scale in model.votes.average(model.reduce(torch.zeros(1, 3, 32, 32)))[0]:
            torch.testing.assert_close(scale.exp(), torch.full_like(scale, 0.25), atol=0.01, rtol=0)

    @pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
    def test_constant_images_train_and_score_finitely(self, value: float) -> None:
        constant = torch.full((1, 3, 32, 32), value)
        model = train(tiny_model(transformations="full", adversarial=True), constant, fake_weight=1.0)
        output = model(torch.cat([constant, shingles(size=32)]))
        assert output.pred_score.isfinite().all()
        assert output.anomaly_map.isfinite().all()
        assert output.pred_score[0] < output.pred_score[1]

    def test_rate_of_the_discriminator_is_a_tenth_after_500_iterations(self) -> None:
        model = tiny_model(input_size=(13, 13), image_size=13, width=2, transformations=["identity", "rotate90"])
        training = Training(iterations=502, learning_rate=1e-3)
        optimizers = training.configure_optimizers(model)
        for step in training.run(model, shingles(size=13), optimizers=optimizers):
            expected = 1e-3 if step.iteration < 500 else 1e-4
            assert optimizers[0].param_groups[0]["lr"] == pytest.approx(expected)

    def test_reestimated_statistics_replace_running_averages(self) -> None:
        models = [
            train(tiny_model(), shingles(), iterations=3, reestimate_statistics=reestimated)
            for reestimated in (True, False)
        ]
        assert_identical(*(list(model.parameters()) for model in models))
        real = models[0].reduce(shingles())[models[0].pyramid.sizes[0]]
        canvases = models[0].votes.canvases[0][0].draw(real)
        reestimated, running = (model.votes.networks[0](canvases)[0] for model in models)
        batch = models[0].votes.networks[0](canvases, learning=True)[0]
        assert (reestimated - batch).abs().max() < 0.1 * (running - batch).abs().max()


class TestWidths:
    """Scales are as wide as one another, unless one asks for more."""

    def test_one_width_is_the_default(self) -> None:
        assert {network.width for network in tiny_model(image_size=20).votes.networks} == {4}
        doubled = tiny_model(image_size=20, double_width_every=1)
        assert [network.width for network in doubled.votes.networks] == [4, 8, 16]
        assert train(doubled, shingles(), iterations=1)(shingles()).pred_score.isfinite().all()


class TestGenerators:
    """Generators exist with a fake weight; they reconstruct each training image and vary it."""

    @pytest.mark.parametrize("fake_weight", [0.0, 0.5])
    def test_with_a_fake_weight_there_are_generators_and_a_fake_class(self, fake_weight: float) -> None:
        arguments = VOTES_ALONE | {"transformations": "rotations", "image_size": 16, "coarsest_size": 13, "width": 2}
        model = Htdgm(fake_weight=fake_weight, **arguments).model
        assert len(model.generators) == (2 if fake_weight else 0)
        assert {each.convolutions[-1].out_channels for each in model.votes.networks} == {5 if fake_weight else 4}
        (step, *_) = Training(iterations=1, fake_weight=fake_weight).run(model, shingles())
        others = {"fake_loss", "generator_loss", "reconstruction_loss"} if fake_weight else set()
        assert step.losses.keys() == {"discriminator_loss"} | others

    def test_each_image_has_its_own_reconstruction(
        self, generative_model: HtdgmModel, two_images: torch.Tensor
    ) -> None:
        for reconstructions, images in zip(
            generative_model.reconstruct(), generative_model.reduce(two_images).values(), strict=True
        ):
            assert reconstructions.shape == images.shape
            errors = (reconstructions[:, None] - images[None]).square().mean(dim=(2, 3, 4))
            assert (2 * errors.diagonal() < errors.flip(1).diagonal()).all()

    def test_reconstruction_uses_the_fixed_noise(self, generative_model: HtdgmModel) -> None:
        for scale in range(2):
            noise = generative_model.fixed_noise(scale)
            assert noise[2].eq(0).all()  # room for a third image that there was not
            assert torch.equal(noise[:2], noise[:1, :1].expand_as(noise[:2]))  # one channel for all of both images
            assert noise[0, 0].std().item() == pytest.approx(1, abs=0.2)
        torch.manual_seed(0)
        first = generative_model.reconstruct()
        torch.manual_seed(1)
        assert_identical(generative_model.reconstruct(), first)

    def test_samples_follow_their_seed(self, generative_model: HtdgmModel) -> None:
        first, again, other = (
            generative_model.train(mode).sample(5, seed) for mode, seed in ((False, 0), (True, 0), (False, 1))
        )
        assert [tuple(images.shape) for images in first] == [(5, 3, 13, 13), (5, 3, 16, 16)]
        assert_identical(again, first)
        for images, others in zip(first, other, strict=True):
            assert images.abs().max() <= 1
            assert images.std() > 0.05
            assert (images - others).abs().mean() > 0.01
            assert len(images.flatten(1).unique(dim=0)) == 5

    def test_picture_has_a_row_for_each_scale(self, generative_model: HtdgmModel) -> None:
        picture = generative_model.picture(num_images=4)
        assert picture.ndim == 3
        assert len(picture) == 3
        assert picture.min() >= 0
        assert picture.max() <= 1
        height, width = picture.shape[1:]
        assert 2 * 16 <= height <= 2 * 20  # two scales, and six images: two reconstructions and four samples
        assert 6 * 16 <= width <= 6 * 20
        assert not torch.equal(generative_model.picture(4, seed=1), picture)

    @pytest.mark.parametrize("call", ["sample", "reconstruct", "picture"])
    def test_sampling_needs_training_and_generators(self, call: str) -> None:
        arguments = [1] if call == "sample" else []
        for adversarial in (False, True):
            with pytest.raises(RuntimeError, match="not been trained"):
                getattr(tiny_model(adversarial=adversarial), call)(*arguments)
        with pytest.raises(RuntimeError, match=r"^fake_weight: "):
            getattr(train(tiny_model(), shingles(), iterations=1), call)(*arguments)


class TestRefusedImages:
    """Images that cannot be trained on are named, and leave the model as it was."""

    @pytest.mark.parametrize(
        ("images", "message"),
        [
            (torch.zeros(3, 3, 32, 32), "images: got 3; allowed are 1 to 2"),
            (torch.zeros(0, 3, 32, 32), "images: got 0; allowed are 1 to 2"),
            (torch.zeros(1, 3, 10, 32), "images: got 10x32 pixels; .*11x11"),
            (torch.zeros(1, 3, 32, 10), "images: got 32x10 pixels; .*11x11"),
            (torch.stack([torch.zeros(3, 32, 32), torch.full((3, 32, 32), math.nan)]), "images: number 1 .*NaN"),
            (torch.zeros(2, 3, 32, 32).index_fill(3, torch.tensor(31), math.inf), "images: number 0 .*infinite"),
        ],
        ids=["too many", "none", "too low", "too narrow", "nan", "infinite"],
    )
    def test_named(self, images: torch.Tensor, message: str) -> None:
        model = train(tiny_model(k_shot=2), shingles(), iterations=1)
        before = state_of(model)
        with pytest.raises(ValueError, match=message):
            Training(iterations=1).run(model, images)
        assert_identical(state_of(model), before)
        assert model(shingles()).pred_score.isfinite().all()
