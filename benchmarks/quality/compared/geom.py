# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""GEOM: a classifier that tells 72 geometric transformations of normal images apart; HTDGM's nearest relative.

An image whose transformations it cannot tell is anomalous. Trained on samples of an HTDGM generator in place of the
training images it is the variant (g) of the HTDGM paper's Table 1.

Paper:
    Izhak Golan, Ran El-Yaniv: Deep Anomaly Detection Using Geometric Transformations. NeurIPS 2018.
"""

import math
from collections.abc import Iterator
from itertools import count, islice, product
from typing import Any, cast

import torch
from anomalib.data import ImageBatch, ImageItem, InferenceBatch
from anomalib.models.components import AnomalibModule
from torch import nn
from torch.nn import functional as F
from torch.optim import Adam, Optimizer
from torch.utils.data import DataLoader

from anomalib_htdgm import HtdgmPublished
from anomalib_htdgm.anomalib_fixes.pre_processor import configure_pre_processor
from anomalib_htdgm.anomalib_fixes.single_epoch import SingleEpochMixin
from anomalib_htdgm.data.shots import OneBatch, read_shots
from anomalib_htdgm.models.htdgm.pretext import translate
from anomalib_htdgm.models.htdgm_published.torch_model import HtdgmPublishedModel
from anomalib_htdgm.models.htdgm_published.training import equalize
from anomalib_htdgm.models.htdgm_published.training import train as train_generator
from anomalib_htdgm.models.precision import choose_dtype

SHIFT_FRACTION = 0.25
"""Length of a translation as a fraction of the image's side."""
TRANSFORMATIONS = list(product((False, True), (0, -1, 1), (0, -1, 1), range(4)))
"""Whether it mirrors left and right; then steps down and to the right; then quarter turns counterclockwise."""
WEIGHT_DECAY = 5e-4
"""Of all parameters, as in the authors' code."""
STAGES = ((16, 1), (32, 2), (64, 2))
"""Channels, before they are widened, and stride of each stage of the network, which is one block."""
IMAGES_AT_ONCE = 1
"""Images whose 72 copies are classified together: what lies between the layers of more would not stay in the cache."""
SAMPLES_AT_ONCE = 100
"""Images that are generated together: the same number for each of 1, 2, 5 or 10 that they are modelled on."""


def transform_pixels(size: int) -> torch.Tensor:
    """Find where each pixel of a transformed image comes from: all transformations only move pixels.

    Args:
        size (int): Side of the image in pixels.

    Returns:
        torch.Tensor: Indices into the flattened image, of shape ``(72, size * size)``.
    """
    length = int(SHIFT_FRACTION * size)
    pixels = torch.arange(size * size).reshape(1, size, size)
    moved = []
    for flip, down, right, quarter_turns in TRANSFORMATIONS:
        image = pixels.flip(-1) if flip else pixels
        image = translate(image, down * length, right * length)
        moved.append(torch.rot90(image, quarter_turns, (-2, -1)).flatten())
    return torch.stack(moved)


class _Block(nn.Module):
    """Two convolutions beside a shortcut of one; batch norm and ReLU come before a convolution."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map features of shape ``(B, in_channels, H, W)`` to ``(B, out_channels, H / stride, W / stride)``."""
        activated = F.relu(self.norm1(features), inplace=True)
        residual: torch.Tensor = self.conv2(F.relu(self.norm2(self.conv1(activated)), inplace=True))
        return residual.add_(self.shortcut(activated))


