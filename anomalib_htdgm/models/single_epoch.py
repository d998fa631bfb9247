# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What the models of this package have in common towards anomalib."""

from pathlib import Path
from typing import Any

from anomalib import LearningType
from anomalib.data import ImageBatch, ImageItem
from anomalib.metrics import AUPRO, AUROC, Evaluator, F1Score
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import nn
from torch.utils.data import DataLoader

from anomalib_htdgm.data.reading import read_as_seen

OPSET = 18
"""ONNX's operator set: the oldest that PyTorch's exporter writes. From anomalib's default, 14, it returns to this one
all the same, but reports an error on the way."""


class SingleEpochMixin:
    """A model whose whole training is one epoch of the trainer, over images that it has read once.

    A mixin, because anomalib finds direct subclasses of ``AnomalibModule`` only.
    """

    model: nn.Module
    trainer: Trainer
    skip_unreadable: bool = True
    """Whether files that cannot be read are left out of a prediction. Checkpoints do not hold it."""

    def setup(self, stage: str) -> None:
        """Let no image file cost a finished training or the other files' results.

        Where figures are reported, in tests and validations of their own, any unreadable file is an error.

        Args:
            stage (str): Stage of the trainer.
        """
        loops: dict[str, tuple[Any, bool]] = {
            "fit": (self.trainer.fit_loop.epoch_loop.val_loop, self.skip_unreadable),
            "validate": (self.trainer.validate_loop, False),
            "test": (self.trainer.test_loop, False),
            "predict": (self.trainer.predict_loop, self.skip_unreadable),
        }
        loop, skip_unreadable = loops[stage]
        source = loop._data_source  # noqa: SLF001  # Lightning has no public way to do this
        if source.is_defined() and not (stage == "fit" and self.trainer.limit_val_batches == 0):
            source.instance = read_as_seen(source.dataloader(), skip_unreadable=skip_unreadable)

    def take_over_training_data(self) -> DataLoader[ImageItem]:
        """Put this model's own ``train_dataloader`` in place of the datamodule's.

        Returns:
            DataLoader: The datamodule's, for the images to be read from.
        """
        # Lightning has no public way to do this.
        source = self.trainer.fit_loop._data_source  # noqa: SLF001
        dataloader: DataLoader[ImageItem] = source.dataloader()
        source.instance = self
        return dataloader

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> STEP_OUTPUT:
        """Score and localise a batch.

        Args:
            batch (ImageBatch): Images.
            batch_idx (int): Index of the batch, unused.

        Returns:
            STEP_OUTPUT: The batch with ``pred_score`` and ``anomaly_map``.
        """
        del batch_idx
        return batch.update(**self.model(batch.image)._asdict())

    def to_onnx(self, export_root: Path | str, *args: Any, **kwargs: Any) -> Path:  # noqa: ANN401
        """Export to ONNX, see :meth:`anomalib.models.components.base.ExportMixin.to_onnx`.

        Args:
            export_root (Path | str): Path of the folder.
            *args: As anomalib's.
            **kwargs: As anomalib's; ``opset_version`` is :data:`OPSET` by default.

        Returns:
            Path: Path of the exported model.
        """
        path: Path = super().to_onnx(export_root, *args, **{"opset_version": OPSET, **kwargs})  # type: ignore[misc]
        return path

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """Trainer arguments that must hold: one epoch is one training, and validation comes after it."""
        return {"max_epochs": 1, "val_check_interval": 1.0, "num_sanity_val_steps": 0, "devices": 1}

    @property
    def learning_type(self) -> LearningType:
        """Learning type; anomalib would not fit a model that called itself few-shot."""
        return LearningType.ONE_CLASS

    @staticmethod
    def configure_evaluator() -> Evaluator:
        """Make the default evaluator: AUROC and F1 of images and pixels, and AUPRO."""
        image, pixel = ["pred_score", "gt_label"], ["anomaly_map", "gt_mask"]
        return Evaluator(
            test_metrics=[
                AUROC(fields=image, prefix="image_"),
                F1Score(fields=["pred_label", "gt_label"], prefix="image_"),
                AUROC(fields=pixel, prefix="pixel_", strict=False),
                F1Score(fields=["pred_mask", "gt_mask"], prefix="pixel_", strict=False),
                AUPRO(fields=pixel, prefix="pixel_", strict=False),
            ],
        )
