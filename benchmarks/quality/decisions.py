# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

r"""Draw what a one-shot model generates and how it decides: the paper's figure 3.

    python benchmarks/quality/decisions.py data=quickstart model=htdgm_paper data_root=DIR output=DIR
    python benchmarks/quality/decisions.py -m data=cifar10 data.datamodule.normal_class=ship,frog \
        'output=${data.datamodule.normal_class}'

``decisions.png`` has the training image, two samples of the generators, and test images that are true and false
positives and negatives at the threshold of the highest F1. An anomalous image is a positive, as everywhere in anomalib;
the paper calls it a negative. Of each kind the images in the middle are shown, not the best. ``samples.png`` has what
every scale reconstructs and generates.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple, cast

import hydra
import matplotlib as mpl
import numpy as np
import torch
from anomalib.engine import Engine
from anomalib.metrics import F1AdaptiveThreshold
from matplotlib import pyplot as plt
from numpy.typing import NDArray
from omegaconf import DictConfig
from shared.drawing import draw_images
from torchvision.utils import save_image

from anomalib_htdgm import HtdgmPublished

if TYPE_CHECKING:
    from anomalib.data import ImageBatch

SAMPLES = 2
# What is predicted, and what is so: whether the image is anomalous.
KINDS = {
    "true positive": (True, True),
    "true negative": (False, False),
    "false positive": (True, False),
    "false negative": (False, True),
}


class Decisions(NamedTuple):
    """What a model makes of ``N`` test images: paths, raw scores, whether they are anomalous, and lowest such score."""

    paths: NDArray[np.str_]
    scores: NDArray[np.float32]
    labels: NDArray[np.bool_]
    threshold: float

    def choose(self, number: int) -> dict[str, list[str]]:
        """Choose at most so many paths of every kind, those whose scores are in the middle of their kind's."""
        chosen = {}
        for kind, (predicted, anomalous) in KINDS.items():
            members = np.flatnonzero(((self.scores >= self.threshold) == predicted) & (self.labels == anomalous))
            ordered = members[np.argsort(self.scores[members], kind="stable")]
            first = max(0, (len(ordered) - number) // 2)
            chosen[kind] = [str(path) for path in self.paths[ordered[first : first + number]]]
        return chosen


def decide(model: HtdgmPublished, config: DictConfig) -> tuple[str, Decisions]:
    """Train a model that has no post-processor, and let it decide: path of a training image, and the decisions."""
    datamodule = draw_images(config)
    with TemporaryDirectory() as directory:
        engine = Engine(default_root_dir=directory, logger=False, limit_val_batches=0)
        engine.fit(model, datamodule=datamodule)
        batches = cast("list[ImageBatch]", engine.predict(model, dataloaders=datamodule.test_dataloader()))
    metric = F1AdaptiveThreshold(fields=["pred_score", "gt_label"])
    metric.normalization = None  # raw scores stay what they are
    for batch in batches:
        metric.update(batch)
    fields = [[getattr(batch, name) for batch in batches] for name in ("image_path", "pred_score", "gt_label")]
    paths, scores, labels = (np.concatenate(each) for each in fields)
    shot = str(datamodule.train_data.samples["image_path"].iloc[0])
    return shot, Decisions(paths, scores, labels.astype(bool), float(metric.compute()))


def draw(shot: str, samples: torch.Tensor, chosen: dict[str, list[str]], path: Path) -> None:
    """Draw a training image, samples in [-1, 1] of shape ``(B, 3, H, W)``, and images by kind, in a row."""
    images = [("training image", plt.imread(shot))]
    images += [("sample", sample.permute(1, 2, 0).numpy() / 2 + 0.5) for sample in samples]
    for kind, paths in chosen.items():
        images += [(kind, plt.imread(each)) for each in paths] or [(f"no {kind}", np.ones((1, 1)))]
    figure, axes = plt.subplots(1, len(images), figsize=(1.3 * len(images), 1.7), layout="constrained")
    for axis, (name, image) in zip(axes, images, strict=True):
        axis.imshow(image, cmap="gray", vmin=0, vmax=1 if image.dtype.kind == "f" else 255)
        axis.set_title(name, fontsize="small")
        axis.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=100)


@hydra.main(version_base="1.3", config_path="conf", config_name="decisions")
def main(config: DictConfig) -> None:
    """Train, decide and draw."""
    mpl.use("agg")
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    model = hydra.utils.instantiate(config.model.arguments, evaluator=False, post_processor=False, visualizer=False)
    if not isinstance(model, HtdgmPublished) or not model.model.has_generators:
        msg = f"model: got {config.model.name!r}, which generates nothing; allowed are table1_full, htdgm_paper, ..."
        raise ValueError(msg)
    shot, decisions = decide(model, config)
    draw(shot, model.model.sample(SAMPLES)[-1], decisions.choose(config.images_of_kind), output / "decisions.png")
    save_image(model.model.picture(), output / "samples.png")


if __name__ == "__main__":
    main()
