# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Every configured experiment of the paper can be made, and shows the right images."""

from pathlib import Path

import hydra
import numpy as np
import pytest
from anomalib.models.components import AnomalibModule
from decisions import Decisions
from run import run_key

CONFIGURATIONS = Path(__file__).parents[2] / "benchmarks" / "quality" / "conf"
OF_TABLE_1 = sorted(path.stem for path in (CONFIGURATIONS / "model").glob("table1_*.yaml"))


@pytest.mark.parametrize("schedule", ["short", "published"])
@pytest.mark.parametrize("model", OF_TABLE_1)
def test_variants_are_models_of_any_schedule(model: str, schedule: str) -> None:
    with hydra.initialize_config_dir(str(CONFIGURATIONS), version_base="1.3"):
        config = hydra.compose("config", [f"model={model}", f"schedule={schedule}", "data=cifar10"])
    assert isinstance(hydra.utils.instantiate(config.model.arguments, evaluator=False), AnomalibModule)


def test_schedules_are_different_runs() -> None:
    with hydra.initialize_config_dir(str(CONFIGURATIONS), version_base="1.3"):
        keys = {
            run_key(hydra.compose("config", ["model=table1_full", f"schedule={name}"]))
            for name in ("short", "published")
        }
    assert len(keys) == 2


def test_images_are_shown_as_what_they_are() -> None:
    scores = np.array([0.1, 0.2, 0.3, 0.8, 0.9, 0.5, 0.4], dtype=np.float32)
    labels = np.array([False, False, True, True, True, False, True])
    decisions = Decisions(np.array(list("abcdefg")), scores, labels, threshold=0.5)
    chosen = decisions.choose(number=2)
    assert chosen["true negative"] == ["a", "b"]
    assert chosen["true positive"] == ["d", "e"]
    assert chosen["false positive"] == ["f"]
    assert chosen["false negative"] == ["c", "g"]
