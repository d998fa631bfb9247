# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What happens behind the page: photographs in, model, scores and files out, by anomalib's own calls."""

import copy
import csv
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain, count
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from anomalib.data import ImageBatch, ImageItem, InferenceBatch
from anomalib.engine import Engine
from anomalib.visualization.image.functional import create_image_grid, overlay_image, visualize_anomaly_map
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset

from anomalib_htdgm import Htdgm, QuickstartTextures
from anomalib_htdgm.data.reading import UnreadableImageError, read_image
from anomalib_htdgm.models.htdgm.calibration import set_threshold
from anomalib_htdgm.models.htdgm.threshold import (
    Basis,
    doubt_about_unlabelled,
    threshold_above_most,
)
from anomalib_htdgm.models.htdgm.training import count_steps

from .photographs import FAST, Photograph, take_in

if TYPE_CHECKING:
    from anomalib.post_processing import PostProcessor

MOST_SHOTS = 10
"""Good photographs that are trained on at most: what the model's settings are made for."""
THRESHOLD = 0.5
"""The threshold that is chosen for the user, on the scale of scores, see ``docs/scores.md``."""
ENOUGH_UNCHECKED = 20
"""Photographs that nobody has looked at which tell, by most of them being good, how much good ones differ."""
ITERATIONS_PER_REPORT = 10
"""Iterations after which the bar moves: to draw it a hundred times a second would slow them down."""
SHOTS_OF_EXAMPLE = 3
"""Good photographs of bricks: few, so that they are learnt in seconds."""
LEAST_CHANGE = 0.05
"""Share by which a threshold of unchecked photographs changes, if it does: with less, scores would never be at rest."""
SECONDS_PER_LOOK = 0.2
"""Seconds after which an export looks whether to stop."""
EXPORT = "import sys; from anomalib_htdgm import Htdgm; Htdgm.load_from_checkpoint(sys.argv[1]).to_onnx(sys.argv[2])"
"""What exports a checkpoint, as a process of its own, since nothing else can be stopped."""
LONGEST_SIDE_SHOWN = 640
"""Pixels of a photograph, and of its heat map, on the page."""


class StoppedError(Exception):
    """What was going on was stopped by the user."""


