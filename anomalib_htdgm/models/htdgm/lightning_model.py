# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""HTDGM: A Hierarchical Transformation-Discriminating Generative Model for Few Shot Anomaly Detection.

A pyramid of small discriminators learns, from a few images and without pretrained weights, which transformation was
applied to a patch of a normal image. Patches whose transformation they cannot tell are anomalous.

Example:
    >>> from anomalib.data import MVTecAD
    >>> from anomalib.engine import Engine
    >>> from anomalib_htdgm import Htdgm

    >>> datamodule = MVTecAD(category="bottle")
    >>> model = Htdgm(k_shot=1)
    >>> engine = Engine()
    >>> engine.fit(model, datamodule=datamodule)  # doctest: +SKIP
    >>> engine.test(model, datamodule=datamodule)  # doctest: +SKIP

Paper:
    Shelly Sheynin, Sagie Benaim, Lior Wolf: A Hierarchical Transformation-Discriminating Generative Model for Few Shot
    Anomaly Detection. ICCV 2021.

See Also:
    :class:`anomalib_htdgm.models.htdgm.torch_model.HtdgmModel`: the PyTorch model.
    :mod:`anomalib_htdgm.models.htdgm.training`: its training.
"""

import logging
import signal
import sys
from typing import Any, cast

import torch
from anomalib.data import ImageBatch, ImageItem
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import ParallelStrategy
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.optim import Optimizer
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from anomalib_htdgm.anomalib_fixes.single_epoch import forget_thresholds
from anomalib_htdgm.data.appearance import Appearance
from anomalib_htdgm.data.augmentation import Augmentation, augmentation_of
from anomalib_htdgm.data.shots import RepeatedBatch, digest_images, read_anomalies, read_shots
from anomalib_htdgm.models.precision import Precision

from .calibration import CalibrationMixin
from .region import Outlines
from .settings import Preset, choose_settings
from .tiles import OverlappingTiler
from .torch_model import HtdgmModel, default_size
from .training import TrainingStep, configure_optimizer, count_steps, train

logger = logging.getLogger(__name__)

ITERATIONS_PER_LOG = 10
"""Iterations after which the progress bar shows losses; loggers have their own number, the trainer's."""
THRESHOLD = "threshold_chosen_by"
"""Key of a checkpoint for what its threshold was chosen by."""
REGION = "region"
"""Key of a checkpoint for where it looks."""
APPEARANCES = "appearances_of_good_images"
"""Key of a checkpoint for what its training images look like as a whole."""
TRAINED_ON = "trained_on"
"""Key of a checkpoint for the digests of the training images, which tell nothing in a later validation."""


