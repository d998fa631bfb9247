# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Checkpoints of other models and versions, damaged, altered and malicious ones: one error with the file's name."""

import math
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from anomalib.cli.cli import AnomalibCLI
from anomalib.data import Folder
from anomalib.models import Padim
from anomalib.models.components import AnomalibModule
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anomalib_htdgm import Devnet, Differnet, Htdgm, __version__
from anomalib_htdgm.anomalib_fixes.checkpoint import CheckpointError

from .small import make_engine, make_small_model, score

pytestmark = pytest.mark.thorough

WEIGHT = "model.votes.discriminators.0.0.hidden.0.weight"
# Files are written anew in each example.
THOROUGHLY = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
Alteration = Callable[[dict[str, Any]], object]
Alter = Callable[[Path, Alteration], Path]


@pytest.fixture
def alter(small_checkpoint: Path) -> Alter:
    def save_altered(path: Path, alteration: Alteration) -> Path:
        checkpoint = torch.load(small_checkpoint, weights_only=True)
        alteration(checkpoint)
        torch.save(checkpoint, path)
        return path

    return save_altered


def load(path: Path, _good: Folder) -> object:
    return Htdgm.load_from_checkpoint(path)


def predict(path: Path, good: Folder) -> object:
    return make_engine(good.root).predict(Htdgm(), data_path=good.root / "good", ckpt_path=path)


def test(path: Path, good: Folder) -> object:
    return make_engine(good.root).test(Htdgm(), datamodule=good, ckpt_path=path)


def fit(path: Path, good: Folder) -> object:
    return make_engine(good.root).fit(make_small_model(), datamodule=good, ckpt_path=path)


def run_command(path: Path, good: Folder) -> object:
    arguments = ["--data", str(good.root / "good"), "--default_root_dir", str(good.root), "--ckpt_path", str(path)]
    return AnomalibCLI(["predict", "--model", "Htdgm", *arguments])


test.__test__ = False
WAYS = [load, predict, test, fit, run_command]


def refused(path: Path, good: Folder, what: str, ways: list[Callable[[Path, Folder], object]]) -> None:
    for way in ways:
        with pytest.raises(CheckpointError) as caught:
            way(path, good)
        message = str(caught.value)
        assert re.fullmatch(rf"checkpoint {re.escape(str(path))}: .*{what}.*allowed.*", message), message


class TestKept:
    """What fits is loaded."""

    @pytest.mark.parametrize("way", [predict, test, run_command])
    def test_it_loads_in_every_way(
        self, way: Callable[[Path, Folder], object], good: Folder, small_checkpoint: Path
    ) -> None:
        way(small_checkpoint, good)

    @pytest.mark.parametrize("version", [None, "0.1.7", "3.0.0"])
    def test_whatever_version_wrote_it(
        self, version: str | None, alter: Alter, tmp_path: Path, small_checkpoint: Path
    ) -> None:
        other = alter(tmp_path / "other.ckpt", lambda each: each.update(anomalib_htdgm_version=version))
        assert score(Htdgm.load_from_checkpoint(other)) == score(Htdgm.load_from_checkpoint(small_checkpoint))

    def test_it_says_which_version_wrote_it(self, small_checkpoint: Path) -> None:
        assert torch.load(small_checkpoint, weights_only=True)["anomalib_htdgm_version"] == __version__

    def test_what_is_derived_from_the_model_loads_it(self, small_checkpoint: Path) -> None:
        class Derived(Htdgm):
            """As a user would."""

        scores = score(Htdgm.load_from_checkpoint(small_checkpoint))
        assert score(Derived.load_from_checkpoint(small_checkpoint)) == scores
        assert Derived.checkpoint_name() == "Htdgm"


class TestOtherModels:
    """Checkpoints of other models."""

    @pytest.mark.parametrize("model", [Differnet, Devnet])
    def test_of_htdgm(self, model: type[AnomalibModule], small_checkpoint: Path) -> None:
        with pytest.raises(CheckpointError, match=rf"{small_checkpoint}: .* of the model Htdgm; .* {model.__name__}"):
            model.load_from_checkpoint(small_checkpoint)

    def test_of_differnet(self, good: Folder) -> None:
        model = Differnet(pre_trained=False, image_sizes=[64], coupling_blocks=1, hidden_width=4)
        refused(save(model, good), good, "of the model Differnet", [load, predict])

    def test_of_anomalib(self, good: Folder) -> None:
        padim = save(make_padim(), good)
        refused(padim, good, "of another model, or damaged: of [0-9]+ tensors it lacks", [load, predict])


