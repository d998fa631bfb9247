# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Try everything on a GPU: does it work, is it repeatable, how fast is it, and what does the paper's training give.

    python benchmarks/speed/accelerator.py contract seeds speed --root MVTEC_AD --output runs/gpu
    python benchmarks/speed/accelerator.py published_rotations published_full --root MVTEC_AD --arrays cifar10.npz ...

Each step has a process and a time of its own, and writes what it finds at once, a line of JSON for each, to
``<output>/<step>.jsonl``; what fails is such a line, too. Without a GPU the same steps are done on the CPU, smaller.

* ``contract``: fit, test, predict, resume and export, in both precisions; scores beside those of the CPU, each way;
* ``seeds``: two trainings with one seed: equal to the bit, or by how much not?
* ``speed``: fit, scoring and memory beside PatchCore (random weights); launches or arithmetic?
* ``published_rotations``, ``published_full``: the training of ``configs/htdgm/paper.yaml``, with rotations on bottle
  and grid, ten trials of one shot, and with all transformations on CIFAR-10, one trial, whose images are not equalised.
  Several models are trained at a time, each on a stream of its own, which replays one recorded iteration; noise is
  drawn on the GPU. AUROC in percent of the published score, and of log-probabilities of the lowest patches; with
  running averages, and re-estimated; of all scales, and of each.
"""

import argparse
import json
import logging
import os
import platform
import statistics
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import onnxruntime
import pandas as pd
import torch
from anomalib.data import AnomalibDataModule, ImageBatch, MVTecAD
from anomalib.deploy import ExportType, TorchInferencer
from anomalib.engine import Engine
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
from anomalib.post_processing import PostProcessor
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from sklearn.metrics import roc_auc_score
from speed import BACKBONE, LAYERS, make_images

from anomalib_htdgm import Devnet, Differnet, FewLabelledAnomalies, FewShot, Htdgm, OneClass
from anomalib_htdgm.data.one_class import CLASSES
from anomalib_htdgm.models.htdgm.score import Vote, anomaly_score, patch_anomaly
from anomalib_htdgm.models.htdgm.torch_model import HtdgmModel
from anomalib_htdgm.models.htdgm.training import DECAY, DISCRIMINATOR_DECAY_ITERATION, Training

sys.path.insert(0, str(Path(__file__).parents[1] / "quality"))

from explore import read, reestimate

if TYPE_CHECKING:
    from anomalib.models.components import AnomalibModule

BUDGETS = {"contract": 330, "seeds": 90, "speed": 120, "published_rotations": 240, "published_full": 480}
"""Seconds after which a step is ended, whatever it is at; by what an H100 took, of which 18 are imports."""
WARM_UP = 3
"""Iterations of a scale before one is recorded, in which libraries choose and allocate what they need."""
AT_ONCE = {"rotations": 10, "full": 2}
"""Models that are trained at a time, and lost together if time is up. An H100 trained ten with rotations in 83 seconds,
and five with all transformations in 144; two should take half of that."""
PUBLISHED: dict[str, Any] = {
    "image_size": 64,
    "coarsest_size": 25,
    "scale_factor": 0.75,
    "width": 32,
    "votes_from": 0,
    "memory_patches": 0,
    "standardize": False,
    "double_width_every": 4,
    "vote": "probability",
    "localization": "finest_scale",
}
PUBLISHED_TRAINING = Training(
    iterations=1000, discriminator_steps=3, generator_steps=3, fake_weight=1.0, reestimate_statistics=False
)
SMALL_BACKBONE: dict[str, Any] = {"pre_trained": False, "backbone": "torchvision/alexnet"}
MODELS: dict[str, Callable[..., "AnomalibModule"]] = {
    "Htdgm float32": partial(Htdgm, k_shot=1, iterations=6, precision="float32"),
    "Htdgm auto": partial(Htdgm, k_shot=1, iterations=6),
    **{
        f"Differnet {precision}": partial(
            Differnet,
            **SMALL_BACKBONE,
            image_sizes=[128, 64],
            hidden_width=128,
            epochs=8,
            test_rotations=4,
            map_rotations=2,
            precision=precision,
        )
        for precision in ("float32", "auto")
    },
    "Devnet": partial(
        Devnet, **SMALL_BACKBONE, image_sizes=(128, 64), epochs=1, steps_per_epoch=8, batch_size=8, num_reference=50
    ),
}


@dataclass(frozen=True)
class Options:
    """What the command line says.

    Args:
        root (Path): Root directory of MVTec AD, of which bottle and grid are used.
        arrays (Path | None): Arrays of CIFAR-10, see OneClass.
        output (Path): Directory of the results.
        device (torch.device): Where it is done.
    """

    root: Path
    arrays: Path | None
    output: Path
    device: torch.device

    @property
    def small(self) -> bool:
        """Whether the steps are done at a size for a CPU."""
        return self.device.type == "cpu"


class Findings:
    """Writes findings to a file, one by one.

    Args:
        path (Path): The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, **finding: object) -> None:
        """Write a finding, and print it."""
        text = json.dumps(finding, default=float)
        with self.path.open("a") as file:
            file.write(text + "\n")
        print(text[:500], flush=True)

    @contextmanager
    def look(self, **what: object) -> Iterator[dict[str, object]]:
        """Time what is done, and write that and what it found; or, if it fails, the error."""
        finding, start = dict(what), time.perf_counter()
        try:
            yield finding
        except Exception as error:  # noqa: BLE001  # whatever breaks is a finding, and the others are wanted, too
            finding["error"] = f"{type(error).__name__}: {error}"
            finding["traceback"] = traceback.format_exc()[-3000:]
        self.add(**finding, seconds=round(time.perf_counter() - start, 3))


