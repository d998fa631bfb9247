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
import warnings
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from shared.progress import DONE, SKIPPED
from shared.rows import Results

logger = logging.getLogger(__name__)

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
            from shared.running import measure  # noqa: PLC0415  # a sweep with nothing left to do says so at once

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
