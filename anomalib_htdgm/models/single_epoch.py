# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What the models of this package have in common towards anomalib."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib import LearningType
from anomalib.data import ImageBatch, ImageItem
from anomalib.metrics import AUPRO, AUROC, Evaluator, F1Score
from anomalib.models.components.base import AnomalibModule
from anomalib.pre_processing import PreProcessor
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import nn
from torch.utils.data import DataLoader
from typing_extensions import Self

from .interruption import check_whole, check_writable, install_checkpoint_io

OPSET = 18
"""ONNX's operator set: the oldest that PyTorch's exporter writes. From anomalib's default, 14, it returns to this one
all the same, but reports an error on the way."""
COMPONENTS = {"pre_processor", "post_processor", "evaluator", "visualizer"}
"""Arguments of every model that are not the model's own."""
KEEPS_COMPONENTS_APART = hasattr(AnomalibModule, "checkpoint_safe_globals")
"""Whether this is anomalib 2.7 or newer. Older ones save the components among the arguments of a model, and their
exporter and post-processor are not made for graphs of any batch and image size."""


class SingleEpochMixin:
    """A model whose whole training is one epoch of the trainer, over images that it has read once.

    A mixin, because anomalib finds direct subclasses of ``AnomalibModule`` only.
    """

    model: nn.Module
    trainer: Trainer

    def setup(self, stage: str) -> None:
        """See that checkpoints are written whole or not at all, and that they can be, before anything is done.

        Args:
            stage (str): Stage of the trainer.

        Raises:
            OSError: If a training's checkpoints cannot be written.
        """
        install_checkpoint_io(self.trainer)
        if stage == "fit":
            check_writable(self.trainer)

    if not TYPE_CHECKING:  # for a type checker it is as Lightning declares it, which no class method matches

        @classmethod
        def load_from_checkpoint(cls, checkpoint_path: str | Path, *args: Any, **kwargs: Any) -> Self:  # noqa: ANN401
            """Load a model, see :meth:`anomalib.models.AnomalibModule.load_from_checkpoint`.

            Args:
                checkpoint_path (str | Path): Path of the checkpoint.
                *args: As anomalib's.
                **kwargs: As anomalib's.

            Returns:
                Self: The model.

            Raises:
                ValueError: If the file is not whole.
            """
            check_whole(checkpoint_path)
            return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)

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

    def own_arguments(self) -> dict[str, Any]:
        """Get the arguments of the model without its components."""
        arguments = self.hparams  # type: ignore[attr-defined]  # Lightning's
        return {name: value for name, value in arguments.items() if name not in COMPONENTS}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the transform of the pre-processor, which anomalib does from 2.7 on.

        Args:
            checkpoint (dict[str, Any]): Lightning's checkpoint.
        """
        super().on_load_checkpoint(checkpoint)  # type: ignore[misc]
        saved = checkpoint.get("hyper_parameters", {}).get("pre_processor")
        pre_processor = self.pre_processor  # type: ignore[attr-defined]  # anomalib's
        if isinstance(saved, PreProcessor) and isinstance(pre_processor, PreProcessor):
            pre_processor.transform, pre_processor.export_transform = saved.transform, saved.export_transform

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

        Raises:
            RuntimeError: If anomalib is older than 2.7.
        """
        if not KEEPS_COMPONENTS_APART:
            msg = "anomalib: ONNX and OpenVINO exports need 2.7 or newer of it; the torch export does not"
            raise RuntimeError(msg)
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
