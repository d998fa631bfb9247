# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Reading image files: what each kind of file becomes, and what happens to one that cannot be read.

anomalib's datasets read with :func:`anomalib.data.utils.read_image`, which makes any image of more than 8 bits white,
and whose errors often do not name the file. Here a dataset is left as it is, and read with :func:`read_image`.
"""

import copy
import logging
from collections.abc import Callable, Iterator, Sequence, Sized
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import torch
from anomalib.data.utils import read_mask as read_mask_of_anomalib
from lightning_utilities.core.apply_func import apply_to_collection
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2.functional import to_dtype, to_image
from torchvision.tv_tensors import Image as ImageTensor

logger = logging.getLogger(__name__)

MOST_OF_SIXTEEN_BITS = 65535
ALLOWED = "allowed are images of 8 or 16 bits a channel that Pillow reads"


class UnreadableImageError(ValueError):
    """An image file that cannot be read; the message names it, and what is wrong."""


def read_image(path: str | Path, as_tensor: bool = False) -> torch.Tensor | NDArray[Any]:
    """Read an image in three channels, as :func:`anomalib.data.utils.read_image` does but for 16 bits.

    Its content decides what a file is, not its name. Grey of 16 bits keeps its brightness; a palette, grey, CMYK and 16
    bits of colour become RGB as Pillow converts them. Transparency is left out, and an orientation in EXIF is not
    applied, as by anomalib, whose masks and heat maps would not match otherwise.

    Returns:
        torch.Tensor | NDArray: The image in [0, 1], as a tensor of shape ``(3, H, W)`` or an array, ``(H, W, 3)``.

    Raises:
        UnreadableImageError: If there is no such image, it is damaged, of more than 16 bits, or larger than Pillow
            allows, which is twice ``PIL.Image.MAX_IMAGE_PIXELS``.
    """
    return _name_file(_read_image, path, as_tensor)


def read_mask(path: str | Path, as_tensor: bool = False) -> torch.Tensor | NDArray[Any]:
    """Read a mask as :func:`anomalib.data.utils.read_mask` does, but name a file that cannot be read.

    Raises:
        UnreadableImageError: If it cannot be read.
    """
    return _name_file(read_mask_of_anomalib, path, as_tensor)


def _name_file(read: Callable[..., Any], path: str | Path, as_tensor: bool) -> Any:  # noqa: ANN401
    try:
        return read(path, as_tensor)
    except Exception as error:  # Pillow raises nearly anything for a damaged file
        is_empty = Path(path).is_file() and Path(path).stat().st_size == 0
        reason = "it is empty" if is_empty else str(error) or type(error).__name__
        msg = f"image {path} cannot be read: {reason}; {ALLOWED}"
        raise UnreadableImageError(msg) from error


def _read_image(path: str | Path, as_tensor: bool) -> torch.Tensor | NDArray[Any]:
    with Image.open(path) as image:
        if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
            msg = "it has 32 bits a channel, of which none is known to be white"
            raise ValueError(msg)
        if image.mode.startswith("I"):
            grey = np.asarray(image).astype(np.float32) / MOST_OF_SIXTEEN_BITS
            pixels = np.repeat(grey[:, :, None], 3, axis=2)
            return ImageTensor(torch.from_numpy(pixels.transpose(2, 0, 1).copy())) if as_tensor else pixels
        converted = image.convert("RGB")
    return to_dtype(to_image(converted), torch.float32, scale=True) if as_tensor else np.array(converted) / 255.0


def get_item(dataset: Any, index: int) -> Any:  # noqa: ANN401
    """Get an item of a dataset, with :func:`read_image` and :func:`read_mask` in the place of anomalib's.

    The dataset stays as it is, and so do others.

    Raises:
        UnreadableImageError: If a file cannot be read.
    """
    original = type(dataset).__getitem__
    if not reads_like_anomalib(dataset):
        return original(dataset, index)
    names = {**original.__globals__, "read_image": read_image, "read_mask": read_mask}
    read = FunctionType(original.__code__, names, original.__name__, original.__defaults__, original.__closure__)
    return read(dataset, index)


def reads_like_anomalib(dataset: object) -> bool:
    """Tell whether a dataset is one of anomalib's making, which calls ``read_image`` for an item."""
    original = getattr(type(dataset), "__getitem__", None)
    return isinstance(original, FunctionType) and "read_image" in original.__code__.co_names


