# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What the models of this package have in common towards anomalib."""

import inspect
import logging
import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from anomalib import LearningType
from anomalib.data import ImageBatch, ImageItem, InferenceBatch
from anomalib.engine.plugins import AnomalibCheckpointIO
from anomalib.metrics import AUPRO, AUROC, Evaluator, F1Score
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.visualization import Visualizer
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import Precision
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics import Metric

from anomalib_htdgm.data.appearance import Inspection
from anomalib_htdgm.data.files import warn_of_unlisted
from anomalib_htdgm.data.items import check_is_image
from anomalib_htdgm.data.loading import check_first_item, read_as_seen
from anomalib_htdgm.version import __version__

from .checkpoint import (
    MARK,
    VERSION,
    CheckedCheckpointIO,
    CheckpointError,
    check_file,
    check_numbers,
    describe_mismatch,
    named,
    written_by,
)
from .checkpoint_io import check_writable
from .components import check_held, components_of, describe_lost, detach, restore_components
from .post_processor import adopt_post_processor
from .pre_processor import adopt_pre_processor, check_exported
from .visualizer import adopt_visualizer

logger = logging.getLogger(__name__)

OPSET = 18
"""ONNX's operator set: the oldest that PyTorch's exporter writes. With anomalib's default, 14, it ends at this one,
too, but reports an error on the way."""


