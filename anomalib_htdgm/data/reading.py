# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Reading image files: what each kind of file becomes, and what happens to one that cannot be read.

Mends :func:`anomalib.data.utils.read_image` of anomalib 2.7, which makes images of more than 8 bits white, leaves
photographs as the sensor saw them, and whose errors often do not name the file.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torchvision.transforms.v2.functional import to_dtype, to_image
from torchvision.tv_tensors import Mask

logger = logging.getLogger(__name__)

HEIC = (b"ftyphe", b"ftypmif1", b"ftypmsf1")
"""What a HEIC file begins with, after four bytes."""
MOST_OF_SIXTEEN_BITS = 65535
ALLOWED = "allowed are images of 8 or 16 bits a channel that Pillow reads"


class UnreadableImageError(ValueError):
    """An image file that cannot be read; the message names it, and what is wrong."""


class HeicError(ValueError):
    """A HEIC file, and nothing to read it with."""


def open_image(path: str | Path) -> Image.Image:
    """Open an image file as Pillow does, or HEIC if pillow-heif is installed.

    Raises:
        HeicError: If it is HEIC, and pillow-heif is not installed.
    """
    try:
        image = Image.open(path)
    except UnidentifiedImageError as error:
        with Path(path).open("rb") as file:
            if not file.read(12)[4:].startswith(HEIC):
                raise
        try:
            from pillow_heif import register_heif_opener  # noqa: PLC0415  # nothing else needs it
        except ImportError:
            msg = (
                "it is HEIC, as iPhones make it; install pillow-heif (pip install pillow-heif), or set the camera to "
                "JPEG, which iPhones call Most Compatible"
            )
            raise HeicError(msg) from error
        register_heif_opener()
        image = Image.open(path)
    image.filename = ""  # else Pillow maps grey TIFFs to memory, and garbles those that EXIF turns
    return image


def is_image(path: Path) -> bool:
    """Tell whether a file is an image, by its content."""
    try:
        open_image(path).close()
    except HeicError:
        return True
    except Exception:  # noqa: BLE001  # Pillow raises nearly anything for what is none
        return False
    return True


def read_image(path: str | Path, as_tensor: bool = False) -> torch.Tensor | NDArray[np.float32]:
    """Read an image in three channels, and upright.

    Its content decides what a file is, not its name. Grey of 16 bits keeps its brightness; a palette, grey, CMYK and 16
    bits of colour become RGB as Pillow converts them. Transparency is left out. An orientation in EXIF is applied,
    other than by :func:`anomalib.data.utils.read_image`. Of several frames the first is read, with a warning.

    Returns:
        torch.Tensor | NDArray: The image in [0, 1], as a tensor of shape ``(3, H, W)`` or an array, ``(H, W, 3)``.

    Raises:
        UnreadableImageError: If there is no such image, it is damaged, of more than 16 bits, or larger than Pillow
            allows, which is twice ``PIL.Image.MAX_IMAGE_PIXELS``.
    """
    image, notices = read_with_notices(path)
    for notice in notices:
        logger.warning("%s: %s", path, notice)
    return image if as_tensor else image.permute(1, 2, 0).numpy()


def read_with_notices(path: str | Path) -> tuple[torch.Tensor, list[str]]:
    """Read an image as a tensor, see :func:`read_image`, and what is to be said about its file."""
    with _naming(path), open_image(path) as image:
        pixels = _read_pixels(image)
        return to_dtype(to_image(pixels), torch.float32, scale=True), _count_frames(image)


def _read_pixels(image: Image.Image) -> NDArray[Any]:
    """Read the pixels, of shape ``(H, W, 3)``, as bytes or in [0, 1]."""
    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
        msg = "it has 32 bits a channel, of which none is known to be white"
        raise ValueError(msg)
    if image.mode.startswith("I"):
        image.load()
        grey = np.asarray(_turn_upright(image)).astype(np.float32) / MOST_OF_SIXTEEN_BITS
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.array(_turn_upright(image.convert("RGB")))


def _turn_upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001  # Pillow raises nearly anything for damaged notes, beside which pixels may be whole
        return image


def _count_frames(image: Image.Image) -> list[str]:
    try:
        frames = getattr(image, "n_frames", 1)
    except Exception:  # noqa: BLE001  # the first may be whole where others are not
        return []
    return [f"it has {frames} frames or pages, of which only the first is looked at"] if frames > 1 else []


def read_mask(path: str | Path, photograph: str | Path, size: tuple[int, int]) -> Mask:
    """Read a mask as :func:`anomalib.data.utils.read_mask` does, and turn it if it was drawn on a photograph as stored.

    Args:
        path (str | Path): Path of the mask.
        photograph (str | Path): Path of its photograph.
        size (tuple[int, int]): Width and height of the photograph as it is read.

    Raises:
        UnreadableImageError: As of :func:`read_image`.
    """
    with _naming(path):
        with open_image(path) as stored:
            mask = stored.convert("L")
        if mask.size != size and mask.size == size[::-1]:
            with open_image(photograph) as image:
                mask.getexif()[ExifTags.Base.Orientation] = image.getexif().get(ExifTags.Base.Orientation, 1)
            mask = _turn_upright(mask)
    return Mask(to_image(mask)[0] > 0, dtype=torch.uint8)


@contextmanager
def _naming(path: str | Path) -> Iterator[None]:
    """Turn any error into one that names the file."""
    try:
        yield
    except Exception as error:  # Pillow raises nearly anything for a damaged file
        is_empty = Path(path).is_file() and Path(path).stat().st_size == 0
        reason = "it is empty" if is_empty else str(error) or type(error).__name__
        msg = f"image {path} cannot be read: {reason}; {ALLOWED}"
        raise UnreadableImageError(msg) from error


def digest_image(image: torch.Tensor) -> str:
    """Take the digest of an image in [0, 1], in the 16 bits that a file has at most; a copy of it has the same."""
    pixels = (image.cpu() * MOST_OF_SIXTEEN_BITS).round().to(torch.int32).numpy()
    return sha256(pixels.tobytes() + str(pixels.shape).encode()).hexdigest()
