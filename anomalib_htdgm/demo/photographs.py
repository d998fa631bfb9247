# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Taking in photographs as people have them: turned, large, or no photographs at all."""

import math
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch
from PIL import Image
from torchvision.transforms.v2.functional import to_dtype, to_pil_image

from anomalib_htdgm.data.appearance import SQUASHED
from anomalib_htdgm.data.reading import UnreadableImageError, read_image
from anomalib_htdgm.models.htdgm.discriminator import RECEPTIVE_FIELD

LONGEST_SIDE = 2048
"""Pixels that longer photographs are reduced to: more than what 8x8 tiles see, and read in a moment."""
FAST = 1
"""Compression of PNG: photographs of twelve megapixels take a second with it, and ten with the default."""


@dataclass(frozen=True)
class Photograph:
    """A photograph that was taken in.

    Args:
        name (str): Its name, as its owner knows it.
        path (Path): An upright copy that anomalib can read, as PNG.
        digest (str): Digest of its pixels, which copies have in common, whatever their names and formats.
    """

    name: str
    path: Path
    digest: str

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        with Image.open(self.path) as image:
            return image.size


def take_in(source: Path, target: Path, size: tuple[int, int] | None = None) -> Photograph:
    """Copy a photograph as PNG, upright and not too large.

    Args:
        source (Path): Any file.
        target (Path): Path of the copy.
        size (tuple[int, int] | None): Width and height in pixels that it is resized to; ``None`` keeps its own, if they
            are at most :data:`LONGEST_SIDE`.

    Raises:
        UnreadableImageError: If it is no image, or one that cannot be read, is too large or too small, or would be
            squashed; the message has the file's name, not its path.
    """
    try:
        pixels = read_image(source, as_tensor=True)
    except UnreadableImageError as error:
        raise UnreadableImageError(str(error).replace(str(source), source.name)) from error
    image = to_pil_image(to_dtype(torch.as_tensor(pixels), torch.uint8, scale=True))
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    if min(image.size) < RECEPTIVE_FIELD:
        least = f"at least {RECEPTIVE_FIELD}x{RECEPTIVE_FIELD}"
        msg = f"image {source.name} has {image.width}x{image.height} pixels; allowed are {least}"
        raise UnreadableImageError(msg)
    if size is not None and abs(math.log(image.width / image.height * size[1] / size[0])) > math.log(SQUASHED):
        allowed = f"allowed beside the first one are photographs of its shape, {size[0]}x{size[1]}"
        msg = f"image {source.name} has {image.width}x{image.height} pixels; {allowed}"
        raise UnreadableImageError(msg)
    digest = sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()
    target.parent.mkdir(parents=True, exist_ok=True)
    (image if size is None else image.resize(size)).save(target, compress_level=FAST)
    return Photograph(source.name, target, digest)
