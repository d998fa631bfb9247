# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Reading image files: what each kind of file becomes, and what happens to one that cannot be read.

anomalib's datasets read with :func:`anomalib.data.utils.read_image`, which makes any image of more than 8 bits white,
leaves photographs as the sensor saw them, and whose errors often do not name the file. Here a dataset is left as it is,
and its rows are read with :func:`read_image`.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from anomalib import TaskType
from anomalib.data import AnomalibDataset, ImageBatch, ImageItem, PredictDataset
from anomalib.data.dataclasses.torch import Batch
from anomalib.data.datasets.image.mvtec_loco import MVTecLOCODataset
from anomalib.data.utils import LabelName
from anomalib.data.utils.path import contains_non_printable_characters
from lightning.pytorch.utilities.seed import isolate_rng
from lightning_utilities.core.apply_func import apply_to_collection
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate
from torchvision.transforms.v2.functional import to_dtype, to_image
from torchvision.tv_tensors import Image as ImageTensor
from torchvision.tv_tensors import Mask

from .files import open_image
from .nesting import locate

logger = logging.getLogger(__name__)

MOST_OF_SIXTEEN_BITS = 65535
ALLOWED = "allowed are images of 8 or 16 bits a channel that Pillow reads"
KEPT = (
    "num_workers",
    "pin_memory",
    "timeout",
    "worker_init_fn",
    "multiprocessing_context",
    "generator",
    "prefetch_factor",
    "persistent_workers",
    "in_order",
)
"""Settings of a dataloader that do not say which items make a batch."""

Inspect = Callable[[torch.Tensor, str | None], list[str]]
"""Tells what is worth a warning about an image in [0, 1], of shape ``(3, H, W)`` and as it was read, and its path."""


class UnreadableImageError(ValueError):
    """An image file that cannot be read; the message names it, and what is wrong."""


def read_image(path: str | Path, as_tensor: bool = False) -> torch.Tensor | NDArray[Any]:
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
    pixels, notices = _name_file(_read_pixels, path)
    for notice in notices:
        logger.warning("%s: %s", path, notice)
    if as_tensor:
        return _to_tensor(pixels)
    return pixels / 255.0 if pixels.dtype == np.uint8 else pixels


def _read_pixels(path: str | Path) -> tuple[NDArray[Any], list[str]]:
    """Read the pixels, in 0 to 255 as bytes or in [0, 1], and what is to be said about them."""
    with open_image(path) as image:
        if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
            msg = "it has 32 bits a channel, of which none is known to be white"
            raise ValueError(msg)
        if image.mode.startswith("I"):
            image.load()
            grey = np.asarray(_turn_upright(image)).astype(np.float32) / MOST_OF_SIXTEEN_BITS
            return np.repeat(grey[:, :, None], 3, axis=2), _count_frames(image)
        return np.array(_turn_upright(image.convert("RGB"))), _count_frames(image)


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


def _read_mask(path: str | Path, photograph: str | Path, size: tuple[int, int]) -> Mask:
    """Read a mask as :func:`anomalib.data.utils.read_mask` does, and turn it if it was drawn on a photograph as stored.

    Args:
        path (str | Path): Path of the mask.
        photograph (str | Path): Path of its photograph.
        size (tuple[int, int]): Width and height of the photograph as it is read.
    """
    with open_image(path) as stored:
        mask = stored.convert("L")
    if mask.size != size and mask.size == size[::-1]:
        with open_image(photograph) as image:
            mask.getexif()[ExifTags.Base.Orientation] = image.getexif().get(ExifTags.Base.Orientation, 1)
        mask = _turn_upright(mask)
    return Mask(to_image(mask)[0] > 0, dtype=torch.uint8)


def _name_file(read: Callable[..., Any], path: str | Path, *arguments: Any) -> Any:  # noqa: ANN401
    try:
        return read(path, *arguments)
    except Exception as error:  # Pillow raises nearly anything for a damaged file
        is_empty = Path(path).is_file() and Path(path).stat().st_size == 0
        reason = "it is empty" if is_empty else str(error) or type(error).__name__
        msg = f"image {path} cannot be read: {reason}; {ALLOWED}"
        raise UnreadableImageError(msg) from error


def _to_tensor(pixels: NDArray[Any]) -> torch.Tensor:
    if pixels.dtype == np.uint8:
        return to_dtype(to_image(pixels), torch.float32, scale=True)
    return ImageTensor(torch.from_numpy(pixels.transpose(2, 0, 1).copy()))


class Reading(NamedTuple):
    """An item of a dataset, its image as it was before any augmentation, and what is to be said about its file."""

    item: Any
    image: Any
    notices: list[str]


