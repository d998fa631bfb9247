# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""The transformations that a discriminator learns to tell apart (Sec. 3.1; supplement, Sec. 1).

See :class:`~anomalib_htdgm.models.htdgm.pretext.Transformation` for what one is made of.

Example:
    >>> {name: len(each) for name, each in TRANSFORMATION_SETS.items()}
    {'full': 54, 'grayscale': 42, 'rotations': 4, 'symmetries': 16}
"""

from itertools import product

from anomalib_htdgm.models.htdgm.pretext import TRANSFORMATIONS, Transformation

# The groups of the supplement's table: indices 1-32, 33-38 and 39-42 ...
_COLOUR = (
    [Transformation(*steps) for steps in product((False, True), (0, 1), (0, 1), range(4))]
    + [Transformation(*steps, -1) for steps in product((False, True), (-1, 0, 1))]
    + [Transformation(*steps) for steps in product((False, True), (-1,), (0, 1))]
)
# ... and, without colour, 43-50, 51-52 and 53-54.
_GRAY = (
    [Transformation(flip, 0, 0, turns, True) for flip, turns in product((False, True), range(4))]
    + [Transformation(right=right, grayscale=True) for right in (-1, 1)]
    + [Transformation(down=down, grayscale=True) for down in (-1, 1)]
)

TRANSFORMATION_SETS: dict[str, list[Transformation]] = {
    "full": _COLOUR + _GRAY,
    "grayscale": _COLOUR,
    "rotations": list(TRANSFORMATIONS["rotations"]),
    "symmetries": list(TRANSFORMATIONS["symmetries"]),
}
"""All 54 for colour images, 42 for grey ones, and the four rotations that DifferNet has, too (Sec. 4.2, "Ours2"). Not
the paper's: ``symmetries``, the 54 without translations, for a training that is a third as long."""
