# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Try a GPU: does Htdgm work there, is it repeatable, and how fast is it?

    python benchmarks/speed/accelerator.py contract seeds speed --root MVTEC_AD

Each step prints what it finds at once, a line of JSON for each; what fails is such a line, too. Without a GPU the same
is done on the CPU, smaller.

* ``contract``: fit and export, in both precisions; scores beside those of the CPU, each way;
* ``seeds``: two trainings with one seed: equal to the bit, or by how much not?
* ``speed``: seconds of fit and scoring beside PatchCore (random weights).
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import onnxruntime
import torch
from anomalib.data import AnomalibDataModule, ImageBatch, MVTecAD
from anomalib.deploy import ExportType
from anomalib.engine import Engine
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
from anomalib.post_processing import PostProcessor
from speed import BACKBONE, LAYERS, make_images
from torch.utils.benchmark import Timer

from anomalib_htdgm import FewShot, Htdgm
from anomalib_htdgm.models.htdgm.settings import Settings
from anomalib_htdgm.models.htdgm.torch_model import HtdgmModel
from anomalib_htdgm.models.htdgm.training import train
from anomalib_htdgm.models.precision import Precision

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SMALL = DEVICE.type == "cpu"


@contextmanager
def look(**what: object) -> Iterator[dict[str, object]]:
    """Time what is done, and print that and what it found; or, if it fails, the error."""
    finding, start = dict(what), time.perf_counter()
    try:
        yield finding
    except Exception as error:  # noqa: BLE001  # whatever breaks is a finding, and the others are wanted, too
        finding["error"] = f"{type(error).__name__}: {error}"
    print(json.dumps(finding | {"seconds": round(time.perf_counter() - start, 3)}, default=float), flush=True)


def check_contract(root: Path) -> None:
    """Do what a user does, and compare with the CPU."""
    data = FewShot(MVTecAD(root, num_workers=0), k_shot=1)
    data.setup()
    data.test_data.subsample(list(range(0, len(data.test_data), 16 if SMALL else 3)), inplace=True)
    precisions: list[Precision] = ["float32", "auto"]
    for precision in precisions:
        with TemporaryDirectory() as folder:
            _check_model(precision, data, folder)


def _make(precision: Precision) -> Htdgm:
    raw = PostProcessor(enable_normalization=False)
    return Htdgm(k_shot=1, precision=precision, settings={"iterations": 6}, post_processor=raw)


def _engine(device: str, folder: str) -> Engine:
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Engine(accelerator=device.replace("cuda", "gpu"), default_root_dir=folder, **quiet)


def _check_model(precision: Precision, data: AnomalibDataModule, folder: str) -> None:
    here, make = DEVICE.type, partial(_make, precision)

    def fit(device: str) -> str:
        engine = _engine(device, folder)
        engine.fit(make(), datamodule=data)
        return str(engine.best_model_path)

    def predict(device: str, path: str) -> torch.Tensor:
        batches = cast("list[ImageBatch]", _engine(device, folder).predict(make(), datamodule=data, ckpt_path=path))
        return torch.cat([cast("torch.Tensor", batch.pred_score).flatten().float().cpu() for batch in batches])

    with look(precision=precision, check="fit"):
        path = fit(here)
        scores = predict(here, path)
    with look(precision=precision, check="checkpoint of the GPU: scores of both") as finding:
        finding.update(_compare(scores, predict("cpu", path)))
    with look(precision=precision, check="checkpoint of the CPU: scores of both") as finding:
        of_cpu = fit("cpu")
        finding.update(_compare(predict(here, of_cpu), predict("cpu", of_cpu)))
    image = cast("torch.Tensor", data.test_data[0].image)[None]
    with look(precision=precision, check="export to torch: score beside the checkpoint's") as finding:
        exported = _engine(here, folder).export(make(), ExportType.TORCH, export_root=folder, ckpt_path=path)
        model = torch.load(str(exported), weights_only=False)["model"].to(DEVICE).eval()
        finding["difference"] = float(model(image.to(DEVICE)).pred_score.item() - scores[0])
    with look(precision=precision, check="export to ONNX: score beside the checkpoint's") as finding:
        exported = _engine(here, folder).export(make(), ExportType.ONNX, export_root=folder, ckpt_path=path)
        session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
        finding["difference"] = float(session.run(["pred_score"], {"input": image.numpy()})[0].item() - scores[0])


