# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What holds of both DevNet's and DifferNet's PyTorch model, and of their arguments."""

from collections.abc import Callable

import pytest
import torch

from anomalib_htdgm import Devnet, Differnet
from anomalib_htdgm.models.devnet.torch_model import DevnetModel
from anomalib_htdgm.models.differnet.torch_model import DiffernetModel

from .textures import noise

BACKBONE = "test_resnet"
Make = Callable[[], DevnetModel | DiffernetModel]


def make_devnet(explanation: str = "gradient") -> DevnetModel:
    return DevnetModel(BACKBONE, (48, 32), explanation=explanation)


def make_differnet() -> DiffernetModel:
    model = DiffernetModel(BACKBONE, (48, 32), coupling_blocks=2, hidden_width=16, test_rotations=6, map_rotations=5)
    model.is_trained.fill_(True)
    return model


@pytest.mark.parametrize("make", [make_devnet, lambda: make_devnet("scores"), make_differnet])
def test_scores_are_of_fixed_statistics_in_any_mode(make: Make) -> None:
    model, images = make().eval(), noise(2, 3, 48, 48)
    expected, before = model(images), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    scored = model.train()(images)
    assert torch.equal(scored.pred_score, expected.pred_score)
    assert torch.equal(scored.anomaly_map, expected.anomaly_map)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("make", [make_devnet, make_differnet])
def test_initial_weights_are_the_seeds(make: Make) -> None:
    model, states = make(), []
    arguments = {"pre_trained": False} if isinstance(model, DiffernetModel) else {}
    for global_seed, seed in ((0, 1), (5, 1), (0, 2)):
        torch.manual_seed(global_seed)
        state = torch.get_rng_state()
        model.initialize(seed, **arguments)
        assert torch.equal(torch.get_rng_state(), state)
        states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    drawn = [name for name, parameter in model.named_parameters() if parameter.dim() > 1 and "perm" not in name]
    assert not any(torch.equal(states[0][name], states[2][name]) for name in drawn)


@pytest.mark.parametrize(
    ("model", "name", "value"),
    [
        *((model, name, 0) for model in (Devnet, Differnet) for name in ("epochs", "learning_rate")),
        *((model, "seed", -1) for model in (Devnet, Differnet)),
        *((Devnet, name, "none") for name in ("ranking", "explanation", "loss")),
        *((Devnet, name, 0) for name in ("batch_size", "steps_per_epoch")),
        *((Devnet, "image_sizes", value) for value in ((), (64, 16))),
        *((Devnet, name, value) for name, value in (("batch_size", 3), ("rotation", 181))),
        *((Differnet, "image_sizes", value) for value in ((), (64, 0))),
        *((Differnet, name, 0) for name in ("train_rotations", "test_rotations", "coupling_blocks", "hidden_width")),
        *((Differnet, name, value) for name, value in (("map_rotations", -1), ("weights", "file.pth"))),
    ],
)
def test_bad_arguments_are_named(model: type[Devnet | Differnet], name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: got .*(allowed|only None|at least one)"):
        model(**{"backbone": BACKBONE, "pre_trained": False, name: value})
