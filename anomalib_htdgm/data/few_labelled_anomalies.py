# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""A few labelled anomalies beside the normal training images, for any image datamodule of anomalib.

Example:
    Ten normal images and ten labelled anomalies to train on; the other anomalies to test on:

    >>> from anomalib.data import MVTecAD
    >>> from anomalib_htdgm import FewLabelledAnomalies, FewShot
    >>> shots = FewShot(MVTecAD(category="bottle"), k_shot=10)  # doctest: +SKIP
    >>> datamodule = FewLabelledAnomalies(shots, n_anomalies=10)  # doctest: +SKIP
"""

import logging
from pathlib import Path

from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.data.utils import TestSplitMode, ValSplitMode, split_by_label

from anomalib_htdgm.validation import check_integer

from .few_shot import draw_shots
from .wrapping import WrappingDataModule

logger = logging.getLogger(__name__)


class FewLabelledAnomalies(WrappingDataModule):
    """Moves a few anomalous images from the test set of another datamodule to its training set.

    They are drawn from the path-sorted anomalies of its test set and of the validation set that was split from it,
    and are in neither of them afterwards. Its normal images stay where they are. An anomaly's class is the name of its
    folder, as in MVTec AD (``.../test/broken_large/000.png``).

    With ``known_classes`` only some classes are known, the open-set setting of DevNet and its successors: anomalies are
    drawn from these, and the test is on the others alone, so the known classes' anomalies that were not drawn are left
    out as well.

    Args:
        datamodule: The datamodule to draw from: an instance, such as ``MVTecAD`` or ``FewShot``, or a configuration
            with ``class_path`` and ``init_args`` as :func:`anomalib.data.get_datamodule` takes it.
        n_anomalies: Number of labelled anomalies, at least 1. The draw of a smaller number is part of that of a larger
            one of the same seed.
        seed: Seed of the draw, at least 0.
        known_classes: Classes to draw from; all if None.

    Attributes:
        known_paths (list[str]): Paths of the drawn anomalies, ascending; there are none before :meth:`setup`.

    Raises:
        TypeError: If ``datamodule`` is not a datamodule of images.
        ValueError: If another argument is out of its range. At :meth:`setup`, if there are fewer anomalies, or no such
            class.

    Example:
        From the command line::

            anomalib train --model Devnet --data FewLabelledAnomalies --data.datamodule MVTecAD \
                --data.datamodule.category bottle --data.n_anomalies 10
    """

    def __init__(
        self,
        datamodule: AnomalibDataModule,
        n_anomalies: int = 10,
        seed: int = 0,
        known_classes: list[str] | None = None,
    ) -> None:
        check_integer("n_anomalies", n_anomalies, at_least=1)
        super().__init__(datamodule, seed)
        if self.test_split_mode == TestSplitMode.SYNTHETIC:
            msg = "datamodule: the anomalies of its test set are synthetic (test_split_mode); real ones are needed"
            raise ValueError(msg)
        self.n_anomalies = n_anomalies
        self.known_classes = None if known_classes is None else list(known_classes)

    @property
    def name(self) -> str:  # type: ignore[override]  # anomalib's base class overrides Lightning's attribute alike
        """Name of the wrapped datamodule, number and classes of the anomalies, such as ``MVTecAD_10anomalies``.

        Results are filed under it, since other test images are left.
        """
        return "_".join([self.datamodule.name, f"{self.n_anomalies}anomalies", *(self.known_classes or [])])

    def _setup(self, _stage: str | None = None) -> None:
        self.datamodule.setup(_stage)
        anomalies = self._anomalies()
        candidates = self._candidates(anomalies)
        drawn = candidates.subsample(draw_shots(len(candidates), self.n_anomalies, self.seed))
        known = drawn if self.known_classes is None else candidates
        self.known_paths = list(map(str, drawn.samples["image_path"]))
        self.train_data = self.datamodule.train_data + drawn
        self.test_data = _without(self.datamodule.test_data, known)
        if hasattr(self.datamodule, "val_data"):
            self.val_data = _without(self.datamodule.val_data, known)
        if not self.test_data.has_anomalous:
            logger.warning("All %d anomalies are known: none is left to test on.", len(anomalies))
        logger.info("Drew %d of %d anomalies: %s", len(drawn), len(candidates), ", ".join(self.known_paths))

    def _anomalies(self) -> AnomalibDataset:
        """Collect the anomalies of the test set, whatever part of it has become the validation set."""
        subsets = [self.datamodule.test_data]
        if self.val_split_mode == ValSplitMode.FROM_TEST:
            subsets.append(self.datamodule.val_data)
        anomalies = [split_by_label(subset)[1] for subset in subsets]
        return sum(anomalies[1:], anomalies[0])

    def _candidates(self, anomalies: AnomalibDataset) -> AnomalibDataset:
        """Choose the anomalies that may be drawn."""
        classes = [Path(path).parent.name for path in anomalies.samples["image_path"]]
        known = set(classes) if self.known_classes is None else set(self.known_classes)
        if not known <= set(classes):
            given, existing = self.known_classes, ", ".join(sorted(set(classes))) or "none"
            msg = f"known_classes: got {given!r}; the test set's anomalies have the classes: {existing}"
            raise ValueError(msg)
        indices = [index for index, each in enumerate(classes) if each in known]
        if self.n_anomalies > len(indices):
            place = "its test set" if self.known_classes is None else f"its test set's classes {self.known_classes!r}"
            msg = f"n_anomalies: got {self.n_anomalies}; datamodule has {len(indices)} anomalies in {place}"
            raise ValueError(msg)
        return anomalies.subsample(indices)


def _without(dataset: AnomalibDataset, known: AnomalibDataset) -> AnomalibDataset:
    is_kept = ~dataset.samples["image_path"].isin(known.samples["image_path"])
    return dataset.subsample(is_kept.to_numpy().nonzero()[0].tolist())
