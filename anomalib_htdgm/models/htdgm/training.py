# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Training: scale after scale, discriminator against generator (Eqs. 4-11, 13-18, Sec. 3.4)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import count, product

import torch
from torch.optim import Adam, Optimizer

from anomalib_htdgm.validation import check_integer, check_number

from .loss import reconstruction_loss, transformation_loss
from .members import share_of
from .networks import RECEPTIVE_FIELD, Discriminator, Generator, initialize
from .signals import Views
from .torch_model import HtdgmModel
from .windows import Windows

BETAS = (0.5, 0.999)
DECAY = 0.1
DISCRIMINATOR_DECAY_ITERATION = 500
"""Iteration of a scale after which the discriminator learns at a tenth of its rate, as in the authors' code. The
generator's turn comes after 1000 iterations, which is where the published training ends."""
GENERATOR_DECAY_ITERATION = 1000
NOISE_SHARE = 0.1
"""Amplitude of a scale's noise over the mean absolute error of the enlarged reconstruction (authors' code)."""
ITERATIONS_FOR_STATISTICS = 20
"""Iterations whose windows make the batch-norm statistics of a finished scale: of fewer, ten shots score worse."""


@dataclass(frozen=True)
class TrainingStep:
    """What one iteration did.

    Args:
        scale (int): Index of the scale it trained.
        set_index (int): Index of the set of transformations.
        member (int): Index of the discriminator of that scale and set.
        iteration (int): Index of the iteration within that scale.
        losses (dict[str, torch.Tensor]): Losses by name, each a detached scalar.
    """

    scale: int
    set_index: int
    member: int
    iteration: int
    losses: dict[str, torch.Tensor]


