# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Photographs that nobody has looked at: some of the test images, all called good, of which a few are not."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from anomalib.data import AnomalibDataModule


def set_aside(datamodule: "AnomalibDataModule", number: int, defective: int, seed: int) -> None:
    """Move test images to the validation set, and call them all good there.

    Args:
        datamodule (AnomalibDataModule): The datamodule, set up.
        number (int): How many images.
        defective (int): How many of them are defective.
        seed (int): Seed of the draw.

    Raises:
        ValueError: If there are not as many.
    """
    samples = datamodule.test_data.samples
    source = np.random.default_rng(seed)
    chosen = []
    for label, wanted in ((0, number - defective), (1, defective)):
        of_label = np.flatnonzero(samples["label_index"] == label)
        if not 0 <= wanted < len(of_label):
            kind = "defective" if label else "good"
            msg = f"unlabelled: got {wanted} {kind} images; allowed are fewer than the {len(of_label)} of the test set"
            raise ValueError(msg)
        chosen += source.choice(of_label, wanted, replace=False).tolist()
    rest = np.setdiff1d(np.arange(len(samples)), chosen)
    unlabelled, tested = (datamodule.test_data.subsample(sorted(each)) for each in (chosen, rest.tolist()))
    unlabelled.samples["label_index"] = 0
    for owner in (datamodule, getattr(datamodule, "datamodule", datamodule)):  # FewShot's dataloaders are the other's
        owner.val_data, owner.test_data = unlabelled, tested