def read_as_seen(dataloaders: Any, *, skip_unreadable: bool) -> Any:  # noqa: ANN401
    """Let dataloaders read with :func:`read_image`, and name files that cannot be read.

    Args:
        dataloaders (Any): A dataloader or a collection of them. Those over datasets of other makes stay as they are.
        skip_unreadable (bool): Whether such files are left out, with a warning for each; else the first is an error.

    Returns:
        Any: The same, of :class:`ReadingLoader`; a list in place of a single one, since anomalib's timer looks for the
        dataset in a PyTorch DataLoader or in a list.
    """

    def wrap(dataloader: DataLoader[Any]) -> Any:  # noqa: ANN401
        is_ours = dataloader.batch_sampler is not None and reads_like_anomalib(dataloader.dataset)
        return ReadingLoader(dataloader, skip_unreadable=skip_unreadable) if is_ours else dataloader

    wrapped = apply_to_collection(dataloaders, DataLoader, wrap)
    return [wrapped] if isinstance(wrapped, ReadingLoader) else wrapped


class ReadingLoader:
    """Serves the batches of a dataloader over images, whatever becomes of single files, see :func:`read_as_seen`."""

    def __init__(self, dataloader: DataLoader[Any], *, skip_unreadable: bool) -> None:
        self.dataset = dataloader.dataset
        self.batch_size = dataloader.batch_size
        self.skip_unreadable = skip_unreadable
        self._dataloader = copy.copy(dataloader)  # with its workers, sampler and so on; PyTorch guards the dataset
        vars(self._dataloader)["dataset"] = _Attempts(dataloader.dataset)
        self._dataloader.collate_fn = _Collation(dataloader.collate_fn)

    def __len__(self) -> int:
        """Return the number of batches, with those that are left out."""
        return len(self._dataloader)

    def __iter__(self) -> Iterator[Any]:
        """Serve the batches.

        Raises:
            UnreadableImageError: If a file cannot be read and may not be left out, or none can be read.
        """
        skipped: list[UnreadableImageError] = []
        is_empty = True
        for index, (batch, failures) in enumerate(self._dataloader, start=1):
            for failure in failures:
                if not self.skip_unreadable:
                    raise failure
                logger.warning("Left out: %s", failure)
            skipped += failures
            is_empty = is_empty and batch is None
            if skipped and index == len(self):  # before the last batch, since nobody may ask for another
                _report(skipped, is_empty=is_empty)
            if batch is not None:
                yield batch


def _report(skipped: list[UnreadableImageError], *, is_empty: bool) -> None:
    if is_empty:
        msg = f"none of {len(skipped)} images can be read; the first: {skipped[0]}"
        raise UnreadableImageError(msg)
    logger.warning(
        "Images that could not be read and were left out: %d. There are results for all others. With "
        "skip_unreadable=False the first would have been an error.",
        len(skipped),
    )


class _Attempts(Dataset[Any]):
    """Items of a dataset, or what went wrong."""

    def __init__(self, dataset: Any) -> None:  # noqa: ANN401
        self.dataset = dataset

    def __len__(self) -> int:
        assert isinstance(self.dataset, Sized)  # noqa: S101  # for the type checker
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:  # noqa: ANN401
        try:
            return get_item(self.dataset, index)
        except UnreadableImageError as error:
            return UnreadableImageError(str(error))  # without the traceback, which workers cannot send


class _Collation:
    """Collates the items that there are; a class, since workers that are spawned get it pickled."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, attempts: Sequence[Any]) -> tuple[Any, list[UnreadableImageError]]:
        failures = [each for each in attempts if isinstance(each, UnreadableImageError)]
        items = [each for each in attempts if not isinstance(each, UnreadableImageError)]
        return (self.collate(items) if items else None), failures
