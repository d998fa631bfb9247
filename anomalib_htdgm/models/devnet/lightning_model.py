# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""DevNet: Explainable Deep Few-shot Anomaly Detection with Deviation Networks.

A network learns image scores from normal images and a few labelled anomalies: those of normal images are to be like
draws from N(0, 1), those of anomalies at least five standard deviations above.

Paper:
    Guansong Pang, Choubo Ding, Chunhua Shen, Anton van den Hengel: Explainable Deep Few-shot Anomaly Detection with
    Deviation Networks. 2021.

See Also:
    :class:`anomalib_htdgm.models.devnet.torch_model.DevnetModel`: the PyTorch model.
    :class:`anomalib_htdgm.FewLabelledAnomalies`: the training sets it needs.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast, get_args

import torch
from anomalib.data import ImageBatch, ImageItem
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from lightning.pytorch.utilities.types import STEP_OUTPUT, OptimizerLRSchedulerConfig
from torch.optim import Adam
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import Compose, Normalize, Resize

from anomalib_htdgm.anomalib_fixes.pre_processor import AntialiasedPreProcessor
from anomalib_htdgm.anomalib_fixes.single_epoch import SingleEpochMixin, forget_thresholds
from anomalib_htdgm.data.augmentation import augmentation_of
from anomalib_htdgm.data.shots import read_anomalies, read_shots
from anomalib_htdgm.models.backbone import IMAGENET_MEAN, IMAGENET_STD, load_pretrained
from anomalib_htdgm.validation import check_choice, check_integer, check_number

from .batches import BalancedBatches
from .loss import NUM_REFERENCE, Loss, deviation_loss, focal_loss
from .torch_model import DevnetModel, Explanation, Ranking

logger = logging.getLogger(__name__)

WEIGHT_DECAY = 1e-5
DECAY = 0.1
DECAY_EPOCHS = 10
"""Epochs after which the learning rate falls to a tenth, again and again, as published."""