def synchronize(device: torch.device) -> None:
    """Wait for all that was launched."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def time_on(device: torch.device, work: Callable[[], object], repeats: int = 1) -> float:
    """Take the median time of a piece of work, in seconds, with all that it launches."""
    times = []
    for _ in range(repeats):
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


# --- contract


def check_contract(findings: Findings, options: Options) -> None:
    """Do with every model what a user does, and compare with the CPU; exports to ONNX, the slowest, come last."""
    with TemporaryDirectory() as folder:
        makers = {
            name: partial(make, post_processor=PostProcessor(enable_normalization=False))
            for name, make in MODELS.items()
        }
        paths = {name: _check_model(findings, options, name, make, f"{folder}/{name}") for name, make in makers.items()}
        with findings.look(model="Htdgm", check="train with all defaults") as finding:
            engine = _make_engine(options.device, f"{folder}/defaults")
            finding.update(engine.train(Htdgm(k_shot=1), datamodule=_draw_bottle(options, labelled=False))[0])
        with findings.look(model="Htdgm", check="threshold of known defects"):
            engine = _make_engine(options.device, f"{folder}/known", limit_val_batches=0)
            engine.fit(MODELS["Htdgm auto"](), datamodule=_draw_bottle(options, labelled=True))
        for name in (name for name in MODELS if "auto" not in name):
            _check_onnx(findings, options, name, makers[name], paths[name])


def _draw_bottle(options: Options, *, labelled: bool) -> AnomalibDataModule:
    """Draw one good image, or with two labelled anomalies, and some of the test images."""
    data: AnomalibDataModule = FewShot(MVTecAD(options.root, num_workers=0), k_shot=1)
    data.setup()
    if labelled:
        data = FewLabelledAnomalies(data, 2)
        data.setup()
    every = 16 if options.small else 3
    for subset in (data.test_data, data.val_data):
        subset.subsample(list(range(0, len(subset), every)), inplace=True)
    return data


def _make_engine(device: torch.device, folder: str, **arguments: Any) -> Engine:  # noqa: ANN401
    return Engine(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **arguments,
    )


def _predict(
    device: torch.device, make: Callable[[], "AnomalibModule"], path: str, data: AnomalibDataModule
) -> torch.Tensor:
    """Score the test images with a checkpoint: scores of shape ``(N,)``, not normalised."""
    with TemporaryDirectory() as folder:
        predictions = _make_engine(device, folder).predict(make(), datamodule=data, ckpt_path=path)
    batches = cast("list[ImageBatch]", predictions)
    return torch.cat([cast("torch.Tensor", batch.pred_score).flatten().float().cpu() for batch in batches])


def _compare(scores: torch.Tensor, expected: torch.Tensor) -> dict[str, float]:
    ranks = [pd.Series(each.numpy()) for each in (scores, expected)]
    largest = float((scores - expected).abs().max())
    return {
        "rank correlation": float(ranks[0].corr(ranks[1], method="spearman")),
        "largest difference": largest,
        "of a range of": float(expected.max() - expected.min()),
    }


def _check_model(
    findings: Findings, options: Options, name: str, make: Callable[[], "AnomalibModule"], folder: str
) -> str:
    """Do all but the export to ONNX, and give the path of the checkpoint."""
    here, cpu = options.device, torch.device("cpu")
    data = _draw_bottle(options, labelled=name == "Devnet")
    engine = _make_engine(here, folder)
    with findings.look(model=name, check="fit"):
        engine.fit(make(), datamodule=data)
    path = str(engine.best_model_path)
    with findings.look(model=name, check="test") as finding:
        finding.update(engine.test(make(), datamodule=data, ckpt_path=path, verbose=False)[0])
    with findings.look(model=name, check="checkpoint to the CPU: scores of both") as finding:
        finding.update(_compare(_predict(here, make, path, data), _predict(cpu, make, path, data)))
    if name.startswith("Htdgm"):
        for device in dict.fromkeys((here, cpu)):
            with findings.look(model=name, check=f"resume on {device.type}: scores of both") as finding:
                finding.update(_compare(_resume(here, device, make, data), _predict(here, make, path, data)))
    with findings.look(model=name, check="checkpoint from the CPU") as finding:
        on_cpu = _make_engine(cpu, f"{folder}/cpu")
        on_cpu.fit(make(), datamodule=data)
        trained = str(on_cpu.best_model_path)
        finding.update(_compare(_predict(here, make, trained, data), _predict(cpu, make, trained, data)))
    with findings.look(model=name, check="export to torch: score beside the checkpoint's") as finding:
        exported = str(engine.export(make(), ExportType.TORCH, export_root=folder, ckpt_path=path))
        os.environ["TRUST_REMOTE_CODE"] = "1"
        image = str(data.test_data.samples["image_path"].iloc[0])
        score = cast("torch.Tensor", TorchInferencer(exported, device=here.type).predict(image).pred_score)
        finding["difference"] = float(score.cpu() - _predict(here, make, path, data)[0])
    return path


def _check_onnx(
    findings: Findings, options: Options, name: str, make: Callable[[], "AnomalibModule"], path: str
) -> None:
    data = _draw_bottle(options, labelled=name == "Devnet")
    with (
        findings.look(model=name, check="export to ONNX: score beside the checkpoint's") as finding,
        TemporaryDirectory() as folder,
    ):
        engine = _make_engine(options.device, folder)
        onnx = engine.export(make(), ExportType.ONNX, export_root=folder, ckpt_path=path)
        session = onnxruntime.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
        batch = cast("torch.Tensor", data.test_data[0].image)[None].numpy()
        (scores,) = session.run(["pred_score"], {"input": batch})
        finding["difference"] = float(scores.item() - _predict(options.device, make, path, data)[0])


class _BreakOff(Callback):
    """Breaks a training off behind its first scale."""

    def on_train_batch_start(self, _trainer: object, _model: object, _batch: object, batch_idx: int) -> None:
        if batch_idx == 15:  # noqa: PLR2004  # a scale has two sets of six iterations
            msg = "broken off"
            raise InterruptedError(msg)


def _resume(
    begun: torch.device, resumed: torch.device, make: Callable[[], "AnomalibModule"], data: AnomalibDataModule
) -> torch.Tensor:
    """Break a training off, take it up again, perhaps elsewhere, and score where it was begun."""
    with TemporaryDirectory() as folder:
        keep = ModelCheckpoint(dirpath=folder, every_n_train_steps=12, save_last=True)
        try:
            _make_engine(begun, folder, callbacks=[keep, _BreakOff()]).fit(make(), datamodule=data)
        except InterruptedError:
            engine = _make_engine(resumed, folder)
            engine.fit(make(), datamodule=data, ckpt_path=Path(folder) / "last.ckpt")
        return _predict(begun, make, str(engine.best_model_path), data)


# --- seeds


def check_seeds(findings: Findings, options: Options) -> None:
    """Train twice with one seed, as PyTorch likes and with its deterministic algorithms, and compare."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # what PyTorch asks for, before the first product
    images, unseen = make_images(2, 256).to(options.device), make_images(8, 256).to(options.device)
    iterations = 2 if options.small else 30
    settings: dict[str, tuple[dict[str, Any], Training]] = {
        "defaults": ({}, Training(iterations=iterations)),
        "defaults, float32": ({"precision": "float32"}, Training(iterations=iterations)),
        "published, rotations": (
            PUBLISHED | {"adversarial": True, "transformations": "rotations"},
            replace(PUBLISHED_TRAINING, iterations=1 if options.small else 10),
        ),
    }
    for deterministic in (False, True):
        torch.use_deterministic_algorithms(deterministic)
        for name, (arguments, training) in settings.items():
            with findings.look(settings=name, deterministic_algorithms=deterministic) as finding:
                models = [_fit(options.device, images, arguments, training) for _ in range(2)]
                with torch.inference_mode():
                    first, second = (model(unseen).pred_score.cpu() for model in models)
                pairs = list(zip(*(model.parameters() for model in models), strict=True))
                finding["bit for bit"] = all(torch.equal(*pair) for pair in pairs)
                finding["relative difference of weights"] = max(float((a - b).norm() / b.norm()) for a, b in pairs)
                finding.update(_compare(first, second))


