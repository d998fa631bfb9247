# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Measures what alignment is worth: on photographs that are shifted at random, and whether it does harm where not.

python benchmarks/quality/alignment.py --data-root DIR --categories bottle pill
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from anomalib_htdgm.data.reading import read_image
from anomalib_htdgm.inspection.aligning import reference_of
from anomalib_htdgm.inspection.inspecting import Inspector
from anomalib_htdgm.inspection.learning import choose_shots, learn, read_good

SHOTS = 5
MOST_TESTED = 30
"""Photographs of each kind that are scored at most, evenly spread."""
SHIFT = 0.1
"""Share of width and height by which photographs are shifted at most."""


def main() -> None:
    """Print a table: AUROC as the photographs are and shifted, with and without alignment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, required=True, help="folder of sets in the layout of MVTec AD")
    parser.add_argument("--categories", nargs="+", required=True)
    arguments = parser.parse_args()
    print("| set | as they are | aligned | shifted | shifted, aligned |\n| --- | --- | --- | --- | --- |")
    for category in arguments.categories:
        found = [
            measure(arguments.data_root / category, shift, align) for shift in (0, SHIFT) for align in (False, True)
        ]
        print(f"| {category} | {' | '.join(f'{100 * each:.1f}' for each in found)} |", flush=True)


def measure(folder: Path, shift: float, align: bool) -> float:
    """Learn from five good photographs, and tell defective ones from good ones: AUROC."""
    rng = np.random.default_rng(0)
    with TemporaryDirectory() as scratch:
        good = [
            folder / "train/good" / name
            for name in choose_shots([path.name for path in (folder / "train/good").iterdir()], SHOTS)
        ]
        images = read_good({path.name: save_shifted(path, Path(scratch), shift, rng) for path in good})
        reference = reference_of(next(iter(images.values())).numpy()) if align else None
        model, facts = learn(images, Path(scratch) / "model.ckpt", reference=reference, precision="float32")
        inspector, scores, labels = Inspector(model, facts, images, reference), [], []
        for label, paths in enumerate(list_tests(folder)):
            for path in paths:
                raw = inspector.inspect(save_shifted(path, Path(scratch), shift, rng)).finding.raw
                scores.append(raw)
                labels.append(label)
    return float(roc_auc_score(labels, scores))


def list_tests(folder: Path) -> list[list[Path]]:
    """List test photographs: good ones, then defective ones."""
    every = sorted(path for path in folder.glob("test/*/*") if path.is_file())
    kinds = [[path for path in every if (path.parent.name == "good") == is_good] for is_good in (True, False)]
    return [paths[:: -(-len(paths) // MOST_TESTED)] for paths in kinds]


def save_shifted(path: Path, folder: Path, shift: float, rng: np.random.Generator) -> Path:
    """Shift a photograph at random; what comes into view is as the pixels at the border."""
    pixels = torch.as_tensor(read_image(path, as_tensor=True)).numpy()
    height, width = pixels.shape[1:]
    right, down = (int(rng.uniform(-shift, shift) * side) for side in (width, height))
    rows, columns = np.arange(height) - down, np.arange(width) - right
    moved = pixels[:, rows.clip(0, height - 1)][:, :, columns.clip(0, width - 1)]
    target = folder / f"{path.parent.parent.name}_{path.stem}.png"
    Image.fromarray((moved.transpose(1, 2, 0) * 255).round().astype(np.uint8)).save(target)
    return target


if __name__ == "__main__":
    main()
