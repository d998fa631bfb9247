# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""PyTorch model of DifferNet: rotations -> features at several sizes -> flow -> score; gradients -> map.

Example:
    >>> import torch
    >>> from anomalib_htdgm.models.differnet.torch_model import DiffernetModel
    >>> model = DiffernetModel(image_sizes=(128, 64), coupling_blocks=2, hidden_width=64, test_rotations=4)
    >>> model.initialize(seed=0, pre_trained=False)
    >>> optimizer = torch.optim.Adam(model.trainable_parameters(), lr=2e-4)
    >>> images = torch.rand(4, 3, 128, 128)
    >>> for _ in range(2):
    ...     optimizer.zero_grad()
    ...     model.loss(images, degrees=360 * torch.rand(4)).backward()
    ...     optimizer.step()
    >>> model.eval()(images).pred_score.shape
    torch.Size([4])
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

import torch
from anomalib.data import InferenceBatch
from torch import nn
from torch.nn import functional as F
from torchvision.transforms.v2.functional import normalize

from anomalib_htdgm.anomalib_fixes.pre_processor import AntialiasedResize
from anomalib_htdgm.models.backbone import IMAGENET_MEAN, IMAGENET_STD, create_backbone, load_pretrained
from anomalib_htdgm.models.exporting import require_training
from anomalib_htdgm.models.precision import Precision, choose_dtype
from anomalib_htdgm.validation import check_choice, check_integer

from .anomaly_map import AnomalyMapGenerator
from .flow import create_flow, negative_log_likelihood
from .rotation import regular_angles, rotate

ROTATIONS_AT_ONCE = 4
"""Rotations of a batch that the backbone sees together. As many are trained on by default, so that scoring a batch
takes about the memory of training on one."""


