# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Checkpoints of other models and versions, and altered ones: one error with the file's name."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from anomalib.data import Folder
from anomalib.models.components import AnomalibModule

from anomalib_htdgm import Devnet, Differnet, Htdgm, __version__
from anomalib_htdgm.anomalib_fixes.checkpoint import CheckpointError

from .checkpoints import WEIGHT, Alteration, load, make_padim, predict, refused, save, save_altered
from .small import make_engine, score

pytestmark = pytest.mark.thorough


@pytest.mark.parametrize("version", [None, "0.1.7", "3.0.0"])
def test_what_fits_is_loaded_whatever_version_wrote_it(
    version: str | None, tmp_path: Path, small_checkpoint: Path
) -> None:
    other = save_altered(small_checkpoint, tmp_path, lambda each: each.update(anomalib_htdgm_version=version))
    assert score(Htdgm.load_from_checkpoint(other)) == score(Htdgm.load_from_checkpoint(small_checkpoint))
    assert torch.load(small_checkpoint, weights_only=True)["anomalib_htdgm_version"] == __version__


def test_what_is_derived_from_the_model_loads_it(small_checkpoint: Path) -> None:
    class Derived(Htdgm):
        """As a user would."""

    scores = score(Htdgm.load_from_checkpoint(small_checkpoint))
    assert score(Derived.load_from_checkpoint(small_checkpoint)) == scores
    assert Derived.checkpoint_name() == "Htdgm"


@pytest.mark.parametrize("model", [Differnet, Devnet])
def test_another_model_of_this_package_is_named(model: type[AnomalibModule], small_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"{small_checkpoint}: .* of the model Htdgm; .* {model.__name__}"):
        model.load_from_checkpoint(small_checkpoint)


def test_a_model_of_anomalib_is_none_of_ours(good: Folder) -> None:
    refused(
        save(make_padim(), good),
        good,
        "it is of a model of another package; allowed are those of Htdgm",
        [load, predict],
    )


def make_older(checkpoint: dict[str, Any], version: str | None) -> None:
    checkpoint["anomalib_htdgm_version"] = version
    del checkpoint["state_dict"][WEIGHT]


def update(part: str, **values: object) -> Alteration:
    return lambda each: each[part].update(values)


def setting(**values: object) -> Alteration:
    return lambda each: each["hyper_parameters"]["settings"].update(values)


def fill(name: str, value: float) -> Alteration:
    return lambda each: each["state_dict"][name].fill_(value)


MEMORY = "model.patches.memories.0.offset"
ALTERATIONS: dict[str, tuple[Alteration, str]] = {
    "other version": (lambda each: make_older(each, "0.1.7"), "htdgm 0.1.7 wrote it, and this is 0.*Missing key"),
    "no version": (lambda each: make_older(each, None), "an unknown version, or another package, .*Missing key"),
    "later argument": (update("hyper_parameters", colour=3), "hyper_parameters: got colour"),
    "wrong argument": (setting(width=0), "width: got 0"),
    "other argument": (setting(width=5), "size mismatch for model.votes"),
    "no state": (lambda each: each.pop("state_dict"), "no state_dict"),
    "no Lightning": (lambda each: each.pop("pytorch-lightning_version"), "no pytorch-lightning_version"),
    "missing": (lambda each: each["state_dict"].pop(WEIGHT), f'Missing key.* "{WEIGHT}"'),
    "unknown": (update("state_dict", new=torch.ones(1)), 'Unexpected key.* "new"'),
    "no tensor": (update("state_dict", **{WEIGHT: "text"}), f"{WEIGHT}.*received <class 'str'>"),
    "NaN": (fill(WEIGHT, math.nan), f"{WEIGHT}: got numbers that are not finite"),
    "infinite": (fill(WEIGHT, math.inf), f"{WEIGHT}: got numbers that are not"),
    "NaN memory": (fill(MEMORY, math.nan), "offset: got numbers"),
}


@pytest.mark.parametrize("kind", ALTERATIONS)
def test_an_alteration_is_named(kind: str, small_checkpoint: Path, good: Folder) -> None:
    alteration, what = ALTERATIONS[kind]
    refused(save_altered(small_checkpoint, good.root, alteration), good, what, [load, predict])


def test_another_model_may_use_the_trainer_afterwards(good: Folder, small_checkpoint: Path) -> None:
    """The look at checkpoints belongs to the model, not to the trainer that it came by."""
    other = save(make_padim(), good)
    engine = make_engine(good.root)
    engine.predict(Htdgm(), data_path=good.root / "good", ckpt_path=small_checkpoint)
    engine.trainer.strategy.connect(make_padim())
    loaded = engine.trainer.strategy.load_checkpoint(other)
    assert any(name.startswith("model.gaussian") for name in loaded["state_dict"])
