# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What the models of this package have in common towards anomalib and Lightning."""

import logging
import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from anomalib import LearningType
from anomalib.data import ImageBatch, ImageItem, InferenceBatch
from anomalib.engine.plugins import AnomalibCheckpointIO
from anomalib.metrics import AUPRO, Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics import Metric

from anomalib_htdgm.data.appearance import Inspection

from .checkpoint_io import WholeCheckpointIO, check_writable
from .components import callbacks_of, detach
from .dataloaders import replace_dataloaders, take_over_training_data
from .post_processor import adopt_post_processor
from .pre_processor import adopt_pre_processor, check_exported, configure_pre_processor
from .restoring import RestoringMixin
from .visualizer import adopt_visualizer

logger = logging.getLogger(__name__)

OPSET = 18
"""ONNX's operator set: the oldest that PyTorch's exporter writes. With anomalib's default, 14, it ends at this one,
too, but reports an error on the way."""
CHECKED = ("max_epochs", "check_val_every_n_epoch", "val_check_interval", "precision")
"""Arguments of :attr:`SingleEpochMixin.trainer_arguments` that a trainer which is not anomalib's may have otherwise."""


class SingleEpochMixin(RestoringMixin):
    """A model whose whole training is one epoch of the trainer, over images that it has read once.

    Args:
        skip_unreadable (bool): Whether files that cannot be read are left out of a prediction, and of the validation
            after the training, with a warning for each; else the first is an error, as it always is in training, tests
            and validations of their own. Checkpoints do not hold it.
        **components (Any): ``pre_processor``, ``post_processor``, ``evaluator`` and ``visualizer``, as anomalib takes
            them. The default evaluator reports AUROC and F1 of images and pixels, and AUPRO.
    """

    visualizer: Any
    _batches: Iterable[ImageBatch] = ()

    def __init__(self, *, skip_unreadable: bool = True, **components: Any) -> None:
        super().__init__(**components)
        self.given = frozenset(name for name, component in components.items() if component is not True)
        self.pre_processor = adopt_pre_processor(self.pre_processor)
        self.post_processor = adopt_post_processor(self.post_processor)
        self.visualizer = adopt_visualizer(self.visualizer)
        self.skip_unreadable = skip_unreadable
        self.inspection = Inspection()  # what it says of an image is logged when that is predicted
        self.hparams.pop("skip_unreadable", None)

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """Trainer arguments that must hold: one epoch is one training, and validation comes after it.

        Scores and statistics need float32, and the networks choose their own precision.
        """
        validation = {"check_val_every_n_epoch": 1, "val_check_interval": 1.0, "num_sanity_val_steps": 0}
        return {"max_epochs": 1, "devices": 1, "precision": "32-true", **validation}

    @property
    def learning_type(self) -> LearningType:
        """Learning type; anomalib would not fit a model that called itself few-shot."""
        return LearningType.ONE_CLASS

    configure_pre_processor = staticmethod(configure_pre_processor)

    @staticmethod
    def configure_evaluator() -> Evaluator:
        """Make the default evaluator: anomalib's AUROC and F1 of images and pixels, and AUPRO."""
        localisation = AUPRO(fields=["anomaly_map", "gt_mask"], prefix="pixel_", strict=False)
        return Evaluator(test_metrics=[*AnomalibModule.configure_evaluator().test_metrics, localisation])

    def setup(self, stage: str) -> None:
        """Let no image file cost a finished training or the other files' results, and look at checkpoints first.

        Checkpoints are written whole or not at all, and whether they can be written is tried before anything is done.

        Before a training its images are read, once.

        Raises:
            OSError: If a training's checkpoints cannot be written.
            ValueError: If a trainer that is not anomalib's has other arguments than :attr:`trainer_arguments`, if a
                datamodule is to split no validation images off, or if training images cannot be read.
        """
        is_fit = stage == "fit"
        self._check_trainer(CHECKED if is_fit else CHECKED[-1:])
        replace_dataloaders(self.trainer, stage, skip_unreadable=self.skip_unreadable, inspection=self.inspection)
        if type(self.trainer.strategy.checkpoint_io) in {AnomalibCheckpointIO, TorchCheckpointIO}:  # not the user's own
            self.trainer.strategy.checkpoint_io = WholeCheckpointIO(self.trainer, self.checkpoint_safe_globals())
        if is_fit:
            self.trainer.num_sanity_val_steps = 0  # nothing can be scored yet
            check_writable(self.trainer)
            self._batches = self.prepare_training(take_over_training_data(self))

    def _check_trainer(self, names: Iterable[str]) -> None:
        for name in names:
            given, needed = getattr(self.trainer, name), self.trainer_arguments[name]
            if given != needed:
                msg = f"{name}: got {given!r}; allowed is {needed!r}, which anomalib's Engine sets"
                raise ValueError(msg)

    @abstractmethod
    def prepare_training(self, dataloader: DataLoader[ImageItem]) -> Iterable[ImageBatch]:
        """Read the training images, and make the batches of all steps of a training."""

    def train_dataloader(self) -> Iterable[ImageBatch]:
        """Serve one batch for each step: to Lightning, one epoch is the whole training."""
        return self._batches

    def teardown(self, stage: str) -> None:
        """Let go of the training images, and of the trainer's callbacks, for the next model."""
        del stage
        self._batches = ()
        detach(self.trainer, callbacks_of(self))

    def forward(self, batch: torch.Tensor, *args: Any, **kwargs: Any) -> InferenceBatch:
        """Score and localise, in the model's own types: in float32, and as ``precision`` says, whatever the caller's.

        Images are in [0, 1], of shape ``(B, 3, H, W)`` and any floating-point type.
        """
        images = batch.float() if batch.is_floating_point() else batch
        if not torch.is_autocast_enabled(batch.device.type):
            return super().forward(images, *args, **kwargs)
        with torch.autocast(batch.device.type, enabled=False):
            return super().forward(images, *args, **kwargs)

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> Any:  # noqa: ANN401  # Lightning's type lacks batches
        """Score and localise a batch: it gets ``pred_score`` and ``anomaly_map``."""
        return self.test_step(batch, batch_idx)

    def on_train_end(self) -> None:
        """Warn of a model that cannot tell what is anomalous, as there was no validation, or it was cut off."""
        given = self.post_processor
        if isinstance(given, PostProcessor) and given.enable_thresholding and given.image_threshold.isnan():
            logger.warning("The model has no threshold, for nothing was validated: validate it before it predicts")

    def to_onnx(  # type: ignore[override]  # anomalib's, not Lightning's
        self, export_root: Path | str, *args: Any, **kwargs: Any
    ) -> Path:
        """Export to ONNX, see :meth:`anomalib.models.components.base.ExportMixin.to_onnx`.

        By default ``opset_version`` is :data:`OPSET`, and ``external_data`` is false, as weights in a file of their own
        would stay behind when the model is copied.
        """
        check_exported(self.pre_processor)
        with self.exportable():
            return super().to_onnx(export_root, *args, **({"opset_version": OPSET, "external_data": False} | kwargs))

    @contextmanager
    def exportable(self) -> Iterator[None]:
        """Be what a graph can hold, for as long as it takes to export one to ONNX."""
        yield


def forget_thresholds(post_processor: nn.Module | None) -> None:
    """Let a model that is trained again be as a new one: a validation without masks finds no threshold for pixels."""
    if not isinstance(post_processor, PostProcessor):
        return
    for buffer in post_processor.buffers(recurse=False):
        buffer.fill_(math.nan)
    for metric in post_processor.children():
        if isinstance(metric, Metric):
            metric.reset()