@dataclass(frozen=True)
class Training:
    """How a model is trained.

    Args:
        iterations (int): Iterations per scale. 30 take seconds; the published number is 1000.
        pixels_per_iteration (int | None): Pixels of each canvas that an iteration sees, in windows of some images (see
            :mod:`~anomalib_htdgm.models.htdgm.windows`). ``None`` shows all of all images, as published; so it is with
            generators in any case.
        discriminator_steps (int): Steps of the discriminator in an iteration; published: 3.
        generator_steps (int): Steps of the generator in an iteration; published: 3.
        learning_rate (float): Adam's rate; the published one.
        reconstruction_weight (float): Weight alpha of the reconstruction (Eq. 18); the published one.
        fake_weight (float): Weight of the fake class in the discriminator's loss; published: 1. With 0 there is neither
            a fake class nor a generator, the variant (a) of the paper's Table 1.
        reestimate_statistics (bool): Whether a finished scale's batch-norm statistics become those of the real
            canvases; published: no.

    Raises:
        ValueError: If an argument is out of its range.
    """

    iterations: int = 30
    pixels_per_iteration: int | None = 4608
    discriminator_steps: int = 1
    generator_steps: int = 1
    learning_rate: float = 5e-4
    reconstruction_weight: float = 100.0
    fake_weight: float = 0.0
    reestimate_statistics: bool = True

    def __post_init__(self) -> None:
        check_integer("iterations", self.iterations, at_least=1)
        if self.pixels_per_iteration is not None:
            check_integer("pixels_per_iteration", self.pixels_per_iteration, at_least=1)
        check_integer("discriminator_steps", self.discriminator_steps, at_least=1)
        check_integer("generator_steps", self.generator_steps, at_least=1)
        check_number("learning_rate", self.learning_rate, above=0)
        check_number("reconstruction_weight", self.reconstruction_weight, at_least=0)
        check_number("fake_weight", self.fake_weight, at_least=0)

    def configure_optimizers(self, model: HtdgmModel) -> list[Optimizer]:
        """Make one optimiser for each network: of the discriminators, coarse to fine, then of the generators."""
        model.requires_grad_(True)  # noqa: FBT003
        networks = [*model.votes.networks, *model.generators]
        return [Adam(each.parameters(), lr=self.learning_rate, betas=BETAS, fused=True) for each in networks]

    def run(
        self,
        model: HtdgmModel,
        images: torch.Tensor,
        seed: int = 0,
        optimizers: Sequence[Optimizer] | None = None,
        augment: Callable[[int], torch.Tensor] | None = None,
    ) -> Iterator[TrainingStep]:
        """Train a model on a few images, from scratch.

        Nothing is changed until the iterator is advanced, and the model is trained when it is exhausted.

        Args:
            model (HtdgmModel): The model; its weights are drawn anew.
            images (torch.Tensor): The k training images in [-1, 1], of shape ``(k, 3, H, W)``.
            seed (int): Seed of weights, noise and order.
            optimizers (Sequence[Optimizer] | None): As :meth:`configure_optimizers` makes them, the default.
            augment (Callable[[int], torch.Tensor] | None): Gives, for the number of an iteration of the whole training,
                what the discriminators see in it in place of the images, of their shape; ``None`` shows the images.
                Statistics and memory are of the images in any case.

        Returns:
            Iterator[TrainingStep]: ``iterations`` steps for each member of each set of each scale, coarse to fine.

        Raises:
            ValueError: If the images cannot be trained on, or the model lacks the generators or has no use for them.
        """
        _check(images, model.k_shot)
        if (self.fake_weight > 0) != model.adversarial:
            which = "with" if model.adversarial else "without"
            msg = f"fake_weight: got {self.fake_weight!r} for a model {which} generators; only 0 goes without them"
            raise ValueError(msg)
        if augment is not None and model.adversarial:
            with_generators = "a model with generators (fake_weight above 0)"
            msg = f"augment (train_augmentations): got some for {with_generators}; only None goes with them"
            raise ValueError(msg)
        optimizers = self.configure_optimizers(model) if optimizers is None else optimizers
        rng = torch.Generator().manual_seed(seed)
        return self._iterate(model, images, rng, optimizers, augment)

    def count_steps(self, model: HtdgmModel) -> int:
        """Count the steps that :meth:`run` takes."""
        return self.iterations * len(model.votes.networks)

    def _iterate(
        self,
        model: HtdgmModel,
        images: torch.Tensor,
        rng: torch.Generator,
        optimizers: Sequence[Optimizer],
        augment: Callable[[int], torch.Tensor] | None,
    ) -> Iterator[TrainingStep]:
        model.is_trained.fill_(False)  # noqa: FBT003
        model.num_shots.fill_(len(images))
        for scale in range(len(model.generators)):
            model.fixed_noise(scale).zero_()
        model.noise_amplitudes.zero_()
        views = model.reduce(images, training=True)
        votes, numbers = model.votes, count()
        places = product(range(len(votes.scale_sizes)), range(len(votes.transformation_sets)), range(votes.members))
        for (scale, set_index, member), optimizer in zip(places, optimizers, strict=False):
            _start([of_scale[set_index][member] for of_scale in votes.discriminators], scale, rng)
            _start(model.generators, scale, rng)
            of_generators = optimizers[len(votes.networks) :]
            trainer = _ScaleTrainer(self, model, scale, set_index, member, views, rng, optimizer, of_generators)
            for iteration in range(self.iterations):
                if augment is not None:
                    trainer.see(augment(next(numbers)))
                with nullcontext() if trainer.windows is None else _one_thread():
                    losses = trainer.step(iteration)
                yield TrainingStep(scale, set_index, member, iteration, losses)
            if augment is not None:
                trainer.see(images)
            trainer.finish()
        model.fit(views, rng)
        model.is_trained.fill_(True)  # noqa: FBT003
        model.requires_grad_(False)  # noqa: FBT003


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute in one thread: for windows, two are no faster, and where others are at work they wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _check(images: torch.Tensor, most_images: int) -> None:
    num_images, height, width = len(images), *images.shape[-2:]
    if not 1 <= num_images <= most_images:
        msg = f"images: got {num_images}; allowed are 1 to {most_images} (k_shot)"
        raise ValueError(msg)
    if min(height, width) < RECEPTIVE_FIELD:
        msg = f"images: got {height}x{width} pixels; allowed are images of {RECEPTIVE_FIELD}x{RECEPTIVE_FIELD} or more"
        raise ValueError(msg)
    for index, image in enumerate(images):
        if not image.isfinite().all():
            msg = f"images: number {index} has pixels that are NaN or infinite; allowed are finite values"
            raise ValueError(msg)