def make_padim() -> Padim:
    return Padim(backbone="resnet18", layers=["layer1"], n_features=10, pre_trained=False)


def save(model: pl.LightningModule, good: Folder) -> Path:
    trainer = make_engine(good.root)
    trainer._setup_trainer(model)  # noqa: SLF001  # for the trainer that anomalib would make
    trainer.trainer.strategy.connect(model)
    trainer.trainer.save_checkpoint(good.root / "other.ckpt")
    return good.root / "other.ckpt"


def make_older(checkpoint: dict[str, Any], version: str | None) -> None:
    checkpoint["anomalib_htdgm_version"] = version
    del checkpoint["state_dict"][WEIGHT]


ALTERATIONS: dict[str, tuple[Alteration, str]] = {
    "other version": (lambda each: make_older(each, "0.1.7"), "htdgm 0.1.7 wrote it, and this is 0.*lacks 1, "),
    "no version": (
        lambda each: make_older(each, None),
        "an unknown version, or another package, wrote it, .* lacks 1, ",
    ),
    "later argument": (lambda each: each["hyper_parameters"].update(colour=3), "hyper_parameters: got colour"),
    "wrong argument": (lambda each: each["hyper_parameters"]["settings"].update(width=0), "width: got 0"),
    "other argument": (
        lambda each: each["hyper_parameters"]["settings"].update(width=5),
        r"weight: got \(4, 3, 3, 3\); ",
    ),
    "no state": (lambda each: each.pop("state_dict"), "no state_dict"),
    "no Lightning": (lambda each: each.pop("pytorch-lightning_version"), "no pytorch-lightning_version"),
    "missing": (lambda each: each["state_dict"].pop(WEIGHT), f"lacks 1, first {WEIGHT}"),
    "unknown": (lambda each: each["state_dict"].update(new=torch.ones(1)), "1 unknown ones, first new"),
    "no tensor": (lambda each: each["state_dict"].update({WEIGHT: "text"}), f"{WEIGHT}: got <class 'str'>"),
    "shots": (lambda each: each["state_dict"]["model.num_shots"].fill_(1000), "num_shots: got 1000"),
    "negative": (lambda each: each["state_dict"]["model.num_shots"].fill_(-1), "num_shots: got -1"),
    "NaN": (lambda each: each["state_dict"][WEIGHT][0].fill_(math.nan), f"{WEIGHT}: got numbers that are not finite"),
    "infinite": (lambda each: each["state_dict"][WEIGHT][0].fill_(math.inf), f"{WEIGHT}: got numbers that are not"),
    "NaN memory": (
        lambda each: each["state_dict"]["model.patches.memories.0.offset"].fill_(math.nan),
        "offset: got numbers",
    ),
}


class TestAltered:
    """Checkpoints of other versions, and with something altered."""

    @pytest.mark.parametrize("kind", ALTERATIONS)
    def test_alteration_is_named(self, kind: str, alter: Alter, good: Folder) -> None:
        alteration, what = ALTERATIONS[kind]
        refused(alter(good.root / "altered.ckpt", alteration), good, what, [load, predict])

    def test_a_list_is_no_checkpoint(self, good: Folder) -> None:
        torch.save([1, 2], good.root / "list.ckpt")
        refused(good.root / "list.ckpt", good, "no state_dict", WAYS)

    @THOROUGHLY
    @given(data=st.data())
    def test_no_tensor_may_have_another_shape(self, data: st.DataObject, alter: Alter, tmp_path: Path) -> None:
        def alteration(checkpoint: dict[str, Any]) -> None:
            names = [name for name in checkpoint["state_dict"] if name.startswith("model.")]
            name = data.draw(st.sampled_from(names))
            old = tuple(checkpoint["state_dict"][name].shape)
            shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)
            # PyTorch itself takes one number for none of dimension 0.
            shape = data.draw(shapes.filter(lambda each: each != old and not (old == () and each == (1,))))
            checkpoint["state_dict"][name] = torch.ones(shape, dtype=checkpoint["state_dict"][name].dtype)
            expected.append((name, shape, old))

        expected: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = []
        path = alter(tmp_path / "altered.ckpt", alteration)
        ((name, shape, old),) = expected
        with pytest.raises(
            CheckpointError, match=re.escape(f"{path}: {name}: got {shape}; allowed is the shape {old}")
        ):
            Htdgm.load_from_checkpoint(path)


