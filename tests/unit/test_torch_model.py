# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The torch model scores and localises images of any size, each for itself, and refuses what makes no sense."""

import io
import math
import re
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from anomalib_htdgm.models.htdgm.equalization import equalize
from anomalib_htdgm.models.htdgm.pyramid import standardize_images
from anomalib_htdgm.models.htdgm.score import Vote, anomaly_score, patch_anomaly
from anomalib_htdgm.models.htdgm.torch_model import HtdgmModel
from anomalib_htdgm.models.htdgm.training import Training

from .textures import VOTES_ALONE, assert_identical, shingles
from .textures import train as train_for

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = 64
MakeImages = Callable[..., torch.Tensor]
EVERYTHING = {
    "transformations": ["rotations", "sharpness"],
    "members": 1,
    "votes_from": 26,
    "memory_patches": 300,
    "energy_cells": 300,
    "standardize": True,
}
WHOLE = VOTES_ALONE | {"gist": True, "vote": "probability", "patch_fraction": 1.0}


def small_model(**arguments: object) -> HtdgmModel:
    """Make a model of three scales, 20, 26 and 32 pixels, that votes on rotations unless told otherwise."""
    sizes = {"input_size": (SIZE, SIZE), "image_size": 32, "coarsest_size": 20, "width": 8}
    return HtdgmModel(**sizes | VOTES_ALONE | {"transformations": "rotations"} | arguments)


def train(model: HtdgmModel, images: torch.Tensor, iterations: int = 30) -> HtdgmModel:
    return train_for(model, images, iterations, learning_rate=5e-3)


# Energies do not tell how a part is turned, which these defects are made of: test_energies.py has others.
BUT_ENERGIES = EVERYTHING | {"energy_cells": 0}


@pytest.fixture(scope="module", params=[VOTES_ALONE, BUT_ENERGIES], ids=["votes alone", "everything"])
def model(request: pytest.FixtureRequest) -> HtdgmModel:
    # After 30 iterations a map's maximum on a defect is 2.7 to 85 times that on a good image, by the seed.
    return train(small_model(**request.param), shingles(), iterations=60)


