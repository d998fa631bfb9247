# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What a model does but while PyTorch traces it, to export a graph that takes batches of any size."""

from collections.abc import Sequence

import torch


def chunks(images: torch.Tensor, size: int) -> Sequence[torch.Tensor]:
    """Cut a batch of shape ``(B, ...)`` into chunks of at most ``size``, to save memory.

    A graph does not know how many chunks a batch will have, so it has one.
    """
    return [images] if torch.compiler.is_compiling() else images.split(size)


def require_training(is_trained: torch.Tensor, model_name: str) -> None:
    """Refuse to go on with an untrained model. A graph cannot ask this, and a trained model has answered it at export.

    Raises:
        RuntimeError: If it has not been trained.
    """
    if not torch.compiler.is_compiling() and not is_trained:
        msg = f"{model_name} has not been trained, or not to the end: fit it, or load one that was, before it scores"
        raise RuntimeError(msg)
