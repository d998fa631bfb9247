# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Run an ``anomalib`` command and write, as JSON, how many seconds each part of it took.

    python benchmarks/speed/stopwatch.py OUTPUT.json train --model Htdgm --data MVTecAD ...

A part's seconds exclude those of the parts within it: scoring is without metrics and pictures. What no part claims is
in ``rest``: building objects, loading the checkpoint back, writing files.
"""

import time

START = time.perf_counter()

import json  # noqa: E402  # what follows is timed
import sys  # noqa: E402
from collections import defaultdict  # noqa: E402
from collections.abc import Callable  # noqa: E402
from functools import wraps  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from anomalib.cli.cli import main  # noqa: E402
from anomalib.data import AnomalibDataModule  # noqa: E402
from anomalib.metrics import AUPRO, AUROC, Evaluator, F1AdaptiveThreshold, F1Score  # noqa: E402
from anomalib.visualization import ImageVisualizer  # noqa: E402
from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop  # noqa: E402
from lightning.pytorch.loops.fit_loop import _FitLoop  # noqa: E402

PARTS: dict[str, list[tuple[type, str]]] = {
    "data": [(AnomalibDataModule, "prepare_data"), (AnomalibDataModule, "setup")],
    "training": [(_FitLoop, "run")],
    "scoring": [(_EvaluationLoop, "run")],  # of the validation and the test set
    "metrics": [
        *((Evaluator, f"on_{stage}_{event}_end") for stage in ("validation", "test") for event in ("batch", "epoch")),
        *((metric, "compute") for metric in (AUPRO, AUROC, F1Score, F1AdaptiveThreshold)),
    ],
    "pictures": [(ImageVisualizer, "on_test_batch_end")],
}


class Stopwatch:
    """Adds up the seconds of each part, exclusive of the parts within."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.running: list[str] = ["rest"]
        self.since = time.perf_counter()

    def switch(self) -> None:
        """Book the time since the last switch on the running part."""
        now = time.perf_counter()
        self.seconds[self.running[-1]] += now - self.since
        self.since = now

    def wrap(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Make a function book its time on a part."""

        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            self.switch()
            self.running.append(part)
            try:
                return function(*args, **kwargs)
            finally:
                self.switch()
                self.running.pop()

        return timed


def run() -> None:
    """Run the command that follows the name of the output file."""
    output = Path(sys.argv.pop(1))
    stopwatch = Stopwatch()
    for part, functions in PARTS.items():
        for owner, name in functions:
            setattr(owner, name, stopwatch.wrap(part, getattr(owner, name)))
    imports = time.perf_counter() - START
    main()
    stopwatch.switch()
    output.write_text(json.dumps({"start and imports": imports, **stopwatch.seconds}))


if __name__ == "__main__":
    run()
