# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What a model does but while PyTorch traces it, to export a graph that takes batches of any size."""

from collections.abc import Sequence

import torch


def pieces(images: torch.Tensor, size: int) -> Sequence[torch.Tensor]:
    """Cut a batch into pieces, for what takes too much memory at a time or must not depend on the rest of the batch.

    A graph does not know how many pieces a batch will have, so it has one.

    Args:
        images (torch.Tensor): Images, or what was made of them, of shape ``(B, ...)``.
        size (int): Most images of a piece.

    Returns:
        Sequence[torch.Tensor]: The pieces.
    """
    return [images] if torch.compiler.is_compiling() else images.split(size)


def require_training(is_trained: torch.Tensor, message: str) -> None:
    """Refuse to go on with a model that has not been trained.

    A graph cannot hold this question, and a trained model has answered it at export.

    Args:
        is_trained (torch.Tensor): Whether it has been, a scalar.
        message (str): What to say if not.

    Raises:
        RuntimeError: If it has not been trained.
    """
    if not torch.compiler.is_compiling() and not is_trained:
        raise RuntimeError(message)
