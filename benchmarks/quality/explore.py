# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Train a model in one way and score it in many: what FINDINGS.md is made with.

    python benchmarks/quality/explore.py cifar10 --arrays cifar10.npz --classes 0 2 4 6 8 --seeds 0 1 --set iterations=4
    python benchmarks/quality/explore.py mvtec --root MVTEC_AD --classes bottle --seeds 0 1 2 3 4 --set iterations=15
    python benchmarks/quality/explore.py folders --root DIRECTORY --classes mvtec/bottle more/pillqc --contains model

``folders`` are in MVTec AD's layout, with or without masks. ``--set`` gives arguments of HtdgmModel and Training. No
Engine: images come in their own size, the model's votes are kept, and each way of scoring is an AUROC in percent:
mean, standard deviation and minimum over classes and seeds, and the mean of each class. A seed draws the training
images and the weights; with ``--each`` images are trained on one after the other, in place of a draw.
Ways of scoring:

* ``as the model``: the model's own score, by its own arguments;
* ``<vote> <fraction>``: of the most anomalous fraction of patches;
* ``<vote> <fraction> scale <i>``: of one scale only;
* ``<vote> <fraction> of the map``: of the pixels of the multi-scale map in place of patches;
* ``memory <fraction>``: the distances to what is remembered;
* ``gist``: the distance to the mean gist.

With several sets of transformations, the names of ways that are of one of them begin with ``set <i>``.

With ``reestimate_statistics=false`` each of these is there three times: with the running averages, ``re-estimated`` on
the training images after all, and as the mean of ``both`` scores.
"""

import argparse
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, cast, get_args

import pandas as pd
import torch
import yaml
from anomalib.data import AnomalibDataModule, AnomalibDataset, MVTecAD
from shared.layout import open_folder
from sklearn.metrics import roc_auc_score

from anomalib_htdgm import FewShot, OneClass, QuickstartTextures
from anomalib_htdgm.models.htdgm.members import share_of
from anomalib_htdgm.models.htdgm.score import Vote, anomaly_score, patch_anomaly
from anomalib_htdgm.models.htdgm.torch_model import HtdgmModel
from anomalib_htdgm.models.htdgm.training import Training

FRACTIONS = (0.01, 0.05, 0.2, 1.0)
BATCH_SIZE = 16
BEFORE_MEMORY: dict[str, Any] = {
    "transformations": "rotations",
    "image_size": 64,
    "scale_factor": 0.75,
    "width": 32,
    "pixels_per_iteration": None,
    "votes_from": 0,
    "members": 1,
    "memory_patches": 0,
    "standardize": False,
}


def load(options: argparse.Namespace, category: str) -> AnomalibDataModule:
    """Make the datamodule of one class."""
    if options.data == "mvtec":
        return MVTecAD(options.root, category=category, num_workers=0)
    if options.data == "folders":
        return open_folder(options.root, category)
    if options.data == "textures":
        return QuickstartTextures(category, options.root)  # type: ignore[arg-type]  # checks it itself
    dataset = {"cifar10": "CIFAR10", "mnist": "MNIST", "fashion_mnist": "FashionMNIST"}[options.data]
    per_class = options.images_per_class
    return OneClass(dataset, category, options.root, options.arrays, test_images_per_class=per_class)  # type: ignore[arg-type]


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
    """Score images in every way.

    Args:
        model (HtdgmModel): The trained model.
        images (torch.Tensor): Images in [-1, 1] of shape ``(B, 3, H, W)``.

    Returns:
        dict[str, torch.Tensor]: For each way of scoring, scores of shape ``(B,)``.
    """
    votes, distances = model.votes(images), model.distances(images)
    scores = {"as the model": model(images).pred_score}
    scores |= {f"memory {fraction}": anomaly_score(distances, fraction) for fraction in FRACTIONS if distances}
    if model.gist is not None:
        scores["gist"] = model.gist(model.prepare(images))
    for index, of_set in enumerate(votes):
        prefix = f"set {index} " if len(votes) > 1 else ""
        scores |= {f"{prefix}{name}": values for name, values in score_set(model, index, of_set).items()}
    return scores


def score_set(model: HtdgmModel, index: int, votes: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Score images in every way by the votes on one set of transformations, as :func:`score` does by all."""
    scores = {}
    canvases = [model.canvases_of(scale, index) for scale in model.voting_scales]
    for vote in get_args(Vote):
        anomalies = [patch_anomaly(each, vote) for each in votes]
        pixels = model.anomaly_map_generator([anomalies], [canvases], [], (model.pyramid.sizes[-1],) * 2)
        for fraction in FRACTIONS:
            name = f"{vote} {fraction}"
            alone = [anomaly_score([scale], fraction) for scale in anomalies]
            scores[name] = torch.stack(alone).mean(dim=0)
            scores[f"{name} of the map"] = anomaly_score([pixels], fraction)
            scores |= {f"{name} scale {scale}": each for scale, each in enumerate(alone)}
    return scores


