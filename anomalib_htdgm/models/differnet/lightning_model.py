# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""DifferNet: Semi-Supervised Defect Detection with Normalizing Flows.

A normalizing flow learns the density of a pretrained network's features of good images. Images whose features are
unlikely are anomalous.

Paper:
    Marco Rudolph, Bastian Wandt, Bodo Rosenhahn: Same Same But DifferNet: Semi-Supervised Defect Detection with
    Normalizing Flows. WACV 2021.

See Also:
    :class:`anomalib_htdgm.models.differnet.torch_model.DiffernetModel`: the PyTorch model.
"""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from anomalib.data import ImageBatch, ImageItem
from anomalib.models.components import AnomalibModule
from anomalib.pre_processing import PreProcessor
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch.optim import Adam, Optimizer
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import Resize

from anomalib_htdgm.anomalib_fixes.pre_processor import AntialiasedPreProcessor
from anomalib_htdgm.anomalib_fixes.single_epoch import SingleEpochMixin, forget_thresholds
from anomalib_htdgm.data.augmentation import augmentation_of
from anomalib_htdgm.data.shots import read_shots
from anomalib_htdgm.models.precision import Precision
from anomalib_htdgm.validation import check_integer, check_number

from .batches import ShuffledBatches
from .torch_model import DiffernetModel

logger = logging.getLogger(__name__)

IMAGES_AT_ONCE = 24
"""Images of a training step, each in several rotations, as in the authors' code."""
BETAS, EPSILON, WEIGHT_DECAY = (0.8, 0.8), 1e-4, 1e-5
"""Adam's, as in the authors' code."""


class Differnet(SingleEpochMixin, AnomalibModule):
    """DifferNet: a normalizing flow on features of a frozen network.

    Args:
        seed (int): Seed of the weights, of the rotations and of the order of the images. On one CPU, with one
            number of threads, a seed gives one model, bit for bit.
        backbone (str): Name of a timm model, or of a torchvision one after ``torchvision/``.
        pre_trained (bool): Whether the backbone's weights are loaded, else they are drawn by ``seed``.
        weights (str | Path | None): File of the backbone's weights; ``None`` takes the library's own, which are
            downloaded once.
        image_sizes (Sequence[int]): Sides in pixels that the backbone sees an image at; images are resized to the
            first one and reduced from there.
        coupling_blocks (int): Number of coupling blocks of the flow.
        hidden_width (int): Width of the three hidden layers of the flow's subnetworks.
        epochs (int): Passes over the training images: the authors' 24 times 8.
        train_rotations (int): Random rotations of each image in a training step.
        test_rotations (int): Rotations that a score is the mean over.
        map_rotations (int): Rotations that an anomaly map is the mean over. A gradient costs about three times as much
            as a score, so that 64 of them would take three quarters of the time. 0 makes no maps.
        learning_rate (float): Adam's rate.
        precision (str): What the backbone computes in: ``auto`` (bfloat16 where the device is faster at it),
            ``float32`` or ``bfloat16``, whatever the trainer's precision.
        **components (Any): Components and ``skip_unreadable``, see
            :class:`~anomalib_htdgm.anomalib_fixes.single_epoch.SingleEpochMixin`. The default pre-processor resizes to
            the first of ``image_sizes``, which is the size of the maps. Pixels have to stay in [0, 1]: the model
            normalises them itself, once it has rotated the image.

    Raises:
        ValueError: If an argument is out of its range; the message names it.
    """

    def __init__(
        self,
        seed: int = 0,
        backbone: str = "torchvision/alexnet",
        pre_trained: bool = True,
        weights: str | Path | None = None,
        image_sizes: Sequence[int] = (448, 224, 112),
        coupling_blocks: int = 8,
        hidden_width: int = 2048,
        epochs: int = 192,
        train_rotations: int = 4,
        test_rotations: int = 64,
        map_rotations: int = 8,
        learning_rate: float = 2e-4,
        precision: Precision = "auto",
        **components: Any,
    ) -> None:
        check_integer("seed", seed, at_least=0)
        check_integer("epochs", epochs, at_least=1)
        check_integer("train_rotations", train_rotations, at_least=1)
        check_number("learning_rate", learning_rate, above=0)
        if weights is not None and not pre_trained:
            msg = f"weights: got {str(weights)!r} with pre_trained=False; only None goes with it"
            raise ValueError(msg)
        super().__init__(**components)
        self.model: DiffernetModel = DiffernetModel(
            backbone=backbone,
            image_sizes=image_sizes,
            coupling_blocks=coupling_blocks,
            hidden_width=hidden_width,
            test_rotations=test_rotations,
            map_rotations=map_rotations,
            precision=precision,
        )
        if "pre_processor" not in self.given:
            self.pre_processor = self.configure_pre_processor((image_sizes[0], image_sizes[0]))

    def prepare_training(self, dataloader: DataLoader[ImageItem]) -> ShuffledBatches:
        """Give the model its initial weights, and read all training images, once.

        Raises:
            ValueError: If there are no such weights, or no normal images that can be read.
        """
        seed = self.hparams["seed"]
        forget_thresholds(self.post_processor)
        self._source = torch.Generator().manual_seed(seed)
        self.model.initialize(seed, pre_trained=self.hparams["pre_trained"], weights=self.hparams["weights"])
        shots = read_shots(dataloader, sys.maxsize, seed)
        images = cast("torch.Tensor", shots.image)
        logger.info("Training on %d normal images", len(images))
        augmentation = augmentation_of(dataloader, seed)
        return ShuffledBatches(images, IMAGES_AT_ONCE, self.hparams["epochs"], seed, augmentation)

    def configure_optimizers(self) -> Optimizer:
        """Make the flow's optimiser."""
        return Adam(
            self.model.trainable_parameters(),
            lr=self.hparams["learning_rate"],
            betas=BETAS,
            eps=EPSILON,
            weight_decay=WEIGHT_DECAY,
            fused=True,
        )

    def training_step(self, batch: ImageBatch, batch_idx: int) -> STEP_OUTPUT:
        """Compute the loss of a few images in random rotations."""
        images = cast("torch.Tensor", batch.image).repeat(self.hparams["train_rotations"], 1, 1, 1)
        degrees = 360 * torch.rand(len(images), generator=self._source)
        loss = self.model.loss(images, degrees.to(self.device))
        self.log("train_loss", loss, prog_bar=True, batch_size=len(images))
        return loss

    @contextmanager
    def exportable(self) -> Iterator[None]:
        """Have scores only, since ONNX knows no gradients."""
        map_rotations, self.model.map_rotations = self.model.map_rotations, 0
        try:
            yield
        finally:
            self.model.map_rotations = map_rotations

    @staticmethod
    def configure_pre_processor(image_size: tuple[int, int] | None = None) -> PreProcessor:
        """Make the default pre-processor, which resizes, leaves pixels in [0, 1], and exports as it is.

        Args:
            image_size (tuple[int, int] | None): Height and width of images and maps in pixels; ``None`` is 448x448.
        """
        return AntialiasedPreProcessor(Resize(image_size or (448, 448), antialias=True))
