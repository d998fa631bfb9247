# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Train and test one model on one class, or a sweep of them, and append a row for each to a CSV file.

    python benchmarks/run.py data=mvtec data_root=DIR shots=1 trial=0
    python benchmarks/run.py -m +sweep=cifar10 data_root=DIR results=cifar10.csv
    python benchmarks/run.py -m +sweep=cifar10 hydra/launcher=joblib hydra.launcher.n_jobs=2 threads=1 ...

A sweep that was killed is resumed by the same command: rows that are there are not computed again. Several processes
may work at one sweep, each started with the same command; a run that another one is at is left to it. The configuration
is in ``conf``; ``--help`` lists it.

The trial is the seed of everything: of the draw of the training images, the same for every model, and of the model.
Test images are the same in every trial. There is no validation and no post-processing: metrics are over raw scores.
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
from typing import TYPE_CHECKING, Any

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from progress import DONE, SKIPPED
from rows import Results

if TYPE_CHECKING:
    from anomalib.data import AnomalibDataModule

logger = logging.getLogger(__name__)

PACKAGES = ("anomalib", "anomalib-htdgm", "torch", "torchvision", "lightning")
PARTS_OF_KEY = ("model", "data", "shots", "trial")


def run_key(config: DictConfig) -> str:
    """Compute what a run is known by: a hash of all that bears upon its metrics, but not of where the data lie.

    Args:
        config (DictConfig): Configuration of the run.

    Returns:
        str: 16 hexadecimal digits.
    """
    parts = OmegaConf.to_container(config, resolve=False)
    assert isinstance(parts, dict)  # noqa: S101  # for the type checker
    text = json.dumps([parts[name] for name in PARTS_OF_KEY], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def measure(config: DictConfig) -> dict[str, object]:
    """Train and test.

    Args:
        config (DictConfig): Configuration of the run.

    Returns:
        dict[str, object]: The row of results, but for its key.
    """
    # Imported here, so that a sweep that has nothing left to do says so at once.
    from anomalib.engine import Engine  # noqa: PLC0415
    from anomalib.metrics import AUPRO, AUROC, Evaluator, F1Max  # noqa: PLC0415

    from anomalib_htdgm import FewShot  # noqa: PLC0415

    if config.threads is not None:
        torch.set_num_threads(config.threads)
    source: AnomalibDataModule = hydra.utils.instantiate(config.data.datamodule)
    datamodule = FewShot(source, k_shot=config.shots, seed=config.trial)
    datamodule.prepare_data()
    datamodule.setup()
    metrics: list[Any] = [metric(fields=["pred_score", "gt_label"], prefix="image_") for metric in (AUROC, F1Max)]
    if config.data.has_masks:
        metrics += [
            metric(fields=["anomaly_map", "gt_mask"], prefix="pixel_", strict=False) for metric in (AUROC, AUPRO)
        ]
    model = hydra.utils.instantiate(
        config.model.arguments, evaluator=Evaluator(test_metrics=metrics), post_processor=False, visualizer=False
    )
    with TemporaryDirectory() as directory:
        engine = Engine(
            default_root_dir=directory,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
        )
        start = time.perf_counter()
        engine.fit(model, datamodule=datamodule)
        fitted = time.perf_counter()
        (values,) = engine.test(model, datamodule=datamodule, verbose=False)
        tested = time.perf_counter()
    return {
        "dataset": config.data.name,
        "category": source.category,
        "model": config.model.name,
        "shots": config.shots,
        "trial": config.trial,
        **{name: f"{value:.6f}" for name, value in values.items()},
        "fit_seconds": f"{fitted - start:.3f}",
        "test_seconds": f"{tested - fitted:.3f}",
        "test_images": len(datamodule.test_data),
        "threads": torch.get_num_threads(),
        "training_images": ";".join("/".join(Path(path).parts[-2:]) for path in datamodule.shot_paths),
        "configuration": json.dumps(OmegaConf.to_container(config, resolve=True)),
        "versions": json.dumps({package: version(package) for package in PACKAGES}),
        "machine": f"{platform.node()} {platform.machine()} {os.cpu_count()} cores",
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


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
            row = measure(config)
            results.append({"key": key, **row})
            logger.info("%s", {name: row[name] for name in row if name not in {"configuration", "versions", "machine"}})
        else:
            logger.info("Run %s is in %s, or another process is at it", key, results.path)
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        (Path(HydraConfig.get().runtime.output_dir) / (DONE if ours else SKIPPED)).touch()


if __name__ == "__main__":
    main()