def read_item(dataset: Any, index: int) -> Reading:  # noqa: ANN401
    """Read an item of a dataset, with :func:`read_image` where anomalib's own reading is to be done.

    The dataset stays as it is. One that reads in a way of its own is asked for its item.

    Raises:
        UnreadableImageError: If a file cannot be read.
    """
    dataset, index = locate(dataset, index)
    own_way = type(dataset).__getitem__
    if own_way in {AnomalibDataset.__getitem__, MVTecLOCODataset.__getitem__}:
        return _read_row(dataset, dataset.samples.iloc[index])
    if own_way is PredictDataset.__getitem__:
        path = str(dataset.image_filenames[index])
        image, notices = _read_listed(path)
        item = ImageItem(image=dataset.transform(image) if dataset.transform else image, image_path=path)
        return Reading(item, image, notices)
    try:
        item = dataset[index]
    except OSError as error:  # as Pillow's are
        msg = f"item {index} of {type(dataset).__name__} cannot be read: {error}"
        raise UnreadableImageError(msg) from error
    return Reading(item, getattr(item, "image", None), [])


def _read_listed(path: str) -> tuple[torch.Tensor, list[str]]:
    if contains_non_printable_characters(path):
        msg = f"image {path} cannot be read: anomalib takes no letters beyond ASCII in paths; rename the file or folder"
        raise UnreadableImageError(msg)
    pixels, notices = _name_file(_read_pixels, path)
    return _to_tensor(pixels), notices


def _read_row(dataset: AnomalibDataset, row: Any) -> Reading:  # noqa: ANN401
    """Read what a row of samples names, as :meth:`AnomalibDataset.__getitem__` does."""
    image, notices = _read_listed(str(row.image_path))
    augmented, mask = image, Mask(torch.zeros(image.shape[-2:], dtype=torch.uint8))
    has_masks, is_known = dataset.task == TaskType.SEGMENTATION, row.label_index != LabelName.UNKNOWN
    paths = row.mask_path if isinstance(row.mask_path, list) else [row.mask_path]  # MVTec LOCO has one for each defect
    if has_masks and row.label_index == LabelName.ABNORMAL:
        size = (image.shape[-1], image.shape[-2])
        masks = [_name_file(_read_mask, path, row.image_path, size) for path in paths]
        mask = Mask(torch.stack(masks).amax(dim=0))
    if dataset.augmentations and has_masks:
        augmented, mask = dataset.augmentations(image, mask)
    elif dataset.augmentations:
        augmented = dataset.augmentations(image)
    item = ImageItem(
        image=augmented,
        gt_mask=mask if has_masks and is_known else None,
        gt_label=torch.tensor(int(row.label_index)) if is_known else None,
        image_path=str(row.image_path),
        mask_path=paths[0],
    )
    return Reading(item, image, notices)


def digest_image(image: torch.Tensor) -> str:
    """Take the digest of an image in [0, 1], in the 16 bits that a file has at most; a copy of it has the same."""
    pixels = (image.cpu() * MOST_OF_SIXTEEN_BITS).round().to(torch.int32).numpy()
    return sha256(pixels.tobytes() + str(pixels.shape).encode()).hexdigest()


def collate_items(collate: Callable[[list[Any]], Any], items: list[Any]) -> Any:  # noqa: ANN401
    """Collate items as a dataloader does, but anomalib's items as anomalib does, since PyTorch cannot.

    Raises:
        TypeError: If they cannot be collated, and are no items of anomalib.
    """
    is_torchs = collate is default_collate and isinstance(items[0], ImageItem)
    try:
        return ImageBatch.collate(items) if is_torchs else collate(items)
    except Exception:
        check_is_image(items[0], "dataloaders")  # the better message
        raise


def check_is_image(given: Any, argument: str) -> None:  # noqa: ANN401
    """Refuse what is no item or batch of anomalib.

    Raises:
        TypeError: If it is something else, such as a tuple.
    """
    if not isinstance(getattr(given, "image", None), torch.Tensor):
        msg = (
            f"{argument}: got {type(given).__name__}; allowed are datasets whose items are anomalib.data.ImageItem, "
            "collated by anomalib.data.ImageBatch.collate"
        )
        raise TypeError(msg)


def check_first_item(dataloaders: Any, argument: str) -> None:  # noqa: ANN401
    """Refuse dataloaders that serve no items of anomalib, by their first item, before anything is done.

    Raises:
        TypeError: If one serves something else.
    """

    def check(dataloader: DataLoader[Any]) -> None:
        if not _has_items(dataloader) or not len(dataloader.dataset):  # type: ignore[arg-type]
            return
        with isolate_rng(include_cuda=False), suppress(UnreadableImageError):
            item = read_item(dataloader.dataset, 0).item
            check_is_image(collate_items(dataloader.collate_fn, [item]), argument)

    apply_to_collection(dataloaders, DataLoader, check)


