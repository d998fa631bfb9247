# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Data sets that are not where they are said to be are refused before the first run, not downloaded in the last."""

import sys
from pathlib import Path

from hydra import compose
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from shared.progress import list_runs

MADE = ("anomalib_htdgm.OneClass", "anomalib_htdgm.QuickstartTextures")
"""Datamodules that write their images themselves."""
WITHOUT_DATA = ("trial=", "shots=", "model=", "model.")


def check_folder(datamodule: DictConfig) -> None:
    """Refuse a folder that is missing: anomalib would download the whole data set.

    Args:
        datamodule (DictConfig): Configuration of the datamodule.

    Raises:
        ValueError: If it is missing; the message names it.
    """
    folder = Path(datamodule.root, datamodule.get("category", ""))
    if datamodule._target_ not in MADE and not folder.is_dir():
        msg = f"data_root: there is no folder {folder}; allowed are directories that hold the data set"
        raise ValueError(msg)


class SweepFolders(Callback):
    """Looks for the data of all runs of a sweep before the first of them."""

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        """End the sweep if a folder is missing."""
        runs = {tuple(each for each in run if not each.startswith(WITHOUT_DATA)) for run in list_runs(config)}
        try:
            for overrides in runs:
                check_folder(compose(config.hydra.job.config_name, list(overrides)).data.datamodule)
        except ValueError as error:
            sys.exit(str(error))  # hydra makes a warning of an exception here
