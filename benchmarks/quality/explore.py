# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Train a model in one way and score it in many: what FINDINGS.md is made with.

    python benchmarks/quality/explore.py cifar10 --arrays cifar10.npz --classes 0 2 4 6 8 --seeds 0 1 --set iterations=4
    python benchmarks/quality/explore.py mvtec --root MVTEC_AD --classes bottle --seeds 0 1 2 3 4 --set iterations=15
    python benchmarks/quality/explore.py folders --root DIRECTORY --classes mvtec/bottle more/pillqc --contains model

``folders`` are in MVTec AD's layout, with or without masks. ``--set`` gives settings in place of the preset's. No
Engine: images come in their own size, and the model's score and each signal alone are an AUROC in percent: mean,
standard deviation and minimum over classes and seeds, and the mean of each class. A seed draws the training images and
the weights; with ``--each`` images are trained on one after the other, in place of a draw.
"""

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pandas as pd
import torch
import yaml
from anomalib.data import AnomalibDataModule, AnomalibDataset, MVTecAD
from shared.layout import open_folder
from sklearn.metrics import roc_auc_score

from anomalib_htdgm import FewShot, OneClass, QuickstartTextures
from anomalib_htdgm.data.arrays import Dataset
from anomalib_htdgm.models.htdgm.settings import PRESETS, choose_settings
from anomalib_htdgm.models.htdgm.torch_model import HtdgmModel
from anomalib_htdgm.models.htdgm.training import train

BATCH_SIZE = 16
DATASETS: dict[str, Dataset] = {"cifar10": "CIFAR10", "mnist": "MNIST", "fashion_mnist": "FashionMNIST"}


def load(options: argparse.Namespace, category: str) -> AnomalibDataModule:
    """Make the datamodule of one class."""
    if options.data == "mvtec":
        return MVTecAD(options.root, category=category, num_workers=0)
    if options.data == "folders":
        return open_folder(options.root, category)
    if options.data == "textures":
        return QuickstartTextures(category, options.root)  # type: ignore[arg-type]  # checks it itself
    per_class = options.images_per_class
    return OneClass(DATASETS[options.data], category, options.root, options.arrays, test_images_per_class=per_class)


def draw(options: argparse.Namespace, category: str, seed: int) -> AnomalibDataModule:
    """Draw the training images of one class, or choose the one of that number."""
    datamodule = load(options, category)
    if not options.each:
        datamodule = FewShot(datamodule, k_shot=options.shots, seed=seed)
    datamodule.prepare_data()
    datamodule.setup()
    if options.each:
        datamodule.train_data.subsample([seed], inplace=True)
    return datamodule


def read(dataset: AnomalibDataset) -> torch.Tensor:
    """Read all images of a dataset, in [-1, 1]."""
    return torch.stack([cast("torch.Tensor", dataset[index].image) for index in range(len(dataset))]) * 2 - 1


def score(model: HtdgmModel, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Score images by the model, and by each of its signals alone.

    Args:
        model (HtdgmModel): The trained model.
        images (torch.Tensor): Images in [-1, 1] of shape ``(B, 3, H, W)``.

    Returns:
        dict[str, torch.Tensor]: For each way of scoring, scores of shape ``(B,)``.
    """
    scores, views = {"as the model": model(images).pred_score}, model.reduce(images)
    for signal in model.signals:
        name = type(signal).__name__.lower()
        scores[name] = signal(views).score
    return scores


@torch.inference_mode()
def score_all(model: HtdgmModel, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Score all ``B`` images in every way: for each, scores of shape ``(B,)``."""
    parts = [score(model, batch) for batch in images.split(BATCH_SIZE)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def run(options: argparse.Namespace, given: dict[str, Any]) -> Iterator[dict[str, object]]:
    """Train and evaluate a model for every class and seed.

    Args:
        options (argparse.Namespace): Options of the command line.
        given (dict[str, Any]): Settings in place of the preset's.

    Yields:
        dict[str, object]: One row for each way of scoring.
    """
    for category, seed in itertools.product(options.classes, options.each or options.seeds):
        datamodule = draw(options, category, seed)
        shots, images = read(datamodule.train_data), read(datamodule.test_data)
        settings = choose_settings(options.preset, given | {"k_shot": len(shots)})
        model = HtdgmModel(settings, (images.shape[-2], images.shape[-1]))
        for _ in train(model, shots, seed):
            pass
        labels = torch.tensor(datamodule.test_data.samples["label_index"].to_list())
        scores = score_all(model, images)
        for name, values in scores.items():
            yield {"class": category, "seed": seed, "score": name, "AUROC": 100 * float(roc_auc_score(labels, values))}


def main() -> None:
    """Train, score and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=[*DATASETS, "mvtec", "folders", "textures"])
    parser.add_argument("--root", type=Path, default=Path("datasets"), help="directory of the images")
    parser.add_argument("--arrays", type=Path, help=".npz file of the images, see OneClass")
    parser.add_argument("--classes", nargs="+", required=True)
    parser.add_argument("--shots", type=int, default=1)
    parser.add_argument(
        "--each", type=int, nargs="+", help="indices of training images, each of them the only one once"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--images-per-class", type=int, default=25, help="of the test set")
    parser.add_argument("--contains", default="", help="print only the ways of scoring with this in their name")
    parser.add_argument("--preset", choices=list(PRESETS), default="defects")
    parser.add_argument("--set", nargs="+", default=[], metavar="name=value", help="settings in place of the preset's")
    options = parser.parse_args()
    torch.set_num_threads(1)
    given = {name: yaml.safe_load(value) for name, value in (each.split("=", 1) for each in options.set)}
    rows = pd.DataFrame(run(options, given))
    rows = rows[rows["score"].str.contains(options.contains, regex=False)]
    if options.each:
        print(rows.pivot_table(values="AUROC", index=["class", "seed"], columns="score").round(1).to_string())
    table = rows.groupby("score", sort=False)["AUROC"].agg(["mean", "std", "min"])
    table = table.join(rows.pivot_table(values="AUROC", index="score", columns="class"))
    print(table.round(1).to_string())


if __name__ == "__main__":
    main()
