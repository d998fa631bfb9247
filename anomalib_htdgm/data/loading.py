# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Dataloaders over images, whatever becomes of single files.

Mends those of anomalib 2.7 and Lightning 2.6, where one file that cannot be read costs all results of a prediction.
"""

import logging
from collections.abc import Callable, Iterator, Sized
from typing import Any, NamedTuple

import torch
from anomalib.data.dataclasses.torch import Batch
from lightning_utilities.core.apply_func import apply_to_collection
from torch.utils.data import DataLoader, IterableDataset

from .items import Collate, Reading, collate_items, items_of, read_item
from .reading import UnreadableImageError, digest_image

logger = logging.getLogger(__name__)

KEPT = (
    *("num_workers", "pin_memory", "timeout", "worker_init_fn", "multiprocessing_context", "generator"),
    *("prefetch_factor", "persistent_workers", "in_order"),
)
"""Settings of a dataloader that do not say which items make a batch."""

Inspect = Callable[[torch.Tensor], list[str]]
"""Tells what is worth a warning about an image in [0, 1], of shape ``(3, H, W)`` and as it was read."""


def has_items(dataloader: DataLoader[Any]) -> bool:
    """Tell whether a dataloader makes batches of the items of a data set, and serves no stream."""
    dataset: Any = dataloader.dataset
    return (
        dataloader.batch_sampler is not None and isinstance(dataset, Sized) and not isinstance(dataset, IterableDataset)
    )


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

    def wrap(dataloader: DataLoader[Any]) -> DataLoader[Any]:
        if not has_items(dataloader):
            return dataloader
        read = _Reader(dataloader, skip_unreadable=skip_unreadable, take_digests=take_digests, inspect=inspect)
        of_batches = ("batch_sampler",) if dataloader.batch_size is None else ("batch_size", "sampler", "drop_last")
        settings: dict[str, Any] = {name: getattr(dataloader, name) for name in (*KEPT, *of_batches)}
        return ReadingLoader(**settings | {"dataset": range(len(read.items)), "collate_fn": read})

    return apply_to_collection(dataloaders, DataLoader, wrap)


class _Served(NamedTuple):
    """The batch of the items that could be read, if any, and what came of all."""

    batch: Any
    indices: list[int]
    notices: list[str]
    failures: list[UnreadableImageError]


class _Reader:
    """Reads and collates the items of a batch, in the workers; a class, since those that are spawned get it pickled."""

    def __init__(
        self, dataloader: DataLoader[Any], *, skip_unreadable: bool, take_digests: bool, inspect: Inspect | None
    ) -> None:
        self.items = items_of(dataloader.dataset)
        self.collate: Collate = dataloader.collate_fn
        self.skip_unreadable = skip_unreadable
        self.take_digests = take_digests
        self.inspect = inspect

    def __call__(self, indices: list[int]) -> _Served:
        attempts = [(index, self._try_to_read(index)) for index in indices]
        failures = [each for _, each in attempts if isinstance(each, UnreadableImageError)]
        read = [(index, each) for index, each in attempts if isinstance(each, Reading)]
        batch = collate_items(self.collate, [reading.item for _, reading in read]) if read else None
        if read and not isinstance(getattr(batch, "image", None), torch.Tensor):
            given = type(batch).__name__
            msg = f"dataloaders: got batches of type {given}; allowed are those of type anomalib.data.ImageBatch"
            raise TypeError(msg)
        images = [reading.image for _, reading in read]
        if self.take_digests and isinstance(batch, Batch) and all(isinstance(each, torch.Tensor) for each in images):
            vars(batch)["digests"] = [digest_image(each) for each in images]
        notices = [notice for each in read for notice in self._describe(*each)]
        return _Served(batch, [index for index, _ in read], notices, failures)

    def _try_to_read(self, index: int) -> Reading | UnreadableImageError:
        try:
            return read_item(*self.items[index])
        except UnreadableImageError as error:  # without the traceback, which workers cannot send
            return UnreadableImageError(str(error))

    def _describe(self, index: int, reading: Reading) -> list[str]:
        path = getattr(reading.item, "image_path", None)
        found = self.inspect(reading.image) if self.inspect and isinstance(reading.image, torch.Tensor) else []
        return [f"{path or f'image number {index}'}: {notice}" for notice in (*reading.notices, *found)]


class ReadingLoader(DataLoader[Any]):
    """Serves the batches of a dataloader over images, see :func:`read_as_seen`.

    Its own items are numbers, which :class:`_Reader` reads and collates. It is made as any dataloader is, for Lightning
    makes it anew to note which items it has served.
    """

    collate_fn: _Reader

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # it is more than PyTorch's iterator
        """Serve the batches.

        Raises:
            UnreadableImageError: If a file cannot be read and may not be left out, or none can be read.
        """
        skipped: list[UnreadableImageError] = []
        num_served = 0
        for number, (batch, indices, notices, failures) in enumerate(super().__iter__(), start=1):
            for notice in notices:
                logger.warning(notice)
            for failure in failures:
                if not self.collate_fn.skip_unreadable:
                    raise failure
                logger.warning("Left out: %s", failure)
            skipped += failures
            self._note_served(num_served, indices)
            num_served += batch is not None
            if skipped and number == len(self):  # before the last batch, since nobody may ask for another
                _report(skipped, is_empty=not num_served)
            if batch is not None:
                yield batch

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
