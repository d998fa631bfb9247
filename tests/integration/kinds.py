# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Image files of all kinds, damaged ones and ones that are none."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from .small import SIDE, make_image

PICTURE = Image.fromarray(make_image("turned", 5).permute(1, 2, 0).numpy())


def encode(image: Image.Image, kind: str = "PNG", **arguments: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **arguments)
    return buffer.getvalue()


def bomb(width: int, height: int) -> bytes:
    """Make a small file that claims to be of this size."""
    content = bytearray(encode(PICTURE))
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


PNG, JPEG = encode(PICTURE), encode(PICTURE, "JPEG")
BAD = {
    "empty.png": (b"", "it is empty"),
    "truncated.png": (PNG[: len(PNG) // 2], "truncated"),
    "truncated.jpg": (JPEG[: len(JPEG) // 2], "truncated"),
    "text.png": (b"not an image", "cannot identify"),
    "float.tiff": (encode(Image.new("F", (SIDE, SIDE), 0.5), "TIFF"), "32 bits"),
    "integers.tif": (encode(Image.new("I", (SIDE, SIDE), 70_000), "TIFF"), "32 bits"),
    "huge.png": (bomb(20_000, 20_000), "400000000 pixels"),
}
"""Contents, and what is said of them."""
GREY = np.asarray(PICTURE.convert("L"))
SIXTEEN_BITS = Image.fromarray(GREY.astype(np.uint16) * 257)
TURNED = Image.Exif()
TURNED[0x0112] = 6
as_grey = np.stack([GREY] * 3, axis=-1)
GOOD = {
    "sixteen.png": (encode(SIXTEEN_BITS), as_grey),
    "sixteen.tif": (encode(SIXTEEN_BITS, "TIFF"), as_grey),
    "sixteen.pgm": (encode(SIXTEEN_BITS, "PPM"), as_grey),
    "grey.png": (encode(PICTURE.convert("L")), as_grey),
    "grey_alpha.png": (encode(PICTURE.convert("LA")), as_grey),
    "alpha.png": (encode(PICTURE.convert("RGBA")), np.asarray(PICTURE)),
    "palette.png": (encode(PICTURE.convert("P")), np.asarray(PICTURE.convert("P").convert("RGB"))),
    "two.png": (encode(PICTURE.convert("1")), np.asarray(PICTURE.convert("1").convert("RGB"))),
    "cmyk.tif": (encode(PICTURE.convert("CMYK"), "TIFF"), np.asarray(PICTURE)),
    "jpeg.png": (JPEG, np.asarray(Image.open(io.BytesIO(JPEG)))),
    "png.jpg": (PNG, np.asarray(PICTURE)),
    "turned.png": (encode(PICTURE, exif=TURNED), np.rot90(np.asarray(PICTURE), -1)),
    "turned.jpg": (
        encode(PICTURE, "JPEG", exif=TURNED),
        np.rot90(np.asarray(Image.open(io.BytesIO(encode(PICTURE, "JPEG")))), -1),
    ),
    "turned_sixteen.tif": (encode(SIXTEEN_BITS, "TIFF", exif=TURNED), np.rot90(as_grey, -1)),
}
"""Contents, and the pixels that one sees."""