class SingleEpochMixin:
    """A model whose whole training is one epoch of the trainer, over images that it has read once.

    A mixin, because anomalib finds direct subclasses of ``AnomalibModule`` only.

    Args:
        skip_unreadable (bool): See :attr:`skip_unreadable`.
        **components (Any): Pre-processor and so on, as anomalib takes them.
    """

    model: nn.Module
    pre_processor: nn.Module | None
    post_processor: nn.Module | None
    visualizer: Visualizer | None
    trainer: Trainer
    resumes: ClassVar[bool] = False
    """Whether a training that was broken off can go on from a checkpoint, which then holds what that needs."""
    skip_unreadable: bool = True
    """Whether files that cannot be read are left out of a prediction. Checkpoints do not hold it."""
    _trainer_precision: Precision | None = None
    _written_by: str = ""
    _batches: Iterable[ImageBatch] | None = None
    given: frozenset[str] = frozenset()
    """Names of the components that the caller has given; a checkpoint takes the place of the others only."""

    def __init__(self, *, skip_unreadable: bool = True, **components: Any) -> None:  # noqa: ANN401
        super().__init__(**components)
        self.given = frozenset(name for name, component in components.items() if component is not True)
        self.pre_processor = adopt_pre_processor(self.pre_processor)
        self.post_processor = adopt_post_processor(self.post_processor)
        self.visualizer = adopt_visualizer(self.visualizer)
        self.skip_unreadable = skip_unreadable
        self.inspection = Inspection()  # what it says of an image is logged when that is predicted
        self.hparams.pop("skip_unreadable", None)  # type: ignore[attr-defined]

    def setup(self, stage: str) -> None:
        """Let no image file cost a finished training or the other files' results, and look at checkpoints first.

        Where figures are reported, in tests and validations of their own, any unreadable file is an error. Checkpoints
        are written whole or not at all, and whether they can be written is tried before anything is done.

        Before a training its images are read, once.

        Raises:
            OSError: If a training's checkpoints cannot be written.
            TypeError: If validation data of a training are no images.
            ValueError: If a trainer that is not anomalib's has other epochs than :attr:`trainer_arguments`, if a
                datamodule is to split no validation images off, or if training images cannot be read.
        """
        if stage == "fit":
            self._check_epochs()
        self._read_as_seen(stage)
        if type(self.trainer.strategy.checkpoint_io) in {AnomalibCheckpointIO, TorchCheckpointIO}:  # not the user's own
            safe = self.checkpoint_safe_globals()  # type: ignore[attr-defined]
            self.trainer.strategy.checkpoint_io = CheckedCheckpointIO(self.trainer, safe)
        self._compute_in_own_types()
        if stage == "fit":
            check_writable(self.trainer)
            self._batches = self.prepare_training(self._take_over_training_data())

    @abstractmethod
    def prepare_training(self, dataloader: DataLoader[ImageItem]) -> Iterable[ImageBatch]:
        """Read the training images, and make the batches of all steps of a training."""

    def train_dataloader(self) -> Iterable[ImageBatch]:
        """Serve one batch for each step: to Lightning, one epoch is the whole training."""
        assert self._batches is not None  # noqa: S101  # for the type checker: `setup` comes first
        return self._batches

    def _read_as_seen(self, stage: str) -> None:
        fit_loop = self.trainer.fit_loop
        loops: dict[str, Any] = {
            "fit": fit_loop.epoch_loop.val_loop,
            "validate": self.trainer.validate_loop,
            "test": self.trainer.test_loop,
            "predict": self.trainer.predict_loop,
        }
        # Lightning has no public way to do this.
        training, source = fit_loop._data_source, loops[stage]._data_source  # noqa: SLF001
        given = [training.dataloader()] if stage == "fit" and training.is_defined() else []
        if source.is_defined() and not (stage == "fit" and self.trainer.limit_val_batches == 0):
            dataloaders = _request(source)
            if stage == "fit":  # a training must not be lost to what it is validated on
                check_first_item(dataloaders, "val_dataloaders")
            source.instance = read_as_seen(
                dataloaders,
                skip_unreadable=self.skip_unreadable and stage in {"fit", "predict"},
                take_digests=stage in {"fit", "validate"},
                inspect=self.inspection if stage == "predict" else None,
            )
            given.append(dataloaders)
        warn_of_unlisted(given)

    def teardown(self, stage: str) -> None:
        """Let go of the training images, and give the trainer back what was its own, for the next model."""
        del stage
        self._batches = None
        detach(components_of(self), self.trainer)
        if self._trainer_precision is not None:
            self.trainer.strategy.precision_plugin = self._trainer_precision
            self._trainer_precision = None

    def _check_epochs(self) -> None:
        self.trainer.num_sanity_val_steps = 0  # nothing can be scored yet
        for name in ("max_epochs", "check_val_every_n_epoch", "val_check_interval"):
            given, needed = getattr(self.trainer, name), self.trainer_arguments[name]
            if given != needed:
                msg = f"{name}: got {given!r}; allowed is {needed!r}, which anomalib's Engine sets"
                raise ValueError(msg)

    def _compute_in_own_types(self) -> None:
        """Take the trainer's precision away: scores and statistics need float32, and the networks choose their own."""
        plugin = self.trainer.strategy.precision_plugin
        if type(plugin) is not Precision:
            logger.info(
                "The model computes in types of its own, whatever the trainer's precision, %s", plugin.precision
            )
            self.trainer.strategy.precision_plugin = Precision()
            self._trainer_precision = plugin

    @classmethod
    def checkpoint_name(cls) -> str:
        """Name of the model in checkpoints: the class of this package, whatever has been derived from it."""
        return next(each.__name__ for each in cls.__mro__ if AnomalibModule in each.__bases__)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write into the checkpoint what it is."""
        super().on_save_checkpoint(checkpoint)  # type: ignore[misc]
        checkpoint[VERSION] = __version__
        if not self.resumes:
            checkpoint.pop("optimizer_states", None)  # twice as large as the model
        checkpoint[MARK] = {"model": self.checkpoint_name(), "lost": describe_lost(self)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over the components that were saved, but for those that the caller has given.

        Raises:
            CheckpointError: If one of them is lost, for a checkpoint cannot hold it, and the caller has given none.
            ValueError: If a training was to be resumed that cannot be.
        """
        if self._is_fitting and not self.resumes:
            name = type(self).__name__
            msg = f"ckpt_path: {name} does not resume trainings; fit without it, or validate, test and predict with it"
            raise ValueError(msg)
        self._written_by = written_by(checkpoint)
        try:
            check_held(checkpoint, self.given, type(self).__name__)
        except CheckpointError as error:
            raise self._name_checkpoint(error) from error
        with restore_components(self, checkpoint, self.given) as others:  # type: ignore[arg-type]
            super().on_load_checkpoint(others)  # type: ignore[misc]

    @property
    def _is_fitting(self) -> bool:
        trainer = getattr(self, "_trainer", None)
        return trainer is not None and trainer.state.fn == TrainerFn.FITTING and not trainer.state.stopped

    def arguments_of(self, saved: Mapping[str, Any]) -> dict[str, Any]:
        """Take a checkpoint's arguments, and own ones where it lacks them; warn where the caller has given others."""
        own: dict[str, Any] = dict(self.hparams)  # type: ignore[attr-defined]
        known = inspect.signature(type(self)).parameters
        lost = [
            f"{name} {value!r} ({saved[name]!r} there)"
            for name, value in own.items()
            if value != saved.get(name, value) and (name not in known or value != known[name].default)
        ]
        if lost:
            logger.warning("The model has the checkpoint's arguments; not what was given for %s", ", ".join(lost))
        return {name: saved.get(name, value) for name, value in own.items()}

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Load a model as anomalib does.

        Raises:
            CheckpointError: If the checkpoint is not a whole one of this model, or holds Python objects.
        """
        if isinstance(checkpoint_path, str | Path) and kwargs.get("weights_only", True):
            safe = cls.checkpoint_safe_globals()  # type: ignore[attr-defined]
            check_file(checkpoint_path, cls, cls.checkpoint_name(), safe)  # type: ignore[arg-type]
        try:
            return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)  # type: ignore[misc]
        except ValueError as error:
            raise named(error, checkpoint_path) from error

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:  # noqa: ANN401
        """Load weights as PyTorch does, or say in one line why not.

        Raises:
            CheckpointError: If they are not weights of this model.
        """
        try:
            check_numbers(self, state_dict)  # type: ignore[arg-type]
            return super().load_state_dict(state_dict, strict=strict, assign=assign)  # type: ignore[misc]
        except CheckpointError as error:
            raise self._name_checkpoint(error) from error
        except RuntimeError as error:
            message = describe_mismatch(self.state_dict(), state_dict, str(error))  # type: ignore[attr-defined]
            raise self._name_checkpoint(CheckpointError(message)) from error

    def rebuild(self, arguments: dict[str, Any], **components: Any) -> Any:  # noqa: ANN401
        """Make a model with the arguments of a checkpoint, and components such as ``pre_processor``.

        Raises:
            CheckpointError: If they are no arguments of this model.
        """
        try:
            return type(self)(**arguments, **components)
        except (TypeError, ValueError) as error:
            raise self._name_checkpoint(CheckpointError(f"hyper_parameters: {error}")) from error

    def _name_checkpoint(self, error: CheckpointError) -> CheckpointError:
        error = CheckpointError(f"{self._written_by}{error}")
        trainer = getattr(self, "_trainer", None)
        path = trainer.ckpt_path if trainer is not None and not trainer.state.stopped else None
        return error if path is None else named(error, path)

    def _take_over_training_data(self) -> DataLoader[ImageItem]:
        """Put this model's own ``train_dataloader`` in place of the datamodule's, and return that one to read from."""
        # Lightning has no public way to do this.
        source = self.trainer.fit_loop._data_source  # noqa: SLF001
        dataloader: DataLoader[ImageItem] = source.dataloader()
        source.instance = self
        return dataloader

    def on_train_end(self) -> None:
        """Warn of a model that cannot tell what is anomalous, as there was no validation, or it was cut off."""
        given = self.post_processor
        if isinstance(given, PostProcessor) and given.enable_thresholding and given.image_threshold.isnan():
            logger.warning("The model has no threshold, for nothing was validated: validate it before it predicts")

    def forward(self, batch: torch.Tensor, *args: Any, **kwargs: Any) -> InferenceBatch:  # noqa: ANN401
        """Score and localise, in the model's own types: in float32, and as ``precision`` says, whatever the caller's.

        Images are in [0, 1], of shape ``(B, 3, H, W)`` and any floating-point type.
        """
        images = batch.float() if batch.is_floating_point() else batch
        if not torch.is_autocast_enabled(batch.device.type):
            return super().forward(images, *args, **kwargs)  # type: ignore[misc]
        with torch.autocast(batch.device.type, enabled=False):
            return super().forward(images, *args, **kwargs)  # type: ignore[misc]

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # noqa: ANN401
        """Refuse what is no batch of images before anything else meets it.

        Raises:
            TypeError: If it is none.
        """
        check_is_image(batch, "dataloaders")
        return super().on_before_batch_transfer(batch, dataloader_idx)  # type: ignore[misc]

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> Any:  # noqa: ANN401  # Lightning's type lacks batches
        """Score and localise a batch: it gets ``pred_score`` and ``anomaly_map``."""
        del batch_idx
        return batch.update(**self.model(batch.image)._asdict())

    def to_onnx(self, export_root: Path | str, *args: Any, **kwargs: Any) -> Path:  # noqa: ANN401
        """Export to ONNX, see :meth:`anomalib.models.components.base.ExportMixin.to_onnx`.

        By default ``opset_version`` is :data:`OPSET`, and ``external_data`` is false, as weights in a file of their own
        would stay behind when the model is copied.
        """
        check_exported(self.pre_processor)
        defaults = {"opset_version": OPSET, "external_data": False}
        with self.exportable():
            path: Path = super().to_onnx(export_root, *args, **(defaults | kwargs))  # type: ignore[misc]
        return path

    @contextmanager
    def exportable(self) -> Iterator[None]:
        """Be what a graph can hold, for as long as it takes to export one to ONNX."""
        yield

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """Trainer arguments that must hold: one epoch is one training, and validation comes after it."""
        validation = {"check_val_every_n_epoch": 1, "val_check_interval": 1.0, "num_sanity_val_steps": 0}
        return {"max_epochs": 1, "devices": 1, **validation}

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


def forget_thresholds(post_processor: nn.Module | None) -> None:
    """Let a model that is trained again be as a new one: a validation without masks finds no threshold for pixels."""
    if not isinstance(post_processor, PostProcessor):
        return
    for buffer in post_processor.buffers(recurse=False):
        buffer.fill_(math.nan)
    for metric in post_processor.children():
        if isinstance(metric, Metric):
            metric.reset()
