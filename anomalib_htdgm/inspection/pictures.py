# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What a project keeps beside ``project.json``: small pictures for reports, raw maps, what is aligned with."""

from collections.abc import Mapping
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from .evidence import Picture, shrink
from .facts import Facts
from .project import Project
from .state import Identity
from .writing import write_whole

THUMBNAILS, REFERENCE = "thumbnails", "reference.png"
DETAIL = 96
"""Longest side in pixels of a place beside a similar one, and of a good photograph in a report."""
QUALITY = 75
"""Of JPEG: a photograph with all its pictures has 20 kB."""


def to_picture(image: torch.Tensor, longest: int = 512) -> Picture:
    """Make a picture of an image in [0, 1] of shape ``(3, H, W)``, reduced to a longest side in pixels."""
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return shrink(np.ascontiguousarray(pixels), longest)


def encode(picture: NDArray[np.uint8], kind: str, **options: Any) -> bytes:
    """Give what a file of a picture has, of shape ``(H, W, 3)`` or ``(H, W)``, as JPEG or PNG."""
    content = BytesIO()
    Image.fromarray(picture).save(content, kind, **options)
    return content.getvalue()


def path_of(project: Project, identity: Identity, kind: str) -> Path:
    """Give the path of a photograph's picture, such as its ``heat``, or of its raw ``map``."""
    name = f"{sha256(str(identity).encode()).hexdigest()[:16]}_{kind}.{'npy' if kind == 'map' else 'jpg'}"
    return project.folder / THUMBNAILS / name


def save_pictures(project: Project, identity: Identity, pictures: Mapping[str, Picture]) -> None:
    """Keep the pictures of a photograph for reports."""
    for kind, picture in pictures.items():
        write_whole(path_of(project, identity, kind), [encode(picture, "JPEG", quality=QUALITY)])


def identity_of_good(digest: str) -> Identity:
    """Give what stands for a good photograph that was learnt, of which only the digest of its pixels is known."""
    return digest, 0, 0


def save_good_pictures(project: Project, facts: Facts, images: Mapping[str, torch.Tensor]) -> None:
    """Keep small pictures of the good photographs, images in [0, 1] of shape ``(3, H, W)``, for reports."""
    for name, image in images.items():
        save_pictures(project, identity_of_good(facts.good[name]), {"good": to_picture(image, DETAIL)})


def save_map(project: Project, identity: Identity, heat: NDArray[np.float32] | None) -> None:
    """Keep the raw map of a photograph, of shape ``(h, w)``, to draw it at another threshold."""
    if heat is not None:
        content = BytesIO()
        np.save(content, heat.astype(np.float16))
        write_whole(path_of(project, identity, "map"), [content.getvalue()])


def read_map(project: Project, identity: Identity) -> NDArray[np.float32] | None:
    """Get the raw map of a photograph; ``None`` if it was not kept."""
    path = path_of(project, identity, "map")
    return np.load(path).astype(np.float32) if path.is_file() else None


def save_reference(project: Project, reference: Picture | None) -> None:
    """Keep what photographs are aligned with, and nothing where they are not."""
    if reference is None:
        (project.folder / REFERENCE).unlink(missing_ok=True)
    else:
        write_whole(project.folder / REFERENCE, [encode(reference, "PNG")])


def read_reference(project: Project, facts: Facts) -> Picture | None:
    """Get what photographs are aligned with; ``None`` if the model's were not aligned.

    Raises:
        ValueError: If it is not there, or cannot be read.
    """
    if not facts.settings.get("align"):
        return None
    reference = load_reference(project.folder / REFERENCE)
    if reference is None:
        msg = f"{project.folder / REFERENCE} is what photographs are aligned with, and is not there; learn again"
        raise ValueError(msg)
    return reference


def load_reference(path: Path) -> Picture | None:
    """Get what photographs are aligned with from a file; ``None`` if there is none.

    Raises:
        ValueError: If it cannot be read.
    """
    try:
        return np.asarray(Image.open(path).convert("RGB")) if path.is_file() else None
    except OSError as error:
        msg = f"{path} is what photographs are aligned with, and cannot be read; learn again"
        raise ValueError(msg) from error
