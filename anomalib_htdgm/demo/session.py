# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What happens behind the page: photographs in, model, scores and files out, by anomalib's own calls."""

import csv
import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, cast

import torch
from anomalib.data import ImageBatch, ImageItem
from anomalib.engine import Engine
from anomalib.visualization.image.functional import create_image_grid, overlay_image, visualize_anomaly_map
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from anomalib_htdgm import Htdgm, QuickstartTextures
from anomalib_htdgm.data.reading import UnreadableImageError, read_image
from anomalib_htdgm.models.htdgm.threshold import DEVIATIONS_OF_UNLABELLED, Basis, threshold_above_most

from .photographs import FAST, Photograph, take_in

if TYPE_CHECKING:
    from anomalib.post_processing import PostProcessor

MOST_SHOTS = 10
"""Good photographs that are trained on at most: what the model's settings are made for."""
THRESHOLD = 0.5
"""The threshold that a model is trained with, see ``docs/scores.md``."""
ENOUGH_UNCHECKED = 20
"""Photographs that nobody has looked at which tell, by most of them being good, how much good ones differ."""
ITERATIONS_PER_REPORT = 10
"""Iterations after which the bar moves: to draw it a hundred times a second would slow them down."""
SHOTS_OF_EXAMPLE = 3
"""Good photographs of bricks: few, so that they are learnt in seconds."""
LONGEST_SIDE_SHOWN = 640
"""Pixels of a photograph, and of its heat map, on the page."""


class StoppedError(Exception):
    """A training was stopped by the user."""


@dataclass(frozen=True)
class Finding:
    """What a model says of a photograph.

    Args:
        photograph (Photograph): The photograph.
        score (float): Anomaly score in [0, 1].
        picture (Path): Path of a picture of the photograph, and of the heat map over it.
    """

    photograph: Photograph
    score: float
    picture: Path

    def is_anomalous(self, threshold: float) -> bool:
        """Tell whether the photograph is anomalous at a threshold, as anomalib does."""
        return self.score > threshold

    def verdict(self, threshold: float) -> str:
        """Give the verdict at a threshold in a word."""
        return "anomalous" if self.is_anomalous(threshold) else "good"


class Session:
    """The photographs of one user, and what was learnt from them.

    Args:
        folder (Path): Folder for photographs and results, for this session alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.good: list[Photograph] = []  # no two photographs of a session have the same name
        self.new: list[Photograph] = []
        self.findings: list[Finding] = []
        self.is_example = False
        self.threshold = THRESHOLD
        self.threshold_chosen_by: Basis = "unknown"
        self._learnt: tuple[Engine, Htdgm] | None = None
        self._stopped = Event()
        self._numbers = count()

    @property
    def has_learnt(self) -> bool:
        """Whether there is a model."""
        return self._learnt is not None

    def open_example(self) -> None:
        """Begin with the quick start's bricks, which the first photograph of the user's replaces."""
        bricks = QuickstartTextures("brick", root=self.folder / "quickstart")
        bricks.prepare_data()
        root = Path(bricks.root or "")
        images = {kind: sorted(root.glob(f"{kind}/*.png")) for kind in ("good", "test_good", "defect")}
        self.add_good(images["good"][::5][:SHOTS_OF_EXAMPLE])
        for kind in ("test_good", "defect"):
            taken = [self._take_in(path) for path in images[kind][::7]]
            self.new += [replace(each, name=f"{kind} {each.name}") for each in taken]
        self.is_example = True

    def add_good(self, files: Iterable[Path]) -> list[str]:
        """Add good photographs to train on, and return a sentence for each file that was left out.

        A model is trained on one size, so they get that of the first.
        """
        good = [] if self.is_example else self.good
        added, refused = self._take_in_all(files, good, MOST_SHOTS)
        if added:
            self._leave_example()
            self.good += added
        return refused

    def remove_good(self, index: int) -> None:
        """Remove one of the good photographs."""
        del self.good[index]

    def add_new(self, files: Iterable[Path]) -> list[str]:
        """Add photographs to check, and return a sentence for each file that was left out."""
        added, refused = self._take_in_all(files)
        if added:
            self._leave_example()
            self.new += added
        return refused

    def accept(self, index: int) -> None:
        """Count a photograph that was checked among the good ones.

        Raises:
            ValueError: If there are as many good photographs as may be.
        """
        photograph = self.findings[index].photograph
        added, refused = self._take_in_all([photograph.path], self.good, MOST_SHOTS)
        if refused:
            raise ValueError(refused[0].replace(photograph.path.name, photograph.name))
        self.good += [replace(each, name=photograph.name) for each in added]
        del self.findings[index]
        self.new.remove(photograph)

    def learn(self, tiles: int, report: Callable[[float], None]) -> None:
        """Train on the good photographs; a training that does not end leaves the model before as it is.

        Args:
            tiles (int): Tiles along each side of a photograph.
            report (Callable[[float], None]): Is told now and then, and at the end, which share of the training is done.

        Raises:
            ValueError: If there is no good photograph.
            StoppedError: If :meth:`stop` was called meanwhile.
        """
        if not self.good:
            msg = f"There is no good photograph to learn from: add one to {MOST_SHOTS}."
            raise ValueError(msg)
        self._stopped.clear()
        engine = Engine(
            default_root_dir=self.folder / "results",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[_Watch(report, self._stopped)],
        )
        model = Htdgm(k_shot=len(self.good), tiles=tiles, visualizer=False)
        engine.fit(model, train_dataloaders=_load(sorted(photograph.path for photograph in self.good)))
        self._learnt = engine, model
        self.threshold, self.threshold_chosen_by = THRESHOLD, model.threshold_chosen_by
        self.findings = []

    def stop(self) -> None:
        """Stop the training that is going on, if any."""
        self._stopped.set()

    def check(self) -> None:
        """Score and localise the photographs that have not been checked by the present model.

        Findings are in the order to look through them, highest score first. Enough of them choose the threshold.
        """
        if self._learnt is None:
            return
        engine, model = self._learnt
        checked = {finding.photograph for finding in self.findings}
        for photograph in self.new:
            if photograph not in checked:
                predicted = engine.predict(model, dataloaders=_load([photograph.path]))
                (batch,) = cast("list[ImageBatch]", predicted)
                self.findings.append(_note(photograph, batch))
        self.findings.sort(key=lambda finding: finding.score, reverse=True)
        if len(self.findings) >= ENOUGH_UNCHECKED:
            scores = torch.tensor([finding.score for finding in self.findings])
            threshold = threshold_above_most(scores, DEVIATIONS_OF_UNLABELLED)
            self.threshold, self.threshold_chosen_by = min(round(float(threshold), 2), 1.0), "unlabelled images"

    def save(self, threshold: float) -> list[Path]:
        """Write the checkpoint, the ONNX file and the table of scores, and return their paths.

        Args:
            threshold (float): Score in [0, 1] above which photographs are anomalous, for checkpoint and ONNX file, too.

        Raises:
            ValueError: If nothing has been learnt yet.
        """
        if self._learnt is None:
            msg = "Nothing has been learnt yet that could be saved."
            raise ValueError(msg)
        engine, model = self._learnt
        files = self.folder / "files"
        shutil.rmtree(files, ignore_errors=True)
        cast("PostProcessor", model.post_processor).image_sensitivity = 1 - threshold
        model.threshold_chosen_by = self.threshold_chosen_by
        engine.trainer.save_checkpoint(files / "model.ckpt")
        exported = engine.export(model, "onnx", export_root=self.folder / "exported")
        shutil.copy(cast("Path", exported), files)
        with (files / "scores.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["photograph", "score", "threshold", "verdict", "threshold chosen by"])
            for finding in self.findings:
                verdict = finding.verdict(threshold)
                table.writerow([finding.photograph.name, finding.score, threshold, verdict, self.threshold_chosen_by])
        return sorted(files.iterdir())

    def close(self) -> None:
        """Stop what is going on, and delete the photographs and results."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _leave_example(self) -> None:
        if self.is_example:
            self.good, self.new, self.findings = [], [], []
            self._learnt = None
            self.is_example = False

    def _take_in(self, source: Path, size: tuple[int, int] | None = None) -> Photograph:
        return take_in(source, self.folder / "photographs" / f"{next(self._numbers):03}.png", size)

    def _take_in_all(
        self,
        files: Iterable[Path],
        alike: Iterable[Photograph] = (),
        most: int | None = None,
    ) -> tuple[list[Photograph], list[str]]:
        """Take in files, to be alike to others and to one another if there is a limit to their number."""
        photographs, refused = list(alike), []
        names = {photograph.name for photograph in [*self.good, *self.new]}
        num_before = len(photographs)
        for path in files:
            if most is not None and len(photographs) >= most:
                refused.append(f"{path.name} was left out: {most} good photographs are there already.")
                continue
            try:
                taken = self._take_in(path, photographs[0].size if most and photographs else None)
            except UnreadableImageError as error:
                refused.append(f"{error}.")
                continue
            photographs.append(replace(taken, name=_unlike(names, taken.name)))
            names.add(photographs[-1].name)
        return photographs[num_before:], refused