def _fit(device: torch.device, images: torch.Tensor, arguments: dict[str, Any], training: Training) -> HtdgmModel:
    model = HtdgmModel((images.shape[-2], images.shape[-1]), len(images), **arguments).to(device)
    for _ in training.run(model, images):
        pass
    return model


# --- speed


def measure_speed(findings: Findings, options: Options) -> None:
    """Time fit and scoring beside PatchCore, and launches beside arithmetic."""
    device, repeats = options.device, 1 if options.small else 15
    training = Training(iterations=1) if options.small else Training()
    for shots in (1, 2) if options.small else (1, 10, 80):
        images = make_images(shots, 256).to(device)
        fits: dict[str, Callable[[], torch.nn.Module]] = {
            "Htdgm": partial(_fit, device, images, {}, training),
            "Htdgm, a quarter of the pixels": partial(
                _fit, device, images, {}, replace(training, pixels_per_iteration=1024)
            ),
            "PatchCore": partial(_fit_patchcore, device, images),
        }
        for name, fit in fits.items():
            with findings.look(model=name, shots=shots) as finding:
                model = fit().eval()  # libraries are loaded
                finding["fit"] = _measure(device, fit)
                for batch in (1, 32):
                    score = partial(_score, model, make_images(batch, 256).to(device))
                    score()
                    finding[f"batch of {batch}"] = _measure(device, score, repeats)
    for transformations, most in AT_ONCE.items():
        for number in (1,) if options.small else (1, most):
            with findings.look(recorded=transformations, models_at_a_time=number) as finding:
                finding.update(_time_recorded(device, transformations, number, 2 if options.small else 40))