class WideResNet(nn.Module):
    """A wide residual network with pre-activation and ten layers (Zagoruyko and Komodakis, 2016).

    Args:
        num_classes (int): Number of classes.
        widen (int): Factor of the channels, which are 16, 32 and 64.
    """

    def __init__(self, num_classes: int, widen: int = 4) -> None:
        super().__init__()
        channels = STAGES[0][0]
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1, bias=False)]
        for base, stride in STAGES:
            layers.append(_Block(channels, widen * base, stride))
            channels = widen * base
        self.features = nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
        self.head = nn.Linear(channels, num_classes)

    def initialize(self, source: torch.Generator) -> None:
        """Draw all weights anew.

        Args:
            source (torch.Generator): Source of randomness, on the CPU.
        """
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, generator=source)
        bound = 1 / math.sqrt(self.head.in_features)
        nn.init.uniform_(self.head.weight, -bound, bound, generator=source)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Classify.

        Args:
            images (torch.Tensor): Images of shape ``(B, 3, H, W)``.
            dtype (torch.dtype): What all but the last layer compute in.

        Returns:
            torch.Tensor: Logits of shape ``(B, num_classes)``.
        """
        with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
            features = self.features(images.contiguous(memory_format=torch.channels_last))
        logits: torch.Tensor = self.head(features.float().mean(dim=(2, 3)))
        return logits


class GeomModel(nn.Module):
    """Scores images by how well their transformations are told apart.

    The score is one minus the paper's simplified normality score, the mean probability of the right transformation. Its
    other score, by Dirichlet distributions fitted to the probabilities of the training images, cannot be estimated from
    one image.

    Args:
        image_size (int): Side in pixels that images are reduced to.
        widen (int): Factor of the network's channels.
    """

    pixels: torch.Tensor

    def __init__(self, image_size: int = 32, widen: int = 4) -> None:
        super().__init__()
        self.image_size = image_size
        self.network = WideResNet(len(TRANSFORMATIONS), widen).to(memory_format=torch.channels_last)
        self.register_buffer("pixels", transform_pixels(image_size), persistent=False)

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Score.

        Args:
            images (torch.Tensor): Images in [-1, 1] of shape ``(B, 3, H, W)``.

        Returns:
            InferenceBatch: ``pred_score`` of shape ``(B,)`` in [0, 1], high where anomalous.
        """
        scores = [self._score(each) for each in self.reduce(images).split(IMAGES_AT_ONCE)]
        return InferenceBatch(pred_score=torch.cat(scores))

    def _score(self, images: torch.Tensor) -> torch.Tensor:
        probabilities = self.classify(self.transform(images)).softmax(dim=1)
        right = probabilities.unflatten(0, (len(images), -1)).diagonal(dim1=1, dim2=2)
        return 1 - right.mean(dim=1)

    def reduce(self, images: torch.Tensor) -> torch.Tensor:
        """Resize images of shape ``(B, 3, H, W)`` to ``(B, 3, image_size, image_size)``, antialiased."""
        size = (self.image_size, self.image_size)
        return images if images.shape[-2:] == size else F.interpolate(images, size, mode="bilinear", antialias=True)

    def transform(self, images: torch.Tensor, which: torch.Tensor | None = None) -> torch.Tensor:
        """Transform images.

        Args:
            images (torch.Tensor): Images of shape ``(B, 3, image_size, image_size)``.
            which (torch.Tensor | None): Indices of those wanted of all ``B * 72`` transformed images, of shape
                ``(N,)``; ``None`` wants all of them.

        Returns:
            torch.Tensor: Transformed images of shape ``(N, 3, image_size, image_size)``, the first image's 72 first,
            in the order of :data:`TRANSFORMATIONS`.
        """
        if which is None:
            which = torch.arange(len(images) * len(TRANSFORMATIONS), device=images.device)
        sources = images[which // len(TRANSFORMATIONS)].permute(0, 2, 3, 1).flatten(1, 2)
        pixels = self.pixels[which % len(TRANSFORMATIONS)][..., None].expand_as(sources)
        return sources.gather(1, pixels).unflatten(1, images.shape[-2:]).permute(0, 3, 1, 2)

    def classify(self, transformed: torch.Tensor) -> torch.Tensor:
        """Tell which transformation was applied to each image.

        Args:
            transformed (torch.Tensor): Transformed images of shape ``(N, 3, image_size, image_size)``.

        Returns:
            torch.Tensor: Logits of shape ``(N, 72)``.
        """
        logits: torch.Tensor = self.network(transformed, choose_dtype("auto", transformed.device))
        return logits


def train(
    model: GeomModel,
    images: torch.Tensor,
    optimizer: Optimizer,
    seed: int = 0,
    epochs: int = 3,
    min_steps: int = 200,
    batch_size: int = 128,
) -> Iterator[torch.Tensor]:
    """Train a model from scratch.

    Nothing is changed until the iterator is advanced, and the model is trained when it is exhausted.

    Args:
        model (GeomModel): The model; its weights are drawn anew.
        images (torch.Tensor): Training images in [-1, 1], of shape ``(N, 3, H, W)``.
        optimizer (Optimizer): Optimiser of the model's parameters.
        seed (int): Seed of the weights and of the order of the images.
        epochs (int): Passes over all transformed images.
        min_steps (int): Least number of steps, for which there are more passes.
        batch_size (int): Transformed images of a step.

    Yields:
        torch.Tensor: Loss of each step, a detached scalar.
    """
    source = torch.Generator().manual_seed(seed)
    model.network.initialize(source)
    model.train()
    images = model.reduce(images)
    number = len(images) * len(TRANSFORMATIONS)
    steps = max(epochs * math.ceil(number / batch_size), min_steps)
    batches = (batch for _ in count() for batch in torch.randperm(number, generator=source).split(batch_size))
    for batch in islice(batches, steps):
        which = batch.to(images.device)
        loss = F.cross_entropy(model.classify(model.transform(images, which)), which % len(TRANSFORMATIONS))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.detach()
    model.eval()


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

    def prepare_training(self, dataloader: DataLoader[ImageItem]) -> OneBatch:
        """Read the training images, once: they are the only batch."""
        return OneBatch(read_shots(dataloader, self.k_shot, self.seed, smallest_side=1))

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
