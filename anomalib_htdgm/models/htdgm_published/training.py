# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Training: scale after scale, discriminator against generator (Eqs. 3-11, 17-18).

Where the paper leaves it open, or its authors' code does otherwise, the code is followed; comments say where.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from kornia.color import hsv_to_rgb, rgb_to_hsv
from kornia.enhance import equalize_clahe
from torch.nn import functional as F
from torch.optim import Adam, Optimizer
from torch.optim.swa_utils import update_bn

from anomalib_htdgm.validation import check_integer, check_number

from .networks import draw_weights
from .torch_model import HtdgmPublishedModel

LEARNING_RATE = 5e-4
BETAS = (0.5, 0.999)
RECONSTRUCTION_WEIGHT = 100.0
"""``alpha`` of Eqs. 11 and 18 (Sec. 3.4)."""
DECAY = 0.1
DECAY_ITERATIONS = (500, 1000)
"""Iterations of a scale after which discriminator and generator learn at a tenth of their rate (authors' code)."""
NOISE_SHARE = 0.1
"""Amplitude of a scale's noise over the mean absolute error of the enlarged reconstruction (authors' code). The paper
has the whole distance (Sec. 3.1), with which error and noise grow from scale to scale."""


@dataclass(frozen=True)
class Schedule:
    """How long a model is trained, and against what: arguments of :class:`~.lightning_model.HtdgmPublished`.

    Raises:
        ValueError: If an argument is out of its range.
    """

    iterations: int = 1000
    steps: int = 3
    fake_weight: float = 1.0
    reestimate_statistics: bool = False

    def __post_init__(self) -> None:
        check_integer("iterations", self.iterations, at_least=1)
        check_integer("steps", self.steps, at_least=1)
        check_number("fake_weight", self.fake_weight, at_least=0)


def equalize(images: torch.Tensor) -> torch.Tensor:
    """Equalise histograms of training images (Sec. 3.1), as the authors' code does: CLAHE on the value channel of HSV.

    Images before and after are in [-1, 1], of shape ``(B, 3, H, W)``.
    """
    hue, saturation, value = rgb_to_hsv((images / 2 + 0.5).clamp(0, 1)).unbind(dim=1)
    value = equalize_clahe(value[:, None], clip_limit=2.0, grid_size=(8, 8))[:, 0]
    return hsv_to_rgb(torch.stack([hue, saturation, value], dim=1)) * 2 - 1


def make_optimizers(model: HtdgmPublishedModel) -> list[Optimizer]:
    """Make an optimiser for all discriminators, and one for all generators, if there are some.

    A scale starts afresh: Adam has moments for each weight, and passes over those of the other scales, which have no
    gradients.
    """
    networks = [[each.discriminator for each in model.scales], [each.generator for each in model.scales]]
    weights = ([weight for network in each for weight in network.parameters()] for each in networks)
    return [Adam(each, lr=LEARNING_RATE, betas=BETAS) for each in weights if each]


@torch.no_grad()
def start_scale(model: HtdgmPublishedModel, index: int, images: torch.Tensor, rng: torch.Generator) -> None:
    """Draw weights and fixed noise of a scale, and choose the amplitude of its noise by images of its size.

    The weights are those of the scale before where the widths agree (authors' code).
    """
    scale, before = model.scales[index], model.scales[max(index - 1, 0)]
    for name in ("discriminator", "generator"):
        network = getattr(scale, name)
        if index and scale.width == before.width:
            network.load_state_dict(getattr(before, name).state_dict())
        else:
            draw_weights(network, rng)
    model.is_trained.fill_(False)
    model.num_shots.fill_(len(images))
    if model.has_generators:
        scale.fixed_noise.copy_(model.draw_noise(index, len(images), rng)[:1, :1])
        # sigma^n of Sec. 3.1
        distances = (_reconstruct(model, index) - images).abs().mean(dim=(1, 2, 3))
        scale.noise_amplitudes[: len(images)] = NOISE_SHARE * distances if index else 1.0


@torch.no_grad()
def _reconstruct(model: HtdgmPublishedModel, index: int) -> torch.Tensor:
    """Reconstruct the training images up to a scale, and enlarge them to its size (Eqs. 7-8, 15-16)."""
    shots = torch.arange(int(model.num_shots), device=model.num_shots.device)
    return model.enlarge(model.generate(shots, index), len(shots))


