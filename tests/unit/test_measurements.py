# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What the benchmarks measure is what they say: metrics of raw scores of any size, memory, and maps to look at."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from anomalib.data import ImageBatch
from shared.measurements import MapKeeper, choose_examples, make_evaluator, read_peak_memory, reset_peak_memory
from sklearn.metrics import f1_score, roc_auc_score


def make_batch(scores: torch.Tensor, labels: torch.Tensor, first: int = 0) -> ImageBatch:
    maps = scores[:, None, None, None] + torch.arange(16.0).reshape(4, 4) / 8
    return ImageBatch(
        image=torch.zeros(len(scores), 3, 4, 4),
        image_path=[f"{first + index}.png" for index in range(len(scores))],
        pred_score=scores,
        anomaly_map=maps,
        gt_label=labels,
        gt_mask=labels[:, None, None] & (torch.arange(16).reshape(4, 4) > 9),
    )


@pytest.mark.parametrize(("offset", "factor"), [(0.0, 0.01), (0.0, 1.0), (-3.0, 2.0), (20.0, 10.0), (1e4, 100.0)])
def test_metrics_are_those_of_the_raw_scores_in_batches_of_any_size(offset: float, factor: float) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(30) % 2 == 1
    scores = offset + factor * (torch.rand(30, generator=generator) + 0.3 * labels)
    evaluator = make_evaluator(has_masks=True)
    batches = [make_batch(scores[start : start + 7], labels[start : start + 7]) for start in range(0, 30, 7)]
    values = {}
    for metric in evaluator.test_metrics:
        for batch in batches:
            metric.update(batch)
        values[metric.name] = float(metric.compute())
    maps = torch.cat([batch.anomaly_map for batch in batches]).numpy().ravel()
    masks = torch.cat([batch.gt_mask for batch in batches]).numpy().ravel()
    assert values["image_AUROC"] == pytest.approx(roc_auc_score(labels, scores))
    assert values["image_F1Max"] == pytest.approx(max(f1_score(labels, scores >= each) for each in scores))
    assert values["pixel_AUROC"] == pytest.approx(roc_auc_score(masks, maps), abs=1e-5)
    assert 0 < values["pixel_AUPRO"] <= 1
    assert [metric.name for metric in make_evaluator(has_masks=False).test_metrics] == ["image_AUROC", "image_F1Max"]


def test_maps_of_chosen_images_are_kept(tmp_path: Path) -> None:
    labels = torch.tensor([False, True, True])
    keeper = MapKeeper(["1.png", "5.png", "9.png"])
    batches = [make_batch(torch.rand(3), labels, first) for first in (0, 3)]
    for batch in batches:
        keeper.on_test_batch_end(None, None, batch)
    keeper.save(tmp_path / "maps" / "run.npz")
    kept = np.load(tmp_path / "maps" / "run.npz")
    assert kept["paths"].tolist() == ["1.png", "5.png"]
    assert np.array_equal(kept["maps"], np.stack([batches[0].anomaly_map[1], batches[1].anomaly_map[2]]))
    assert np.array_equal(kept["masks"], np.stack([batches[0].gt_mask[1], batches[1].gt_mask[2]]))
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["run.npz"]

    MapKeeper([]).save(tmp_path / "none.npz")
    assert not (tmp_path / "none.npz").exists()


def test_examples_lie_evenly_among_the_defective_images() -> None:
    samples = pd.DataFrame({"image_path": [f"{index:02}.png" for index in range(12)], "label_index": [1] * 9 + [0] * 3})
    shuffled = samples.sample(frac=1, random_state=0)
    assert choose_examples(shuffled, 3) == ["00.png", "04.png", "08.png", "09.png"]
    assert choose_examples(shuffled, 99)[:2] == ["00.png", "01.png"]
    assert len(choose_examples(shuffled, 99)) == 10


@pytest.mark.skipif(read_peak_memory() is None, reason="the system does not tell")
def test_peak_memory_is_of_the_time_since_it_was_reset() -> None:
    # 400 MB of the heap that are freed, and stay with the process because of what lies above them.
    below = [b"x" * 100_000 for _ in range(4000)]
    above = b"x" * 100_000
    del below
    reset_peak_memory()
    before = read_peak_memory()
    block = torch.ones(50_000_000)  # 200 MB
    held = read_peak_memory()
    del block, above
    reset_peak_memory()
    after = read_peak_memory()
    assert before is not None
    assert held is not None
    assert after is not None
    assert held - before == pytest.approx(200, abs=20)
    assert held - after > 150
