# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Which of the model's signals spoke: the one that is highest over what it is for good photographs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from anomalib_htdgm.models.htdgm.signals import Opinion, Signal

NAMES = {"Votes": "sharpness", "Patches": "appearance", "OrientedEnergies": "texture", "Gist": "layout"}
"""Names of signals, as docs/scores.md has them."""


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


def loudest(said: Mapping[str, float], usual: Mapping[str, float]) -> tuple[str, float] | None:
    """Find the signal that is highest over what it is for good photographs.

    Args:
        said (Mapping[str, float]): Scores of the signals for a photograph, at least 0, by their names.
        usual (Mapping[str, float]): The same for good photographs that have not been seen.

    Returns:
        tuple[str, float] | None: Its name, and how many times the usual score it has; ``None`` if nothing is known of
        good photographs.
    """
    times = {name: score / usual[name] for name, score in said.items() if usual.get(name, 0) > 0}
    return max(times.items(), key=lambda each: each[1]) if times else None


NOTHING_ALONE = "No signal stands out: all together are a little above what good ones have."
"""What is said where none is above what is usual."""


def describe(name: str, times: float) -> str:
    """Say which signal spoke, as docs/scores.md explains them."""
    what = {
        "sharpness": "Its sharpness is not that of a good one",
        "appearance": "No good one has a place that looks like this",
        "texture": "No good one has such edges and grain",
        "layout": "It is laid out as no good one is",
    }
    return f"{what.get(name, f'Its {name} is not that of a good one')} ({name} is {times:.1f} times the usual)."