class TestDamaged:
    """Checkpoints that have suffered on disk."""

    @pytest.mark.parametrize("content", [b"", None, b"text", pickle.dumps({"epoch": 1})])
    def test_in_every_way(self, content: bytes | None, good: Folder, small_checkpoint: Path) -> None:
        path = good.root / "damaged.ckpt"
        path.write_bytes(small_checkpoint.read_bytes()[:-1] if content is None else content)
        refused(path, good, "(truncated|empty)", [load, predict])

    def test_a_missing_file_stays_a_missing_file(self, good: Folder) -> None:
        for way in WAYS[:2]:
            with pytest.raises(FileNotFoundError, match=r"absent\.ckpt"):
                way(good.root / "absent.ckpt", good)

    @THOROUGHLY
    @given(share=st.floats(0, 1))
    def test_truncated_anywhere(self, share: float, tmp_path: Path, small_checkpoint: Path) -> None:
        path, content = tmp_path / "truncated.ckpt", small_checkpoint.read_bytes()
        path.write_bytes(content[: int(share * (len(content) - 1))])
        with pytest.raises(CheckpointError, match=re.escape(f"checkpoint {path}: it is ")):
            Htdgm.load_from_checkpoint(path)

    @THOROUGHLY
    @given(share=st.floats(0, 1), bit=st.integers(0, 7))
    def test_a_flipped_bit_is_refused_or_makes_no_difference(
        self, share: float, bit: int, tmp_path: Path, small_checkpoint: Path
    ) -> None:
        content = bytearray(small_checkpoint.read_bytes())
        content[int(share * (len(content) - 1))] ^= 1 << bit
        path = tmp_path / "flipped.ckpt"
        path.write_bytes(content)
        try:
            loaded = Htdgm.load_from_checkpoint(path)
        except CheckpointError as error:
            assert str(path) in str(error)  # noqa: PT017  # there may be none
            return
        expected = Htdgm.load_from_checkpoint(small_checkpoint)
        for name, tensor in expected.state_dict().items():
            torch.testing.assert_close(loaded.state_dict()[name], tensor, rtol=0, atol=0, equal_nan=True)
        assert dict(loaded.hparams) == dict(expected.hparams)


class Payload:
    """Creates a file as soon as it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


HIDING_PLACES: dict[str, Callable[[dict[str, Any], Payload], object]] = {
    "beside": lambda each, payload: each.update(extra=payload),
    "argument": lambda each, payload: each["hyper_parameters"].update(seed=payload),
    "callback": lambda each, payload: each["callbacks"].update(evil=payload),
    "state": lambda each, payload: each["state_dict"].update({WEIGHT: payload}),
}


class TestPayloads:
    """Pickles that would run code: it is never run, even if PyTorch is told by the environment to allow it."""

    @pytest.fixture(autouse=True)
    def permissive(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")

    def test_the_payload_works(self, alter: Alter, tmp_path: Path) -> None:
        path = alter(tmp_path / "evil.ckpt", lambda each: each.update(extra=Payload(tmp_path / "ran")))
        torch.load(path, weights_only=False)
        assert (tmp_path / "ran").exists()

    @pytest.mark.parametrize("place", HIDING_PLACES)
    def test_no_code_is_run(self, place: str, alter: Alter, good: Folder) -> None:
        ran = good.root / "ran"
        evil = alter(good.root / "evil.ckpt", lambda each: HIDING_PLACES[place](each, Payload(ran)))
        refused(
            evil, good, r"Python object \(\w+\.mkdir\), which could run code", WAYS if place == "beside" else WAYS[:2]
        )
        assert not ran.exists()

    def test_nor_where_it_is_no_archive_of_pytorch(self, good: Folder) -> None:
        ran, path = good.root / "ran", good.root / "evil.ckpt"
        path.write_bytes(pickle.dumps(Payload(ran)))
        refused(path, good, "no checkpoint", WAYS[:2])
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(Payload(ran)))
            archive.writestr("archive/version", "3\n")
        refused(path, good, "", WAYS[:2])
        assert not ran.exists()


def test_another_model_may_use_the_trainer_afterwards(good: Folder, small_checkpoint: Path) -> None:
    """The look at checkpoints belongs to the model, not to the trainer that it came by."""
    other = save(make_padim(), good)
    engine = make_engine(good.root)
    engine.predict(Htdgm(), data_path=good.root / "good", ckpt_path=small_checkpoint)
    engine.trainer.strategy.connect(make_padim())
    loaded = engine.trainer.strategy.load_checkpoint(other)
    assert any(name.startswith("model.gaussian") for name in loaded["state_dict"])