def _measure(device: torch.device, work: Callable[[], object], repeats: int = 1) -> dict[str, float]:
    """Take seconds, and the megabytes of a GPU that are allocated beside what was allocated before."""
    if device.type != "cuda":
        return {"s": time_on(device, work, repeats)}
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    seconds = time_on(device, work, repeats)
    return {"s": seconds, "MB": (torch.cuda.max_memory_allocated() - before) / 1e6}


def _fit_patchcore(device: torch.device, images: torch.Tensor) -> PatchcoreModel:
    model = PatchcoreModel(LAYERS, BACKBONE, pre_trained=False).to(device).train()
    with torch.no_grad():
        for batch in images.split(32):
            model(batch)
        model.subsample_embedding(0.1)
    return model


@torch.inference_mode()
def _score(model: torch.nn.Module, images: torch.Tensor) -> object:
    return model(images)


def _time_recorded(device: torch.device, transformations: str, number: int, iterations: int) -> dict[str, float]:
    """Time an iteration of the finest scale, recorded and of several models at a time, beside one launched anew."""
    image = make_images(1, 256).to(device)
    training = replace(PUBLISHED_TRAINING, iterations=iterations + WARM_UP + 1)
    make = partial(_make_published, device, transformations, coarsest_size=64)
    launched = replace(training, iterations=WARM_UP + 6).run(make(), image)
    for _ in range(WARM_UP):
        next(launched)
    anew = time_on(device, partial(next, launched), 5)
    runs = [train(make(seed), image, training, seed) for seed in range(number)]
    recording = time_on(device, lambda: [next(run) for run in runs])
    seconds = time_on(device, lambda: [next(run) for _ in range(iterations - 1) for run in runs])
    for run in runs:
        run.close()
    return {
        "launched anew [ms]": 1000 * anew,
        "recorded, per model [ms]": 1000 * seconds / (iterations - 1) / number,
        "recording, per model [ms]": 1000 * recording / number,
    }


# --- published


