# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Of the test images that are set aside nobody is told which are defective, and none of them is tested."""

from pathlib import Path

import pytest

pytest.importorskip("hydra", reason="pip install '.[benchmarks]'")

from shared.unlabelled import set_aside

from anomalib_htdgm import FewShot, QuickstartTextures


@pytest.mark.parametrize("is_wrapped", [False, True])
def test_images_are_validated_without_labels_and_not_tested(is_wrapped: bool, tmp_path: Path) -> None:
    bricks = QuickstartTextures(root=tmp_path, eval_batch_size=1, num_workers=0)
    datamodule = FewShot(bricks, k_shot=2) if is_wrapped else bricks
    datamodule.prepare_data()
    datamodule.setup()
    everything = {path for batch in datamodule.test_dataloader() for path in batch.image_path}
    set_aside(datamodule, 10, 3, seed=0)
    validated = [(batch.image_path[0], bool(batch.gt_label)) for batch in datamodule.val_dataloader()]
    tested = [(batch.image_path[0], bool(batch.gt_label)) for batch in datamodule.test_dataloader()]
    assert not any(label for _, label in validated)
    assert sum("defect" in Path(path).parts[-2] for path, _ in validated) == 3
    assert all(label == ("defect" in Path(path).parts[-2]) for path, label in tested)
    assert len(validated) == 10
    assert {path for path, _ in validated + tested} == everything
    assert len(validated) + len(tested) == len(everything)


@pytest.mark.parametrize(("number", "defective"), [(10, 20), (30, 0), (5, 6)])
def test_more_than_there_are(number: int, defective: int, tmp_path: Path) -> None:
    bricks = QuickstartTextures(root=tmp_path, num_workers=0)
    bricks.prepare_data()
    bricks.setup()
    with pytest.raises(ValueError, match=r"unlabelled: got .* images; allowed are fewer than the 20 of the test set"):
        set_aside(bricks, number, defective, seed=0)
