"""Small-sample statistics of the report: means over seeds, paired intervals, Holm's correction.

The unit is a seed. Two rows of a table are compared by the differences of their means at equal seeds, with
Student's t over these differences. With few seeds that is all that the data can bear: the test covers what
changes with the seed (initialisation, order of the data, dropout), not which items happen to be in a test
set; for the latter the report gives the binomial standard error of a mean over items (`item_error`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats as distributions


def mean_sd(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation (n - 1 below); the latter is None for one value, both for none."""
    if not values:
        return None, None
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences, in the unit of the values; interval and p need two pairs that differ."""

    mean: float
    low: float | None
    high: float | None
    p: float | None
    pairs: int

    @property
    def includes_zero(self) -> bool:
        """Whether 'no difference' is not excluded; so it is, too, where there is no interval."""
        return self.low is None or self.high is None or self.low <= 0 <= self.high


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference | None:
    """Ours minus theirs over their common seeds: mean, two-sided 95 % interval by t, and p; None without such seeds.

    >>> paired({0: 3.0, 1: 4.0, 2: 5.0}, {0: 2.0, 1: 2.0, 2: 2.0}).mean
    2.0
    """
    deltas = np.array([ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())])
    n = len(deltas)
    if n == 0:
        return None
    mean = float(deltas.mean())
    if n == 1:
        return Difference(mean, None, None, None, 1)
    error = float(deltas.std(ddof=1)) / math.sqrt(n)
    if error < 1e-12:  # all pairs differ by the same, as scores of few items may by rounding: no noise to test against
        return Difference(mean, None, None, None, n)
    half = t_half_width(error, n - 1)
    p = 2 * float(distributions.t.sf(abs(mean) / error, n - 1))
    return Difference(mean, mean - half, mean + half, p, n)


def t_half_width(error: float, freedom: int) -> float:
    """Half the width of Student's 95 % interval around a mean with the standard error ``error``."""
    return float(distributions.t.ppf(0.975, freedom)) * error


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment of a family of p-values, in the order given; None is no member.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        adjusted[i] = largest
    return adjusted


def item_error(errors: Sequence[float | None]) -> float | None:
    """Standard error of the mean of independent task scores from theirs; None if one is missing."""
    known = [error for error in errors if error is not None and not math.isnan(error)]
    if not known or len(known) < len(errors):
        return None
    return math.sqrt(sum(error**2 for error in known)) / len(known)


def smooth(values: Sequence[float], window: int) -> list[float]:
    """Centred running mean over ``window`` values, fewer at the ends; as long as the input."""
    half, sums = window // 2, np.concatenate([[0.0], np.cumsum(values)])
    edges = ((max(0, i - half), min(len(values), i + half + 1)) for i in range(len(values)))
    return [float((sums[high] - sums[low]) / (high - low)) for low, high in edges]