class NoiseOfDevice(HtdgmModel):
    """A model whose noise is drawn where it is used: nothing that an iteration needs comes from the CPU."""

    noise_source: torch.Generator

    def draw_noise(self, scale: int, num_images: int, source: torch.Generator) -> torch.Tensor:
        """Draw noise as the model does, but from a source of the device."""
        del source
        size, channels = self.pyramid.sizes[scale], 3 if scale else 1
        shape, device = (num_images, channels, size, size), self.num_shots.device
        return torch.randn(shape, generator=self.noise_source, device=device).expand(-1, 3, -1, -1)


def _make_published(
    device: torch.device, transformations: str, seed: int = 0, coarsest_size: int = PUBLISHED["coarsest_size"]
) -> NoiseOfDevice:
    arguments = PUBLISHED | {"coarsest_size": coarsest_size, "transformations": transformations}
    model = NoiseOfDevice((256, 256), adversarial=True, **arguments).to(device)
    model.noise_source = torch.Generator(device).manual_seed(seed)
    return model


def train(model: NoiseOfDevice, images: torch.Tensor, training: Training, seed: int) -> Generator[None]:
    """Train a model, launching one iteration at a time, so that trainings may take turns.

    On a GPU, each scale is trained for a few iterations, of which one is recorded and replayed as often as is wanted:
    to launch its thousands of small kernels one by one takes longer than to compute them.

    Args:
        model (NoiseOfDevice): The model.
        images (torch.Tensor): Its training images.
        training (Training): How it is trained; without generators nothing would be random.
        seed (int): Seed of the weights.

    Yields:
        None: After each iteration that was launched.
    """
    if images.device.type != "cuda":
        for _ in training.run(model, images, seed):
            yield
        return
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    optimizers = training.configure_optimizers(model)
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group |= {"capturable": True, "lr": torch.tensor(group["lr"], device=images.device)}  # may change in replays
    steps = replace(training, iterations=WARM_UP + 2).run(model, images, seed, optimizers)
    for discriminator_optimizer in optimizers[: len(model.discriminators)]:
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                next(steps)
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(model.noise_source)
        with torch.cuda.graph(graph, stream=stream):
            next(steps)
        for iteration in range(WARM_UP, training.iterations - 1):
            with torch.cuda.stream(stream):
                if iteration == DISCRIMINATOR_DECAY_ITERATION:
                    discriminator_optimizer.param_groups[0]["lr"].mul_(DECAY)
                graph.replay()
            yield
        with torch.cuda.stream(stream):
            next(steps)
        torch.cuda.synchronize()  # before what was recorded is given back
    with torch.cuda.stream(stream):
        for _ in steps:
            pass
    torch.cuda.current_stream().wait_stream(stream)


@dataclass
class Task:
    """A model to train, and the images.

    Args:
        data (str): Name of the data.
        trial (int): Seed of draw, weights and noise.
        transformations (str): What it tells apart.
        patch_fraction (float): Fraction of patches that scores.
        datamodule (AnomalibDataModule): The data, one shot drawn.
    """

    data: str
    trial: int
    transformations: str
    patch_fraction: float
    datamodule: AnomalibDataModule

    def read(self, device: torch.device, split: str) -> torch.Tensor:
        """Read all images of a split as a model of ours gets them."""
        images = (read(getattr(self.datamodule, f"{split}_data")) / 2 + 0.5).to(device)
        return cast("torch.Tensor", cast("Any", Htdgm.configure_pre_processor()).transform(images))


def list_tasks(options: Options, transformations: str, folder: str) -> list[Task]:
    """List what is trained, in the order of its worth; the images of arrays are written to a folder."""
    if transformations == "rotations":
        return [
            Task(category, trial, "rotations", 0.05, FewShot(MVTecAD(options.root, category, num_workers=0), 1, trial))
            for trial in range(1 if options.small else 10)
            for category in ("bottle", "grid")
        ]
    arguments: dict[str, Any] = {
        "arrays": options.arrays,
        "test_images_per_class": 2 if options.small else 50,
        "num_workers": 0,
    }
    return [
        Task(name, 0, "full", 1.0, FewShot(OneClass("CIFAR10", name, folder, **arguments), 1, 0))
        for name in CLASSES["CIFAR10"][: 1 if options.small else None]
    ]


