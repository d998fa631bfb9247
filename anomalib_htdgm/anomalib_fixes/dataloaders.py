# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The dataloaders of a trainer, before it asks for a batch: read by this package, and checked.

anomalib 2.7 reads images otherwise than a person sees them, names no file in its errors, and loses a training to a
file of the validation (see :mod:`anomalib_htdgm.data.reading`).
"""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from anomalib_htdgm.data.appearance import Inspection
from anomalib_htdgm.data.files import warn_of_unlisted
from anomalib_htdgm.data.loading import read_as_seen


def replace_dataloaders(trainer: Trainer, stage: str, *, skip_unreadable: bool, inspection: Inspection) -> None:
    """Let a stage, and in ``fit`` its validation, read images as :func:`~anomalib_htdgm.data.loading.read_as_seen`.

    Where figures are reported, in tests and validations of their own, any unreadable file is an error.

    Raises:
        ValueError: If a datamodule is to split no validation images off.
    """
    is_fit = stage == "fit"
    training = _source(trainer.fit_loop)
    loops = {"validate": trainer.validate_loop, "test": trainer.test_loop, "predict": trainer.predict_loop}
    source = _source(loops.get(stage, trainer.fit_loop.epoch_loop.val_loop))
    given = [training.dataloader()] if is_fit and training.is_defined() else []
    if source.is_defined() and not (is_fit and trainer.limit_val_batches == 0):
        dataloaders = _request(source)
        source.instance = read_as_seen(
            dataloaders,
            skip_unreadable=skip_unreadable and stage in {"fit", "predict"},
            take_digests=stage in {"fit", "validate"},
            inspect=inspection if stage == "predict" else None,
        )
        given.append(dataloaders)
    warn_of_unlisted(given)


def take_over_training_data(model: LightningModule) -> DataLoader[Any]:
    """Put a model's own ``train_dataloader`` in place of the datamodule's, and return that one to read from."""
    source = _source(model.trainer.fit_loop)
    dataloader: DataLoader[Any] = source.dataloader()
    source.instance = model
    return dataloader


def _source(loop: Any) -> Any:  # noqa: ANN401
    """Tell where a loop of Lightning will ask for its dataloaders, which has no public name before it has asked."""
    return loop._data_source  # noqa: SLF001


def _request(source: Any) -> Any:  # noqa: ANN401
    try:
        return source.dataloader()
    except AttributeError as error:
        if error.name != "val_data":
            raise
        msg = (
            "val_split_mode: got 'none', with which anomalib's datamodules cannot validate; allowed is 'same_as_test', "
            "which needs no images either if test_split_mode is 'none'"
        )
        raise ValueError(msg) from error
