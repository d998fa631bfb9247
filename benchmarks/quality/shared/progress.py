# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""A progress bar for a sweep, whatever launches its runs, and a report when they are done."""

import threading
from pathlib import Path

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

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        """Begin to watch."""
        directory, total = Path(config.hydra.sweep.dir), len(list_runs(config))
        self._thread = threading.Thread(target=self._watch, args=(directory, total), daemon=True)
        self._thread.start()

    def on_multirun_end(self, *_: object, **__: object) -> None:
        """Stop watching."""
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


class SweepReport(Callback):
    """Writes tables and pictures of all that is in the file of results when a sweep ends."""

    def on_multirun_end(self, config: DictConfig, **_: object) -> None:
        """Write the report."""
        from report import write_report  # noqa: PLC0415  # a single run has no use for it

        results = Path(config.results)
        if results.exists():
            print(write_report([results], results.with_name(results.name + ".report")))


def list_runs(config: DictConfig) -> list[list[str]]:
    """List the runs of a sweep by Hydra's configuration of it: the overrides of each combination of values."""
    arguments = [f"{name}={values}" for name, values in (config.hydra.sweeper.params or {}).items()]
    overrides = OverridesParser.create().parse_overrides([*arguments, *config.hydra.overrides.task])
    return [list(run) for batch in BasicSweeper.split_arguments(overrides, max_batch_size=None) for run in batch]
