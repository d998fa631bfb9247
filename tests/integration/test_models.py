# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Every model in anomalib: a seed gives one model and one set of scores, which its checkpoint keeps."""

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
import torch
import yaml
from anomalib.data import MVTecAD
from anomalib.engine import Engine
from anomalib.models import AnomalibModule

from anomalib_htdgm import Devnet, Differnet, FewLabelledAnomalies, Htdgm
from anomalib_htdgm.models.backbone import create_backbone

from .conftest import RunAnomalib, assert_equal_states
from .small import SHORT_DEVNET, SHORT_DIFFERNET, fit, make_engine

ITERATIONS = 3
SETTINGS = {"iterations": ITERATIONS, "image_size": 48, "votes_from": 24, "memory_patches": 500}
ARGUMENTS: dict[type[AnomalibModule], dict[str, Any]] = {
    Htdgm: {"k_shot": 2, "settings": SETTINGS},
    Devnet: SHORT_DEVNET,
    Differnet: SHORT_DIFFERNET,
}
OTHER = {
    Htdgm: {"k_shot": 1, "settings": {"iterations": 2}},
    Devnet: {"image_sizes": [64, 48]},
    Differnet: {"hidden_width": 8, "test_rotations": 1},
}
ON_BACKBONES = pytest.mark.parametrize("reference", [Devnet, Differnet], indirect=True, ids=lambda kind: kind.__name__)
IMAGES = torch.rand(2, 3, 70, 90, generator=torch.Generator().manual_seed(0))


class Trained(NamedTuple):
    """A model that was trained, its checkpoint, and what it reaches."""

    model: AnomalibModule
    checkpoint: Path
    metrics: dict[str, float]


def load_wall(root: Path, batch_size: int = 2) -> FewLabelledAnomalies:
    """Take two of the five defects for training."""
    sizes = {"train_batch_size": batch_size, "eval_batch_size": batch_size, "num_workers": 0}
    return FewLabelledAnomalies(MVTecAD(root, "wall", **sizes), n_anomalies=2)


def make(kind: type[AnomalibModule], **arguments: Any) -> AnomalibModule:
    return kind(**ARGUMENTS[kind] | {"seed": 1} | arguments)


def train(model: AnomalibModule, root: Path, directory: Path, batch_size: int = 2, **of_engine: Any) -> Trained:
    torch.manual_seed(batch_size)
    datamodule = load_wall(root, batch_size)
    checkpoint = fit(model, datamodule, directory, **of_engine)
    (metrics,) = make_engine(directory).test(model, datamodule=datamodule)
    return Trained(model.eval(), checkpoint, metrics)