class Htdgm(CalibrationMixin, AnomalibModule):
    """HTDGM: few-shot anomaly detection without pretrained weights.

    It trains on normal images only. Validation images choose the threshold; if none of them is labelled as anomalous,
    up to a fifth of them may still be. Without them the training images do, each scored by what was learnt of
    the others, and labelled anomalies in the training set (see :class:`anomalib_htdgm.FewLabelledAnomalies`), which do
    nothing else. With one or two training images it is a guess; :attr:`threshold_chosen_by` tells.

    Args:
        k_shot (int): Number of training images, drawn by ``seed`` from the training set; all, if there are fewer.
        seed (int): Seed of the draw, of the weights and of the order. On one CPU, with one number of threads, a seed
            gives one model, bit for bit; on a GPU not in float32.
        preset (Preset): ``defects`` for spots on a part or a surface; ``semantic`` where whole images are anomalous, of
            another subject than the training images'.
        tiles (int): Number of overlapping tiles along each side of an image, for defects that are lost when a large
            photograph is reduced to 96 pixels. Each tile is an image of its own to all that follows; the most
            anomalous one scores. Time of prediction grows with their number. 1 takes images as a whole.
        region (Outlines | None): Where in an image to look: a rectangle ``[left, top, right, bottom]``, or a list of
            polygons, each a list of corners ``[x, y]``, in shares of width and height in [0, 1]. What is outside
            changes neither score nor map. ``None`` looks everywhere.
        precision (Precision): What the networks compute in: ``auto`` (bfloat16 where the device is faster at it),
            ``float32`` or ``bfloat16``, whatever the trainer's precision.
        settings (dict[str, Any] | None): Settings by name that take the place of the preset's, such as
            ``{"standardize": False}``, see :class:`~anomalib_htdgm.models.htdgm.settings.Settings`.
        skip_unreadable (bool): Whether files that cannot be read are left out of a prediction, and of the validation
            after the training, with a warning for each; else the first is an error, as it always is in training, tests
            and validations of their own. Checkpoints do not hold it.
        pre_processor (PreProcessor | bool): Pre-processor; the default resizes to 256x256, with tiles or a
            region so that these have 256x256, and brings pixels to [-1, 1].
        post_processor (PostProcessor | bool): Post-processor.
        evaluator (Evaluator | bool): Evaluator; the default reports AUROC and F1 of images and pixels, and AUPRO.
        visualizer (Visualizer | bool): Visualizer.

    Raises:
        ValueError: If an argument is out of its range; the message names it.
    """

    def __init__(
        self,
        k_shot: int = 10,
        seed: int = 0,
        preset: Preset = "defects",
        tiles: int = 1,
        region: Outlines | None = None,
        precision: Precision = "auto",
        settings: dict[str, Any] | None = None,
        skip_unreadable: bool = True,
        pre_processor: PreProcessor | bool = True,
        post_processor: PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        chosen = choose_settings(preset, settings, k_shot=k_shot, tiles=tiles, region=region, precision=precision)
        super().__init__(
            skip_unreadable=skip_unreadable,
            pre_processor=pre_processor,
            post_processor=post_processor,
            evaluator=evaluator,
            visualizer=visualizer,
        )
        self.hparams["region"] = chosen.region
        if pre_processor is True:
            self.pre_processor = self.configure_pre_processor(default_size(chosen))
        self.automatic_optimization = False
        self.model: HtdgmModel = HtdgmModel(chosen, self.input_size)
        self._digests: dict[str, str] = {}
        self._augmentation: Augmentation | None = None
        self._validated, self._thresholds = [], {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the threshold was chosen by, and what tells training images from others."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[THRESHOLD] = self.threshold_chosen_by
        checkpoint[REGION] = self.model.settings.region
        checkpoint[APPEARANCES] = [list(each) for each in self.inspection.good]
        checkpoint[TRAINED_ON] = list(self._digests.values())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Become the model that was saved, whatever arguments this one was made with."""
        tiler = self.model.tiler
        if REGION in checkpoint:  # Lightning would put another one that it is given in its place, which was not learnt
            checkpoint["hyper_parameters"]["region"] = checkpoint[REGION]
        super().on_load_checkpoint(checkpoint)
        if tiler is not None and not isinstance(tiler, OverlappingTiler):
            self.model.tiler = tiler  # a callback has set it, before the checkpoint was read
        self.threshold_chosen_by = checkpoint.get(THRESHOLD, "unknown")
        self.inspection.good = [Appearance(*each) for each in checkpoint.get(APPEARANCES, [])]
        self._digests = {digest: digest for digest in checkpoint.get(TRAINED_ON, ())}

    def setup(self, stage: str) -> None:
        """Prepare a stage, see :meth:`SingleEpochMixin.setup`.

        Raises:
            ValueError: If the trainer's strategy is one of several devices, or if it averages weights.
        """
        if stage == "fit":
            _check_trainer(self.trainer)
        super().setup(stage)

    def prepare_training(self, dataloader: DataLoader[ImageItem]) -> RepeatedBatch:
        """Read the training images, once: they are the only batch.

        Raises:
            ValueError: If the images cannot be read.
        """
        self._shots = read_shots(dataloader, self.model.settings.k_shot, self.hparams["seed"])
        self._known_defects = read_anomalies(dataloader, self._shots)
        self._augmentation = augmentation_of(dataloader, self.hparams["seed"])
        self._digests = digest_images(self._shots)
        self.inspection.good = vars(self._shots)["appearances"]  # of the images before they are resized
        logger.info("Training on %d normal images: %s", self._shots.batch_size, ", ".join(self._digests))
        return RepeatedBatch(self._shots)

    def configure_optimizers(self) -> Optimizer:
        """Make the optimiser of all discriminators."""
        return configure_optimizer(self.model)

    def training_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """Train on all images, which are one batch, and let them choose a threshold; a validation may choose another.

        Whatever breaks it off leaves a model that is not trained.
        """
        augment = None if self._augmentation is None else self._augment
        images, optimizer = cast("torch.Tensor", batch.image), cast("Optimizer", self.optimizers())
        steps = train(self.model, images, self.hparams["seed"], optimizer, augment)
        is_hidden = self.trainer.progress_bar_callback is None
        # Lightning's own bar, on the same line, stands still meanwhile.
        with tqdm(
            steps, "Training", count_steps(self.model), leave=False, file=sys.__stderr__, disable=is_hidden
        ) as bar:
            for iteration, step in enumerate(bar, start=1):
                self._report(step, iteration, bar)
        forget_thresholds(self.post_processor)
        self.choose_by_shots()

    def _report(self, step: TrainingStep, iteration: int, bar: "tqdm[TrainingStep]") -> None:
        """Say where a training is, and end it if the process is told to end."""
        if self.trainer.received_sigterm:
            raise SIGTERMException(128 + signal.SIGTERM)  # as shells have it; Lightning would exit with 0
        loggers_every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # Lightning sets it elsewhere
        is_shown = iteration % ITERATIONS_PER_LOG == 0
        is_logged = bool(loggers_every) and iteration % loggers_every == 0
        if not is_shown and not is_logged:  # to log takes as long as half an iteration
            return
        values = {"scale": step.scale, "member": step.member, "iteration": step.iteration, "loss": float(step.loss)}
        if is_shown:
            bar.set_postfix(values, refresh=False)
        for each in self.loggers if is_logged else ():
            each.log_metrics(values, iteration)

    def _augment(self, number: int) -> torch.Tensor:
        """Augment the training images for an iteration, and pre-process them."""
        assert self._augmentation is not None
        assert self._shots is not None
        images = self._augmentation(cast("torch.Tensor", self._shots.image), number).to(self.device)
        transform = getattr(self.pre_processor, "transform", None)
        return transform(images) if transform else images

    def teardown(self, stage: str) -> None:
        """Let go of the training images, which an exported model must not carry."""
        super().teardown(stage)
        self._shots = self._known_defects = self._augmentation = None


def _check_trainer(trainer: Trainer) -> None:
    """Refuse what networks cannot be trained with that take turns, each in steps of its own."""
    if isinstance(trainer.strategy, ParallelStrategy):
        given = type(trainer.strategy).__name__
        msg = f"strategy: got {given}; allowed are 'auto' and others of one device, which is what Htdgm trains on"
        raise ValueError(msg)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # Lightning sets it elsewhere
        if isinstance(callback, WeightAveraging):
            msg = f"callbacks: got {type(callback).__name__}; allowed are those that leave the weights as they are"
            raise ValueError(msg)