def _unlike(names: Collection[str], name: str) -> str:
    """Number a name that another photograph has, as cameras and other folders give the same ones."""
    numbered = (f"{Path(name).stem} ({number}){Path(name).suffix}" for number in count(2))
    return name if name not in names else next(each for each in numbered if each not in names)


class _Files(Dataset[ImageItem]):
    """Image files; anomalib's own datasets refuse paths with letters beyond ASCII, as users' names may have."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> ImageItem:
        path = self.paths[index]
        return ImageItem(image=read_image(path, as_tensor=True), image_path=str(path))


def _load(paths: Sequence[Path]) -> DataLoader[ImageItem]:
    return DataLoader(_Files(paths), collate_fn=ImageBatch.collate)


def _note(photograph: Photograph, batch: ImageBatch) -> Finding:
    """Note what was predicted, and draw the heat map: beside the photograph, and over it."""
    scores, maps = cast("torch.Tensor", batch.pred_score), cast("torch.Tensor", batch.anomaly_map)
    picture = photograph.path.with_name(f"{photograph.path.stem}_heat_map.png")
    with Image.open(photograph.path) as image:
        image.thumbnail((LONGEST_SIDE_SHOWN, LONGEST_SIDE_SHOWN))
        overlay = overlay_image(image, visualize_anomaly_map(maps[0]))
        create_image_grid([image, overlay], nrow=2).save(picture, compress_level=FAST)
    return Finding(photograph, float(scores[0]), picture)


class _Watch(Callback):
    """Reports how far a training is, and ends it when it is to stop."""

    def __init__(self, report: Callable[[float], None], stopped: Event) -> None:
        self.report = report
        self.stopped = stopped

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look whether to stop before every image that is scored, too: for the threshold, after the last iteration."""
        del trainer
        maps = cast("Htdgm", pl_module).model.anomaly_map_generator
        self.scoring = maps.register_forward_pre_hook(lambda *_: self._look())

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the model as it was."""
        del trainer, pl_module
        self.scoring.remove()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        del pl_module, outputs, batch
        self._look()
        done, number = batch_idx + 1, trainer.num_training_batches
        if done % ITERATIONS_PER_REPORT == 0 or done == number:
            self.report(done / number)

    def _look(self) -> None:
        if self.stopped.is_set():
            raise StoppedError
