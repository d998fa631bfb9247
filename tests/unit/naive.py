# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The obvious way to train and to score, as the paper's description reads: an oracle for the model.

Every transformed image is made, and seen by the networks pixel by pixel: 54 images a pass, in float32, in PyTorch's
default memory format, with autograd keeping what it likes, one image and one scale after the other. The weights are
those of a model of ours, so the work is the same.
"""

import math

import torch
from torch.nn import functional as F  # noqa: N812
from torch.optim import Adam

from anomalib_htdgm.models.htdgm.networks import MARGIN, NEGATIVE_SLOPE, Discriminator, Generator
from anomalib_htdgm.models.htdgm.torch_model import HtdgmModel
from anomalib_htdgm.models.htdgm.training import BETAS, Training
from anomalib_htdgm.models.htdgm.transformations import shift_length


def convolve(network: Discriminator | Generator, images: torch.Tensor) -> torch.Tensor:
    """Pass images, shape ``(N, channels, H, W)``, through the five layers of a network."""
    for convolution, norm in zip(network.convolutions[:-1], network.norms, strict=True):
        images = F.leaky_relu(norm(convolution(images)), NEGATIVE_SLOPE)
    output: torch.Tensor = network.convolutions[-1](images)
    return output


def generate(network: Generator, noise: torch.Tensor, previous: torch.Tensor) -> torch.Tensor:
    """Generate one image, shape ``(1, 3, H, W)``, at one scale."""
    index = torch.zeros_like(noise[:, :1])
    return torch.tanh(convolve(network, F.pad(torch.cat([noise + previous, index], dim=1), [MARGIN] * 4))) + previous


class NaiveTraining:
    """Training of one scale of a model with generators on one image in [-1, 1], of shape ``(1, 3, H, W)``."""

    def __init__(self, training: Training, model: HtdgmModel, scale: int, image: torch.Tensor) -> None:
        self.training, self.model, self.scale = training, model, scale
        self.real = model.reduce(image)[model.pyramid.sizes[scale]]
        self.discriminator = model.votes.networks[scale].train().requires_grad_(True)
        self.generator = model.generators[scale].train().requires_grad_(True)
        self.discriminator_optimizer, self.generator_optimizer = (
            Adam(each.parameters(), lr=training.learning_rate, betas=BETAS)
            for each in (self.discriminator, self.generator)
        )
        self.fixed_noise = self._draw_noise(scale)[:, :1].expand_as(self.real)
        self.previous_of_fixed_noise = self._previous()

    def step(self) -> dict[str, torch.Tensor]:
        """Do one iteration: steps of the discriminator, then steps of the generator; give the last losses."""
        classes = torch.arange(len(self.model.votes.transformation_sets[0]))
        fake_class = torch.full_like(classes, len(classes))
        noise = self._draw_noise(self.scale)
        for _ in range(self.training.discriminator_steps):
            previous = self._previous()
            fake = generate(self.generator, noise, previous).detach()
            real_loss = self._cross_entropy(self.real, classes)
            fake_loss = self._cross_entropy(fake, fake_class)
            _descend(self.discriminator_optimizer, real_loss + self.training.fake_weight * fake_loss)
        for _ in range(self.training.generator_steps):
            loss = self._cross_entropy(generate(self.generator, noise, previous), classes)
            reconstruction = generate(self.generator, self.fixed_noise, self.previous_of_fixed_noise)
            loss = loss + self.training.reconstruction_weight * F.mse_loss(reconstruction, self.real)
            _descend(self.generator_optimizer, loss)
        return {"discriminator_loss": real_loss.detach(), "fake_loss": fake_loss.detach()}

    def _cross_entropy(self, images: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        transformed = torch.cat([each.apply(images) for each in self.model.votes.transformation_sets[0]])
        votes = convolve(self.discriminator, transformed).flatten(2)
        return F.cross_entropy(votes, classes[:, None].expand(-1, votes.shape[-1]))

    def _draw_noise(self, scale: int) -> torch.Tensor:
        return self.model.draw_noise(scale, 1, torch.default_generator)

    @torch.no_grad()
    def _previous(self) -> torch.Tensor:
        """Generate a random image of the scale before, enlarged; nothing at the coarsest scale."""
        previous = torch.zeros_like(self._draw_noise(0))
        for scale in range(self.scale):
            image = generate(self.model.generators[scale].eval(), self._draw_noise(scale), previous)
            previous = self.model.pyramid.upsample(image.clamp(-1, 1), scale)
        return previous


def _descend(optimizer: Adam, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def naive_votes(model: HtdgmModel, image: torch.Tensor) -> list[torch.Tensor]:
    """Let every patch of every transformed image vote, as :meth:`Votes.average` does for one set of them."""
    (transformations,) = model.votes.transformation_sets
    index = torch.arange(len(transformations))
    votes = []
    for reduced, discriminator in zip(model.reduce(image).values(), model.votes.networks, strict=True):
        transformed = torch.cat([each.apply(reduced) for each in transformations])
        logits = convolve(discriminator.eval(), transformed)[:, : len(index)]
        votes.append(logits.log_softmax(dim=1)[index, index][None])
    return votes


@torch.inference_mode()
def naive_score(model: HtdgmModel, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Score and localise one image, with the model's default score and map."""
    scores, maps, finest = [], [], model.pyramid.sizes[-1]
    for size, votes in zip(model.pyramid.sizes, naive_votes(model, image), strict=True):
        patches = -votes.flatten(2)
        kept = math.ceil(model.votes.patch_fraction * patches.shape[-1])
        scores.append(patches.topk(kept).values.mean(dim=(1, 2)))
        pairs = zip(model.votes.transformation_sets[0], votes.unbind(dim=1), strict=True)
        upright = torch.stack([each.invert(-part, shift_length(size)) for each, part in pairs])
        worst = F.pad(upright.amax(dim=0)[None], [MARGIN] * 4, mode="replicate")
        maps.append(F.interpolate(worst, (finest, finest), mode="bilinear"))
    anomaly_map = model.anomaly_map_generator.blur(torch.stack(maps).mean(dim=0))
    return torch.stack(scores).mean(dim=0), F.interpolate(anomaly_map, image.shape[-2:], mode="bilinear")