@dataclass(frozen=True)
class Finding:
    """What a model says of a photograph.

    Args:
        photograph (Photograph): The photograph.
        raw (float): Score as the model gives it, at least 0: what thresholds are made of.
        peak (float): Greatest value of the map as the model gives it.
        score (float): Anomaly score in [0, 1], cut off at 1, as the saved model gives it.
        picture (Path): Path of a picture of the photograph, and of the heat map over it.
        reason (str): Why the score tells little, as the photograph is unlike the good ones as a whole; else empty.
    """

    photograph: Photograph
    raw: float
    peak: float
    score: float
    picture: Path
    reason: str = ""

    def is_anomalous(self, threshold: float) -> bool:
        """Tell whether the photograph is anomalous at a threshold, as anomalib does."""
        return self.score > threshold

    def verdict(self, threshold: float) -> str:
        """Give the verdict at a threshold in a few words: a photograph unlike the good ones is never plainly good."""
        if self.is_anomalous(threshold):
            return "anomalous"
        return "look at it" if self.reason else "good"


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
        self.note = ""
        """What became of the threshold at the last check, if it did not just stay."""
        self.uses_unchecked: bool | None = None
        """Whether photographs to check choose the threshold; ``None`` leaves it to whether they seem to tell one."""
        self._learnt: tuple[Engine, Htdgm] | None = None
        self._of_shots: dict[str, torch.Tensor] = {}
        self._basis_of_shots: Basis = "unknown"
        self._renews = False
        self._arrived: dict[str, list[Path]] = {}
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

    def receive(self, role: str, files: Iterable[Path], *, from_camera: bool = False) -> None:
        """Move uploaded files to the session's folder, which they are deleted with; :meth:`take` gives them out.

        Browsers tell a file's name, not its folder, so the folder here tells when it came.
        """
        now = f"{datetime.now().astimezone():%H.%M.%S}"
        folder = self.folder / "arrived" / f"{next(self._numbers):03}" / f"dropped at {now}"
        folder.mkdir(parents=True)
        paths = list(files)
        for path in paths:
            target = folder / (f"camera {now}{path.suffix}" if from_camera else path.name)
            if target.exists():
                target = folder / f"{next(self._numbers):03}" / folder.name / target.name
                target.parent.mkdir(parents=True)
            with suppress(OSError):  # who reads it will say so
                shutil.copy(path, target)
            self._arrived.setdefault(role, []).append(target)
        for path in paths:  # only now, as copies in one drop are one upload
            path.unlink(missing_ok=True)

    def take(self, role: str) -> list[Path]:
        """Give out what has arrived since the last time."""
        return self._arrived.pop(role, [])

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

    def remove_good(self, photograph: Photograph) -> None:
        """Remove one of the good photographs."""
        self.good.remove(photograph)

    def describe_copies(self) -> str:
        """Say which good photographs have the same content, and what that means for the threshold; else nothing."""
        groups: dict[str, list[str]] = {}
        for photograph in self.good:
            groups.setdefault(photograph.digest, []).append(photograph.name)
        alike = [names for names in groups.values() if len(names) > 1]
        if not alike:
            return ""
        copies = "; ".join(f"{name_few(names)} are copies of one photograph" for names in alike)
        return (
            f"{copies}. Copies do not tell how much good ones differ, so the threshold counts none of them: "
            f"{len(groups) - len(alike)} of {len(self.good)} good photographs tell something, and three make it firm."
        )

    def add_new(self, files: Iterable[Path]) -> list[str]:
        """Add photographs to check, and return a sentence for each file that was left out."""
        added, refused = self._take_in_all(files)
        if added:
            self._leave_example()
            self.new += added
        return refused

    def accept(self, finding: Finding) -> None:
        """Count a photograph that was checked among the good ones.

        Raises:
            ValueError: If there are as many good photographs as may be.
        """
        photograph = finding.photograph
        added, refused = self._take_in_all([photograph.path], self.good, MOST_SHOTS)
        if refused:
            raise ValueError(refused[0].replace(photograph.path.name, photograph.name))
        self.good += [replace(each, name=photograph.name) for each in added]
        self.findings.remove(finding)
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
        # A threshold of the user's own is on the scale of the one beside it, which must be of the same kind as before.
        self._renews = self.threshold_chosen_by == "unlabelled images"
        self._learnt = engine, model
        self._of_shots = copy.deepcopy(_post_processor(model).state_dict())
        self.threshold_chosen_by = self._basis_of_shots = model.threshold_chosen_by
        self.findings, self.note = [], ""

    def stop(self) -> None:
        """Stop what is going on, if anything."""
        self._stopped.set()

    @property
    def has_choice(self) -> bool:
        """Whether there are enough photographs to check for a threshold beside that of the good ones."""
        return len(self._unseen()) >= ENOUGH_UNCHECKED

    @property
    def waiting(self) -> list[Photograph]:
        """Photographs that have not been checked by the present model."""
        checked = {finding.photograph for finding in self.findings}
        return [photograph for photograph in self.new if photograph not in checked]

    def check(self) -> None:
        """Score and localise the photographs that wait, see :meth:`checking`.

        Raises:
            StoppedError: If :meth:`stop` was called meanwhile.
        """
        for _ in self.checking():
            pass

    def checking(self) -> Iterator[tuple[int, int]]:
        """Score and localise the photographs that wait, if there is a model.

        Findings are in the order to look through them, highest score first. Enough of them choose the threshold, see
        :attr:`note`.

        Yields:
            tuple[int, int]: The number of photographs that are checked, after each, and of all that waited.

        Raises:
            StoppedError: If :meth:`stop` was called meanwhile.
        """
        if self._learnt is None:
            return
        self._stopped.clear()
        waiting = self.waiting
        for number, photograph in enumerate(waiting, start=1):
            if self._stopped.is_set():
                raise StoppedError
            self.findings.append(self._check(photograph))
            self._sort()
            yield number, len(waiting)
        self._choose()

    def move_threshold(self, threshold: float) -> None:
        """Take a threshold of the user's own, on the scale of scores, which stays; 0.5 is the one chosen for them."""
        self.threshold = threshold

    def use_unchecked(self, *, use: bool) -> None:
        """Let photographs to check choose the threshold, or not, whatever speaks against it."""
        self.uses_unchecked = use
        self._renews = True
        self._choose()

    def save(self, threshold: float) -> list[Path]:
        """Write all files, see :meth:`saving`, and return their paths."""
        return sorted(self.saving(threshold))

    def saving(self, threshold: float) -> Iterator[Path]:
        """Write the checkpoint, the table of scores and the ONNX file, which takes longest.

        Args:
            threshold (float): Score in [0, 1] above which photographs are anomalous, for checkpoint and ONNX file, too.

        Yields:
            Path: The path of each, once it is there.

        Raises:
            ValueError: If nothing has been learnt yet.
            StoppedError: If :meth:`stop` was called meanwhile.
        """
        if self._learnt is None:
            msg = "Nothing has been learnt yet that could be saved."
            raise ValueError(msg)
        self._stopped.clear()
        engine, model = self._learnt
        files = self.folder / "files"
        shutil.rmtree(files, ignore_errors=True)
        _post_processor(model).image_sensitivity = 1 - threshold
        model.threshold_chosen_by = self.threshold_chosen_by
        checkpoint = files / "model.ckpt"
        engine.trainer.save_checkpoint(checkpoint)
        yield checkpoint
        with (files / "scores.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["photograph", "score", "threshold", "verdict", "threshold chosen by", "reason"])
            for each in self.findings:
                verdict = each.verdict(threshold), self.threshold_chosen_by, each.reason
                table.writerow([each.photograph.name, each.score, threshold, *verdict])
        yield files / "scores.csv"
        yield Path(shutil.copy(self._export(checkpoint), files))

    def _export(self, checkpoint: Path) -> Path:
        """Export a checkpoint to ONNX.

        Raises:
            RuntimeError: If that fails.
            StoppedError: If it was stopped.
        """
        root = self.folder / "exported"
        log = checkpoint.parents[1] / "export.log"
        with log.open("w", encoding="utf-8") as said:
            command = [sys.executable, "-W", "ignore", "-c", EXPORT, str(checkpoint), str(root)]
            with subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT) as process:  # noqa: S603
                while process.poll() is None:
                    if self._stopped.wait(SECONDS_PER_LOOK):
                        process.kill()
                        raise StoppedError
        if process.returncode:
            msg = f"The export to ONNX failed: {log.read_text(encoding='utf-8').strip().splitlines()[-1:]}"
            raise RuntimeError(msg)
        return next(root.rglob("*.onnx"))

    def close(self) -> None:
        """Stop what is going on, and delete the photographs and results."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _leave_example(self) -> None:
        if self.is_example:
            self.good, self.new, self.findings = [], [], []
            self._learnt, self.note = None, ""
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
            photographs.append(replace(taken, name=_tell_apart(names, path, "good" if most else "to check")))
            names.add(photographs[-1].name)
        return photographs[num_before:], refused

    def _check(self, photograph: Photograph) -> Finding:
        """Predict by anomalib, but without the post-processor, which would cut off what thresholds are made of."""
        engine, model = cast("tuple[Engine, Htdgm]", self._learnt)
        processor = _post_processor(model)
        processor.enable_normalization = processor.enable_thresholding = False
        try:
            (batch,) = cast("list[ImageBatch]", engine.predict(model, dataloaders=_load([photograph.path])))
        finally:
            processor.enable_normalization = processor.enable_thresholding = True
        scores, maps = cast("torch.Tensor", batch.pred_score), cast("torch.Tensor", batch.anomaly_map)
        np.save(_map_of(photograph), maps[0].cpu().numpy())
        reason = "; ".join(model.inspection(torch.as_tensor(read_image(photograph.path, as_tensor=True))))
        return self._scale(Finding(photograph, float(scores[0]), float(maps.max()), 0.0, Path(), reason))

    def _scale(self, finding: Finding) -> Finding:
        """Bring a score, and the heat map that is drawn, to the scale of the present threshold."""
        processor = _post_processor(cast("tuple[Engine, Htdgm]", self._learnt)[1])
        device = processor.image_max.device
        raw_map = torch.from_numpy(np.load(_map_of(finding.photograph)))[None].to(device)
        scaled = processor(InferenceBatch(pred_score=torch.tensor([finding.raw], device=device), anomaly_map=raw_map))
        # A new name, as browsers keep what they have seen of the old one.
        picture = finding.photograph.path.with_name(f"{finding.photograph.path.stem}_{next(self._numbers):03}.png")
        _draw(finding.photograph, scaled.anomaly_map[0].cpu(), picture)
        return replace(finding, score=float(scaled.pred_score), picture=picture)

    def _sort(self) -> None:
        self.findings.sort(key=lambda finding: finding.raw, reverse=True)

    def _unseen(self) -> list[Finding]:
        """List what tells how good photographs differ: no copies of those that were learnt, or of one another."""
        learnt = {photograph.digest for photograph in self.good}
        others = {each.photograph.digest: each for each in self.findings if each.photograph.digest not in learnt}
        return list(others.values())

    def _choose(self) -> None:
        """Choose the threshold by the photographs to check, if they tell one, or else by the good ones."""
        unseen = self._unseen()
        if len(unseen) < ENOUGH_UNCHECKED:
            return
        if self.threshold != THRESHOLD and not self._renews:
            self.note = f"Your own threshold, {self.threshold:.2f}, stays."
            return
        self._renews = False
        raw, peaks = torch.tensor([(each.raw, each.peak) for each in unseen]).unbind(dim=1)
        is_firm = self._basis_of_shots == "training images"
        doubt = doubt_about_unlabelled(raw, self._of_shots["_image_threshold"].cpu() if is_firm else None)
        if self.uses_unchecked or (self.uses_unchecked is None and not doubt):
            image, pixel = (threshold_above_most(each) for each in (raw, peaks))
            self._take_threshold(float(image), float(pixel), "unlabelled images")
            told = "photographs that nobody has looked at, which tell how much good ones differ"
            why = f"It is that of {len(unseen)} {told}."
        else:
            image, pixel = (self._of_shots[name] for name in ("_image_threshold", "_pixel_threshold"))
            self._take_threshold(float(image), float(pixel), self._basis_of_shots)
            why = f"It is that of the good photographs{'' if self.uses_unchecked is None else ', as you want it'}."
            why = f"{doubt}. {why}" if doubt else why
        self.note = f"{self.note} {why}"

    def _take_threshold(self, image: float, pixel: float, basis: Basis) -> None:
        """Let 0.5 be another threshold, from then on and of what has been checked, and note it."""
        processor = _post_processor(cast("tuple[Engine, Htdgm]", self._learnt)[1])
        before = float(processor.image_threshold)
        change = image / before - 1
        is_other_kind, self.threshold_chosen_by = basis != self.threshold_chosen_by, basis
        if change == 0 or (abs(change) < LEAST_CHANGE and not is_other_kind):
            self.note = "The threshold stays."
            return
        self.note = (
            f"The threshold is {abs(change):.0%} {'higher' if change > 0 else 'lower'} now (raw score {before:.3g} to "
            f"{image:.3g}; scores are shown anew, with {THRESHOLD} as the threshold)."
        )
        for kind, threshold in (("image", image), ("pixel", pixel)):
            set_threshold(processor, kind, torch.tensor(threshold))
        old = [finding.picture for finding in self.findings]
        self.findings = [self._scale(finding) for finding in self.findings]
        for picture in old:
            picture.unlink(missing_ok=True)


def name_few(names: Sequence[str], most: int = 3) -> str:
    """Name the first ones, and count the others."""
    more = [f"{len(names) - most} more"] if len(names) > most else []
    *others, last = [*names[:most], *more]
    return f"{', '.join(others)} and {last}" if others else last


def _tell_apart(names: Collection[str], path: Path, role: str) -> str:
    """Tell a file from others of its name, which cameras and other folders give, by what its owner can look up."""
    told = f"{path.name} ({role}, {path.parent.name}"
    ways = (path.name, f"{told})", f"{told}, {path.stat().st_size} bytes)")
    numbered = (f"{told}, {path.stat().st_size} bytes, copy {number})" for number in count(2))
    return next(each for each in chain(ways, numbered) if each not in names)


def _post_processor(model: Htdgm) -> "PostProcessor":
    return cast("PostProcessor", model.post_processor)


def _map_of(photograph: Photograph) -> Path:
    return photograph.path.with_suffix(".npy")


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


def _draw(photograph: Photograph, heat: torch.Tensor, picture: Path) -> None:
    """Draw a heat map: beside the photograph, and over it."""
    with Image.open(photograph.path) as image:
        image.thumbnail((LONGEST_SIDE_SHOWN, LONGEST_SIDE_SHOWN))
        overlay = overlay_image(image, visualize_anomaly_map(heat))
        create_image_grid([image, overlay], nrow=2).save(picture, compress_level=FAST)


class _Watch(Callback):
    """Reports how far a training is, and ends it when it is to stop."""

    def __init__(self, report: Callable[[float], None], stopped: Event) -> None:
        self.report = report
        self.stopped = stopped

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look whether to stop before every image that is scored, too: for the threshold, after the last iteration."""
        model = cast("Htdgm", pl_module)
        self.number = count_steps(model.model)
        maps = model.model.anomaly_map_generator
        self.scoring = maps.register_forward_pre_hook(lambda *_: self._look(trainer.global_step))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the model as it was."""
        del trainer, pl_module
        self.scoring.remove()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Look in every iteration, which is a step of an optimiser."""
        del pl_module, optimizer
        self._look(trainer.global_step)

    def _look(self, done: int) -> None:
        if self.stopped.is_set():
            raise StoppedError
        if done % ITERATIONS_PER_REPORT == 0 or done == self.number:
            self.report(done / self.number)