@pytest.fixture(scope="module", params=ARGUMENTS, ids=lambda kind: kind.__name__)
def reference(request: pytest.FixtureRequest, mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(make(request.param), mvtec_root, tmp_path_factory.mktemp("reference"))


def test_a_checkpoint_is_the_model_with_its_arguments(reference: Trained, mvtec_root: Path, engine: Engine) -> None:
    kind = type(reference.model)
    expected, scored = reference.model(IMAGES), kind.load_from_checkpoint(reference.checkpoint).eval()(IMAGES)
    assert torch.equal(scored.pred_score, expected.pred_score)
    assert torch.equal(scored.anomaly_map, expected.anomaly_map)
    other = make(kind, **OTHER[kind])
    labelled = load_wall(mvtec_root)
    assert engine.test(other, datamodule=labelled, ckpt_path=reference.checkpoint) == [reference.metrics]
    assert dict(other.hparams) == dict(reference.model.hparams)
    # Weights and a few thresholds, and no optimiser's state.
    own = sum(each.nbytes for each in reference.model.state_dict().values())
    assert reference.checkpoint.stat().st_size < 1.2 * own + 100_000
    with pytest.raises(ValueError, match=r"ckpt_path: \w+ does not resume trainings; fit without it"):
        engine.fit(make(kind), datamodule=labelled, ckpt_path=reference.checkpoint)


def test_batches_global_state_and_the_trainers_precision_make_no_difference(
    reference: Trained, mvtec_root: Path, tmp_path: Path
) -> None:
    kind = type(reference.model)
    again = train(make(kind), mvtec_root, tmp_path, batch_size=7, precision="bf16-true")
    assert_equal_states(again.model.model, reference.model.model)
    if kind is Htdgm:  # thresholds and score ranges included
        assert_equal_states(again.model, reference.model)
    # Sums over all pixels, in float32, are rounded in the order of batches.
    assert again.metrics == pytest.approx(reference.metrics, abs=1e-6 if kind is Htdgm else 1e-4)


def test_the_stock_command_and_worker_processes_give_the_same_model(
    reference: Trained, mvtec_root: Path, tmp_path: Path, run_anomalib: RunAnomalib
) -> None:
    kind = type(reference.model)
    arguments = [f"--model.{name}={value}" for name, value in (ARGUMENTS[kind] | {"seed": 1}).items()]
    data = ["--data", "FewLabelledAnomalies", "--data.datamodule", "MVTecAD", "--data.n_anomalies", "2"]
    data += ["--data.datamodule.root", mvtec_root, "--data.datamodule.category=wall"]
    data += ["--data.datamodule.num_workers=2"]
    trainer = ["--trainer.accelerator=cpu", "--trainer.log_every_n_steps=1"]
    trainer += ["--trainer.logger=lightning.pytorch.loggers.CSVLogger", "--trainer.logger.save_dir=logs"]
    result = run_anomalib("train", "--model", kind.__name__, *arguments, *data, *trainer)
    (path,) = tmp_path.glob(f"results/{kind.__name__}/MVTecAD_2anomalies/wall/v0/weights/lightning/model.ckpt")
    loaded = kind.load_from_checkpoint(path)
    assert_equal_states(loaded.model, reference.model.model)
    # The user sees which images, and where the training is; the logger too.
    output = result.stdout + result.stderr
    shown = ["Training on ", " normal", "loss", "image_AUROC", "pixel_AUPRO"]
    if kind is Htdgm:
        assert_equal_states(loaded, reference.model)
        (log,) = tmp_path.glob("logs/**/metrics.csv")
        steps = pd.read_csv(log).dropna(subset="loss")
        assert len(steps) == ITERATIONS * 3 * 2  # scales and members
        assert steps["scale"].tolist() == sorted(steps["scale"])
        shown += ["scale", "iteration"]
    assert [each for each in shown if each not in output] == []


@pytest.mark.parametrize("reference", [Htdgm], indirect=True, ids=["Htdgm"])
def test_the_benchmark_pipeline_gives_the_same_scores(
    reference: Trained, mvtec_root: Path, tmp_path: Path, run_anomalib: RunAnomalib
) -> None:
    wall = {"root": str(mvtec_root), "category": {"grid": ["wall"]}, "num_workers": 0}
    labelled = {"datamodule": {"class_path": "MVTecAD", "init_args": wall}, "n_anomalies": 2}
    arguments = ARGUMENTS[Htdgm] | {"seed": {"grid": [1, 2]}}
    benchmark = {
        "seed": 42,
        "model": {"class_path": "Htdgm", "init_args": arguments},
        "data": {"class_path": "FewLabelledAnomalies", "init_args": labelled},
    }
    (tmp_path / "benchmark.yaml").write_text(yaml.safe_dump({"accelerator": ["cpu"], "benchmark": benchmark}))
    run_anomalib("benchmark", "--config", "benchmark.yaml")
    (table,) = tmp_path.glob("runs/benchmark/*/results.csv")
    rows = pd.read_csv(table).set_index("model.init_args.seed")
    for name, value in reference.metrics.items():
        assert rows.loc[1, name] == pytest.approx(value, abs=1e-12)
    assert (rows.loc[1, list(reference.metrics)] != rows.loc[2, list(reference.metrics)]).any()


@ON_BACKBONES
def test_training_starts_from_weights_of_a_file_that_a_checkpoint_does_not_need(
    reference: Trained, mvtec_root: Path, tmp_path: Path
) -> None:
    kind, weights = type(reference.model), tmp_path / "weights.pth"
    backbone = create_backbone(reference.model.hparams["backbone"])
    torch.save(backbone.state_dict(), weights)
    given = {"pre_trained": True, "weights": weights, "learning_rate": 1e-12, "epochs": 1}
    model = make(kind, **given)
    checkpoint = fit(model, load_wall(mvtec_root), tmp_path)
    found = dict(model.model.backbone.named_parameters())
    for name, tensor in backbone.named_parameters():
        torch.testing.assert_close(found[name], tensor)
    weights.unlink()
    kind.load_from_checkpoint(checkpoint)
    with pytest.raises(FileNotFoundError, match=r"weights\.pth"):
        fit(make(kind, **given), load_wall(mvtec_root), tmp_path)


@pytest.mark.parametrize("reference", [Differnet], indirect=True, ids=["Differnet"])
def test_without_maps_images_are_scored_alike(reference: Trained, mvtec_root: Path, tmp_path: Path) -> None:
    metrics = train(make(Differnet, map_rotations=0), mvtec_root, tmp_path).metrics
    assert metrics["image_AUROC"] == reference.metrics["image_AUROC"]
    assert "pixel_AUROC" in reference.metrics.keys() - metrics.keys()
