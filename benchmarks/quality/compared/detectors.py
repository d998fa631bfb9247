# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Other libraries' detectors of anomalous vectors as models of anomalib: an image is the vector of its pixels."""

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from anomalib.data import ImageBatch, InferenceBatch
from anomalib.pre_processing import PreProcessor
from compared.trivial import Untrained
from lightning import seed_everything
from lightning.pytorch.utilities.seed import isolate_rng
from lightning.pytorch.utilities.types import STEP_OUTPUT
from numpy.typing import NDArray
from torch import nn
from torchvision.transforms.v2 import Resize


class _Scorer(nn.Module):
    """A detector that is given images as vectors of pixels, and its own random numbers."""

    def __init__(self, make: Callable[..., Any], seed: int) -> None:
        super().__init__()
        self.make = make
        self.seed = seed
        self.detector: Any = None

    def fit(self, images: torch.Tensor) -> None:
        """Make the detector and fit it to images of shape ``(B, 3, H, W)``."""
        with _seeded(self.seed):
            self.detector = self.make()
            self.detector.fit(_vectors(images))

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Score images of shape ``(B, 3, H, W)``."""
        # Seeded, too: some go through their training images once more, in an order that they draw.
        with _seeded(self.seed):
            scores = self.detector.decision_function(_vectors(images))
        return InferenceBatch(pred_score=torch.as_tensor(scores, dtype=torch.float32, device=images.device))

    def get_extra_state(self) -> torch.Tensor:
        """Give the detector to be weighed. It is not read again: a pickle could do anything."""
        return torch.frombuffer(bytearray(pickle.dumps(self.detector)), dtype=torch.uint8)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed PyTorch, NumPy and Python for a while: what a library draws from, if it has no seed of its own."""
    with isolate_rng():
        seed_everything(seed, verbose=False)
        yield


def _vectors(images: torch.Tensor) -> NDArray[np.float32]:
    return images.flatten(1).numpy(force=True)


class PixelDetector(Untrained):
    """Fits a detector to the pixels of the training images; there are no anomaly maps.

    Images are resized and flattened, their pixels in [0, 1] channel by channel, and are not standardised: one image
    has no deviation to divide by.

    Args:
        detector (Callable[..., Any]): Makes a detector with the interface of PyOD and DeepOD: ``fit`` on an array of
            shape ``(images, 3 * image_size ** 2)``, and ``decision_function``, high for what is anomalous.
        image_size (int): Height and width that images are resized to, in pixels.
        seed (int): Seed of what the detector draws while it is made, fitted and asked. A seed that the library has
            itself, such as DeepOD's ``random_state``, is to be given to ``detector``.
        **components: Pre-processor, post-processor, evaluator and visualizer, as anomalib's models take them. A
            pre-processor of one's own replaces the resizing.
    """

    def __init__(self, detector: Callable[..., Any], image_size: int = 32, seed: int = 0, **components: Any) -> None:
        super().__init__(**components)
        if components.get("pre_processor", True) is True:
            self.pre_processor = self.configure_pre_processor((image_size, image_size))
        self.model: _Scorer = _Scorer(detector, seed)
        self._images: list[torch.Tensor] = []

    @staticmethod
    def configure_pre_processor(image_size: tuple[int, int] | None = None) -> PreProcessor:
        """Make the default pre-processor.

        Args:
            image_size (tuple[int, int] | None): Height and width of images in pixels; ``None`` is 32x32.

        Returns:
            PreProcessor: It resizes, and leaves pixels in [0, 1].
        """
        return PreProcessor(Resize(image_size or (32, 32), antialias=True))

    def training_step(self, batch: ImageBatch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Keep a batch."""
        assert batch.image is not None  # for the type checker
        self._images.append(batch.image)
        return super().training_step(batch, *args, **kwargs)

    def on_train_epoch_end(self) -> None:
        """Fit the detector."""
        self._fit()

    def on_validation_start(self) -> None:
        """Fit the detector: the validation of an epoch comes before its end."""
        self._fit()

    def _fit(self) -> None:
        if self._images:
            with torch.enable_grad():  # validation has switched gradients off
                self.model.fit(torch.cat(self._images))
            self._images.clear()