def _share_of_images(member: int, model: HtdgmModel, images: torch.Tensor) -> torch.Tensor:
    """Choose what a member is trained on of images, or of their tiles: all tiles of an image are one member's."""
    by_image = images.unflatten(0, (int(model.num_shots), -1))
    return share_of(member, model.votes.members, by_image).flatten(0, 1)


def _start(networks: Sequence[Discriminator] | Sequence[Generator], scale: int, rng: torch.Generator) -> None:
    """Let a scale start from the weights of the scale before where the widths agree, else from random ones."""
    if not networks:
        return
    if scale and networks[scale].width == networks[scale - 1].width:
        networks[scale].load_state_dict(networks[scale - 1].state_dict())
    else:
        initialize(networks[scale], rng)


class _ScaleTrainer:
    """Discriminator and generator of one scale at work, with all that stays the same while they train."""

    def __init__(
        self,
        training: Training,
        model: HtdgmModel,
        scale: int,
        set_index: int,
        member: int,
        views: Views,
        rng: torch.Generator,
        optimizer: Optimizer,
        generator_optimizers: Sequence[Optimizer],
    ) -> None:
        self.training, self.model, self.scale, self.rng = training, model, scale, rng
        self.member = member
        self.real, enlarged = self._share_of(views)
        self.canvases = model.votes.canvases[scale][set_index]
        self.discriminator = model.votes.discriminators[scale][set_index][member]
        self.discriminator_optimizer = optimizer
        pixels = None if model.adversarial else training.pixels_per_iteration
        self.windows = None if pixels is None else Windows(self.canvases, pixels)
        self.targets = [each[None] for each in self.canvases.targets()] if self.windows is None else []
        self._draw_canvases(self.real, enlarged)
        if model.adversarial:
            self.shots = torch.arange(len(self.real), device=self.real.device)
            self.generator = model.generators[scale]
            self.generator_optimizer = generator_optimizers[scale]
            # As in the authors' code, one channel for all channels of all images: their index tells these apart.
            self.fixed_noise = model.draw_noise(scale, len(self.real), rng)[:1, :1].expand_as(self.real)
            model.fixed_noise(scale)[: len(self.real)] = self.fixed_noise
            self.enlarged_reconstructions = self._enlarge_previous(self.fixed_noise, None)
            model.noise_amplitudes[scale, : len(self.real)] = self._noise_amplitudes()

    def see(self, images: torch.Tensor) -> None:
        """Let the discriminator see other images from now on."""
        self._draw_canvases(*self._share_of(self.model.reduce(images, training=True)))

    def _share_of(self, views: Views) -> tuple[torch.Tensor, torch.Tensor]:
        """Look up the member's share of images at this scale, and the same enlarged."""
        reduced, enlarged = self.model.votes.pair(self.scale, views)
        return _share_of_images(self.member, self.model, reduced), _share_of_images(self.member, self.model, enlarged)

    def _draw_canvases(self, real: torch.Tensor, enlarged: torch.Tensor) -> None:
        if self.windows is None:
            self.real_canvases = self.canvases.draw(real, self.model.dtype, enlarged)
        else:
            self.windows.show(real, self.model.dtype, enlarged)

    def step(self, iteration: int) -> dict[str, torch.Tensor]:
        """Do one iteration: steps of the discriminator, then steps of the generator."""
        self._decay_rates(iteration)
        losses: dict[str, torch.Tensor] = {}
        if not self.model.adversarial:
            for _ in range(self.training.discriminator_steps):
                losses |= self._step_discriminator()
            return losses
        # As in the authors' code, all steps of an iteration share this scale's noise, and the generator's steps the
        # images that the discriminator's last step started from.
        noise = self.model.draw_noise(self.scale, len(self.shots), self.rng)
        for _ in range(self.training.discriminator_steps):
            previous = self._enlarge_previous(noise, self.rng)
            losses |= self._step_discriminator(noise, previous)
        for _ in range(self.training.generator_steps):
            losses |= self._step_generator(noise, previous)
        return losses

    def finish(self) -> None:
        """End the training of this scale."""
        if self.training.reestimate_statistics:
            self.discriminator.reestimate_statistics(self._draw_real(ITERATIONS_FOR_STATISTICS)[0])

    def _step_discriminator(self, *inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Learn to tell the transformations of real patches, and real from patches generated of inputs (Eqs. 4-6)."""
        self.discriminator_optimizer.zero_grad()
        canvases, targets = self._draw_real()
        loss = transformation_loss(self.discriminator(canvases, learning=True), targets)
        loss.backward()
        losses = {"discriminator_loss": loss.detach()}
        if inputs:
            with torch.no_grad():
                fake = self._generate(*inputs)
            fake_loss = transformation_loss(*self._classify(fake), fake=True)
            (self.training.fake_weight * fake_loss).backward()
            losses["fake_loss"] = fake_loss.detach()
        self.discriminator_optimizer.step()
        return losses

    def _step_generator(self, noise: torch.Tensor, previous: torch.Tensor) -> dict[str, torch.Tensor]:
        """Learn to generate patches whose transformation is told, and to reconstruct (Eqs. 7-11)."""
        self.discriminator.requires_grad_(False)  # noqa: FBT003  # only its input's gradient is needed
        loss = transformation_loss(*self._classify(self._generate(noise, previous)))
        reconstruction = reconstruction_loss(self._generate(self.fixed_noise, self.enlarged_reconstructions), self.real)
        self.generator_optimizer.zero_grad()
        (loss + self.training.reconstruction_weight * reconstruction).backward()
        self.generator_optimizer.step()
        self.discriminator.requires_grad_(True)  # noqa: FBT003
        return {"generator_loss": loss.detach(), "reconstruction_loss": reconstruction.detach()}

    def _decay_rates(self, iteration: int) -> None:
        """Lower the learning rates where the published schedule does."""
        if iteration == DISCRIMINATOR_DECAY_ITERATION:
            _decay(self.discriminator_optimizer)
        if iteration == GENERATOR_DECAY_ITERATION and self.model.adversarial:
            _decay(self.generator_optimizer)

    def _draw_real(self, times: int = 1) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Draw canvases of the real images, or ``times`` an iteration's windows of them, and their targets."""
        if self.windows is None:
            return self.real_canvases, self._repeat_targets(self.real_canvases)
        windows, targets = self.windows.draw(self.rng, times)
        return [windows], [targets]

    def _classify(self, images: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Let the discriminator look at generated images: its output, and the targets."""
        canvases = self.canvases.draw(images, self.model.dtype)
        return self.discriminator(canvases, learning=True), self._repeat_targets(canvases)

    def _repeat_targets(self, canvases: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return self.targets * (len(canvases) // len(self.targets))

    def _generate(self, noise: torch.Tensor, previous: torch.Tensor) -> torch.Tensor:
        return self.model.generate_scale(self.scale, noise, previous, self.shots, learning=True)

    @torch.no_grad()
    def _enlarge_previous(self, noise: torch.Tensor, rng: torch.Generator | None) -> torch.Tensor:
        """Generate the images of the scale before, whose networks are finished, and enlarge them."""
        coarser = self.model.generate(self.shots, self.scale, rng)
        return self.model.enlarge(coarser[-1:], self.scale, noise)

    def _noise_amplitudes(self) -> torch.Tensor:
        """Choose the amplitude of the noise by how far each enlarged reconstruction is from its image.

        The whole distance, the paper's choice, is too much: batch-norm statistics of such noise do not suit the
        reconstructions, whose distance, and so the noise, then grows from scale to scale.
        """
        if self.scale == 0:
            return torch.ones(len(self.real), device=self.real.device)
        return NOISE_SHARE * (self.enlarged_reconstructions - self.real).abs().mean(dim=(1, 2, 3))


def _decay(optimizer: Optimizer) -> None:
    for group in optimizer.param_groups:
        group["lr"] *= DECAY
