# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""HTDGM as published, for anomalib: to be read, and measured, beside the paper.

Paper:
    Shelly Sheynin, Sagie Benaim, Lior Wolf: A Hierarchical Transformation-Discriminating Generative Model for Few Shot
    Anomaly Detection. ICCV 2021.
"""

import logging
from dataclasses import fields
from typing import Any, ClassVar, cast

import torch
from anomalib.data import ImageBatch, ImageItem
from anomalib.models.components import AnomalibModule
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from anomalib_htdgm.anomalib_fixes.single_epoch import SingleEpochMixin, forget_thresholds
from anomalib_htdgm.data.augmentation import augmentation_of
from anomalib_htdgm.data.shots import RepeatedBatch, read_shots
from anomalib_htdgm.validation import check_integer

from .torch_model import HtdgmPublishedModel
from .training import ScaleTraining, Schedule, equalize, make_optimizers, start_scale

logger = logging.getLogger(__name__)

RNG_STATE = "rng_state"
"""Key of a checkpoint for the state of the source of randomness."""


class HtdgmPublished(SingleEpochMixin, AnomalibModule):
    """HTDGM as published. Its defaults are those of the paper for defects in one image; it trains for minutes to hours.

    Each scale is one epoch of the trainer, and one iteration is one step. A training that was broken off goes on with
    ``ckpt_path``: a checkpoint is written after each scale. Validation images choose the threshold, as anomalib's.

    Args:
        k_shot (int): Number of training images, drawn by ``seed`` from the training set; all, if there are fewer.
        seed (int): Seed of the draw, of the weights and of the noise.
        transformations (str): What the discriminators tell apart: ``full`` (54) for images in colour,
            ``grayscale`` (42) for others, ``rotations`` (4) for defects, or ``symmetries`` (16), which is not the
            paper's but shorter.
        image_size (int): Side of the finest scale in pixels.
        coarsest_size (int): Side of the coarsest scale in pixels; at least the receptive field of 11.
        width (int): Channels of the hidden layers at the first four scales; twice as many follow.
        iterations (int): Iterations per scale; 500 for images without colour.
        steps (int): Steps of the discriminator, then of the generator, in an iteration.
        fake_weight (float): Weight of the fake class in the discriminator's loss; 0 trains no generators (Table 1, a).
        reestimate_statistics (bool): Whether a finished discriminator's batch-norm statistics become those of the real
            images alone. The paper's are not.
        patch_fraction (float): Fraction of patches, the most anomalous, that make the score: 0.05 for defects with one
            image, 0.1 with five or ten, 1 for whole images.
        equalize (bool): Whether the histograms of the training images are equalised, as with all sets but
            ``rotations`` in the authors' code.
        **components (Any): Components and ``skip_unreadable``, see
            :class:`~anomalib_htdgm.anomalib_fixes.single_epoch.SingleEpochMixin`.

    Raises:
        ValueError: If an argument is out of its range; the message names it.
    """

    resumes = True
    torch_model: ClassVar[type[HtdgmPublishedModel]] = HtdgmPublishedModel

    def __init__(
        self,
        k_shot: int = 1,
        seed: int = 0,
        transformations: str = "rotations",
        image_size: int = 64,
        coarsest_size: int = 25,
        width: int = 32,
        iterations: int = 1000,
        steps: int = 3,
        fake_weight: float = 1.0,
        reestimate_statistics: bool = False,
        patch_fraction: float = 0.05,
        equalize: bool = False,
        **components: Any,
    ) -> None:
        check_integer("seed", seed, at_least=0)
        super().__init__(**components)
        self.automatic_optimization = False
        self.model: HtdgmPublishedModel = self.torch_model(
            self.input_size or (256, 256),
            k_shot,
            transformations,
            image_size,
            coarsest_size,
            width,
            patch_fraction,
            has_generators=self.schedule.fake_weight > 0,
        )
        self._scale: ScaleTraining | None = None

    @property
    def schedule(self) -> Schedule:
        """How the model is trained."""
        return Schedule(**{each.name: self.hparams[each.name] for each in fields(Schedule)})

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """Trainer arguments that must hold: one epoch is one scale, and validation comes after the last."""
        scales = len(self.model.scales)
        return {**super().trainer_arguments, "max_epochs": scales, "check_val_every_n_epoch": scales}

    def setup(self, stage: str) -> None:
        """Prepare a stage; in a training, checkpoints are written after each scale."""
        super().setup(stage)
        for callback in self.trainer.checkpoint_callbacks if stage == "fit" else ():
            if isinstance(callback, ModelCheckpoint) and callback.monitor is None:
                # Left to itself Lightning writes after validations, and the scales before the last have none.
                callback._save_on_train_epoch_end = True  # noqa: SLF001
        self._scale = None

    def prepare_training(self, dataloader: DataLoader[ImageItem]) -> RepeatedBatch:
        """Read the training images, once: all of them are the batch of every iteration.

        Raises:
            ValueError: If the images cannot be read, or are to be augmented.
        """
        if augmentation_of(dataloader, self.hparams["seed"]) is not None:
            msg = "train_augmentations: got some; only None goes with generators, which learn images as they are"
            raise ValueError(msg)
        forget_thresholds(self.post_processor)
        self._source = torch.Generator().manual_seed(self.hparams["seed"])
        shots = read_shots(dataloader, self.hparams["k_shot"], self.hparams["seed"])
        return RepeatedBatch(shots, self.hparams["iterations"])

    def configure_optimizers(self) -> list[Optimizer]:
        """Make an optimiser for the discriminators, and one for the generators."""
        return make_optimizers(self.model)

    def training_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """Do one iteration of the scale that the epoch is for; the first starts the scale, the last ends it."""
        index = self.current_epoch
        if self._scale is None or self._scale.index != index:
            images = cast("Any", batch.image)
            views = self.model.pyramid(equalize(images) if self.hparams["equalize"] else images)
            reduced = views[self.model.scales[index].size]
            if batch_idx == 0:
                start_scale(self.model, index, reduced, self._source)
            optimizers = self.optimizers()
            every = cast("list[Optimizer]", optimizers if isinstance(optimizers, list) else [optimizers])
            self._scale = ScaleTraining(self.model, index, reduced, self.schedule, every, self._source)
        losses = self._scale.step(batch_idx)
        if batch_idx == self.hparams["iterations"] - 1:
            self._scale.finish()
        self.log_dict(losses, prog_bar=True, batch_size=len(batch))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a training needs to go on."""
        super().on_save_checkpoint(checkpoint)
        if self.model.is_trained:
            del checkpoint["optimizer_states"]
        else:
            checkpoint[RNG_STATE] = self._source.get_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Become the model that was saved, and in a training go on where that one was.

        Raises:
            ValueError: If a training is to go on that was finished, or with other arguments than it began with.
        """
        if self._is_fitting:
            self._go_on(checkpoint)
        super().on_load_checkpoint(checkpoint)

    def _go_on(self, checkpoint: dict[str, Any]) -> None:
        if RNG_STATE not in checkpoint:
            msg = "ckpt_path: its training was finished; fit without it, or validate, test and predict with it"
            raise ValueError(msg)
        for name, value in checkpoint["hyper_parameters"].items():
            own = self.hparams.get(name, value)
            if own != value:
                msg = f"{name}: got {own!r}; allowed is {value!r}, which the training of ckpt_path began with"
                raise ValueError(msg)
        self._source.set_state(checkpoint[RNG_STATE].cpu())

    def teardown(self, stage: str) -> None:
        """Let go of the training images, which an exported model must not carry."""
        super().teardown(stage)
        self._scale = None
