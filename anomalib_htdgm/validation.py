# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Checks of arguments: one error that names the argument, what was given and what is allowed."""

from collections.abc import Sequence
from math import inf, isfinite
from numbers import Integral, Real


def check_integer(name: str, value: int, at_least: int) -> None:
    """Require an integer that is not too small.

    Raises:
        ValueError: If ``value`` is not such an integer; the message names the argument.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < at_least:
        msg = f"{name}: got {value!r}; allowed are integers of at least {at_least}"
        raise ValueError(msg)


def check_number(
    name: str,
    value: float,
    *,
    above: float = -inf,
    below: float = inf,
    at_least: float = -inf,
    at_most: float = inf,
) -> None:
    """Require a finite number within limits: ``above`` and ``below`` are not allowed themselves, the others are.

    Raises:
        ValueError: If ``value`` is not such a number; the message names the argument.
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)
    if not (is_number and above < value < below and at_least <= value <= at_most):
        limits = {"above": above, "below": below, "at least": at_least, "at most": at_most}
        allowed = " and ".join(f"{which} {limit}" for which, limit in limits.items() if isfinite(limit))
        msg = f"{name}: got {value!r}; allowed are numbers {allowed}"
        raise ValueError(msg)


def check_choice(name: str, value: object, allowed: Sequence[object]) -> None:
    """Require one of a few values.

    Raises:
        ValueError: If ``value`` is none of them; the message names the argument.
    """
    if value not in allowed:
        msg = f"{name}: got {value!r}; allowed are {', '.join(map(repr, allowed))}"
        raise ValueError(msg)
