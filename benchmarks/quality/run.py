# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Train and test one model on one class, or a sweep of them, and append a row for each to a CSV file.

    python benchmarks/quality/run.py data=mvtec data_root=DIR shots=1 trial=0
    python benchmarks/quality/run.py -m +sweep=cifar10 data_root=DIR results=cifar10.csv
    python benchmarks/quality/run.py -m +sweep=cifar10 hydra/launcher=joblib hydra.launcher.n_jobs=2 threads=1 ...

A sweep ends with a report of tables and pictures, ``<results>.report``; ``report.py`` makes the same of several files,
or of a sweep that did not get there. A sweep that was killed is resumed by the same command: rows that are there are
not computed again. Several processes may work at one sweep, each started with the same command; a run that another one
is at is left to it. The configuration is in ``conf``; ``--help`` lists it.

The trial is the seed of everything: of the draw of the training images, the same for every model, and of the model.
Test images are the same in every trial. Metrics are over raw scores: anomalib's normalisation would change their ranks,
since it clamps those beyond what it saw in validation. There is no validation, unless ``unlabelled`` sets test images
aside that are all called good, some of which are not. False alarms and defects found are by the threshold that the
model comes out of its training with, which most models do not have without validation.

Of trial 0 the anomaly maps of a few test images are kept, in a folder beside the results, for ``report.py`` to draw.
"""

import hashlib
import json
import logging
import os
import platform
import time
import warnings
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from shared.folders import check_folder
from shared.progress import DONE, SKIPPED
from shared.rows import Results, maps_folder

if TYPE_CHECKING:
    from anomalib.data import AnomalibDataModule

logger = logging.getLogger(__name__)

PACKAGES = ("anomalib", "anomalib-htdgm", "torch", "torchvision", "lightning")
ALL = "all"  # as a number of shots: every normal training image
PARTS_OF_KEY = ("model", "data", "shots", "trial", "schedule", "unlabelled")


def run_key(config: DictConfig) -> str:
    """Compute what a run is known by: a hash of all that bears upon its metrics, but not of where the data lie.

    Args:
        config (DictConfig): Configuration of the run.

    Returns:
        str: 16 hexadecimal digits.
    """
    parts = OmegaConf.to_container(config, resolve=False)
    assert isinstance(parts, dict)  # for the type checker
    text = json.dumps([parts[name] for name in PARTS_OF_KEY], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def draw_images(config: DictConfig) -> "AnomalibDataModule":
    """Draw the training images: the same for every model.

    With ``data.known_anomalies`` so many are moved from the test set to the training set; for models that cannot learn
    from them they are left out of the test, too.

    Args:
        config (DictConfig): Configuration of the run.

    Returns:
        AnomalibDataModule: The datamodule, set up.
    """
    from shared.unlabelled import set_aside  # noqa: PLC0415

    from anomalib_htdgm import FewLabelledAnomalies, FewShot  # noqa: PLC0415

    datamodule: AnomalibDataModule = hydra.utils.instantiate(config.data.datamodule)
    if config.shots != ALL:
        datamodule = FewShot(datamodule, k_shot=config.shots, seed=config.trial)
    datamodule.prepare_data()
    datamodule.setup()
    if config.data.get("known_anomalies"):
        normal_images = datamodule.train_data
        datamodule = FewLabelledAnomalies(datamodule, config.data.known_anomalies, seed=config.trial)
        datamodule.setup()
        if not config.model.get("learns_anomalies"):
            datamodule.train_data = normal_images
    if config.unlabelled.images:
        set_aside(datamodule, config.unlabelled.images, config.unlabelled.defective, config.trial)
    return datamodule


def list_readings(config: DictConfig) -> list[tuple[str, object]]:
    """List the ways that one training is tested in: the values of ``tested_with``, an attribute of the torch model.

    Args:
        config (DictConfig): Configuration of the run.

    Returns:
        list[tuple[str, object]]: Pairs of attribute and value; one of nothing where the model is tested as it is.
    """
    tested_with: dict[str, list[object]] = config.model.get("tested_with") or {"": [""]}
    return [(attribute, value) for attribute, values in tested_with.items() for value in values]


def measure(config: DictConfig, key: str) -> list[dict[str, object]]:
    """Train and test.

    Args:
        config (DictConfig): Configuration of the run.
        key (str): Its key, which the maps are filed under.

    Returns:
        list[dict[str, object]]: The row of results; before it, for a model that is tested in several ways, one for
        each of the other ways.
    """
    # Imported here, so that a sweep that has nothing left to do says so at once.
    from anomalib.callbacks import ModelCheckpoint  # noqa: PLC0415
    from anomalib.engine import Engine  # noqa: PLC0415
    from anomalib.post_processing import PostProcessor  # noqa: PLC0415
    from lightning import seed_everything  # noqa: PLC0415
    from shared.measurements import (  # noqa: PLC0415
        MapKeeper,
        ScoringClock,
        Verdicts,
        choose_examples,
        make_evaluator,
        read_peak_memory,
        reset_peak_memory,
        weigh,
    )

    check_folder(config.data.datamodule)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    seed_everything(config.trial, verbose=False)  # for models that have no seed of their own, such as PatchCore
    datamodule = draw_images(config)
    evaluator = make_evaluator(has_masks=config.data.has_masks)
    raw = PostProcessor(enable_normalization=False)
    model = hydra.utils.instantiate(config.model.arguments, evaluator=evaluator, post_processor=raw, visualizer=False)
    clock, verdicts = ScoringClock(), Verdicts()
    keeper = MapKeeper(choose_examples(datamodule.test_data.samples, config.examples) if config.trial == 0 else [])
    reset_peak_memory()
    rows: list[dict[str, object]] = []
    with TemporaryDirectory() as directory:
        engine = Engine(
            default_root_dir=directory,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=1.0 if config.unlabelled.images else 0,
            callbacks=[ModelCheckpoint(save_top_k=0), clock, keeper, verdicts],  # a checkpoint would be timed, too
        )
        start = time.perf_counter()
        engine.fit(model, datamodule=datamodule)
        fitted = time.perf_counter()
        for attribute, value in list_readings(config):
            if attribute:
                setattr(model.model, attribute, value)
            (values,) = engine.test(model, datamodule=datamodule, verbose=False)
            metrics = {name: f"{metric:.6f}" for name, metric in values.items()} | verdicts.shares(model)
            by = " with unlabelled" if config.unlabelled.images else ""
            name, part = f"{config.model.name} {value}".strip() + by, f"{key}{value}"
            rows.append({"key": part, "model": name, **metrics, "test_seconds": f"{clock.seconds:.3f}"})
    peak_memory = read_peak_memory()
    keeper.save(maps_folder(Path(config.results)) / f"{key}.npz")
    paths = datamodule.train_data.samples["image_path"]
    common = {
        "dataset": config.data.name,
        "category": datamodule.category,
        "shots": config.shots,
        "known_anomalies": config.data.get("known_anomalies", 0),
        "unlabelled": config.unlabelled.images,
        "trial": config.trial,
        "fit_seconds": f"{fitted - start:.3f}",
        "test_images": len(datamodule.test_data),
        "memory_megabytes": None if peak_memory is None else f"{peak_memory:.0f}",
        "weights_megabytes": f"{weigh(model):.3f}",
        "pretrained": config.model.pretrained,
        "threads": torch.get_num_threads(),
        "training_images": ";".join("/".join(Path(path).parts[-2:]) for path in paths),
        "configuration": json.dumps(OmegaConf.to_container(config, resolve=True)),
        "versions": json.dumps({package: version(package) for package in PACKAGES}),
        "machine": f"{platform.node()} {platform.machine()} {os.cpu_count()} cores",
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    rows[-1]["key"] = key  # the row that says that the run is done is the last to be written
    return [{**row, **common} for row in rows]


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> None:
    """Do one run, unless its row is there.

    Args:
        config (DictConfig): Configuration of the run.
    """
    warnings.filterwarnings("ignore")
    for name in ("anomalib", "anomalib_htdgm", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    results, key = Results(Path(config.results)), run_key(config)
    with results.claim(key) as ours:
        if ours:
            rows = measure(config, key)
            for row in rows:
                results.append(row)
            logger.info("%s", {name: row[name] for name in row if name not in {"configuration", "versions", "machine"}})
        else:
            logger.info("Run %s is in %s, or another process is at it", key, results.path)
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        (Path(HydraConfig.get().runtime.output_dir) / (DONE if ours else SKIPPED)).touch()


if __name__ == "__main__":
    main()
