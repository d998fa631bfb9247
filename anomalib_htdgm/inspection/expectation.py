# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""What to expect of new good photographs: how many of a hundred will be called anomalous, and how sure that is.

Logarithms of good photographs' scores are taken for normally distributed. Their mean and deviation are known by few
photographs that were scored as if they had not been seen. So the share of good ones above a threshold is known by a
noncentral t distribution: the interval of a tolerance limit, read backwards. It is wide for three photographs, as it
has to be.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special, stats

from anomalib_htdgm.models.htdgm.threshold import DEVIATIONS, USUAL_DEVIATION

TAILS = 0.05, 0.95
"""Ends of an interval that what happens is to be within in nine of ten cases."""
WEIGHT = 2
"""Photographs that the usual deviation counts for. With more, intervals are too narrow where good photographs differ
much: in simulations of deviations from 0.03 to 0.3 and of 3 and 10 photographs, 87 % or more are right."""
HUNDRED = 100


@dataclass(frozen=True)
class Expectation:
    """How many of a hundred good photographs will be called anomalous.

    Args:
        about (float): The mean.
        least (int): Least number, but for one case in twenty.
        most (int): Greatest number, but for one case in twenty.
    """

    about: float
    least: int
    most: int

    def __str__(self) -> str:
        """Say it in a sentence."""
        about = "fewer than 1" if self.about < 0.5 else f"about {self.about:.0f}"  # noqa: PLR2004  # what rounds to 0
        return f"Of {HUNDRED} good ones {about} will be called anomalous (between {self.least} and {self.most})."


@dataclass(frozen=True)
class Spread:
    """How the logarithms of good photographs' raw scores are spread, as far as is known.

    Args:
        middle (float): Their mean, or median.
        deviation (float): Their standard deviation, drawn towards the usual one.
        number (int): How many photographs tell the middle.
        freedom (int): Degrees of freedom of the deviation.
    """

    middle: float
    deviation: float
    number: int
    freedom: int

    def expect(self, threshold: float) -> Expectation:
        """Say how many of a hundred good photographs will be above a raw threshold.

        The interval is of the number itself. So it has both the doubt about the share, and the chance of a hundred.
        """
        distance = self._distance(threshold)
        scale = math.sqrt(1 + 1 / self.number)
        about = HUNDRED * float(stats.t.sf(distance / scale, self.freedom))
        # Of the quantile that the threshold is: the smaller it is, the more are above.
        shares = [float(stats.norm.sf(self._quantile(distance, tail))) for tail in reversed(TAILS)]
        least, most = (stats.binom.ppf(tail, HUNDRED, share) for tail, share in zip(TAILS, shares, strict=True))
        return Expectation(about, int(max(least, 0)), int(max(most, 0)))

    def band(self, threshold: float) -> tuple[float, float]:
        """Give the raw scores around a threshold between which these photographs cannot tell good from anomalous.

        The threshold is to let a certain share of good photographs pass. Which raw score really lets this share pass is
        known as little as the spread is: within the tolerance limits of that quantile, of the same noncentral t
        distribution as :meth:`expect`'s interval. These limits are the band. It ends where ten times as many
        photographs would hardly move it; three leave a wide one.

        Returns:
            tuple[float, float]: Its ends, at least 0; the threshold lies between them.
        """
        distance = self._distance(threshold)
        root = math.sqrt(self.number)
        # Half the confidence: a band of nine tenths would take in most defects of three photographs.
        limits = stats.nct.ppf((0.25, 0.75), self.freedom, distance * root) / root
        low, high = (math.exp(self.middle + limit * self.deviation) for limit in limits)
        return min(low, threshold), max(high, threshold)

    def _distance(self, threshold: float) -> float:
        return (_logarithms([threshold])[0] - self.middle) / self.deviation

    def _quantile(self, distance: float, tail: float) -> float:
        """Give an end of the interval of the true quantile, by the distribution that its estimate implies."""
        # The sum of a scaled chi and a normal variable has no closed form: a mixture of normals over a grid has.
        means = distance * np.sqrt(stats.chi2.ppf(_GRID, self.freedom) / self.freedom)
        deviation = 1 / math.sqrt(self.number)
        ends = float(means.min()) - 6 * deviation, float(means.max()) + 6 * deviation
        return float(optimize.brentq(lambda end: special.ndtr((end - means) / deviation).mean() - tail, *ends))


_GRID = (np.arange(200) + 0.5) / 200


def spread_of_unseen(scores: Sequence[float]) -> Spread | None:
    """Learn the spread from raw scores of good photographs that had not been seen; fewer than two tell nothing."""
    if len(scores) < 2:  # noqa: PLR2004
        return None
    logarithms, number = _logarithms(scores), len(scores)
    freedom = number - 1 + WEIGHT
    squares = (number - 1) * float(logarithms.var(ddof=1)) + WEIGHT * USUAL_DEVIATION**2
    return Spread(float(logarithms.mean()), math.sqrt(squares / freedom), number, freedom)


def spread_around(threshold: float) -> Spread:
    """Guess the spread where nothing but a threshold is known: the usual one, as of a single photograph."""
    middle = float(_logarithms([threshold])[0]) - DEVIATIONS * USUAL_DEVIATION
    return Spread(middle, USUAL_DEVIATION, 1, WEIGHT)


def expect_by_count(above: int, number: int) -> Expectation:
    """Say how many of a hundred will be above the threshold, by how many of those that are known are.

    Known are good ones by a person's decision, or photographs as they come, of which more are above than of good ones.
    The number is beta-binomial, by Jeffreys' prior.

    Raises:
        ValueError: If not ``0 <= above <= number``.
    """
    if not 0 <= above <= number:
        msg = f"above: got {above} of {number}; allowed are 0 to {number}"
        raise ValueError(msg)
    share = stats.betabinom(HUNDRED, above + 0.5, number - above + 0.5)
    return Expectation(float(share.mean()), *(int(share.ppf(tail)) for tail in TAILS))


def _logarithms(scores: Sequence[float]) -> np.ndarray:
    return np.log(np.clip(np.asarray(scores, dtype=float), np.finfo(np.float32).tiny, None))
