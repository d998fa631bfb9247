# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""A pre-processor whose exported form resizes exactly as the pre-processor itself does.

anomalib switches antialiasing off in what it exports, so that an exported model sees other images, and gives other
scores, than the model that was tested. Here antialiased resizing is a multiplication by two matrices, which exports.
PyTorch's own exports, too, as one ``Resize`` with ``antialias``, and onnxruntime computes it; but OpenVINO (2026.4)
makes its mode ``linear_onnx`` of it, which takes no notice of ``antialias``.
"""

import logging
from typing import Any

import torch
from anomalib.pre_processing import PreProcessor
from torch import nn
from torchvision.transforms.v2 import Compose, Normalize, Resize, Transform

logger = logging.getLogger(__name__)

TO_BE_ADDED = 2**-10
"""Factor of weights, up to 40,000 of images of 20,000 pixels, whose sums would exceed 65,504, half precision's largest
number; a power of two takes nothing from them."""


def configure_pre_processor(image_size: tuple[int, int] | None = None) -> PreProcessor:
    """Make the default pre-processor: resize, by default to 256x256, then bring pixels from [0, 1] to [-1, 1].

    Args:
        image_size (tuple[int, int] | None): Height and width of images and maps in pixels.
    """
    half = [0.5, 0.5, 0.5]
    return AntialiasedPreProcessor(Compose([Resize(image_size or (256, 256), antialias=True), Normalize(half, half)]))


class AntialiasedPreProcessor(PreProcessor):
    """A pre-processor that keeps antialiasing when it is exported.

    Args:
        transform (Transform | None): Transform of images; bilinear resizing with antialiasing, on its own or in a
            ``Compose``, is kept in the export.
    """

    def __init__(self, transform: Transform | None = None) -> None:
        super().__init__(transform)
        self.export_transform = _make_exportable(transform, self.export_transform)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Transform images of shape ``(B, 3, H, W)`` as an engine does, in an exported graph by what it can hold."""
        if torch.compiler.is_compiling() or not self.transform:
            return super().forward(batch)
        # The last bits of a resized image depend on the layout of its pixels in memory.
        return self.transform(batch.contiguous())

    def load_checkpoint_config(self, config: dict[str, Any]) -> None:
        """Restore the transform from what ``checkpoint_config`` returned."""
        super().load_checkpoint_config(config)
        self.export_transform = _make_exportable(self.transform, self.export_transform)


def adopt_pre_processor(pre_processor: nn.Module | None) -> nn.Module | None:
    """Let anomalib's own pre-processor keep antialiasing, too; those of other makes stay as they are."""
    return AntialiasedPreProcessor(pre_processor.transform) if type(pre_processor) is PreProcessor else pre_processor


def check_exported(pre_processor: nn.Module | None) -> None:
    """Warn if a pre-processor does something else in an exported graph than it does before.

    Only anomalib's have a form of their own for exports.
    """
    if isinstance(pre_processor, PreProcessor) and _is_exported_otherwise(pre_processor.transform):
        logger.warning(
            "pre_processor: %s gives other images in the exported model, whose scores will differ. Bilinear resizing "
            "to a fixed height and width, Resize((height, width)), is exported as it is",
            pre_processor.transform,
        )


def _is_exported_otherwise(transform: nn.Module | None) -> bool:
    """Tell whether a graph resizes without antialiasing, or to other sizes: one side's is that of the traced image."""
    if isinstance(transform, Compose):
        return any(map(_is_exported_otherwise, transform.transforms))
    if not isinstance(transform, Resize) or _is_antialiased_to_fixed_size(transform):
        return False
    takes_one_pixel = str(_interpolation_of(transform)).startswith("nearest")  # whatever `antialias` says
    return not _has_fixed_size(transform) or bool(transform.antialias and not takes_one_pixel)


def _make_exportable(transform: Transform | None, fallback: Transform | None) -> nn.Module | None:
    if isinstance(transform, Compose) and isinstance(fallback, Compose):
        pairs = zip(transform.transforms, fallback.transforms, strict=True)
        return Compose([_make_exportable(*pair) for pair in pairs])
    if isinstance(transform, Resize) and _is_antialiased_to_fixed_size(transform):
        return AntialiasedResize(*transform.size)
    return fallback


def _is_antialiased_to_fixed_size(resize: Resize) -> bool:
    return bool(resize.antialias) and _interpolation_of(resize) == "bilinear" and _has_fixed_size(resize)


# torchvision keeps the interpolation as it was given, the size as a list of one or two numbers or None.
def _interpolation_of(resize: Resize) -> object:
    return getattr(resize.interpolation, "value", resize.interpolation)


def _has_fixed_size(resize: Resize) -> bool:
    return len(resize.size or ()) > 1


class AntialiasedResize(nn.Module):
    """Bilinear, antialiased resizing of images of any size, in operations that every runtime has.

    Args:
        height (int): Height of the resized images in pixels.
        width (int): Width of the resized images in pixels.
    """

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height = height
        self.width = width

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Resize images of shape ``(..., H, W)`` to ``(..., height, width)``."""
        rows = _resize_matrix(images.shape[-2], self.height, images)
        columns = _resize_matrix(images.shape[-1], self.width, images)
        return rows @ images @ columns.T


def _resize_matrix(size: int, new_size: int, like: torch.Tensor) -> torch.Tensor:
    """Compute the weights of each old pixel in each new one: a triangle as wide as two of the wider of these."""
    # The size may be symbolic in an export, hence tensor operations only. Positions are counted in whole units of
    # ``1 / (2 * size * new_size)``, since runtimes that compute in bfloat16 leave only integers exact.
    centers = (2 * torch.arange(size, device=like.device) + 1) * new_size
    new_centers = (2 * torch.arange(new_size, device=like.device) + 1) * size
    half_width = 2 * torch.full((), size, device=like.device).clamp(min=new_size)
    weights = (half_width - (new_centers[:, None] - centers).abs()).clamp(min=0).to(like.dtype) * TO_BE_ADDED
    return weights / weights.sum(dim=1, keepdim=True)