class TestForward:
    """Scores and maps of images, each for itself."""

    @pytest.fixture(scope="class", params=[VOTES_ALONE, EVERYTHING, WHOLE], ids=["votes alone", "everything", "whole"])
    def model(self, request: pytest.FixtureRequest) -> HtdgmModel:
        return train(small_model(**request.param), shingles())

    @pytest.mark.parametrize("size", [(64, 64), (11, 11), (256, 200), (300, 13)], ids=str)
    def test_images_of_any_size(self, model: HtdgmModel, size: tuple[int, int], make_images: MakeImages) -> None:
        images = F.interpolate(make_images(2, 64), size, mode="bilinear")
        output = model(images)
        assert output.pred_score.shape == (2,)
        assert output.anomaly_map.shape == (2, 1, *size)
        for result in (output.pred_score, output.anomaly_map):
            assert result.isfinite().all()
            assert result.min() >= 0
        assert output.anomaly_map.max() > 0

    @pytest.mark.parametrize(("size", "batch_size"), [(SIZE, 1), (91, 3)])
    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    def test_scores_do_not_depend_on_the_batch(
        self, model: HtdgmModel, size: int, batch_size: int, precision: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(model.votes, "precision", precision)
        images = torch.cat([shingles(angle=seed, seed=seed, size=size) for seed in range(8)])
        expected = model(images)
        parts = [model(part) for part in images.split(batch_size)]
        alone = [
            torch.cat(each) for each in ([part.pred_score for part in parts], [part.anomaly_map for part in parts])
        ]
        torch.testing.assert_close(alone, [expected.pred_score, expected.anomaly_map], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(model(images.flip(0)).pred_score.flip(0), expected.pred_score, rtol=1e-4, atol=1e-4)

    def test_precisions_score_alike(self, model: HtdgmModel, monkeypatch: pytest.MonkeyPatch) -> None:
        images = torch.cat([shingles(angle=seed / 2, seed=seed) for seed in range(8)])
        outputs = []
        for precision in ("float32", "bfloat16"):
            monkeypatch.setattr(model.votes, "precision", precision)
            outputs.append(model(images))
        expected, output = outputs
        assert not torch.equal(output.pred_score, expected.pred_score)
        assert output.pred_score.dtype == output.anomaly_map.dtype == torch.float32
        assert (output.pred_score - expected.pred_score).abs().max() < 0.05 * expected.pred_score.std()
        assert (output.anomaly_map - expected.anomaly_map).abs().mean() < 0.05 * expected.anomaly_map.std()

    @pytest.mark.parametrize("vote", ["probability", "log_probability"])
    def test_votes_of_members_are_averaged(self, vote: Vote, make_images: MakeImages) -> None:
        model = train(
            small_model(k_shot=2, members=3, vote=vote), torch.cat([shingles(), shingles(seed=1)]), iterations=3
        )
        images = make_images(2, SIZE)
        alone = []
        for member in range(3):
            single = small_model(vote=vote).eval().requires_grad_(False)
            for scale, discriminator in enumerate(single.votes.networks):
                discriminator.load_state_dict(model.votes.discriminators[scale][0][member].state_dict())
            alone.append(single.votes.average(single.reduce(images))[0])
        for votes, members in zip(model.votes.average(model.reduce(images))[0], zip(*alone, strict=True), strict=True):
            anomalies = torch.stack([patch_anomaly(each, vote) for each in members])
            torch.testing.assert_close(patch_anomaly(votes, vote), anomalies.mean(dim=0))
            assert (anomalies[0] - anomalies[1]).abs().max() > 0.01

    def test_score_is_the_geometric_mean_of_the_signals(self, make_images: MakeImages) -> None:
        model = train(small_model(**EVERYTHING), shingles(), iterations=5)
        images = make_images(3, SIZE)
        views = model.reduce(images)
        votes, distances = model.votes.average(views), model.patches.distances(views)
        assert [[tuple(scale.shape) for scale in each] for each in votes] == [
            [(3, number, size - 10, size - 10) for size in (26, 32)] for number in (4, 3)
        ]
        assert [tuple(scale.shape) for scale in distances] == [(3, 1, size - 4, size - 4) for size in (20, 26)]
        parts = [anomaly_score([-scale for scale in each], 0.01) for each in votes]
        of_scales = torch.stack([anomaly_score([each], 0.01) for each in distances])
        remembered = of_scales.log().mean(dim=0).exp()
        (energies,) = model.energies(views).scores
        scores = torch.stack([*parts, remembered, energies])
        torch.testing.assert_close(model(images).pred_score, scores.log().mean(dim=0).exp())

    @pytest.mark.parametrize("vote", ["probability", "log_probability"])
    def test_gist_multiplies_how_improbable_the_right_answers_are(self, vote: Vote, make_images: MakeImages) -> None:
        model = train(small_model(**WHOLE | {"vote": vote}), shingles(), iterations=5)
        images = make_images(3, SIZE)
        views = model.reduce(images)
        (votes,) = model.votes.average(views)
        means = [(each.exp() if vote == "probability" else each).mean(dim=(1, 2, 3)) for each in votes]
        mean = torch.stack(means).mean(dim=0)
        improbable = 1 / mean if vote == "probability" else -mean
        torch.testing.assert_close(model(images).pred_score, (improbable * model.gist(views).scores[0]).sqrt())

    def test_members_score_on_average_as_each_of_them_alone(self, make_images: MakeImages) -> None:
        shots, images = torch.cat([shingles(), shingles(seed=1)]), make_images(3, SIZE)
        arguments = {"transformations": "sharpness", "k_shot": 2}
        model = train(small_model(**arguments, members=2), shots, iterations=5)
        alone = []
        for member in range(2):
            single = train(small_model(**arguments), shots, iterations=1)
            for scale in range(3):
                weights = model.votes.discriminators[scale][0][member].state_dict()
                single.votes.discriminators[scale][0][0].load_state_dict(weights)
            alone.append(single(images).pred_score)
        torch.testing.assert_close(model(images).pred_score, torch.stack(alone).mean(dim=0))

    @pytest.mark.parametrize("adversarial", [False, True])
    def test_state_dict_holds_the_whole_model(self, adversarial: bool, make_images: MakeImages) -> None:
        arguments = {"adversarial": adversarial, "k_shot": 2, "equalization": "train"}
        arguments |= VOTES_ALONE if adversarial else EVERYTHING
        shots = torch.cat([shingles(), shingles(seed=1)])
        model = train_for(small_model(**arguments), shots, fake_weight=float(adversarial))
        file = io.BytesIO()
        torch.save(model.state_dict(), file)
        file.seek(0)
        fresh = small_model(**arguments).eval()
        fresh.load_state_dict(torch.load(file, weights_only=True))
        images = make_images(3, SIZE)
        assert_identical(fresh(images).pred_score, model(images).pred_score)
        assert_identical(fresh(images).anomaly_map, model(images).anomaly_map)
        if adversarial:
            assert_identical(fresh.sample(3), model.sample(3))
            assert_identical(fresh.reconstruct(), model.reconstruct())

    def test_state_dict_of_an_untrained_model_is_untrained(self) -> None:
        fresh = small_model().eval()
        fresh.load_state_dict(small_model().state_dict())
        with pytest.raises(RuntimeError, match="not been trained"):
            fresh(shingles())


@pytest.mark.training
class TestDefects:
    """Defects on images that the model has not seen."""

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
        of_one = train(small_model(k_shot=3, width=16), kinds[0])
        of_three = train(small_model(k_shot=3, width=16), torch.cat(kinds), iterations=40)
        assert of_one.num_shots == 1
        assert of_three.num_shots == 3
        scores = of_one(unseen).pred_score
        assert scores[1:].min() > 3 * scores[0]
        assert (3 * of_three(unseen).pred_score[1:] < scores[1:]).all()


class TestStandardization:
    """One brightness and contrast for all, where one asks for it."""

    def test_brightness_and_contrast_do_not_matter(self) -> None:
        image, changes = shingles(angle=0.5, seed=1), ((0.5, 0.4), (0.3, -0.6), (1.5, 0.0))
        images = torch.cat([image, *(gain * image + offset for gain, offset in changes)])
        as_they_are, standardized = (
            train(small_model(standardize=each, precision="float32"), shingles())(images).pred_score
            for each in (False, True)
        )
        torch.testing.assert_close(standardized, standardized[:1].expand(4), rtol=1e-3, atol=0)
        assert ((as_they_are[1:] / as_they_are[0] - 1).abs() > 1e-2).all()

    def test_images_get_mean_and_deviation(self, make_images: MakeImages) -> None:
        images = make_images(3, 20) * torch.tensor([1.0, 0.1, 0.5]).view(3, 1, 1, 1) + 0.3
        standardized = standardize_images(images)
        torch.testing.assert_close(standardized.mean(dim=(1, 2, 3)), torch.zeros(3), atol=1e-6, rtol=0)
        torch.testing.assert_close(standardized.std(dim=(1, 2, 3), correction=0), torch.full((3,), 0.5))

    def test_constant_images_stay_constant(self) -> None:
        assert standardize_images(torch.full((1, 3, 8, 8), 0.7)).abs().max() < 1e-5


class TestEqualization:
    """Histograms are equalised where one asks for it."""

    @pytest.fixture(scope="class")
    def images(self) -> torch.Tensor:
        return torch.cat([shingles() * 0.2 - 0.3, shingles(seed=1) * 0.1 + 0.3])

    def test_models_and_scores(self, images: torch.Tensor) -> None:
        none, train_only, both = (
            train(small_model(equalization=each, k_shot=2), images, iterations=3) for each in ("none", "train", "both")
        )
        assert_identical(dict(both.state_dict()), dict(train_only.state_dict()))
        weights = [each.votes.networks[0].convolutions[0].weight for each in (none, train_only)]
        assert not torch.equal(*weights)
        assert not torch.equal(both(images).pred_score, train_only(images).pred_score)
        assert_identical(both(images).pred_score, train_only(equalize(images)).pred_score)

    @pytest.mark.parametrize("size", [(11, 11), (37, 91), (64, 64)], ids=str)
    def test_contrast_grows_and_images_keep_range_and_shape(self, size: tuple[int, int], images: torch.Tensor) -> None:
        images = F.interpolate(images, size, mode="bilinear")
        equalized = equalize(images)
        assert equalized.shape == images.shape
        assert equalized.min() >= -1
        assert equalized.max() <= 1
        assert (equalized.std(dim=(1, 2, 3)) > 1.1 * images.std(dim=(1, 2, 3))).all()

    def test_hue_is_kept(self) -> None:
        gray = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1, -1) - 0.5
        equalized = equalize(gray)
        torch.testing.assert_close(equalized, equalized[:, :1].expand(-1, 3, -1, -1), atol=1e-6, rtol=0)
        red = torch.cat([gray[:, :1], torch.full_like(gray[:, 1:], -1)], dim=1)
        torch.testing.assert_close(equalize(red)[:, 1:], torch.full_like(gray[:, 1:], -1), atol=1e-6, rtol=0)


class TestArguments:
    """Arguments out of their range are named, with what was given."""

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            *(("k_shot", value) for value in (0, 1.5, "1", True, None)),
            *(("width", value) for value in (0, 8.0)),
            *(("double_width_every", value) for value in (0, 0.5)),
            *(("patch_fraction", value) for value in (0, 1.5, math.nan, "x", None)),
            *(("members", value) for value in (0, None)),
            *(("memory_patches", value) for value in (-1, None)),
            *(("energy_cells", value) for value in (-1, None)),
            *(("votes_from", value) for value in (-1, 20.5)),
            *(("tiles", value) for value in (0, 1.5, True)),
            *((name, value) for name in ("vote", "localization", "equalization", "precision") for value in ("x", None)),
            *(("image_size", value) for value in (10, 64.5, "x")),
            *(("coarsest_size", value) for value in (10, 33, 25.5)),
            *(("scale_factor", value) for value in (1, 0.0, 0.999, math.nan)),
            *(
                ("transformations", value)
                for value in ("x", 3, [], ["identity"], ["identity", "rotate45"], ["flip", "flip"], ["full", "full"])
            ),
        ],
        ids=str,
    )
    def test_of_the_model(self, name: str, value: object) -> None:
        with pytest.raises(ValueError, match=f"^{name}: ") as caught:
            small_model(**{name: value})
        given = "rotate45" if value == ["identity", "rotate45"] else value
        assert repr(given) in str(caught.value)

    def test_gist_goes_without_tiles(self) -> None:
        with pytest.raises(ValueError, match=r"^gist: got True"):
            small_model(gist=True, tiles=2)

    @pytest.mark.parametrize(
        ("name", "value"),
        [("members", 2), ("standardize", True), ("transformations", ["rotations", "sharpness"]), ("tiles", 2)],
    )
    def test_that_do_not_go_with_generators(self, name: str, value: object) -> None:
        with pytest.raises(ValueError, match=rf"^{name}: got {re.escape(repr(value))} for a model with generators"):
            small_model(adversarial=True, **{name: value})

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            *(
                (f"{which}s", value)
                for which in ("iteration", "discriminator_step", "generator_step")
                for value in (0, 1.5, "x")
            ),
            *(("pixels_per_iteration", value) for value in (0, 0.5)),
            *(("learning_rate", value) for value in (0, -1e-4, math.nan, "x")),
            *((which, value) for which in ("reconstruction_weight", "fake_weight") for value in (-1, math.nan, None)),
        ],
        ids=str,
    )
    def test_of_the_training(self, name: str, value: object) -> None:
        with pytest.raises(ValueError, match=f"^{re.escape(name)}: got {re.escape(repr(value))};"):
            Training(**{name: value})

    @pytest.mark.parametrize(
        ("votes_from", "voting", "remembering"),
        [(0, [20, 26, 32], []), (20, [20, 26, 32], [20]), (27, [32], [20, 26]), (100, [32], [20, 26, 32])],
    )
    def test_coarse_scales_remember_and_fine_ones_vote(
        self, votes_from: int, voting: list[int], remembering: list[int]
    ) -> None:
        model = train(small_model(votes_from=votes_from, memory_patches=5), shingles(), iterations=1)
        assert [scale.shape[-1] + 10 for scale in model.votes.average(model.reduce(shingles()))[0]] == voting
        assert ([] if model.patches is None else model.patches.sizes) == remembering

    def test_limits_are_legal(self) -> None:
        small_model(k_shot=1, width=1, patch_fraction=1, image_size=11, coarsest_size=11, double_width_every=1)
        small_model(patch_fraction=1e-9, scale_factor=0.01, transformations=["flip", "identity"])
        Training(iterations=1, discriminator_steps=1, generator_steps=1, reconstruction_weight=0, fake_weight=0)