def train_published(findings: Findings, options: Options, transformations: str) -> None:
    """Train as published, several models at a time, and score the test images."""
    training = replace(PUBLISHED_TRAINING, iterations=1) if options.small else PUBLISHED_TRAINING
    with TemporaryDirectory() as folder:
        tasks = list_tasks(options, transformations, folder)
        for first in range(0, len(tasks), AT_ONCE[transformations]):
            _train_together(findings, options, tasks[first : first + AT_ONCE[transformations]], training)


def _train_together(findings: Findings, options: Options, tasks: Sequence[Task], training: Training) -> None:
    device, start, models, runs = options.device, time.perf_counter(), [], []
    for task in tasks:
        task.datamodule.prepare_data()
        task.datamodule.setup()
        shots = task.read(device, "train")
        model = _make_published(device, task.transformations, task.trial)
        models.append((task, model, shots))
        runs.append(train(model, shots, training, task.trial))
    take_turns(runs)
    synchronize(device)
    seconds = time.perf_counter() - start
    for task, model, shots in models:
        what = {"data": task.data, "trial": task.trial, "trained_together": len(tasks), "fit_seconds": seconds}
        with findings.look(**what) as finding:
            finding.update(_evaluate(task, model, shots))


def take_turns(runs: Sequence[Iterator[None]]) -> None:
    """Advance trainings in turns until all have ended."""
    running = list(runs)
    while running:
        running = [run for run in running if next(run, run) is None]  # one that has ended gives the default, itself


def _evaluate(task: Task, model: HtdgmModel, shots: torch.Tensor) -> dict[str, object]:
    images = task.read(shots.device, "test")
    labels = task.datamodule.test_data.samples["label_index"].to_list()
    aurocs: dict[str, object] = {}
    for statistics_of in ("running", "re-estimated"):
        if statistics_of == "re-estimated":
            reestimate(model, shots)
        with torch.inference_mode():
            parts = [model.votes(batch)[0] for batch in images.split(16)]
        votes = [torch.cat(scale) for scale in zip(*parts, strict=True)]
        ways: list[tuple[Vote, float]] = [("probability", task.patch_fraction), ("log_probability", 0.01)]
        for vote, fraction in ways:
            anomalies = [patch_anomaly(scale, vote) for scale in votes]
            scores = [anomaly_score(each, fraction) for each in (anomalies, *([scale] for scale in anomalies))]
            aurocs[f"{vote} {fraction}, {statistics_of}"] = [
                round(100 * float(roc_auc_score(labels, each.float().cpu())), 3) for each in scores
            ]
    path = Path(task.datamodule.train_data.samples["image_path"].iloc[0])
    return {"training image": f"{path.parent.name}/{path.name}", "test images": len(labels), **aurocs}


STEPS: dict[str, Callable[[Findings, Options], None]] = {
    "contract": check_contract,
    "seeds": check_seeds,
    "speed": measure_speed,
    "published_rotations": partial(train_published, transformations="rotations"),
    "published_full": partial(train_published, transformations="full"),
}


def run_step(name: str, options: Options) -> None:
    """Do one step, in a process of its own."""
    warnings.filterwarnings("ignore")
    for package in ("anomalib", "anomalib_htdgm", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(package).setLevel(logging.ERROR)
    findings = Findings(options.output / f"{name}.jsonl")
    cuda = options.device.type == "cuda"
    findings.add(
        device=torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine(),
        torch=torch.__version__,
        tf32_in_convolutions=torch.backends.cudnn.allow_tf32,
    )
    with findings.look(step=name):
        STEPS[name](findings, options)


def main() -> None:
    """Do the steps one after the other, each as long as it may."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="+", choices=list(STEPS))
    parser.add_argument("--root", type=Path, required=True, help="root directory of MVTec AD")
    parser.add_argument(
        "--arrays", type=Path, help="arrays of CIFAR-10, see OneClass; without them they are downloaded"
    )
    parser.add_argument("--output", type=Path, required=True, help="directory of the results")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cuda", "cpu"])
    given = parser.parse_args()
    options = Options(given.root, given.arrays, given.output, torch.device(given.device))
    options.output.mkdir(parents=True, exist_ok=True)
    context = get_context("spawn")
    for name in given.steps:
        process = context.Process(target=run_step, args=(name, options))
        process.start()
        process.join(None if options.small else BUDGETS[name])
        if process.exitcode != 0:
            process.kill()
            process.join()
            Findings(options.output / f"{name}.jsonl").add(step=name, ended_with=process.exitcode)


if __name__ == "__main__":
    main()
