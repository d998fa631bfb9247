# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What datamodules have in common that change the training set of another one."""

from abc import ABC
from typing import Any

from anomalib.data import AnomalibDataModule, get_datamodule
from anomalib.data.datamodules.base import AnomalibVideoDataModule
from omegaconf import DictConfig

from anomalib_htdgm.validation import check_integer


class WrappingDataModule(AnomalibDataModule, ABC):
    """Has the settings of another datamodule, and is set up once.

    Args:
        datamodule: The other datamodule: an instance, or a configuration with ``class_path`` and ``init_args`` as
            :func:`anomalib.data.get_datamodule` takes it.
        seed: Seed of what is drawn, at least 0.

    Raises:
        TypeError: If ``datamodule`` is not a datamodule of images.
        ValueError: If ``seed`` is out of its range.
    """

    def __init__(self, datamodule: AnomalibDataModule | dict[str, Any], seed: int) -> None:
        check_integer("seed", seed, at_least=0)
        # `anomalib benchmark` of anomalib 2.7 builds only the outermost object of a configuration.
        if isinstance(datamodule, dict | DictConfig) and "class_path" in datamodule:
            datamodule = get_datamodule(datamodule)
        if not isinstance(datamodule, AnomalibDataModule) or isinstance(datamodule, AnomalibVideoDataModule):
            msg = (
                f"datamodule is {datamodule!r}: must be an AnomalibDataModule of images, such as MVTecAD or Folder, "
                "or its configuration with class_path and init_args."
            )
            raise TypeError(msg)
        super().__init__(
            train_batch_size=datamodule.train_batch_size,
            eval_batch_size=datamodule.eval_batch_size,
            num_workers=datamodule.num_workers,
            train_augmentations=datamodule.train_augmentations,
            val_augmentations=datamodule.val_augmentations,
            test_augmentations=datamodule.test_augmentations,
            val_split_mode=datamodule.val_split_mode,
            val_split_ratio=datamodule.val_split_ratio,
            test_split_mode=datamodule.test_split_mode,
            test_split_ratio=datamodule.test_split_ratio,
        )
        self.seed: int = seed
        self.datamodule = datamodule
        self.category = datamodule.category

    def prepare_data(self) -> None:
        """Prepare the wrapped datamodule's data, which may download them."""
        self.datamodule.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Set up the wrapped datamodule and draw, once; later calls only update the augmentations."""
        self.datamodule.trainer = self.trainer
        # anomalib 2.7 would set up, and draw, anew at every call that does not come from a trainer.
        if not self._is_setup:
            self._setup(stage)
            self._is_setup = True
        self._update_augmentations()
