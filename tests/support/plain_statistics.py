"""The statistics of `report/stats.py` once more, term by term: loops over seeds, items and clusters, in fractions.

It shares nothing with the code that it is held against but Student's and Fisher's distributions. Numbers may be floats
or fractions; sums of floats are rounded once (`math.fsum`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import combinations, product
from typing import NamedTuple, TypeAlias

from scipy import stats as distributions

Number: TypeAlias = Fraction | float
Row: TypeAlias = Mapping[int, Number]  # seed -> the row's mean over tasks
LEVEL = 0.05


class Task(NamedTuple):
    """Scores or differences: one list a seed, one number an item; and the cluster of each item."""

    values: Sequence[Sequence[Number]]
    groups: Sequence[object] | None = None


class SeedNoise(NamedTuple):
    """MS and ν."""

    mean_square: Number
    freedom: int


class ItemNoise(NamedTuple):
    """VI, df_I and VE; VE is None for a single seed."""

    variance: Number
    freedom: float
    within: Number | None


class Estimate(NamedTuple):
    """What a difference comes to, or a mean."""

    mean: float
    error: float
    freedom: float
    low: float
    high: float
    p: float

    def equal_p(self, margin: float) -> float:
        """The larger p of two one-sided tests: that the difference is above -margin, and that it is below margin."""
        above = distributions.t.cdf(-(self.mean + margin) / self.error, self.freedom)
        below = distributions.t.cdf((self.mean - margin) / self.error, self.freedom)
        return float(max(above, below))


def total(values: Iterable[Number]) -> Number:
    """The sum, exact for fractions."""
    numbers = list(values)
    return sum(numbers, Fraction(0)) if all(isinstance(n, Fraction) for n in numbers) else math.fsum(numbers)


def mean(values: Iterable[Number]) -> Number:
    """The arithmetic mean."""
    numbers = list(values)
    return total(numbers) / len(numbers)


def variance(values: Sequence[Number]) -> Number:
    """The sample variance, by n - 1."""
    return total((value - mean(values)) ** 2 for value in values) / (len(values) - 1)


def by_seed(tasks: Sequence[Task]) -> list[Number]:
    """D_s: the mean over tasks of the mean over items, seed by seed."""
    return [mean(mean(task.values[seed]) for task in tasks) for seed in range(len(tasks[0].values))]


def seed_noise(rows: Sequence[Row]) -> SeedNoise | None:
    """The residual mean square of *row + seed* by least squares, solved exactly."""
    several = [row for row in rows if len(row) >= 2]
    if len(several) < 2:
        return None
    cells = [(place, seed, value) for place, row in enumerate(several) for seed, value in row.items()]
    seeds = sorted({seed for _, seed, _ in cells})
    parameters = [("row", place) for place in range(len(several))] + [("seed", seed) for seed in seeds]
    # The normal equations, line by line: what is observed of a row (a seed) adds up to what is fitted of it.
    lines: list[list[Number]] = []
    for kind, which in parameters:
        own = [cell for cell in cells if cell[0 if kind == "row" else 1] == which]
        counts = [sum(cell[0 if other == "row" else 1] == of for cell in own) for other, of in parameters]
        lines.append([*counts, total(Fraction(value) for *_, value in own)])
    solution, rank = _solve(lines, len(parameters))
    fitted = dict(zip(parameters, solution, strict=True))
    rest = [Fraction(value) - fitted["row", place] - fitted["seed", seed] for place, seed, value in cells]
    freedom = len(cells) - rank
    return SeedNoise(total(part**2 for part in rest) / freedom, freedom) if freedom else None


def _solve(lines: list[list[Number]], unknowns: int) -> tuple[list[Fraction], int]:
    """A solution of linear equations by Gauss and Jordan, unknowns that are free being 0, and their rank."""
    table = [[Fraction(entry) for entry in line] for line in lines]
    pivots: list[int] = []
    for column in range(unknowns):
        place = next((i for i in range(len(pivots), len(table)) if table[i][column]), None)
        if place is None:
            continue
        at = len(pivots)
        table[at], table[place] = table[place], table[at]
        table[at] = [entry / table[at][column] for entry in table[at]]
        for i, line in enumerate(table):
            if i != at and line[column]:
                table[i] = [entry - line[column] * own for entry, own in zip(line, table[at], strict=True)]
        pivots.append(column)
    solution = [Fraction(0)] * unknowns
    for at, column in enumerate(pivots):
        solution[column] = table[at][-1]
    return solution, len(pivots)


def scatter_p(rows: Sequence[Row], which: int) -> float | None:
    """p of F = Grubbs' estimate of a row's variance over the mean square of the others, over the seeds of all."""
    if len(rows[which]) < 2:
        return None
    own, others = rows[which], [row for i, row in enumerate(rows) if i != which and len(row) >= 2]
    seeds = sorted(set(own).intersection(*others)) if others else []
    if len(others) < 2 or len(seeds) < 2:
        return None
    noise = seed_noise([{seed: row[seed] for seed in seeds} for row in others])
    assert noise is not None
    if noise.mean_square == 0:
        return None
    apart = [own[seed] - mean(row[seed] for row in others) for seed in seeds]
    # Var(row - mean of m others) is σ² (1 + 1/m) where all scatter alike
    own_square = variance(apart) / (1 + Fraction(1, len(others)))
    ratio = float(own_square / noise.mean_square)
    return float(distributions.f.sf(ratio, len(seeds) - 1, (len(others) - 1) * (len(seeds) - 1)))


def item_noise(tasks: Sequence[Task]) -> ItemNoise | None:
    """VI, df_I and VE as their formulas have them."""
    terms: list[tuple[Number, int]] = []
    within: list[Number] = []
    for values, groups in tasks:
        seeds, items = range(len(values)), range(len(values[0]))
        clusters: dict[object, list[int]] = {}
        for item in items:
            clusters.setdefault(item if groups is None else groups[item], []).append(item)
        if len(clusters) < 2:
            return None
        of_item = [mean(values[seed][item] for seed in seeds) for item in items]
        of_seed = [mean(values[seed]) for seed in seeds]
        grand = mean(of_item)
        factor = Fraction(len(clusters), (len(clusters) - 1) * len(tasks) ** 2 * len(items) ** 2)
        squares = [total(of_item[item] - grand for item in members) ** 2 for members in clusters.values()]
        terms.append((_times(factor, total(squares)), len(clusters)))
        rest = [[values[s][i] - of_seed[s] - of_item[i] + grand for i in items] for s in seeds]
        squares = [total(line[item] for item in members) ** 2 for line in rest for members in clusters.values()]
        if len(seeds) > 1:
            within.append(_times(factor / (len(seeds) * (len(seeds) - 1)), total(squares)))
    variance_, below = total(term for term, _ in terms), total(term**2 / (count - 1) for term, count in terms)
    return ItemNoise(variance_, float(variance_**2 / below) if below else math.inf, total(within) if within else None)


def _times(factor: Fraction, number: Number) -> Number:
    return factor * number if isinstance(number, Fraction) else float(factor) * number


def difference(
    tasks: Sequence[Task], noise: SeedNoise, *, within: Number | None = None, noisy: bool = False
) -> Estimate:
    """Δ ± t(df) √V of the differences d of two rows; ``within``: mean S·VE of the pairs that have seeds."""
    values, items = by_seed(tasks), item_noise(tasks)
    seeds = len(values)
    if noisy:
        return combined(mean(values), variance(values) / seeds, seeds - 1, items, within)
    return combined(mean(values), 2 * noise.mean_square / seeds, noise.freedom, items, within)


def contrast(
    rows: Sequence[Sequence[Task]],
    weights: Sequence[Fraction],
    noise: SeedNoise,
    *,
    within: Number | None = None,
    noisy: bool = False,
) -> Estimate:
    """Σ c_m y_m over rows, each its scores by task: d item by item, and VS = MS Σ c² / S.

    ``within``: mean S·VE of the pairs that have seeds, of rows as variable as these: a pair has Σ c² = 2.
    """
    tasks = []
    for of_task in zip(*rows, strict=True):
        seeds, items = range(len(of_task[0].values)), range(len(of_task[0].values[0]))
        lines = [
            [total(c * task.values[s][i] for c, task in zip(weights, of_task, strict=True)) for i in items]
            for s in seeds
        ]
        tasks.append(Task(lines, of_task[0].groups))
    values, squares = by_seed(tasks), total(c * c for c in weights)
    of_seeds, freedom = squares * noise.mean_square / len(values), noise.freedom
    if noisy:
        of_seeds, freedom = variance(values) / len(values), len(values) - 1
    share = None if within is None else within * squares / 2
    return combined(mean(values), of_seeds, freedom, item_noise(tasks), share)


def effects(means: Mapping[tuple[int, ...], Number]) -> dict[tuple[tuple[int, int], ...], Number]:
    """(Factor, level) of those that it is of -> the effect, from the mean of every cell, by its definition in words."""
    levels = [sorted({cell[factor] for cell in means}) for factor in range(len(next(iter(means))))]

    def effect(of: tuple[tuple[int, int], ...], fixed: dict[int, int]) -> Number:
        if of:  # the difference between the two levels of the first factor, of the effect of the others
            (factor, level), *others = of
            return effect(tuple(others), fixed | {factor: level}) - effect(tuple(others), fixed | {factor: 0})
        return mean(value for cell, value in means.items() if all(cell[f] == level for f, level in fixed.items()))

    found = {}
    for order in range(1, len(levels) + 1):
        for factors in combinations(range(len(levels)), order):
            for chosen in product(*(levels[factor][1:] for factor in factors)):
                of = tuple(zip(factors, chosen, strict=True))
                found[of] = effect(of, {})
    return found


def alone(tasks: Sequence[Task]) -> Estimate:
    """A row's mean, or what it is above something without seeds: V = s²/S + X."""
    values = by_seed(tasks)
    return combined(mean(values), variance(values) / len(values), len(values) - 1, item_noise(tasks), None)


def combined(
    middle: Number, of_seeds: Number, seed_freedom: float, items: ItemNoise | None, within: Number | None
) -> Estimate:
    """V = VS + X, and Satterthwaite's degrees of freedom; without ``items`` VS alone."""
    excess: Number = 0.0
    if items is not None:
        taken = within if items.within is None else items.within
        excess = max(0, items.variance - (0 if taken is None else taken))
    whole = float(of_seeds) + float(excess)
    freedom = whole**2 / (float(of_seeds) ** 2 / seed_freedom + (float(excess) ** 2 / items.freedom if items else 0.0))
    return estimate(float(middle), math.sqrt(whole), freedom)


def estimate(middle: float, error: float, freedom: float) -> Estimate:
    """Student's interval and two-sided p."""
    half = float(distributions.t.isf(LEVEL / 2, freedom)) * error
    p = 2 * float(distributions.t.cdf(-abs(middle) / error, freedom))
    return Estimate(middle, error, freedom, middle - half, middle + half, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p by its definition: the largest, over all p not above, of p times how many are not below it."""
    ordered = sorted(p_values)
    return [max(min(1.0, (len(ordered) - i) * q) for i, q in enumerate(ordered) if q <= p) for p in p_values]