def read_as_seen(
    dataloaders: Any,  # noqa: ANN401
    *,
    skip_unreadable: bool,
    take_digests: bool = False,
    inspect: Inspect | None = None,
) -> Any:  # noqa: ANN401
    """Let dataloaders read with :func:`read_image`, and name files that cannot be read, or that are to be looked at.

    Args:
        dataloaders (Any): A dataloader or a collection of them. Those over streams of items stay as they are.
        skip_unreadable (bool): Whether such files are left out, with a warning for each; else the first is an error.
        take_digests (bool): Whether batches get ``digests``, those of :func:`digest_image`.
        inspect (Inspect | None): Tells what is to be warned of in an image; with workers, it is pickled.

    Returns:
        Any: The same, of :class:`ReadingLoader`.
    """

    def wrap(dataloader: DataLoader[Any]) -> Any:  # noqa: ANN401
        if not _has_items(dataloader):
            return dataloader
        of_batches = ("batch_sampler",) if dataloader.batch_size is None else ("batch_size", "sampler", "drop_last")
        settings = {name: getattr(dataloader, name) for name in (*KEPT, *of_batches)}
        return ReadingLoader(
            _Attempts(dataloader.dataset, take_digests=take_digests, inspect=inspect),
            skip_unreadable=skip_unreadable,
            collate_fn=_Collation(dataloader.collate_fn),
            **settings,
        )

    return apply_to_collection(dataloaders, DataLoader, wrap)


def _has_items(dataloader: DataLoader[Any]) -> bool:
    return dataloader.batch_sampler is not None and not isinstance(dataloader.dataset, IterableDataset)


class ReadingLoader(DataLoader[Any]):
    """Serves the batches of a dataloader over images, whatever becomes of single files, see :func:`read_as_seen`.

    Args:
        dataset (Dataset): What gives attempts to read items.
        skip_unreadable (bool): Whether files that cannot be read are left out.
        **settings (Any): Those of the dataloader. They have to be called as PyTorch calls them, for Lightning makes a
            loader anew to note which items it has served.
    """

    def __init__(self, dataset: Dataset[Any], *, skip_unreadable: bool, **settings: Any) -> None:
        super().__init__(dataset, **settings)
        self.skip_unreadable = skip_unreadable

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # it is more than PyTorch's iterator
        """Serve the batches.

        Raises:
            UnreadableImageError: If a file cannot be read and may not be left out, or none can be read.
        """
        skipped: list[UnreadableImageError] = []
        num_served = 0
        for index, attempts in enumerate(super().__iter__(), start=1):
            for notice in attempts.notices:
                logger.warning(notice)
            for failure in attempts.failures:
                if not self.skip_unreadable:
                    raise failure
                logger.warning("Left out: %s", failure)
            skipped += attempts.failures
            self._note_served(num_served, attempts.indices)
            num_served += attempts.batch is not None
            if skipped and index == len(self):  # before the last batch, since nobody may ask for another
                _report(skipped, is_empty=not num_served)
            if attempts.batch is not None:
                yield attempts.batch

    def _note_served(self, number: int, indices: list[int]) -> None:
        """Correct which items Lightning has noted for a batch, for its prediction writers: some may be left out."""
        noted = getattr(self.batch_sampler, "seen_batch_indices", None)
        if noted is not None:
            noted[number : number + 1] = [indices] if indices else []


def _report(skipped: list[UnreadableImageError], *, is_empty: bool) -> None:
    if is_empty:
        msg = f"none of {len(skipped)} images can be read; the first: {skipped[0]}"
        raise UnreadableImageError(msg)
    logger.warning(
        "Images that could not be read and were left out: %d. There are results for all others. With "
        "skip_unreadable=False the first would have been an error.",
        len(skipped),
    )


class _Attempt(NamedTuple):
    """What came of reading an item, and the number that it has in the dataset."""

    number: int
    item: Any = None
    failure: UnreadableImageError | None = None
    notices: Sequence[str] = ()
    digest: str | None = None


class _Attempts(Dataset[_Attempt]):
    """Items of a dataset, or what went wrong."""

    def __init__(self, dataset: Any, *, take_digests: bool, inspect: Inspect | None) -> None:  # noqa: ANN401
        self.dataset = dataset
        self.take_digests = take_digests
        self.inspect = inspect

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> _Attempt:
        try:
            item, image, notices = read_item(self.dataset, index)
        except UnreadableImageError as error:  # without the traceback, which workers cannot send
            return _Attempt(index, failure=UnreadableImageError(str(error)))
        if not isinstance(image, torch.Tensor):
            return _Attempt(index, item)
        path = getattr(item, "image_path", None)
        notices = [*notices, *(self.inspect(image, path) if self.inspect else ())]
        named = [f"{path or f'image number {index}'}: {notice}" for notice in notices]
        return _Attempt(index, item, None, named, digest_image(image) if self.take_digests else None)


class _Collated(NamedTuple):
    """The batch of the items that there are, if any, and what came of all."""

    batch: Any
    indices: list[int]
    notices: list[str]
    failures: list[UnreadableImageError]


class _Collation:
    """Collates the items that there are; a class, since workers that are spawned get it pickled."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, attempts: Sequence[_Attempt]) -> _Collated:
        failures = [each.failure for each in attempts if each.failure]
        read = [each for each in attempts if not each.failure]
        batch = collate_items(self.collate, [each.item for each in read]) if read else None
        if read and read[0].digest and isinstance(batch, Batch):
            vars(batch)["digests"] = [each.digest for each in read]
        notices = [notice for each in read for notice in each.notices]
        return _Collated(batch, [each.number for each in read], notices, failures)
