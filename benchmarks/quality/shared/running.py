# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""One run: a model is trained and tested, and its row of results is made."""

import json
import os
import platform
import time
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import hydra
import torch
from anomalib.callbacks import ModelCheckpoint
from anomalib.engine import Engine
from anomalib.post_processing import PostProcessor
from lightning import seed_everything
from omegaconf import DictConfig, OmegaConf
from shared.drawing import draw_images
from shared.folders import check_folder
from shared.measurements import (
    MapKeeper,
    ScoringClock,
    Verdicts,
    choose_examples,
    make_evaluator,
    read_peak_memory,
    reset_peak_memory,
    weigh,
)
from shared.rows import maps_folder

PACKAGES = ("anomalib", "anomalib-htdgm", "torch", "torchvision", "lightning")


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