@torch.inference_mode()
def score_all(model: HtdgmModel, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Score all ``B`` images in every way: for each, scores of shape ``(B,)``."""
    parts = [score(model, batch) for batch in images.split(BATCH_SIZE)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def reestimate(model: HtdgmModel, shots: torch.Tensor) -> None:
    """Give all discriminators the batch-norm statistics of the training images."""
    pairs = model.reduce_and_enlarge(shots, training=True)
    for scale, index in itertools.product(model.voting_scales, range(len(model.transformation_sets))):
        for member, discriminator in enumerate(model.discriminators_of(scale, index)):
            reduced, enlarged = (share_of(member, model.members, each) for each in pairs[scale])
            discriminator.reestimate_statistics(model.canvases_of(scale, index).draw(reduced, model.dtype, enlarged))


def run(options: argparse.Namespace, arguments: dict[str, Any]) -> Iterator[dict[str, object]]:
    """Train and evaluate a model for every class and seed.

    Args:
        options (argparse.Namespace): Options of the command line.
        arguments (dict[str, Any]): Arguments of model and training.

    Yields:
        dict[str, object]: One row for each way of scoring.
    """
    of_training = {name: arguments[name] for name in arguments if name in {field.name for field in fields(Training)}}
    of_model = {name: arguments[name] for name in arguments if name not in of_training}
    training = Training(**of_training)
    for category, seed in itertools.product(options.classes, options.each or options.seeds):
        datamodule = draw(options, category, seed)
        shots, images = read(datamodule.train_data), read(datamodule.test_data)
        size = (images.shape[-2], images.shape[-1])
        model = HtdgmModel(size, len(shots), adversarial=training.fake_weight > 0, **of_model)
        for _ in training.run(model, shots, seed):
            pass
        labels = torch.tensor(datamodule.test_data.samples["label_index"].to_list())
        scores = score_all(model, images)
        if not training.reestimate_statistics:
            reestimate(model, shots)
            others = score_all(model, images)
            scores |= {f"{name} both": scores[name] + values for name, values in others.items()}
            scores |= {f"{name} re-estimated": values for name, values in others.items()}
        for name, values in scores.items():
            yield {"class": category, "seed": seed, "score": name, "AUROC": 100 * float(roc_auc_score(labels, values))}


def main() -> None:
    """Train, score and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=["cifar10", "mnist", "fashion_mnist", "mvtec", "folders", "textures"])
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
    parser.add_argument("--votes-alone", action="store_true", help="the defaults of before there was a memory")
    parser.add_argument("--set", nargs="+", default=[], metavar="name=value", help="arguments of model and training")
    options = parser.parse_args()
    torch.set_num_threads(1)
    arguments = {name: yaml.safe_load(value) for name, value in (each.split("=", 1) for each in options.set)}
    rows = pd.DataFrame(run(options, (BEFORE_MEMORY if options.votes_alone else {}) | arguments))
    rows = rows[rows["score"].str.contains(options.contains, regex=False)]
    if options.each:
        print(rows.pivot_table(values="AUROC", index=["class", "seed"], columns="score").round(1).to_string())
    table = rows.groupby("score", sort=False)["AUROC"].agg(["mean", "std", "min"])
    table = table.join(rows.pivot_table(values="AUROC", index="score", columns="class"))
    print(table.round(1).to_string())


if __name__ == "__main__":
    main()
