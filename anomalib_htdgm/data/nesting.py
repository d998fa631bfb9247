# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Data sets in PyTorch's ``Subset`` and ``ConcatDataset``, however deep: where an item comes from, and its label."""

from bisect import bisect_right
from collections.abc import Iterator
from itertools import chain
from typing import Any

from anomalib.data import AnomalibDataset
from anomalib.data.utils import LabelName
from torch.utils.data import ConcatDataset, Subset


def holds(dataset: Any, kind: Any) -> bool:  # noqa: ANN401
    """Tell whether a data set is a ``Subset`` or so, and gets its items as that does, not in a way of its own."""
    return isinstance(dataset, kind) and type(dataset).__getitem__ is kind.__getitem__


def locate(dataset: Any, index: int) -> tuple[Any, int]:  # noqa: ANN401
    """Find the data set that an item comes from, and its place there."""
    if holds(dataset, Subset):
        return locate(dataset.dataset, int(dataset.indices[index]))
    if holds(dataset, ConcatDataset):
        part = bisect_right(dataset.cumulative_sizes, index)
        return locate(dataset.datasets[part], index - [0, *dataset.cumulative_sizes][part])
    return dataset, index


def leaves(dataset: Any) -> Iterator[Any]:  # noqa: ANN401
    """Find the data sets that items come from."""
    if holds(dataset, Subset):
        yield from leaves(dataset.dataset)
    elif holds(dataset, ConcatDataset):
        yield from chain.from_iterable(map(leaves, dataset.datasets))
    else:
        yield dataset


def known_labels(dataset: Any) -> list[int | None]:  # noqa: ANN401
    """Get the labels that are known before an item is read, of anomalib's data sets; ``None`` for other items."""
    if holds(dataset, Subset):
        labels = known_labels(dataset.dataset)
        return [labels[int(index)] for index in dataset.indices]
    if holds(dataset, ConcatDataset):
        return list(chain.from_iterable(map(known_labels, dataset.datasets)))
    if isinstance(dataset, AnomalibDataset) and "label_index" in dataset.samples:
        return [int(label) for label in dataset.samples["label_index"].fillna(LabelName.UNKNOWN)]
    return [None] * len(dataset)