class Devnet(SingleEpochMixin, AnomalibModule):
    """DevNet, and with ``loss="focal"`` its sibling FLOS: anomaly detection from a few labelled anomalies.

    Its training set has to have both kinds of images, see :class:`anomalib_htdgm.FewLabelledAnomalies`. The defaults
    are the published settings, which are made for a GPU; ``configs/devnet/cpu.yaml`` has smaller ones.

    Args:
        backbone (str): Name of the network that is fine-tuned, of timm's models or, after ``torchvision/``, of
            torchvision's.
        pre_trained (bool): Whether it starts from pretrained weights.
        weights (str | Path | None): File of these weights; ``None`` takes the library's own, downloaded once.
        image_sizes (tuple[int, ...]): Sides of the images that are scored, in pixels; scores and maps are means over
            these sizes. Time grows with their squares.
        ranking (Ranking): What is ranked, to take the mean of the highest tenth for the image score: ``signed`` scores,
            as in the paper's equation, or ``absolute`` values, as in the authors' code.
        explanation (Explanation): Anomaly map: the ``gradient`` of the score by the pixels, or the ``scores``
            themselves. Exported graphs always have the latter.
        loss (Loss): ``deviation`` (DevNet) or ``focal`` (FLOS).
        epochs (int): Length of the training, of which the learning rate is lowered every ten.
        steps_per_epoch (int): Batches in an epoch, whatever the number of images.
        batch_size (int): Images in a batch, an even number: half of them normal, half anomalous. Replaces the
            datamodule's.
        learning_rate (float): Adam's rate at the start.
        rotation (float): Greatest angle, in degrees, by which training images are turned to either side.
        seed (int): Seed of weights, order, angles and reference scores. On one CPU, with one number of threads, a
            seed gives one model, bit for bit.
        **components (Any): Components and ``skip_unreadable``, see
            :class:`~anomalib_htdgm.anomalib_fixes.single_epoch.SingleEpochMixin`. The default pre-processor resizes to
            the greatest of ``image_sizes`` and normalises by ImageNet's statistics.

    Raises:
        ValueError: If an argument is out of its range; the message names it.
    """

    def __init__(
        self,
        backbone: str = "torchvision/resnet18",
        pre_trained: bool = True,
        weights: str | Path | None = None,
        image_sizes: tuple[int, ...] = (448, 224),
        ranking: Ranking = "signed",
        explanation: Explanation = "gradient",
        loss: Loss = "deviation",
        epochs: int = 50,
        steps_per_epoch: int = 20,
        batch_size: int = 48,
        learning_rate: float = 2e-4,
        rotation: float = 180.0,
        seed: int = 0,
        **components: Any,
    ) -> None:
        check_choice("loss", loss, get_args(Loss))
        check_integer("epochs", epochs, at_least=1)
        check_integer("steps_per_epoch", steps_per_epoch, at_least=1)
        check_integer("batch_size", batch_size, at_least=2)
        if batch_size % 2:
            msg = f"batch_size: got {batch_size!r}; allowed are even numbers, for half of a batch is anomalous"
            raise ValueError(msg)
        check_number("learning_rate", learning_rate, above=0)
        check_number("rotation", rotation, at_least=0, at_most=180)
        check_integer("seed", seed, at_least=0)
        model = DevnetModel(backbone, image_sizes, ranking, explanation)
        super().__init__(**components)
        if "pre_processor" not in self.given:
            self.pre_processor = self.configure_pre_processor((max(image_sizes), max(image_sizes)))
        self.model: DevnetModel = model

    def prepare_training(self, dataloader: DataLoader[ImageItem]) -> BalancedBatches:
        """Read the training images, once, and draw or load the weights to start from.

        Raises:
            ValueError: If the training set lacks normal images or anomalies, or there are no such weights.
        """
        anomalous = read_anomalies(dataloader)
        if anomalous is None:
            msg = (
                "datamodule: its training set has no labelled anomalies, which Devnet learns from; "
                "FewLabelledAnomalies(datamodule, n_anomalies=10) gives it some"
            )
            raise ValueError(msg)
        normal = read_shots(dataloader, sys.maxsize, self.hparams["seed"])
        logger.info("Training on %d normal and %d anomalous images", normal.batch_size, anomalous.batch_size)
        forget_thresholds(self.post_processor)
        self._source = torch.Generator().manual_seed(self.hparams["seed"])
        self.model.initialize(self.hparams["seed"])
        if self.hparams["pre_trained"]:
            load_pretrained(self.model.backbone, self.hparams["backbone"], self.hparams["weights"])
        return BalancedBatches(
            _to_uint8(normal),
            _to_uint8(anomalous),
            batch_size=self.hparams["batch_size"],
            steps=self.hparams["epochs"] * self.hparams["steps_per_epoch"],
            rotation=self.hparams["rotation"],
            seed=self.hparams["seed"],
            augmentation=augmentation_of(dataloader, self.hparams["seed"]),
        )

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Make Adam, and the schedule that lowers its rate."""
        optimizer = Adam(self.model.parameters(), lr=self.hparams["learning_rate"], weight_decay=WEIGHT_DECAY)
        schedule = StepLR(optimizer, DECAY_EPOCHS * self.hparams["steps_per_epoch"], DECAY)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: ImageBatch, batch_idx: int) -> STEP_OUTPUT:
        """Score a batch of normal and anomalous images, and compute the loss."""
        scores = self.model.score(cast("torch.Tensor", batch.image), learning=True)
        labels = cast("torch.Tensor", batch.gt_label)
        if self.hparams["loss"] == "focal":
            loss = focal_loss(scores, labels)
        else:
            reference = torch.randn(NUM_REFERENCE, generator=self._source).to(scores.device)
            loss = deviation_loss(scores, labels, reference)
        self.log("train_loss", loss, prog_bar=True, batch_size=len(scores))
        return loss

    @contextmanager
    def exportable(self) -> Iterator[None]:
        """Have the map of the scores of each place, for a graph cannot differentiate.

        If threshold and range of the pixels are those of gradients, it has the images' instead, since image scores are
        means of such scores.
        """
        post_processor = self.post_processor
        explanation = self.model.explanation
        kept = {}
        if explanation == "gradient" and isinstance(post_processor, PostProcessor):
            pairs = (("pixel_min", "image_min"), ("pixel_max", "image_max"), ("_pixel_threshold", "_image_threshold"))
            for pixel, image in pairs:
                kept[pixel] = getattr(post_processor, pixel).clone()
                getattr(post_processor, pixel).copy_(getattr(post_processor, image))
        self.model.explanation = "scores"
        try:
            yield
        finally:
            self.model.explanation = explanation
            for pixel, value in kept.items():
                getattr(post_processor, pixel).copy_(value)

    @staticmethod
    def configure_pre_processor(image_size: tuple[int, int] | None = None) -> PreProcessor:
        """Make the default pre-processor: it resizes to height and width, and normalises by ImageNet's statistics.

        Args:
            image_size (tuple[int, int] | None): Height and width of images and maps in pixels; ``None`` is 448x448.
        """
        resize = Resize(image_size or (448, 448), antialias=True)
        return AntialiasedPreProcessor(Compose([resize, Normalize(IMAGENET_MEAN, IMAGENET_STD)]))


def _to_uint8(batch: ImageBatch) -> torch.Tensor:
    """Keep a batch in a quarter of the memory: 209 images of 448x448 pixels in 126 MB."""
    return (cast("torch.Tensor", batch.image) * 255).round().to(torch.uint8)
