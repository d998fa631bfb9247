# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Training sets of k shots, for any model and any image datamodule of anomalib.

Example:
    Five random normal images to train on, all of the official test set to test on:

    >>> from anomalib.data import MVTecAD
    >>> from anomalib_htdgm import FewShot
    >>> datamodule = FewShot(MVTecAD(category="bottle"), k_shot=5, seed=0)  # doctest: +SKIP
"""

import logging

import numpy as np
from anomalib.data import AnomalibDataModule
from anomalib.data.utils import ValSplitMode, split_by_label
from lightning.pytorch.utilities.types import EVAL_DATALOADERS

from anomalib_htdgm.validation import check_integer

from .wrapping import WrappingDataModule

logger = logging.getLogger(__name__)


def draw_shots(num_images: int, k_shot: int, seed: int) -> list[int]:
    """Draw k distinct images at random; where there are fewer, all are taken.

    The draw is the prefix of a permutation that only ``num_images`` and ``seed`` determine: it is the same on every
    machine, whatever has been done to the global random states, and the shots of a smaller k are among those of a
    larger k of the same seed.

    Returns:
        ``min(k_shot, num_images)`` indices in ``[0, num_images)``, ascending.

    Raises:
        ValueError: If a number is not an integer, or below 1 (of the seed: 0).
    """
    check_integer("num_images", num_images, at_least=1)
    check_integer("k_shot", k_shot, at_least=1)
    check_integer("seed", seed, at_least=0)
    return sorted(shuffle(num_images, seed)[:k_shot])


def shuffle(num_images: int, seed: int) -> list[int]:
    """Put images in the order in which :func:`draw_shots` draws them."""
    # PCG64 by name: numpy may change what `default_rng` stands for.
    order: list[int] = np.random.Generator(np.random.PCG64(seed)).permutation(num_images).tolist()
    return order


class FewShot(WrappingDataModule):
    """Reduces the training set of another datamodule to k normal images.

    Validation and test set stay the wrapped datamodule's own, and so do batch sizes, workers and augmentations. The
    shots are drawn from the path-sorted normal images of its training set; labelled anomalies that it may contain are
    never drawn. The draw comes after the wrapped datamodule's own splits: where those take images out of the training
    set, give the wrapped datamodule a ``seed`` of its own, else its splits, and with them the shots, follow torch's
    global random state.

    Args:
        datamodule: The datamodule to draw from: an instance, or a configuration with ``class_path`` and ``init_args``
            as :func:`anomalib.data.get_datamodule` takes it.
        k_shot: Number of training images, at least 1. Where there are fewer, all are taken, with a warning.
        seed: Seed of the draw, at least 0; see :func:`draw_shots`.

    Raises:
        TypeError: If ``datamodule`` is not a datamodule of images.
        ValueError: If another argument is out of its range.

    Example:
        From the command line::

            anomalib train --model Padim --data FewShot --data.datamodule MVTecAD \
                --data.datamodule.category bottle --data.k_shot 5
    """

    def __init__(self, datamodule: AnomalibDataModule, k_shot: int = 1, seed: int = 0) -> None:
        check_integer("k_shot", k_shot, at_least=1)
        super().__init__(datamodule, seed)
        self.k_shot = k_shot

    @property
    def name(self) -> str:  # type: ignore[override]  # anomalib's base class overrides Lightning's attribute alike
        """Name of the wrapped datamodule and the number of shots, such as ``MVTecAD_1shot``.

        Results are filed under it: runs on k shots must not pass for versions of a run on all images.
        """
        return f"{self.datamodule.name}_{self.k_shot}shot"

    @property
    def shot_paths(self) -> list[str]:
        """Paths of the drawn images, ascending; there are none before :meth:`setup`."""
        return [str(path) for path in self.train_data.samples["image_path"]]

    def _setup(self, _stage: str | None = None) -> None:
        self.datamodule.setup(_stage)
        if self.datamodule.seed is None and self.val_split_mode in {ValSplitMode.FROM_TRAIN, ValSplitMode.SYNTHETIC}:
            logger.warning(
                "%s splits its training images at random without a seed: the shots will differ from run to run.",
                self.datamodule.name,
            )
        normal_data, _ = split_by_label(self.datamodule.train_data)
        self.train_data = normal_data.subsample(draw_shots(len(normal_data), self.k_shot, self.seed))
        # Not every datamodule has all subsets. What there is, is shared, so that it gets the trainer's augmentations.
        for subset in ("val_data", "test_data"):
            if hasattr(self.datamodule, subset):
                setattr(self, subset, getattr(self.datamodule, subset))
        if len(self.train_data) < self.k_shot:
            logger.warning("k_shot is %d, but there are only %d images.", self.k_shot, len(self.train_data))
        logger.info(
            "Drew %d of %d normal training images: %s",
            len(self.train_data),
            len(normal_data),
            ", ".join(self.shot_paths),
        )

    def val_dataloader(self) -> EVAL_DATALOADERS:
        """Get the wrapped datamodule's validation dataloader."""
        return self._evaluation_datamodule().val_dataloader()

    def test_dataloader(self) -> EVAL_DATALOADERS:
        """Get the wrapped datamodule's test dataloader."""
        return self._evaluation_datamodule().test_dataloader()

    def _evaluation_datamodule(self) -> AnomalibDataModule:
        # Asked for its own dataloaders because a datamodule may choose among test sets there (MVTecAD2). Export and
        # tiled ensemble of anomalib 2.7 set these attributes on the datamodule that they were given, which is this one.
        self.datamodule.eval_batch_size = self.eval_batch_size
        self.datamodule.num_workers = self.num_workers
        self.datamodule.external_collate_fn = self.external_collate_fn
        return self.datamodule
