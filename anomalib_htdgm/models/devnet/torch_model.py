# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""PyTorch model of DevNet: image -> two sizes -> features -> a score for each place -> image score and map.

Example:
    >>> import torch
    >>> from anomalib_htdgm.models.devnet.torch_model import DevnetModel
    >>> model = DevnetModel(image_sizes=(128, 64)).eval()
    >>> predictions = model(torch.rand(2, 3, 128, 128))
    >>> predictions.pred_score.shape, predictions.anomaly_map.shape
    (torch.Size([2]), torch.Size([2, 1, 128, 128]))
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from anomalib.data import InferenceBatch
from anomalib.models.components import GaussianBlur2d
from torch import nn
from torch.nn import functional as F

from anomalib_htdgm.anomalib_fixes.pre_processor import AntialiasedResize
from anomalib_htdgm.models.backbone import count_features, create_backbone
from anomalib_htdgm.validation import check_choice, check_integer

Ranking = Literal["signed", "absolute"]
Explanation = Literal["gradient", "scores"]

SMALLEST_SIZE = 32
"""Least side of an image in pixels: what the usual backbones reduce to one place."""
TOP_FRACTION = 0.1
"""Fraction of the places, those with the highest scores, whose mean is the image score: at least one place."""
CLIPPED_QUANTILE = 0.99
"""Quantile of an image's gradients at which they are clipped: a few pixels would else outshine the others."""
BLUR = 4 / 448
"""Standard deviation of the gradient map's smoothing, as a share of the image's side: 4 pixels of 448."""


class DevnetModel(nn.Module):
    """A backbone, and a 1x1 convolution that scores every place of its feature map.

    Arguments are those of :class:`~.lightning_model.Devnet`. ``explanation`` may be changed at any time.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(
        self,
        backbone: str = "torchvision/resnet18",
        image_sizes: Sequence[int] = (448, 224),
        ranking: Ranking = "signed",
        explanation: Explanation = "gradient",
    ) -> None:
        super().__init__()
        if not image_sizes:
            msg = f"image_sizes: got {image_sizes!r}; allowed is at least one size"
            raise ValueError(msg)
        for size in image_sizes:
            check_integer("image_sizes", size, at_least=SMALLEST_SIZE)
        check_choice("ranking", ranking, get_args(Ranking))
        check_choice("explanation", explanation, get_args(Explanation))
        self.image_sizes = tuple(image_sizes)
        self.ranking = ranking
        self.explanation = explanation
        self.backbone_name = backbone
        # The layout of the weights decides that of all feature maps; processors are faster with this one.
        self.backbone = create_backbone(backbone).to(memory_format=torch.channels_last)
        self.score_layer = nn.Conv2d(count_features(self.backbone), 1, kernel_size=1)
        sigma = BLUR * max(image_sizes)
        self.blur = GaussianBlur2d(sigma=(sigma, sigma), channels=1)
        self.eval()

    def train(self, mode: bool = True) -> "DevnetModel":
        """Stay in evaluation, whatever the mode: only a training's own scores are of its batches' statistics."""
        del mode
        super().train(False)
        return self

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Score and localise.

        Args:
            images (torch.Tensor): Normalised images of shape ``(B, 3, H, W)``.

        Returns:
            InferenceBatch: ``pred_score`` of shape ``(B,)`` and ``anomaly_map`` of shape ``(B, 1, H, W)``, both high
            where anomalous. The map shows how much each pixel moves the score (``gradient``), at least 0, or the score
            of each place (``scores``). Exported graphs cannot differentiate: they have the map of scores.
        """
        if self.explanation == "gradient" and not torch.compiler.is_compiling():
            return self._explain_by_gradient(images)
        score_maps = self.score_maps(images)
        size = images.shape[-2:]
        maps = [F.interpolate(scores, size, mode="bilinear") for scores in score_maps]
        return InferenceBatch(pred_score=self._score(score_maps), anomaly_map=_mean(maps))

    def score(self, images: torch.Tensor, *, learning: bool = False) -> torch.Tensor:
        """Score images: the mean over the highest scores of each size, and over sizes; of shape ``(B,)``.

        Args:
            images (torch.Tensor): Normalised images of shape ``(B, 3, H, W)``.
            learning (bool): Whether the backbone works as in a training: its batch norms take the statistics of these
                images, and average them for later.
        """
        self.backbone.train(learning)
        try:
            return self._score(self.score_maps(images))
        finally:
            self.backbone.eval()

    def score_maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Score every place of normalised images of shape ``(B, 3, H, W)``.

        Returns:
            list[torch.Tensor]: For each size, scores of shape ``(B, 1, h, w)``; at least 0 if they rank by their
            absolute values.
        """
        resized = (self._resize(images, size) for size in self.image_sizes)
        maps = [self.score_layer(self.backbone(each)) for each in resized]
        return [each.abs() for each in maps] if self.ranking == "absolute" else maps

    def initialize(self, seed: int) -> None:
        """Draw all weights anew, whatever the global random state is, which is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.backbone.load_state_dict(create_backbone(self.backbone_name).state_dict())
            self.score_layer.reset_parameters()

    def _score(self, score_maps: list[torch.Tensor]) -> torch.Tensor:
        return _mean([mean_of_highest(scores, TOP_FRACTION) for scores in score_maps])

    def _resize(self, images: torch.Tensor, size: int) -> torch.Tensor:
        if tuple(images.shape[-2:]) == (size, size):
            return images
        return AntialiasedResize(size, size)(images)

    def _explain_by_gradient(self, images: torch.Tensor) -> InferenceBatch:
        """Score, and map by the gradient of each image's score with respect to its pixels."""
        # Lightning tests in inference mode, whose tensors cannot be differentiated, but their clones can.
        with torch.inference_mode(False), torch.enable_grad():
            images = images.clone().requires_grad_()
            scores = self.score(images)
            (gradients,) = torch.autograd.grad(scores.sum(), images)
        magnitudes = gradients.abs().sum(dim=1, keepdim=True)
        highest = magnitudes.flatten(1).quantile(CLIPPED_QUANTILE, dim=1)[:, None, None, None]
        return InferenceBatch(pred_score=scores.detach(), anomaly_map=self.blur(magnitudes.minimum(highest)))


def mean_of_highest(scores: torch.Tensor, fraction: float) -> torch.Tensor:
    """Average the highest scores of each image, of shape ``(B, ...)``: a fraction, rounded down, but at least one."""
    flat = scores.flatten(1)
    number = max(1, int(fraction * flat.shape[1] + 1e-9))  # 0.29 * 100 is below 29
    return flat.topk(number, dim=1).values.mean(dim=1)


def _mean(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(tensors)).mean(dim=0)
