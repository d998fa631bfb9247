# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The images that a run is trained and tested on."""

import hydra
from anomalib.data import AnomalibDataModule
from omegaconf import DictConfig
from shared.unlabelled import set_aside

from anomalib_htdgm import FewLabelledAnomalies, FewShot

ALL = "all"  # as a number of shots: every normal training image


def draw_images(config: DictConfig) -> AnomalibDataModule:
    """Draw the training images: the same for every model.

    With ``data.known_anomalies`` so many are moved from the test set to the training set; for models that cannot learn
    from them they are left out of the test, too.

    Args:
        config (DictConfig): Configuration of the run.

    Returns:
        AnomalibDataModule: The datamodule, set up.
    """
    datamodule: AnomalibDataModule = hydra.utils.instantiate(config.data.datamodule)
    if config.shots != ALL:
        datamodule = FewShot(datamodule, k_shot=config.shots, seed=config.trial)
    datamodule.prepare_data()
    datamodule.setup()
    if config.data.get("known_anomalies"):
        normal_images = datamodule.train_data
        datamodule = FewLabelledAnomalies(datamodule, config.data.known_anomalies, seed=config.trial)
        datamodule.setup()
        if not config.model.get("learns_anomalies"):
            datamodule.train_data = normal_images
    if config.unlabelled.images:
        set_aside(datamodule, config.unlabelled.images, config.unlabelled.defective, config.trial)
    return datamodule