class ScaleTraining:
    """Discriminator and generator of one scale at work, once :func:`start_scale` has started it.

    Args:
        model (HtdgmPublishedModel): The model.
        index (int): Index of the scale.
        images (torch.Tensor): Training images of its size, in [-1, 1], of shape ``(k, 3, size, size)``.
        schedule (Schedule): How it is trained.
        optimizers (Sequence[Optimizer]): As :func:`make_optimizers` makes them.
        rng (torch.Generator): Source of the noise, on the CPU.
    """

    def __init__(
        self,
        model: HtdgmPublishedModel,
        index: int,
        images: torch.Tensor,
        schedule: Schedule,
        optimizers: Sequence[Optimizer],
        rng: torch.Generator,
    ) -> None:
        self.model, self.index, self.images, self.schedule, self.rng = model, index, images, schedule, rng
        self.optimizers = optimizers
        self.scale = model.scales[index]
        self.shots = torch.arange(len(images), device=images.device)
        self.transformed = model.transform(images)  # they stay the same
        if model.has_generators:
            self.enlarged_reconstruction = _reconstruct(model, index)

    def step(self, iteration: int) -> dict[str, torch.Tensor]:
        """Do one iteration: steps of the discriminator, then steps of the generator.

        Returns:
            dict[str, torch.Tensor]: Losses of the last steps by name, each a detached scalar.
        """
        for optimizer, last in zip(self.optimizers, DECAY_ITERATIONS, strict=False):
            optimizer.param_groups[0]["lr"] = LEARNING_RATE * (DECAY if iteration >= last else 1)
        self.scale.train()
        losses: dict[str, torch.Tensor] = {}
        if not self.model.has_generators:
            for _ in range(self.schedule.steps):
                losses |= self._step_discriminator(None)
            return losses
        # As in the authors' code, all steps of an iteration share this scale's noise, and the generator's steps the
        # images that the discriminator's last step started from.
        noise = self.model.draw_noise(self.index, len(self.shots), self.rng)
        for _ in range(self.schedule.steps):
            with torch.no_grad():
                previous = self.model.enlarge(self.model.generate(self.shots, self.index, self.rng), len(self.shots))
                fake = self.scale.generate(noise, previous, self.shots)
            losses |= self._step_discriminator(fake)
        for _ in range(self.schedule.steps):
            losses |= self._step_generator(noise, previous)
        return losses

    def _step_discriminator(self, fake: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """Learn to tell the transformations of real patches (Eq. 3), and real from generated ones (Eq. 4)."""
        real_loss = self._cross_entropy(self.transformed, self.model.classes)
        losses, loss = {"discriminator_loss": real_loss.detach()}, real_loss
        if fake is not None:
            classes = [self.model.fake_class] * len(self.model.classes)
            fake_loss = self._cross_entropy(self.model.transform(fake), classes)
            losses["fake_loss"], loss = fake_loss.detach(), real_loss + self.schedule.fake_weight * fake_loss
        _descend(self.optimizers[0], loss)
        return losses

    def _step_generator(self, noise: torch.Tensor, previous: torch.Tensor) -> dict[str, torch.Tensor]:
        """Learn to generate patches whose transformation is told (Eq. 5), and to reconstruct (Eqs. 9-11, 17-18)."""
        self.scale.discriminator.requires_grad_(False)  # only its input's gradient is needed
        fake = self.scale.generate(noise, previous, self.shots)
        loss = self._cross_entropy(self.model.transform(fake), self.model.classes)
        reconstruction = self.scale.generate(self.scale.fixed_noise, self.enlarged_reconstruction, self.shots)
        reconstruction_loss = F.mse_loss(reconstruction, self.images)  # squared as in the authors' code
        _descend(self.optimizers[1], loss + RECONSTRUCTION_WEIGHT * reconstruction_loss)
        self.scale.discriminator.requires_grad_(True)
        return {"generator_loss": loss.detach(), "reconstruction_loss": reconstruction_loss.detach()}

    def _cross_entropy(self, transformed: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        """Compute the mean cross entropy of all patches of what :meth:`HtdgmPublishedModel.transform` gives."""
        logits = self.scale.discriminator(transformed)
        targets = torch.tensor(classes, device=logits.device).repeat_interleave(len(self.images))
        return F.cross_entropy(logits, targets[:, None, None].expand(-1, *logits.shape[2:]))

    def finish(self) -> None:
        """End the training of this scale; with the last scale the model is trained."""
        if self.schedule.reestimate_statistics:
            update_bn([self.transformed], self.scale.discriminator)
        self.scale.eval()
        self.model.is_trained.fill_(self.index == len(self.model.scales) - 1)


def _descend(optimizer: Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def train(
    model: HtdgmPublishedModel, images: torch.Tensor, schedule: Schedule, seed: int = 0
) -> Iterator[dict[str, torch.Tensor]]:
    """Train a model on a few images, from scratch, without a trainer.

    The model is trained when the iterator is exhausted.

    Args:
        model (HtdgmPublishedModel): The model; its weights are drawn anew.
        images (torch.Tensor): The k training images in [-1, 1], of shape ``(k, 3, H, W)``.
        schedule (Schedule): How it is trained.
        seed (int): Seed of weights and noise.

    Yields:
        dict[str, torch.Tensor]: Losses of each iteration of each scale, coarse to fine.
    """
    rng, optimizers = torch.Generator().manual_seed(seed), make_optimizers(model)
    for index, reduced in enumerate(model.pyramid(images).values()):
        start_scale(model, index, reduced, rng)
        training = ScaleTraining(model, index, reduced, schedule, optimizers, rng)
        for iteration in range(schedule.iterations):
            yield training.step(iteration)
        training.finish()
