# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Measure how fast Htdgm is: beside the obvious way, beside PatchCore, and beside what the machine can do.

    python benchmarks/speed/speed.py --output speed.csv --data-root DIRECTORY_OF_MVTEC_AD

Each section prints a table when it is done, and all rows go to one CSV file; ``--sections`` chooses some. Times are
medians over ``--repeats``, those that are compared taken in turns. "Limit" is the share that the floating-point
operations of the convolutions, counted from their shapes, per second of the whole work have in the rate of a plain
2048x2048 matrix product of the same precision, measured just before. Without ``--data-root`` the images for PatchCore's
sections are the quick start's. PatchCore has an EfficientNet-Lite0 with random weights, which take as long as trained
ones.
"""

import argparse
import json
import logging
import re
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pandas as pd
import torch
from anomalib.data import AnomalibDataModule, MVTecAD
from anomalib.engine import Engine
from anomalib.metrics import AUROC, Evaluator
from anomalib.models import Patchcore
from naive import VOTES_ALONE, NaiveTraining, naive_score
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from anomalib_htdgm import FewShot, Htdgm, QuickstartTextures
from anomalib_htdgm.models.htdgm.torch_model import HtdgmModel
from anomalib_htdgm.models.htdgm.training import Training
from anomalib_htdgm.models.precision import Precision, choose_dtype

if TYPE_CHECKING:
    from anomalib.models.components import AnomalibModule

Row = dict[str, object]

BACKBONE, LAYERS = "tf_efficientnet_lite0", ["blocks.2", "blocks.4"]
MATRIX = 2048
COARSEST = 25
"""Coarsest scale of the published pyramid: its five scales are what is timed."""
SETS = ("full", "rotations")
SHOTS = (1, 5, 10, 50, 80)
SIZES = (32, 64, 128, 256)
KINDS = {
    "convolution": ("aten::mkldnn_convolution", "aten::convolution_backward"),
    "batch norm": ("aten::native_batch_norm", "aten::native_batch_norm_backward", "aten::batch_norm_update_stats"),
    "activation": ("aten::leaky_relu_", "aten::leaky_relu_backward"),
    "softmax": ("aten::_log_softmax", "aten::_log_softmax_backward_data"),
    "copies and gathers": ("aten::copy_", "aten::index_select", "aten::index", "aten::gather", "aten::cat"),
}
PRECISIONS: tuple[Precision, ...] = ("auto", "float32")


def time_once(work: Callable[[], object]) -> float:
    """Time a piece of work, in seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def time_in_turns(works: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Take the median time of several pieces of work, in seconds, one after the other in each repeat."""
    times = [{name: time_once(work) for name, work in works.items()} for _ in range(repeats)]
    return {name: statistics.median(each[name] for each in times) for name in works}


def matrix_rate(precision: Precision) -> float:
    """Measure the machine's limit: the best of some plain matrix products, in floating-point operations per second."""
    matrix = torch.ones(MATRIX, MATRIX, dtype=choose_dtype(precision, torch.device("cpu")))
    return 2 * MATRIX**3 / min(time_once(lambda: matrix @ matrix) for _ in range(10))


def count_operations(work: Callable[[], object]) -> int:
    """Count the floating-point operations of convolutions and matrix products, from their shapes."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def make_images(num_images: int, size: int) -> torch.Tensor:
    """Make noise in [-1, 1]: what the images show makes no difference to the time."""
    return torch.rand(num_images, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def measure_iterations(repeats: int) -> Iterator[Row]:
    """Time one iteration at every scale with the published settings: one colour image, 3 + 3 steps."""
    schedule = Training(iterations=repeats + 2, discriminator_steps=3, generator_steps=3, fake_weight=1.0)
    image = make_images(1, 64)
    make_model = partial(
        HtdgmModel, (64, 64), coarsest_size=COARSEST, transformations="full", double_width_every=4, adversarial=True
    )
    runs = {precision: schedule.run(make_model(precision=precision), image) for precision in PRECISIONS}
    naive_model = make_model(precision="float32")
    total: dict[str, float] = dict.fromkeys(("naive", *PRECISIONS), 0.0)
    for scale, size in enumerate(naive_model.pyramid.sizes):
        operations = {precision: count_operations(partial(next, run)) for precision, run in runs.items()}
        limits = {precision: matrix_rate(precision) for precision in PRECISIONS}
        naive = NaiveTraining(schedule, naive_model, scale, image)
        for run in runs.values():
            next(run)
        works: dict[str, Callable[[], object]] = {
            "naive": naive.step,
            **{precision: partial(next, run) for precision, run in runs.items()},
        }
        times = time_in_turns(works, repeats)
        total = {name: total[name] + times[name] for name in total}
        shares = {f"limit {each}": operations[each] / times[each] / limits[each] for each in PRECISIONS}
        yield {"scale": size, **_compare(times), **shares}
    yield {"scale": "all", **_compare(total)}


def _compare(times: Mapping[str, float]) -> Row:
    ratios = {f"ratio {each}": times["naive"] / times[each] for each in times if each != "naive"}
    return {**{f"{name} [s]": value for name, value in times.items()}, **ratios}


def measure_default_training(repeats: int) -> Iterator[Row]:
    """Time the whole training of the torch model with one image and default settings."""
    for transformations in SETS:
        for precision in PRECISIONS:
            model = _make_model(transformations, precision)
            train = partial(_train, model, Training())
            operations, limit = count_operations(train), matrix_rate(precision)
            median = time_in_turns({"train": train}, repeats)["train"]
            share = operations / median / limit
            yield {"transformations": transformations, "precision": precision, "train [s]": median, "limit": share}


def _make_model(transformations: str, precision: Precision = "auto") -> HtdgmModel:
    """Make a model of the published scales, from 25 to 64 pixels."""
    return HtdgmModel(
        image_size=64, coarsest_size=COARSEST, transformations=transformations, precision=precision, **VOTES_ALONE
    )


def _train(model: HtdgmModel, schedule: Training, num_images: int = 1) -> HtdgmModel:
    for _ in schedule.run(model, make_images(num_images, model.pyramid.input_size[0])):
        pass
    return model


def measure_scoring(repeats: int) -> Iterator[Row]:
    """Time score and map of an image, image by image in the obvious way, and by our model in batches of 1 and 32."""
    images = make_images(32, 256)
    for transformations in SETS:
        model = _train(_make_model(transformations), Training(iterations=1))
        naive_score(model, images[:1])
        for precision in PRECISIONS:
            model.precision = precision
            for batch in (images[:1], images):
                score = partial(_score, model, batch)
                operations, limit = count_operations(score), matrix_rate(precision)
                times = time_in_turns({"naive": partial(naive_score, model, images[:1]), "ours": score}, repeats)
                ours, share = times["ours"] / len(batch), operations / times["ours"] / limit
                work = {"transformations": transformations, "precision": precision, "batch": len(batch)}
                result = {"naive [ms]": 1000 * times["naive"], "ours [ms]": 1000 * ours}
                yield work | result | {"ratio": times["naive"] / ours, "limit": share}


def measure_profile(_: int) -> Iterator[Row]:
    """Share the time of training and scoring out among kinds of operations."""
    for transformations in SETS:
        model = _make_model(transformations)
        _train(model, Training(iterations=1))
        works: dict[str, Callable[[], object]] = {
            "training": partial(_train, model, Training(iterations=10)),
            "scoring, batch of 32": partial(_score, model, make_images(32, 256)),
        }
        for name, work in works.items():
            with profile(activities=[ProfilerActivity.CPU]) as profiler:
                work()
            shares = dict.fromkeys((*KINDS, "rest"), 0.0)
            events = profiler.key_averages()
            total = sum(event.self_cpu_time_total for event in events)
            for event in events:
                kind = next((kind for kind, names in KINDS.items() if event.key in names), "rest")
                shares[kind] += event.self_cpu_time_total / total
            yield {"work": name, "transformations": transformations, **shares}


@torch.inference_mode()
def _score(model: HtdgmModel, images: torch.Tensor) -> object:
    return model(images)


def measure_engine(data_root: Path | None, repeats: int) -> Iterator[Row]:
    """Time ``Engine.fit`` and ``Engine.test`` with one shot, an image metric and no pictures, beside PatchCore."""
    makers: dict[str, Callable[[], AnomalibModule]] = {
        "Patchcore": partial(
            Patchcore, BACKBONE, LAYERS, pre_trained=False, evaluator=_image_evaluator(), visualizer=False
        ),
        **{
            f"Htdgm {each}": partial(
                Htdgm, k_shot=1, transformations=each, evaluator=_image_evaluator(), visualizer=False
            )
            for each in SETS
        },
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in makers}
    for _ in range(repeats):
        for name, make in makers.items():
            with TemporaryDirectory() as directory:
                engine = Engine(
                    default_root_dir=directory, logger=False, enable_progress_bar=False, enable_model_summary=False
                )
                model, data = make(), FewShot(_make_data(data_root), k_shot=1)
                fit = time_once(partial(engine.fit, model, datamodule=data))
                test = time_once(partial(engine.test, model, datamodule=data, verbose=False))
                times[name].append((fit, test / len(data.test_data)))
    fits, tests = ({name: statistics.median(x[i] for x in pairs) for name, pairs in times.items()} for i in (0, 1))
    for name in makers:
        ratio = {"fit ratio": fits["Patchcore"] / fits[name], "test ratio": tests["Patchcore"] / tests[name]}
        yield {"model": name, "fit [s]": fits[name], "test [ms/image]": 1000 * tests[name], **ratio}


def _image_evaluator() -> Evaluator:
    return Evaluator(test_metrics=[AUROC(fields=["pred_score", "gt_label"], prefix="image_")])


def _make_data(data_root: Path | None) -> AnomalibDataModule:
    return QuickstartTextures(num_workers=0) if data_root is None else MVTecAD(data_root, num_workers=0)


def measure_growth(_: int) -> Iterator[Row]:
    """Time an iteration of the finest scale, and take its process' peak memory: more shots, larger images."""
    points: list[tuple[Precision, str, int, int]] = [
        *(("auto", transformations, shots, 64) for transformations in SETS for shots in SHOTS),
        *(("float32", "full", shots, 64) for shots in SHOTS),
        *(("auto", transformations, 1, size) for transformations in SETS for size in SIZES),
    ]
    # A process for each, since a process' peak never falls.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for precision, transformations, shots, size in points:
            median, memory = pool.submit(_iterate, precision, transformations, shots, size).result()
            point = {"precision": precision, "transformations": transformations, "shots": shots, "size": size}
            yield {**point, "iteration [s]": median, "per image [ms]": 1000 * median / shots, "memory [GB]": memory}


def _iterate(
    precision: Precision, transformations: str, shots: int, size: int, repeats: int = 3
) -> tuple[float, float]:
    model = HtdgmModel(
        (size, size),
        k_shot=shots,
        image_size=size,
        coarsest_size=size,
        transformations=transformations,
        precision=precision,
        **VOTES_ALONE,
    )
    run = Training(iterations=repeats + 1).run(model, make_images(shots, size))
    next(run)
    median = time_in_turns({"iteration": partial(next, run)}, repeats)["iteration"]
    # Linux alone has this figure; `resource` would report the parent's peak, if that was higher.
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return median, int(peak[1]) * 1024 / 1e9 if peak else float("nan")


def measure_command(data_root: Path | None, repeats: int) -> Iterator[Row]:
    """Time the parts of ``anomalib train`` with one shot, from the start of the process, beside PatchCore."""
    data = (
        {"class_path": "QuickstartTextures"}
        if data_root is None
        else {"class_path": "MVTecAD", "init_args": {"root": str(data_root)}}
    )
    few_shot = json.dumps({"class_path": "FewShot", "init_args": {"datamodule": data, "k_shot": 1}})
    patchcore = ["--model.backbone", BACKBONE, "--model.layers", json.dumps(LAYERS), "--model.pre_trained", "false"]
    commands = {"Patchcore": ["Patchcore", *patchcore], "Htdgm": ["Htdgm"]}
    times: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, model in commands.items():
            times[name].append(_run_command(["--model", *model, "--data", few_shot]))
    for name, runs in times.items():
        table = pd.DataFrame(runs)
        table["whole"] = table.sum(axis=1)
        yield {"model": name, **{f"{part} [s]": float(value) for part, value in table.median().items()}}


def _run_command(arguments: list[str]) -> dict[str, float]:
    with TemporaryDirectory() as directory:
        output, stopwatch = Path(directory) / "parts.json", Path(__file__).with_name("stopwatch.py")
        command = [sys.executable, "-W", "ignore", str(stopwatch), str(output), "train", *arguments]
        result = subprocess.run(  # noqa: S603
            [*command, "--default_root_dir", directory], check=False, capture_output=True, text=True
        )
        if result.returncode:
            sys.exit(result.stderr)
        parts: dict[str, float] = json.loads(output.read_text())
        return parts


def measure_interpreter(repeats: int) -> Iterator[Row]:
    """Time the line that the importer hook adds to every start of an interpreter, each time in a new one."""
    line = (Path(__file__).parents[2] / "anomalib_htdgm" / "anomalib_plugins.pth").read_text()
    code = f"import time; start = time.perf_counter(); exec({line!r}); print(time.perf_counter() - start)"
    command = [sys.executable, "-c", code]
    runs = [subprocess.run(command, check=True, capture_output=True, text=True) for _ in range(20 * repeats)]  # noqa: S603
    yield {
        "start of an interpreter": "importer hook",
        "time [ms]": 1000 * statistics.median(float(run.stdout) for run in runs),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="CSV file of all rows")
    parser.add_argument("--data-root", type=Path, help="root directory of MVTec AD, of which bottle is used")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sections", nargs="+", default=None, help="some of the sections' names; the default is all")
    options = parser.parse_args()
    sections: dict[str, Callable[[int], Iterator[Row]]] = {
        "iterations": measure_iterations,
        "training": measure_default_training,
        "scoring": measure_scoring,
        "profile": measure_profile,
        "engine": partial(measure_engine, options.data_root),
        "growth": measure_growth,
        "command": partial(measure_command, options.data_root),
        "interpreter": measure_interpreter,
    }
    if unknown := set(options.sections or ()) - set(sections):
        parser.error(f"--sections: got {', '.join(sorted(unknown))}; allowed are {', '.join(sections)}")
    warnings.filterwarnings("ignore")
    for name in ("anomalib", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    tables = []
    for name in options.sections or sections:
        rates = ", ".join(f"{each} {matrix_rate(each) / 1e9:.0f}" for each in PRECISIONS)
        table = pd.DataFrame(sections[name](options.repeats))
        print(f"\n{name} (plain matrix products just before, in 1e9 operations a second: {rates})")
        print(table.to_string(index=False, float_format="{:.3g}".format), flush=True)
        tables.append(table.assign(section=name))
        if options.output:
            pd.concat(tables).to_csv(options.output, index=False)


if __name__ == "__main__":
    main()