def _compare(scores: torch.Tensor, expected: torch.Tensor) -> dict[str, float]:
    largest = float((scores - expected).abs().max())
    return {"largest difference": largest, "of a range of": float(expected.max() - expected.min())}


def check_seeds(_root: Path) -> None:
    """Train twice with one seed, as PyTorch likes and with its deterministic algorithms, and compare."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # what PyTorch asks for, before the first product
    images, unseen = make_images(2, 256).to(DEVICE), make_images(8, 256).to(DEVICE)
    iterations = 2 if SMALL else 30
    for deterministic in (False, True):
        torch.use_deterministic_algorithms(deterministic)
        precisions: list[Precision] = ["auto", "float32"]
        for precision in precisions:
            with look(precision=precision, deterministic_algorithms=deterministic) as finding:
                models = [_fit(images, iterations, precision=precision) for _ in range(2)]
                with torch.inference_mode():
                    first, second = (model(unseen).pred_score.cpu() for model in models)
                pairs = list(zip(*(model.parameters() for model in models), strict=True))
                finding["bit for bit"] = all(torch.equal(*pair) for pair in pairs)
                finding["relative difference of weights"] = max(float((a - b).norm() / b.norm()) for a, b in pairs)
                finding.update(_compare(first, second))
    torch.use_deterministic_algorithms(mode=False)


def _fit(images: torch.Tensor, iterations: int, precision: Precision = "auto") -> HtdgmModel:
    settings = Settings(k_shot=len(images), iterations=iterations, precision=precision)
    model = HtdgmModel(settings, (images.shape[-2], images.shape[-1])).to(DEVICE)
    for _ in train(model, images):
        pass
    return model


def measure_speed(_root: Path) -> None:
    """Time fit and scoring beside PatchCore."""
    iterations = 1 if SMALL else 30
    for shots in (1,) if SMALL else (1, 10, 80):
        images = make_images(shots, 256).to(DEVICE)
        fits: dict[str, Callable[[], torch.nn.Module]] = {
            "Htdgm": partial(_fit, images, iterations),
            "Htdgm, float32": partial(_fit, images, iterations, precision="float32"),
            "PatchCore": partial(_fit_patchcore, images),
        }
        for name, fit in fits.items():
            with look(model=name, shots=shots) as finding, torch.no_grad():
                with torch.enable_grad():
                    model = fit().eval()
                    finding["fit"] = _measure(fit)
                for batch in (1, 32):
                    score = partial(model, make_images(batch, 256).to(DEVICE))
                    finding[f"batch of {batch}"] = _measure(score, 1 if SMALL else 15)


def _measure(work: Callable[[], object], repeats: int = 1) -> float:
    return Timer("work()", globals={"work": work}).timeit(repeats).mean  # waits for all that is launched


def _fit_patchcore(images: torch.Tensor) -> PatchcoreModel:
    model = PatchcoreModel(LAYERS, BACKBONE, pre_trained=False).to(DEVICE).train()
    with torch.no_grad():
        for batch in images.split(32):
            model(batch)
        model.subsample_embedding(0.1)
    return model


STEPS: dict[str, Callable[[Path], None]] = {"contract": check_contract, "seeds": check_seeds, "speed": measure_speed}


def main() -> None:
    """Do the steps one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="+", choices=list(STEPS))
    parser.add_argument("--root", type=Path, required=True, help="root directory of MVTec AD, of which bottle is used")
    options = parser.parse_args()
    for name in options.steps:
        with look(step=name, device=DEVICE.type, torch=torch.__version__):
            STEPS[name](options.root)


if __name__ == "__main__":
    main()
