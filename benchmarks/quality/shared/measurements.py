# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What a benchmark run measures beside the metrics: time of scoring, memory, size of the weights, maps to look at."""

import ctypes
import gc
import io
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from anomalib.metrics import AUPRO, AUROC, Evaluator, F1Max
from anomalib.models.components import AnomalibModule
from lightning.pytorch import Callback

if TYPE_CHECKING:
    from anomalib.data import ImageBatch
    from anomalib.metrics.base import AnomalibMetric

PEAK_RESET, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def make_evaluator(*, has_masks: bool) -> Evaluator:
    """Make the metrics of a test, over raw scores.

    Left to itself torchmetrics puts scores through a sigmoid wherever a batch has some outside [0, 1]: batches are then
    compared on different scales, and scores beyond 17, such as PatchCore's distances, become equal.

    Args:
        has_masks (bool): Whether to measure the anomaly maps, too.

    Returns:
        Evaluator: ``image_AUROC`` and ``image_F1Max``; with masks ``pixel_AUROC`` and ``pixel_AUPRO``.
    """
    image, pixel = ["pred_score", "gt_label"], ["anomaly_map", "gt_mask"]
    best_f1 = F1Max(fields=image, prefix="image_")
    best_f1.precision_recall_curve.normalization = None
    metrics: list[AnomalibMetric] = [AUROC(fields=image, prefix="image_", normalization=None), best_f1]
    if has_masks:
        metrics += [
            AUROC(fields=pixel, prefix="pixel_", strict=False, normalization=None),
            AUPRO(fields=pixel, prefix="pixel_", strict=False),
        ]
    return Evaluator(test_metrics=metrics)


class ScoringClock(Callback):
    """Times the test from its start to its last batch: reading, scoring and localising, without computing metrics."""

    def __init__(self) -> None:
        self._start = self._end = 0.0

    @property
    def seconds(self) -> float:
        """Seconds that the last test took."""
        return self._end - self._start

    def on_test_epoch_start(self, *_: object) -> None:
        """Start."""
        self._start = time.perf_counter()

    def on_test_batch_end(self, *_: object) -> None:
        """Stop, for now."""
        self._end = time.perf_counter()


class Verdicts(Callback):
    """Counts what a threshold makes of raw scores."""

    def __init__(self) -> None:
        self._counts = torch.zeros(2, 2)

    def on_test_epoch_start(self, *_: object) -> None:
        """Begin anew."""
        self._counts.zero_()

    def on_test_batch_end(self, _trainer: object, model: Any, outputs: Any, *_: object) -> None:  # noqa: ANN401
        """Count the images of a batch by label and verdict."""
        is_above = outputs.pred_score.flatten() > model.post_processor.image_threshold
        for label, verdict in zip(outputs.gt_label.flatten().tolist(), is_above.tolist(), strict=True):
            self._counts[int(label), int(verdict)] += 1

    def shares(self, model: Any) -> dict[str, str]:  # noqa: ANN401  # its post-processor has no type
        """Compute the share of good images that were called anomalous, and of defective ones that were found.

        Args:
            model (AnomalibModule): The model.

        Returns:
            dict[str, str]: ``false_alarms`` and ``recall``; empty where the model has no threshold.
        """
        if model.post_processor.image_threshold.isnan():
            return {"false_alarms": "", "recall": ""}
        good, anomalous = (self._counts[:, 1] / self._counts.sum(dim=1)).tolist()
        return {"false_alarms": f"{good:.6f}", "recall": f"{anomalous:.6f}"}


class MapKeeper(Callback):
    """Keeps the anomaly maps of a few test images.

    Args:
        paths (list[str]): Paths of these images.
    """

    def __init__(self, paths: list[str]) -> None:
        self._examples: dict[str, dict[str, np.ndarray]] = {path: {} for path in paths}

    def on_test_batch_end(self, *arguments: Any) -> None:
        """Look for the images in a batch of results."""
        outputs: ImageBatch = arguments[2]  # after the trainer and the module
        for item in outputs.items:
            if item.image_path in self._examples and item.anomaly_map is not None and item.gt_mask is not None:
                self._examples[item.image_path] = {
                    "map": item.anomaly_map.squeeze().float().cpu().numpy(),
                    "mask": item.gt_mask.squeeze().cpu().numpy().astype(bool),
                }

    def save(self, path: Path) -> None:
        """Save the maps to a file, which is there whole or not at all.

        Args:
            path (Path): A ``.npz`` file: arrays ``paths`` of strings, ``maps`` and ``masks``, ``(N, H, W)``.
        """
        kept = {name: example for name, example in self._examples.items() if example}
        if not kept:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        with unfinished.open("wb") as file:
            np.savez_compressed(
                file,
                paths=np.array(list(kept)),
                maps=np.stack([example["map"] for example in kept.values()]),
                masks=np.stack([example["mask"] for example in kept.values()]),
            )
        unfinished.replace(path)


def choose_examples(samples: pd.DataFrame, number: int) -> list[str]:
    """Choose test images to show: those that lie evenly among the defective ones, and the first good one.

    Args:
        samples (pd.DataFrame): Samples of a dataset of anomalib's.
        number (int): How many defective ones.

    Returns:
        list[str]: Their paths, ascending, the good one last.
    """
    paths = samples.sort_values("image_path").groupby("label_index")["image_path"].apply(list)
    defective = [paths[1][index] for index in np.linspace(0, len(paths[1]) - 1, number).round().astype(int)]
    return [str(path) for path in [*dict.fromkeys(defective), paths[0][0]]]


def reset_peak_memory() -> None:
    """Let the next :func:`read_peak_memory` tell the peak from now on, where the system can (Linux)."""
    gc.collect()
    if PEAK_RESET.exists():
        libc = ctypes.CDLL(None)
        # What was left free in the heap would count as resident, and hide what is put there next.
        if hasattr(libc, "malloc_trim"):  # glibc's
            libc.malloc_trim(0)
        PEAK_RESET.write_text("5")


def read_peak_memory() -> float | None:
    """Read this process's peak of resident memory in MB; ``None`` where the system does not tell."""
    if not STATUS.exists():
        return None
    match = re.search(r"VmHWM:\s*(\d+) kB", STATUS.read_text())
    return int(match[1]) * 1024 / 1e6 if match else None


def weigh(model: AnomalibModule) -> float:
    """Compute the size that a model's weights, buffers and memory bank have on disk, in MB."""
    file = io.BytesIO()
    torch.save(model.model.state_dict(), file)
    return file.tell() / 1e6
