# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Networks and images that the tests share."""

from collections.abc import Callable

import pytest
import torch

from anomalib_htdgm.models.htdgm.networks import Discriminator


@pytest.fixture
def make_discriminator() -> Callable[[int], Discriminator]:
    """Make discriminators whose votes are far from uniform, with batch-norm statistics of their own."""

    def make(num_classes: int) -> Discriminator:
        source = torch.Generator().manual_seed(1)
        discriminator = Discriminator(num_classes, width=8).eval()
        with torch.no_grad():
            for name, tensor in discriminator.state_dict().items():
                if tensor.is_floating_point():
                    tensor.normal_(0, 0.3, generator=source)
                if name.endswith(("running_var", "norms.weight")):
                    tensor.abs_().add_(0.5)
        return discriminator

    return make


@pytest.fixture
def make_images() -> Callable[..., torch.Tensor]:
    """Make images of noise in [-1, 1]."""

    def make(num_images: int, size: int, seed: int = 0) -> torch.Tensor:
        return torch.rand(num_images, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1

    return make
