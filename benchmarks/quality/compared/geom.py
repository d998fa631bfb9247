# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""GEOM: a classifier that tells 72 geometric transformations of normal images apart; HTDGM's nearest relative.

An image whose transformations it cannot tell is anomalous. Trained on samples of an HTDGM generator in place of the
training images it is the variant (g) of the HTDGM paper's Table 1.

Paper:
    Izhak Golan, Ran El-Yaniv: Deep Anomaly Detection Using Geometric Transformations. NeurIPS 2018.
"""

from collections.abc import Iterator
from typing import Any, cast

import torch
from anomalib.data import ImageBatch, ImageItem
from anomalib.models.components import AnomalibModule
from compared.geom_model import GeomModel, train
from torch.optim import Adam, Optimizer
from torch.utils.data import DataLoader

from anomalib_htdgm import HtdgmPublished
from anomalib_htdgm.anomalib_fixes.pre_processor import configure_pre_processor
from anomalib_htdgm.anomalib_fixes.single_epoch import SingleEpochMixin
from anomalib_htdgm.data.shots import RepeatedBatch, read_shots
from anomalib_htdgm.models.htdgm_published.torch_model import HtdgmPublishedModel
from anomalib_htdgm.models.htdgm_published.training import equalize
from anomalib_htdgm.models.htdgm_published.training import train as train_generator

WEIGHT_DECAY = 5e-4
"""Of all parameters, as in the authors' code."""
SAMPLES_AT_ONCE = 100
"""Images that are generated together: the same number for each of 1, 2, 5 or 10 that they are modelled on."""


def draw_samples(generator: HtdgmPublishedModel, number: int, seed: int) -> Iterator[torch.Tensor]:
    """Draw images from a trained generator, batch by batch.

    Args:
        generator (HtdgmPublishedModel): The model whose generators are trained.
        number (int): Number of images.
        seed (int): Seed of the noise.

    Yields:
        torch.Tensor: Images of its finest scale in [-1, 1], of shape ``(B, 3, size, size)``.
    """
    source = torch.Generator().manual_seed(seed)
    for start in range(0, number, SAMPLES_AT_ONCE):
        batch_seed = int(torch.randint(2**62, (), generator=source))
        yield generator.sample(min(SAMPLES_AT_ONCE, number - start), batch_seed)[-1]


class Geom(SingleEpochMixin, AnomalibModule):
    """GEOM, trained on a few images or on samples of a generator that is trained on them.

    Args:
        k_shot (int): Number of training images, drawn by ``seed`` from the training set; all, if there are fewer.
        seed (int): Seed of the draw, of the weights, of the order of the images, and of the samples.
        image_size (int): Side in pixels that images are reduced to.
        widen (int): Factor of the wide residual network's channels.
        epochs (int): Passes over all transformed images; the paper's are ``ceil(200 / 72)``.
        min_steps (int): Least number of training steps: the paper's epochs are two steps for one image. By training
            accuracy alone: after 200 a network half as wide tells all transformations of one or five training images,
            and 96 % of those of ten.
        batch_size (int): Transformed images of a training step.
        generator (HtdgmPublished | None): A model with generators, untrained, with a seed of its own: it is trained on
            the training images first, and the classifier on samples of it in their place.
        num_samples (int): Number of samples; the HTDGM paper's.
        **components: Pre-processor, post-processor, evaluator and visualizer, as anomalib's models take them. The
            default pre-processor brings pixels to [-1, 1], and images to ``image_size`` or to what the generator takes.

    Raises:
        ValueError: If the generator has nothing to sample from.
    """

    def __init__(
        self,
        k_shot: int = 10,
        seed: int = 0,
        image_size: int = 32,
        widen: int = 4,
        epochs: int = 3,
        min_steps: int = 200,
        batch_size: int = 128,
        generator: HtdgmPublished | None = None,
        num_samples: int = 6000,
        **components: Any,
    ) -> None:
        if generator is not None and not generator.model.has_generators:
            msg = "generator: got a model with fake_weight=0, which generates nothing; only a positive one does"
            raise ValueError(msg)
        if components.get("pre_processor", True) is True:
            size = (image_size, image_size) if generator is None else generator.model.pyramid.input_size
            components["pre_processor"] = configure_pre_processor(cast("tuple[int, int]", size))
        super().__init__(**components)
        self.automatic_optimization = False
        self.k_shot = k_shot
        self.seed = seed
        self.schedule = {"epochs": epochs, "min_steps": min_steps, "batch_size": batch_size}
        self.generator = generator
        self.num_samples = num_samples
        self.model: GeomModel = GeomModel(image_size, widen)

    def prepare_training(self, dataloader: DataLoader[ImageItem]) -> RepeatedBatch:
        """Read the training images, once: they are the only batch."""
        return RepeatedBatch(read_shots(dataloader, self.k_shot, self.seed))

    def configure_optimizers(self) -> Optimizer:
        """Make the classifier's optimiser; a generator has its own."""
        return Adam(self.model.parameters(), weight_decay=WEIGHT_DECAY, fused=True)

    def training_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """Do the whole training.

        Args:
            batch (ImageBatch): The training images.
            batch_idx (int): Index of the batch, always 0.
        """
        del batch_idx
        images = cast("torch.Tensor", batch.image)
        if self.generator is not None:
            images = self._train_and_sample(self.generator, images)
        optimizer = cast("Optimizer", self.optimizers())
        for loss in train(self.model, images, optimizer, self.seed, **self.schedule):
            last_loss = loss
        self.log("train_loss", last_loss, batch_size=len(images))

    def _train_and_sample(self, generator: HtdgmPublished, images: torch.Tensor) -> torch.Tensor:
        """Make samples, of shape ``(num_samples, 3, image_size, image_size)``, that are like the images."""
        shots = equalize(images) if generator.hparams["equalize"] else images
        for _ in train_generator(generator.model, shots, generator.schedule, generator.hparams["seed"]):
            pass
        samples = draw_samples(generator.model, self.num_samples, self.seed)
        return torch.cat([self.model.reduce(each) for each in samples])
