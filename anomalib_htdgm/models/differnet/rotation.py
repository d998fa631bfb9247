# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Rotation of images by any angle: of those to train on, of those to score, and of maps back again."""

import torch
from torch.nn import functional as F


def rotate(images: torch.Tensor, degrees: torch.Tensor) -> torch.Tensor:
    """Turn images of shape ``(B, C, H, W)`` about their centre, bilinearly; what comes from outside of an image is 0.

    kornia and torchvision do the same, but kornia's is 225 nodes of an exported graph, not 27, and there are dozens of
    rotations in one; torchvision's takes one angle for all images.

    Args:
        images (torch.Tensor): The images.
        degrees (torch.Tensor): Angle of each, anticlockwise, of shape ``(B,)``.
    """
    height, width = images.shape[-2:]
    cos, sin = torch.deg2rad(degrees).cos(), torch.deg2rad(degrees).sin()
    zero = torch.zeros_like(cos)
    # The grid counts in half heights and half widths, in which a rotation of an oblong image is a rotation and a shear.
    matrices = torch.stack([cos, -sin * height / width, zero, sin * width / height, cos, zero], dim=1)
    grid = F.affine_grid(matrices.unflatten(1, (2, 3)), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def regular_angles(number: int) -> torch.Tensor:
    """Divide the full circle into angles in degrees, of shape ``(number,)``, the first of them 0."""
    return torch.arange(number) * (360 / number)
