# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Which of the model's signals spoke: the one that is highest over what it is for good photographs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from anomalib_htdgm.models.htdgm.signals import Opinion, Signal

NAMES = {"Votes": "sharpness", "Patches": "appearance", "OrientedEnergies": "texture", "Gist": "layout"}
"""Names of signals, as docs/scores.md has them."""
SENTENCES = {
    "sharpness": "Its edges and details are not those of a good one",
    "appearance": "No good one has a place that looks like this",
    "texture": "No good one has such edges and grain",
    "layout": "It is laid out as no good one is",
}
"""What is said where a signal stands out."""
NOTHING_ALONE = "No signal stands out: all together are a little above what good ones have."
"""What is said where none is above what is usual."""


@contextmanager
def listening(signals: Sequence[Signal]) -> Iterator[dict[str, list[float]]]:
    """Note what signals say while a model scores, which is then not to be computed twice.

    Yields:
        dict[str, list[float]]: By the names of the signals, their scores: of all that they were asked, such as tiles.
    """
    heard: dict[str, list[float]] = {name_of(signal): [] for signal in signals}

    def note(signal: torch.nn.Module, _: object, opinion: Opinion) -> None:
        heard[name_of(signal)] += opinion.score.float().tolist()

    hooks = [signal.register_forward_hook(note) for signal in signals]
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()


def name_of(signal: torch.nn.Module) -> str:
    """Name a signal."""
    kind = type(signal).__name__
    return NAMES.get(kind, kind.lower())


def describe(said: Mapping[str, float], usual: Mapping[str, float]) -> str:
    """Say which signal spoke: the highest one over what it is for good photographs; nothing if none is known."""
    times = {name: score / usual[name] for name, score in said.items() if usual.get(name, 0) > 0}
    if not times:
        return ""
    name = max(times, key=lambda each: times[each])
    what = SENTENCES.get(name, f"Its {name} is not that of a good one")
    return f"{what} ({name} is {times[name]:.1f} times the usual)." if times[name] > 1 else NOTHING_ALONE
