# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The Paris landmarks as a one-class problem: one landmark is normal, the others are anomalous.

The data set is that of Philbin et al., *Lost in Quantization* (CVPR 2008): 6412 photographs in one folder for each
landmark and one called ``general``, and text files that say which photographs show which landmark well (``good``),
partly (``ok``) or hardly (``junk``).

Example:
    >>> from anomalib_htdgm import FewShot, Paris
    >>> datamodule = FewShot(Paris(root="datasets/Paris", normal_class="louvre"), k_shot=5)  # doctest: +SKIP
"""

from pathlib import Path

from anomalib.data import AnomalibDataModule
from anomalib.data.utils import Split, TestSplitMode, ValSplitMode
from torchvision.transforms.v2 import Resize, Transform

from anomalib_htdgm.data.few_shot import draw_shots
from anomalib_htdgm.data.one_class import describe_images, list_images, make_subset, spread
from anomalib_htdgm.data.reading import is_image
from anomalib_htdgm.validation import check_choice, check_integer, check_number

LANDMARKS = (
    *("defense", "eiffel", "invalides", "louvre", "moulinrouge", "museedorsay"),
    *("notredame", "pantheon", "pompidou", "sacrecoeur", "triomphe"),
)
GENERAL = "general"
QUERIES = range(1, 6)
"""Each landmark has five lists of each kind, one for each query photograph; the lists of a kind are alike."""
SPLIT_SEED = 0


class Paris(AnomalibDataModule):
    """One landmark of Paris is normal, the others are anomalous.

    A landmark's photographs are those in its folder, and those in ``general`` that its label files call ``ok``.
    Files that are no images, twenty in the published archives, are left out. The data set has no split: a fixed share
    of the landmark's photographs is there to train on, and the others are tested. As the photographs differ in shape,
    they are resized to 256x256 pixels unless augmentations are given.

    Args:
        root: Directory of the published archives, unpacked: ``<root>/paris/<landmark>/*.jpg`` and, in any directory
            below ``root``, the label files ``<landmark>_<1 to 5>_ok.txt``.
        normal_class: The normal landmark.
        train_fraction: Share of its photographs to train on, in (0, 1).
        test_images_per_class: Number of test images of each landmark, at least 1, spread evenly over its own. All if
            None.
        train_batch_size: Batch size for training.
        eval_batch_size: Batch size for validation and test.
        num_workers: Number of workers of each dataloader.
        train_augmentations: Augmentations of the training images.
        val_augmentations: Augmentations of the validation images.
        test_augmentations: Augmentations of the test images.
        augmentations: Augmentations where none are given for a subset.
        val_split_mode: Where the validation set comes from; by default it is the test set.
        val_split_ratio: Share of the images that a validation set of its own takes.
        seed: Seed of such a split, at least 0.

    Raises:
        ValueError: If an argument is out of its range; at setup, if ``root`` lacks folders or label files.
    """

    def __init__(
        self,
        root: str | Path = "./datasets/Paris",
        normal_class: str = "defense",
        train_fraction: float = 0.2,
        test_images_per_class: int | None = None,
        train_batch_size: int = 32,
        eval_batch_size: int = 32,
        num_workers: int = 8,
        train_augmentations: Transform | None = None,
        val_augmentations: Transform | None = None,
        test_augmentations: Transform | None = None,
        augmentations: Transform | None = None,
        val_split_mode: ValSplitMode | str = ValSplitMode.SAME_AS_TEST,
        val_split_ratio: float = 0.5,
        seed: int = 0,
    ) -> None:
        check_choice("normal_class", normal_class, LANDMARKS)
        check_number("train_fraction", train_fraction, above=0, below=1)
        if test_images_per_class is not None:
            check_integer("test_images_per_class", test_images_per_class, at_least=1)
        check_integer("seed", seed, at_least=0)
        super().__init__(
            train_batch_size=train_batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            train_augmentations=train_augmentations,
            val_augmentations=val_augmentations,
            test_augmentations=test_augmentations,
            augmentations=Resize((256, 256), antialias=True) if augmentations is None else augmentations,
            val_split_mode=val_split_mode,
            val_split_ratio=val_split_ratio,
            test_split_mode=TestSplitMode.FROM_DIR,
            seed=seed,
        )
        self.root = Path(root)
        self.category = normal_class
        self.train_fraction = train_fraction
        self.test_images_per_class = test_images_per_class

    def _setup(self, _stage: str | None = None) -> None:
        train, test = [], []
        labels = {path.name: path for path in self.root.rglob("*_ok.txt")}
        for landmark in LANDMARKS:
            paths = self._photographs(landmark, labels)
            if landmark == self.category:
                drawn = set(draw_shots(len(paths), max(1, int(self.train_fraction * len(paths))), SPLIT_SEED))
                chosen = [path for index, path in enumerate(paths) if index in drawn]
                train = describe_images(chosen, Split.TRAIN, landmark, is_normal=True)
                paths = [path for index, path in enumerate(paths) if index not in drawn]
            paths = spread(paths, self.test_images_per_class or len(paths))
            test += describe_images(paths, Split.TEST, landmark, is_normal=landmark == self.category)
        self.train_data = make_subset(train, self.category)
        self.test_data = make_subset(test, self.category)

    def _photographs(self, landmark: str, labels: dict[str, Path]) -> list[Path]:
        """List the photographs of a landmark."""
        folders = {name: self.root / "paris" / name for name in (landmark, GENERAL)}
        missing = [str(folder) for folder in folders.values() if not folder.is_dir()]
        if missing:
            msg = f"root: got {str(self.root)!r}, which lacks {', '.join(missing)}; allowed are the archives, unpacked"
            raise ValueError(msg)
        lists = [f"{landmark}_{query}_ok.txt" for query in QUERIES]
        unlabelled = [name for name in lists if name not in labels]
        if unlabelled:
            msg = f"root: got {str(self.root)!r}, which lacks the label files {', '.join(unlabelled)}"
            raise ValueError(msg)
        shown_partly = {photograph for name in lists for photograph in labels[name].read_text().split()}
        own, general = (list_images(folder) for folder in folders.values())
        others = [path for path in general if path.stem in shown_partly]
        return [path for path in [*own, *others] if is_image(path)]  # twenty of the archives are pages of HTML
