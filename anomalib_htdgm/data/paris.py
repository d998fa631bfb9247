# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The Paris landmarks as a one-class problem: one landmark is normal, the others are anomalous.

The data set is that of Philbin et al., *Lost in Quantization* (CVPR 2008): 6412 photographs in one folder for each
landmark and one called ``general``, and text files that say which photographs show which landmark well (``good``),
partly (``ok``) or hardly (``junk``).
"""

from pathlib import Path
from typing import Any

from anomalib.data.utils import Split
from torchvision.transforms.v2 import Resize

from anomalib_htdgm.validation import check_choice

from .classes import ClassesDataModule, describe_images, list_images
from .few_shot import draw_shots
from .reading import is_image

LANDMARKS = (
    *("defense", "eiffel", "invalides", "louvre", "moulinrouge", "museedorsay"),
    *("notredame", "pantheon", "pompidou", "sacrecoeur", "triomphe"),
)
GENERAL = "general"
QUERIES = range(1, 6)
"""Each landmark has five lists of each kind, one for each query photograph; the lists of a kind are alike."""
SPLIT_SEED = 0
TRAIN_FRACTION = 0.2
"""Share of the normal landmark's photographs to train on."""


class Paris(ClassesDataModule):
    """One landmark of Paris is normal, the others are anomalous.

    A landmark's photographs are those in its folder, and those in ``general`` that its label files call ``ok``.
    Files that are no images, twenty in the published archives, are left out. The data set has no split: a fixed share
    of the landmark's photographs is there to train on, and the others are tested. As the photographs differ in shape,
    they are resized to 256x256 pixels unless augmentations are given.

    Args:
        root: Directory of the published archives, unpacked: ``<root>/paris/<landmark>/*.jpg`` and, in any directory
            below ``root``, the label files ``<landmark>_<1 to 5>_ok.txt``.
        normal_class: The normal landmark.
        test_images_per_class: Number of test images of each landmark, at least 1, spread evenly over its own. All if
            None.
        **settings: Batch sizes, workers, augmentations, and the split of a validation set, see
            :class:`~anomalib_htdgm.data.classes.ClassesDataModule`; by default the test set is the validation set.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(
        self,
        root: str | Path = "./datasets/Paris",
        normal_class: str = "defense",
        test_images_per_class: int | None = None,
        **settings: Any,
    ) -> None:
        check_choice("normal_class", normal_class, LANDMARKS)
        if settings.get("augmentations") is None:
            settings["augmentations"] = Resize((256, 256), antialias=True)
        super().__init__(normal_class, test_images_per_class, **settings)
        self.root = Path(root)

    def _setup(self, _stage: str | None = None) -> None:
        train, test = [], []
        labels = {path.name: path for path in self.root.rglob("*_ok.txt")}
        for landmark in LANDMARKS:
            paths = self._photographs(landmark, labels)
            if landmark == self.category:
                drawn = set(draw_shots(len(paths), max(1, int(TRAIN_FRACTION * len(paths))), SPLIT_SEED))
                chosen = [path for index, path in enumerate(paths) if index in drawn]
                train = describe_images(chosen, Split.TRAIN, landmark, is_normal=True)
                paths = [path for index, path in enumerate(paths) if index not in drawn]
            test += self.describe_tested(paths, landmark)
        self.train_data = self.make_subset(train)
        self.test_data = self.make_subset(test)

    def _photographs(self, landmark: str, labels: dict[str, Path]) -> list[Path]:
        """List the photographs of a landmark."""
        own, general = (list_images(self.root / "paris" / name) for name in (landmark, GENERAL))
        lists = [f"{landmark}_{query}_ok.txt" for query in QUERIES]
        if missing := [name for name in lists if name not in labels]:
            msg = f"root: got {self.root}, below which there is no {missing[0]}; the labels are an archive of their own"
            raise FileNotFoundError(msg)
        shown_partly = {photograph for name in lists for photograph in labels[name].read_text().split()}
        others = [path for path in general if path.stem in shown_partly]
        return [path for path in [*own, *others] if is_image(path)]  # twenty of the archives are pages of HTML
