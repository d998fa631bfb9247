# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Learning from a few good photographs, and how each of them would score if it had not been seen."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import geometric_mean
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from anomalib.data import ImageBatch, ImageItem
from anomalib.engine import Engine
from lightning.pytorch import Callback
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2.functional import resize

from anomalib_htdgm import Htdgm
from anomalib_htdgm.data.appearance import SQUASHED
from anomalib_htdgm.data.reading import UnreadableImageError, read_image
from anomalib_htdgm.models.htdgm.calibration import MOVES, move_images
from anomalib_htdgm.models.htdgm.discriminator import RECEPTIVE_FIELD

from .aligning import align
from .evidence import Picture
from .facts import Facts, describe, digests_of
from .signals import listening

MOST_SHOTS = 10
"""Good photographs that are learnt at most: what the model's settings are made for."""


def choose_shots(names: Iterable[str], most: int = MOST_SHOTS, first: str | None = None) -> list[str]:
    """Choose the good photographs to learn from: all, or some that are evenly spread in the order of their names.

    ``first`` comes first, whatever its name, if it is there; those that were given to be checked come last.
    """
    ordered = sorted(names, key=lambda name: (name != first, name.startswith("checked/"), name))
    number = min(most, len(ordered))
    return [ordered[index * len(ordered) // number] for index in range(number)]


def read(path: Path) -> torch.Tensor:
    """Read a photograph as an image in [0, 1] of shape ``(3, H, W)``.

    Raises:
        UnreadableImageError: If it cannot be read.
    """
    return torch.as_tensor(read_image(path, as_tensor=True)).as_subclass(torch.Tensor)


def read_good(files: dict[str, Path]) -> dict[str, torch.Tensor]:
    """Read good photographs, by their names, in the size of the first, which a training needs.

    Returns:
        dict[str, torch.Tensor]: Images in [0, 1] of one shape ``(3, H, W)``.

    Raises:
        UnreadableImageError: If one cannot be read, is too small, or would be squashed.
    """
    images: dict[str, torch.Tensor] = {}
    for name, path in files.items():
        image = read(path)
        height, width = image.shape[-2:]
        if min(height, width) < RECEPTIVE_FIELD:
            msg = f"image {path} has {width}x{height} pixels; allowed are at least {RECEPTIVE_FIELD}x{RECEPTIVE_FIELD}"
            raise UnreadableImageError(msg)
        size = next(iter(images.values()), image).shape[-2:]
        if abs(math.log(width / height * size[0] / size[1])) > math.log(SQUASHED):
            msg = f"image {path} has {width}x{height} pixels; allowed is the shape of the first, {size[1]}x{size[0]}"
            raise UnreadableImageError(msg)
        images[name] = image if (height, width) == size else resize(image, list(size), antialias=True).clamp(0, 1)
    return images


def aligned(image: torch.Tensor, reference: Picture | None) -> tuple[torch.Tensor, tuple[int, int]]:
    """Move an image in [0, 1] of shape ``(3, H, W)`` to where the reference lies, if there is one.

    Returns:
        tuple[torch.Tensor, tuple[int, int]]: The image, and how many pixels it was moved to the right, and down.
    """
    if reference is None:
        return image, (0, 0)
    pixels, shift = align(image.cpu().numpy(), reference)
    return torch.from_numpy(pixels), shift


def learn(
    images: dict[str, torch.Tensor],
    checkpoint: Path,
    callbacks: Sequence[Callback] = (),
    reference: Picture | None = None,
    **settings: Any,
) -> tuple[Htdgm, Facts]:
    """Learn from good photographs, save the model, and say what is known of it.

    Args:
        images (dict[str, torch.Tensor]): Images in [0, 1] of one shape ``(3, H, W)`` by their names, at most ten.
        checkpoint (Path): Where the model is saved, whole or not at all.
        callbacks (Sequence[Callback]): Lightning's, which may report how far it is, or end it by an exception.
        reference (Picture | None): What the images are to be aligned with; ``None`` leaves them as they are.
        **settings (Any): Arguments of :class:`~anomalib_htdgm.Htdgm`, such as ``tiles``.
    """
    model = Htdgm(k_shot=len(images), visualizer=False, **settings)
    moved = {name: aligned(image, reference)[0] for name, image in images.items()}
    with TemporaryDirectory(prefix="htdgm_") as scratch:
        engine = Engine(
            default_root_dir=scratch,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[*callbacks],
        )
        items = [ImageItem(image=image, image_path=name) for name, image in moved.items()]
        loader = DataLoader(cast("Dataset[ImageItem]", items), collate_fn=ImageBatch.collate)
        engine.fit(model, train_dataloaders=loader)
        engine.trainer.save_checkpoint(checkpoint)
    model.eval()
    unseen, usual = _score_unseen(model, moved)
    settings = {"k_shot": len(images), "align": reference is not None, **settings}
    return model, describe(model, checkpoint, images, settings, unseen, usual)


def load(checkpoint: Path, images: dict[str, torch.Tensor]) -> tuple[Htdgm, Facts]:
    """Load a model, of which no more is known than its checkpoint tells, and good photographs that it may have learnt.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no checkpoint of this model.
    """
    model = Htdgm.load_from_checkpoint(checkpoint, map_location="cpu")
    model.eval()
    chosen = {name: model.hparams[name] for name in ("k_shot", "tiles", "region") if name in model.hparams}
    return model, describe(model, checkpoint, images, chosen, {}, {})


@torch.inference_mode()
def _score_unseen(model: Htdgm, images: dict[str, torch.Tensor]) -> tuple[dict[str, float], dict[str, float]]:
    """Score each good photograph by what was learnt of the others; of copies nothing is learnt.

    Of a single one only its signals are told, when it is moved a little.
    """
    digests = list(digests_of(images).values())
    unseen: dict[str, float] = {}
    with listening(model.model.signals) as heard:
        if len(images) == 1:
            prepared = prepare(model, *images.values())
            for move in MOVES:
                model.model(move_images(prepared, *move))
        else:
            for shot, (name, image) in enumerate(images.items()):
                if digests.count(digests[shot]) == 1:
                    scored = model.model.score_unseen(prepare(model, image), shot)
                    unseen[name] = float(cast("torch.Tensor", scored.pred_score))
    usual = {name: geometric_mean(max(score, 1e-12) for score in scores) for name, scores in heard.items() if scores}
    return unseen, usual


def prepare(model: Htdgm, image: torch.Tensor) -> torch.Tensor:
    """Make a batch for the model itself of an image in [0, 1] of shape ``(3, H, W)``."""
    batch = image[None].to(model.device)
    return model.pre_processor(batch) if model.pre_processor else batch