class DiffernetModel(nn.Module):
    """A normalizing flow on features of a frozen network, pooled over each of several sizes of the image.

    Arguments are those of :class:`~.lightning_model.Differnet`. Whatever the precision, the flow is float32.

    Raises:
        ValueError: If an argument is out of its range; the message names it.
    """

    is_trained: torch.Tensor

    def __init__(
        self,
        backbone: str = "torchvision/alexnet",
        image_sizes: Sequence[int] = (448, 224, 112),
        coupling_blocks: int = 8,
        hidden_width: int = 2048,
        test_rotations: int = 64,
        map_rotations: int = 8,
        precision: Precision = "auto",
    ) -> None:
        super().__init__()
        if not image_sizes:
            msg = "image_sizes: got none; at least one is needed"
            raise ValueError(msg)
        for size in image_sizes:
            check_integer("image_sizes", size, at_least=1)
        check_integer("coupling_blocks", coupling_blocks, at_least=1)
        check_integer("hidden_width", hidden_width, at_least=1)
        check_integer("test_rotations", test_rotations, at_least=1)
        check_integer("map_rotations", map_rotations, at_least=0)
        check_choice("precision", precision, get_args(Precision))
        self.backbone_name = backbone
        self.image_sizes = tuple(image_sizes)
        self.test_rotations = test_rotations
        self.map_rotations = map_rotations
        self.precision: Precision = precision
        # The layout of the weights decides that of all feature maps; processors are faster with this one.
        network = create_backbone(backbone).to(memory_format=torch.channels_last)
        self.backbone = network.requires_grad_(False).eval()
        try:
            num_features = self.features(torch.zeros(1, 3, 1, 1)).shape[1]
        except RuntimeError as error:
            msg = f"image_sizes: got {self.image_sizes}; {backbone} cannot take images as small ({error})"
            raise ValueError(msg) from error
        self.flow = create_flow(num_features, coupling_blocks, hidden_width)
        self.anomaly_map_generator = AnomalyMapGenerator()
        self.register_buffer("is_trained", torch.tensor(False))

    def train(self, mode: bool = True) -> "DiffernetModel":
        """Switch between training and evaluation; the backbone is always in evaluation."""
        super().train(mode)
        self.backbone.eval()
        return self

    def initialize(self, seed: int, *, pre_trained: bool = True, weights: str | Path | None = None) -> None:
        """Forget any training: draw the flow's weights by ``seed``, and load the backbone's or draw them, too.

        They are loaded as :func:`~anomalib_htdgm.models.backbone.load_pretrained` does.
        """
        self.is_trained.fill_(False)
        if pre_trained:
            load_pretrained(self.backbone, self.backbone_name, weights)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for module in self.flow.modules():
                if isinstance(module, nn.Linear):
                    module.reset_parameters()
            if not pre_trained:
                self.backbone.load_state_dict(create_backbone(self.backbone_name).state_dict())

    def trainable_parameters(self) -> list[nn.Parameter]:
        """List the flow's weights; its permutations are fixed, and so is the backbone."""
        return [parameter for parameter in self.flow.parameters() if parameter.requires_grad]

    def loss(self, images: torch.Tensor, degrees: torch.Tensor) -> torch.Tensor:
        """Compute the training loss (Eq. 4): the mean negative log-likelihood of turned images, a scalar.

        Args:
            images (torch.Tensor): Images in [0, 1] of shape ``(B, 3, H, W)``.
            degrees (torch.Tensor): By how much to turn each, of shape ``(B,)``.
        """
        self.is_trained.fill_(True)
        return self._negative_log_likelihood(rotate(images, degrees)).mean()

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Score and localise, on a logarithmic scale: ``log(1 + x)`` of :meth:`score` and :meth:`localize`.

        A flow expands what it has not seen exponentially, so scores and gradients differ by many orders of magnitude.
        anomalib normalises linearly, in float32, before it computes metrics: all but the largest would become equal.
        The logarithm changes no rank, and so no ROC curve.

        Args:
            images (torch.Tensor): Images in [0, 1] of shape ``(B, 3, H, W)``.

        Returns:
            InferenceBatch: ``pred_score`` of shape ``(B,)`` and ``anomaly_map`` of shape ``(B, 1, H, W)``, both at
            least 0 and high where anomalous. Without ``map_rotations`` there is no map.

        Raises:
            RuntimeError: If the model has not been trained.
        """
        require_training(self.is_trained, "Differnet")
        anomaly_map = self.localize(images).log1p() if self.map_rotations else None
        return InferenceBatch(pred_score=self.score(images).log1p(), anomaly_map=anomaly_map)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Extract features (Sec. 3.2): the feature maps of the image at each size, averaged over space.

        The image is brought to the first size, and reduced from there by taking every so manieth pixel, as in the
        authors' code. Images are in [0, 1], of shape ``(B, 3, H, W)``, features of shape ``(B, d)``.
        """
        normalized = normalize(images, list(IMAGENET_MEAN), list(IMAGENET_STD))
        first = self.image_sizes[0]
        if tuple(normalized.shape[-2:]) != (first, first):
            normalized = AntialiasedResize(first, first)(normalized)
        reduced = (F.interpolate(normalized, (size, size), mode="nearest") for size in self.image_sizes)
        if choose_dtype(self.precision, images.device) == torch.float32:
            return torch.cat([self.backbone(each).mean(dim=(2, 3)) for each in reduced], dim=1)
        with torch.autocast(images.device.type, torch.bfloat16):
            return torch.cat([self.backbone(each).float().mean(dim=(2, 3)) for each in reduced], dim=1)

    @torch.no_grad()
    def score(self, images: torch.Tensor) -> torch.Tensor:
        """Compute anomaly scores (Eq. 5): the mean over rotations of how unlikely ``z`` is, per feature.

        Images are in [0, 1], of shape ``(B, 3, H, W)``, scores of shape ``(B,)``.
        """
        # All rotations go through the flow at once: of few rows, most of the time would go into reading its weights.
        features = [self.features(turned) for turned, _ in _turn(images, self.test_rotations)]
        z, _ = self.flow(torch.cat(features), jac=False)
        return z.square().mean(dim=1).unflatten(0, (self.test_rotations, -1)).mean(dim=0) / 2

    def localize(self, images: torch.Tensor) -> torch.Tensor:
        """Compute anomaly maps (Eq. 6): the mean over rotations of the loss's gradients, turned back.

        Images are in [0, 1], of shape ``(B, 3, H, W)``, maps of shape ``(B, 1, H, W)``.
        """
        maps = []
        # Trainers switch gradients off, and what they make meanwhile has none for ever: hence the clone.
        with torch.inference_mode(False), torch.enable_grad():
            for turned, degrees in _turn(images.detach().clone(), self.map_rotations):
                loss = self._negative_log_likelihood(turned.requires_grad_()).sum()
                (gradients,) = torch.autograd.grad(loss, turned)
                maps.append(self.anomaly_map_generator(gradients, degrees))
        return torch.cat(maps).unflatten(0, (self.map_rotations, -1)).mean(dim=0)

    def _negative_log_likelihood(self, images: torch.Tensor) -> torch.Tensor:
        return negative_log_likelihood(*self.flow(self.features(images)))


def _turn(images: torch.Tensor, rotations: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Turn images by regular angles, a few at once: all images by the first angle, then all by the next."""
    for angles in regular_angles(rotations).to(images.device).split(ROTATIONS_AT_ONCE):
        degrees = angles[:, None].expand(-1, images.shape[0]).flatten()
        yield rotate(images.repeat(len(angles), 1, 1, 1), degrees), degrees
