# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Generation: images like the training images, made scale by scale of noise (Eqs. 1-2, 8, 13-16).

It needs generators, which only a training with ``fake_weight`` above 0 has; scoring needs none.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torchvision.utils import make_grid

from anomalib_htdgm.models.exporting import require_training
from anomalib_htdgm.models.precision import Precision, choose_dtype

from .networks import Generator
from .pyramid import Pyramid
from .transformations import get_transformation_sets

UNTRAINED = (
    "Htdgm has not been trained, or not to the end: fit it, or load a trained model's checkpoint, before it can score"
)


class GenerationMixin(nn.Module):
    """What a model can do with its generators. It has to have been trained for that."""

    generators: Sequence[Generator]
    pyramid: Pyramid
    precision: Precision
    adversarial: bool
    is_trained: torch.Tensor
    num_shots: torch.Tensor
    noise_amplitudes: torch.Tensor

    @property
    def dtype(self) -> torch.dtype:
        """Type that the networks compute in."""
        return choose_dtype(self.precision, self.num_shots.device)

    @torch.no_grad()
    def sample(self, num_images: int, seed: int = 0) -> list[torch.Tensor]:
        """Generate random images; the training images they are modelled on take turns (Eqs. 1-2, 13-14).

        Returns:
            list[torch.Tensor]: For each scale, coarse to fine, images in [-1, 1] of shape ``(B, 3, size, size)``.

        Raises:
            RuntimeError: If the model has not been trained, or trained without generators.
        """
        self._require_generators()
        shots = torch.arange(num_images, device=self.num_shots.device) % self.num_shots
        rng = torch.Generator().manual_seed(seed)
        return [images.clamp(-1, 1) for images in self.generate(shots, len(self.generators), rng)]

    @torch.no_grad()
    def reconstruct(self) -> list[torch.Tensor]:
        """Generate the training images from their fixed noise (Eqs. 8, 15-16).

        Returns:
            list[torch.Tensor]: For each scale, coarse to fine, images in [-1, 1] of shape ``(k, 3, size, size)``.

        Raises:
            RuntimeError: If the model has not been trained, or trained without generators.
        """
        self._require_generators()
        shots = torch.arange(int(self.num_shots), device=self.num_shots.device)
        return [images.clamp(-1, 1) for images in self.generate(shots, len(self.generators))]

    def picture(self, num_images: int = 4, seed: int = 0) -> torch.Tensor:
        """Draw reconstructions, and random images to their right, as one picture: a row for each scale, coarse to fine.

        Returns:
            torch.Tensor: The picture in [0, 1], of shape ``(3, height, width)``.

        Raises:
            RuntimeError: If the model has not been trained, or trained without generators.
        """
        size = self.pyramid.sizes[-1]
        rows = [torch.cat(pair) for pair in zip(self.reconstruct(), self.sample(num_images, seed), strict=True)]
        enlarged = [F.interpolate(row, (size, size), mode="nearest") for row in rows]
        return make_grid(torch.cat(enlarged) / 2 + 0.5, nrow=len(rows[0]))

    def generate(self, shots: torch.Tensor, num_scales: int, rng: torch.Generator | None = None) -> list[torch.Tensor]:
        """Generate images scale by scale.

        Args:
            shots (torch.Tensor): Index of the training image that each is modelled on, shape ``(B,)``.
            num_scales (int): Number of scales, from the coarsest.
            rng (torch.Generator | None): Source of the noise, on the CPU; ``None`` takes the fixed noise, which
                reconstructs the training images.

        Returns:
            list[torch.Tensor]: For each scale, coarse to fine, images of shape ``(B, 3, size, size)``.
        """
        images: list[torch.Tensor] = []
        for scale in range(num_scales):
            noise = self.fixed_noise(scale)[shots] if rng is None else self.draw_noise(scale, len(shots), rng)
            images.append(self.generate_scale(scale, noise, self.enlarge(images[-1:], scale, noise), shots))
        return images

    def enlarge(self, coarser: Sequence[torch.Tensor], scale: int, noise: torch.Tensor) -> torch.Tensor:
        """Make of the images of the scale before, none at the coarsest scale, what a scale starts from.

        They are brought to [-1, 1] before: what a generator overdoes must not grow from scale to scale.

        Returns:
            torch.Tensor: Images of the shape of this scale's noise; zeros at the coarsest scale.
        """
        if not coarser:
            return torch.zeros_like(noise)
        return self.pyramid.upsample(coarser[0].clamp(-1, 1), scale - 1)

    def fixed_noise(self, scale: int) -> torch.Tensor:
        """Return the noise that a scale reconstructs the training images from, shape ``(k_shot, 3, size, size)``."""
        noise: torch.Tensor = getattr(self, f"fixed_noise_{scale}")
        return noise

    def draw_noise(self, scale: int, num_images: int, rng: torch.Generator) -> torch.Tensor:
        """Draw noise from N(0, 1) of shape ``(num_images, 3, size, size)`` for one scale, by a generator on the CPU.

        At the coarsest it is the same in all channels (authors' code).
        """
        size, channels = self.pyramid.sizes[scale], 3 if scale else 1
        noise = torch.randn(num_images, channels, size, size, generator=rng).expand(-1, 3, -1, -1)
        return noise.to(self.num_shots.device, non_blocking=True)

    def generate_scale(
        self, scale: int, noise: torch.Tensor, previous: torch.Tensor, shots: torch.Tensor, *, learning: bool = False
    ) -> torch.Tensor:
        """Generate images of one scale, of shape ``(B, 3, size, size)``.

        Args:
            scale (int): Index of the scale.
            noise (torch.Tensor): Noise from N(0, 1) of that shape; the scale's amplitude is applied to it here.
            previous (torch.Tensor): What :meth:`enlarge` makes of the scale before, of the same shape.
            shots (torch.Tensor): Index of the training image that each is modelled on, shape ``(B,)``.
            learning (bool): Whether the batch norm takes the statistics of these images.
        """
        amplitudes = self.noise_amplitudes[scale, shots][:, None, None, None]
        images: torch.Tensor = self.generators[scale](
            amplitudes * noise, previous, shots, self.dtype, learning=learning
        )
        return images

    def _require_training(self) -> None:
        require_training(self.is_trained, UNTRAINED)

    def _require_generators(self) -> None:
        self._require_training()
        if not self.adversarial:
            msg = "fake_weight: the model was trained with 0, without generators; sampling needs a positive fake_weight"
            raise RuntimeError(msg)


def check_adversarial(
    members: int, votes_from: int, transformations: str | Sequence[str], tiles: int, *, standardize: bool
) -> None:
    """Refuse what does not go with generators: they play against one discriminator, and make images in [-1, 1].

    Nor do they make tiles: each of k images has a number that a generator is told, and is in every iteration.
    """
    for name, given, allowed, is_allowed in (
        ("members", members, 1, members == 1),
        ("votes_from", votes_from, 0, votes_from == 0),
        ("transformations", transformations, "one set", len(get_transformation_sets(transformations)) == 1),
        ("standardize", standardize, False, not standardize),
        ("tiles", tiles, 1, tiles == 1),
    ):
        if not is_allowed:
            with_generators = "a model with generators (fake_weight above 0)"
            msg = f"{name}: got {given!r} for {with_generators}; only {allowed} goes with them"
            raise ValueError(msg)
