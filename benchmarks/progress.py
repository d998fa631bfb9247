# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""A progress bar for a sweep, whatever launches its runs."""

import threading
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from tqdm import tqdm

SECONDS_BETWEEN_LOOKS = 1.0
DONE, SKIPPED = "done", "skipped"


class SweepProgress(Callback):
    """Counts the files that finished runs leave in the sweep's directory, since workers may be other processes."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __reduce__(self) -> tuple[type["SweepProgress"], tuple[()]]:
        """Let workers, which hydra sends everything to, have one that watches nothing."""
        return SweepProgress, ()

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ANN401
        """Begin to watch.

        Args:
            config (DictConfig): Hydra's configuration of the sweep.
            **kwargs: Unused.
        """
        del kwargs
        directory, total = Path(config.hydra.sweep.dir), count_runs(config)
        self._thread = threading.Thread(target=self._watch, args=(directory, total), daemon=True)
        self._thread.start()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ANN401
        """Stop watching.

        Args:
            config (DictConfig): Hydra's configuration of the sweep.
            **kwargs: Unused.
        """
        del config, kwargs
        self._stop.set()
        if self._thread:
            self._thread.join()

    def _watch(self, directory: Path, total: int) -> None:
        with tqdm(total=total, desc="Runs", unit="run", dynamic_ncols=True) as bar:
            while True:
                stopping = self._stop.wait(SECONDS_BETWEEN_LOOKS)
                # Runs that were done before take no time: without them the time left is right.
                bar.total = total - len(list(directory.glob(f"*/{SKIPPED}")))
                bar.n = len(list(directory.glob(f"*/{DONE}")))
                bar.refresh()
                if stopping:
                    return


def count_runs(config: DictConfig) -> int:
    """Count the runs of a sweep.

    Args:
        config (DictConfig): Hydra's configuration of the sweep.

    Returns:
        int: How many combinations of values there are.
    """
    arguments = [f"{name}={values}" for name, values in (config.hydra.sweeper.params or {}).items()]
    overrides = OverridesParser.create().parse_overrides([*arguments, *config.hydra.overrides.task])
    return sum(map(len, BasicSweeper.split_arguments(overrides, max_batch_size=None)))
