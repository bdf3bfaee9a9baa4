"""Statistics of evaluations: crossed over seeds and items, pooled over methods, clustered by passage.

Methods are trained from common seeds and answer common items, so a difference of two methods errs in two ways: other
seeds would have moved it, and other items would. `difference` takes both into account. For two rows *a* and *b* of a
block with S common seeds, T tasks of n items in G clusters (the passage that several questions are about, else the
item), and d[s, i] = score of a minus score of b:

    D_s  mean over tasks of the mean over items of d[s, ·];  Δ = mean of D_s
    MS   residual mean square of the fit *row + seed* to the means of all rows with two seeds or more (`seed_noise`)
    VS   = 2 MS / S, on ν = cells - rows - seeds + 1 degrees of freedom
    VI   = Σ_t T⁻² G/(G-1) Σ_g (Σ_{i in g} (d̄·i - d̄··))² / n²                       (`item_noise`)
    VE   = Σ_t T⁻² G/(G-1) Σ_s Σ_g (Σ_{i in g} r[s,i])² / (S (S-1) n²),  r[s,i] = d[s,i] - d̄s· - d̄·i + d̄··
    X    = max(0, VI - VE), what items add to what seeds show already
    V    = VS + X on V² / (VS²/ν + X²/df_I) degrees of freedom,  df_I = VI² / Σ_t v_t² / (G_t - 1), v_t the terms of VI

A contrast Σ c_m y_m of several rows with Σ c_m = 0, such as an effect in a factorial, is estimated in the same way: D_s
and d[s, i] are then sums over its rows, what a seed does to all rows cancels, and VS = MS Σ c_m² / S, since what is
left is independent from row to row. The difference of two rows is the contrast with c = (1, -1).

This is the restricted maximum likelihood estimate of crossed random effects (row × seed, row × item) wherever none of
its components is negative. Values are in the unit of the scores (fractions, for accuracies).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from itertools import combinations, product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats as distributions

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

LEVEL = 0.05  # of every test; intervals are of 95 %
POWER = 0.8  # with which a detectable effect is found
MOST_SEEDS = 1000  # that are looked through for a wished effect
_LEAST_FREEDOM = 2  # of the seeds' noise, below which it is not estimated
_NO_NOISE = 1e-15  # a variance below is the rounding of equal numbers


def mean_sd(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation (n - 1 below); the latter is None for one value, both for none."""
    if not values:
        return None, None
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


# The noise of seeds


@dataclass(frozen=True)
class SeedNoise:
    """What a seed moves a row by, beyond what it moves all rows by: the mean square MS, on ``freedom`` degrees."""

    mean_square: float
    freedom: int

    @property
    def known(self) -> bool:
        """Whether it is estimated well enough to test with."""
        return self.freedom >= _LEAST_FREEDOM and self.mean_square > _NO_NOISE


def seed_noise(means: npt.ArrayLike) -> SeedNoise | None:
    """MS and ν of ``means`` (rows × seeds, NaN where a row lacks a seed), from its rows with two seeds or more.

    None where fewer than two rows have so many, or nothing is left over by the fit.
    """
    table = np.asarray(means, dtype=np.float64)
    table = table[np.sum(~np.isnan(table), axis=1) >= 2] if table.size else table
    if len(table) < 2 or not table.size:
        return None
    if not np.isnan(table).any():  # every row has every seed, so that the fit is of means
        rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
        freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
        return SeedNoise(float(np.sum(rest**2)) / freedom, freedom)
    rows, seeds = np.nonzero(~np.isnan(table))
    design = np.zeros((len(rows), sum(table.shape)))
    design[np.arange(len(rows)), rows] = 1
    design[np.arange(len(rows)), len(table) + seeds] = 1
    values = table[rows, seeds]
    solution, _, rank, _ = np.linalg.lstsq(design, values, rcond=None)
    freedom = len(values) - int(rank)
    if freedom < 1:
        return None
    return SeedNoise(float(np.sum((values - design @ solution) ** 2)) / freedom, freedom)


def noisier(means: npt.ArrayLike, row: int) -> float | None:
    """p of the F test that a row of ``means`` (rows × seeds) has no larger a variance over seeds than the others.

    The row's variance is taken about the mean of the others at the same seed, as in Grubbs' estimator (1948): with M
    rows, F = var(row - mean of others) (M-1)/M over the others' own MS, on S-1 and (M-2)(S-1) degrees of freedom. Of
    the rows with two seeds or more, over the seeds that all of these have; None where the row is none of them, they
    are fewer than three, or their common seeds fewer than two.
    """
    table = np.asarray(means, dtype=np.float64)
    several = np.sum(~np.isnan(table), axis=1) >= 2
    if not several[row]:
        return None
    place, table = int(several[:row].sum()), table[several]
    table = table[:, ~np.isnan(table).any(axis=0)]
    rows, seeds = table.shape
    if rows < 3 or seeds < 2:
        return None
    others = np.delete(table, place, axis=0)
    pooled = seed_noise(others)
    if pooled is None or pooled.mean_square <= _NO_NOISE:
        return None
    own = float(np.var(table[place] - others.mean(axis=0), ddof=1)) * (rows - 1) / rows
    return float(distributions.f.sf(own / pooled.mean_square, seeds - 1, pooled.freedom))


# The noise of items


class TaskItems(NamedTuple):
    """Scores, or differences of scores, on the items of a task.

    ``values``: seeds × items. ``groups``: the cluster of every item, numbered from 0; None where each is its own.
    """

    values: Floats
    groups: Integers | None = None


@dataclass(frozen=True)
class ItemNoise:
    """Variances of a mean over tasks that come from the choice of items.

    ``variance`` is VI, of the mean over seeds, on ``freedom`` degrees; ``within`` is VE, the part of it that differs
    from seed to seed and so is in the noise of seeds already; None for a single seed.
    """

    variance: float
    freedom: float
    within: float | None


def item_noise(tasks: Sequence[TaskItems]) -> ItemNoise | None:
    """VI, df_I and VE of ``tasks``; None where there is none, or one has fewer than two clusters."""
    if not tasks:
        return None
    variance = squares = within = 0.0
    seeds = len(tasks[0].values)
    for values, groups in tasks:
        items = values.shape[1]
        clusters = items if groups is None else len(np.unique(groups))
        if clusters < 2:
            return None
        factor = clusters / (clusters - 1) / (items * len(tasks)) ** 2
        means = values.mean(axis=0)
        term = factor * _cluster_square(means - means.mean(), groups)
        variance += term
        squares += term**2 / (clusters - 1)
        if seeds > 1:
            rest = values - values.mean(axis=1, keepdims=True) - means + means.mean()
            within += factor * sum(_cluster_square(row, groups) for row in rest) / (seeds * (seeds - 1))
    freedom = variance**2 / squares if squares > 0 else math.inf
    return ItemNoise(variance, freedom, within if seeds > 1 else None)


def _cluster_square(deviations: Floats, groups: Integers | None) -> float:
    """Sum over clusters of the squared sums of their deviations."""
    sums = deviations if groups is None else np.bincount(groups, weights=deviations)
    return float(np.dot(sums, sums))


# Differences and means with their errors


class Basis(StrEnum):
    """Where the noise of seeds in an interval comes from."""

    POOLED = "pooled"
    """From all rows of the block together."""
    OWN = "own"
    """From the row's own seeds: it scatters more than the others, or nothing is shared."""
    BORROWED = "borrowed"
    """From the rows that have several seeds; this one has one."""
    MODELS = "models"
    """From nowhere: the interval is of these trained models on other items, and says nothing of methods."""


@dataclass(frozen=True)
class Estimate:
    """A mean, or a mean difference, in the unit of the scores.

    ``error`` is its standard error √V on ``freedom`` degrees; None where there is none to be had. ``of_items``: whether
    the choice of items is in it. ``exact``: McNemar's p, in place of that of t, for two models on right and wrong
    answers.
    """

    mean: float
    error: float | None
    freedom: float | None
    seeds: int
    basis: Basis
    of_items: bool
    exact: float | None = None

    @property
    def half_width(self) -> float | None:
        """Half the 95 % interval."""
        if self.error is None or self.freedom is None:
            return None
        return t_half_width(self.error, self.freedom)

    @property
    def low(self) -> float | None:
        """Lower end of the 95 % interval; None without an error."""
        return None if self.half_width is None else self.mean - self.half_width

    @property
    def high(self) -> float | None:
        """Upper end of the 95 % interval; None without an error."""
        return None if self.half_width is None else self.mean + self.half_width

    @property
    def p(self) -> float | None:
        """Two-sided p of no difference; None without an error."""
        if self.exact is not None or self.error is None or self.freedom is None:
            return self.exact
        if self.error == 0:
            return None if self.mean else 1.0
        return 2 * _t_tail(abs(self.mean) / self.error, self.freedom)

    @property
    def negative(self) -> Estimate:
        """The same difference seen from the other side."""
        return replace(self, mean=0.0 - self.mean)  # no signed zero

    @property
    def of_methods(self) -> bool:
        """Whether it speaks of methods, and not just of the models that were trained."""
        return self.basis is not Basis.MODELS

    def equal_p(self, margin: float) -> float | None:
        """p of the two one-sided tests (TOST) that the difference lies outside ±``margin``; None without an error."""
        if self.error is None or self.freedom is None:
            return None
        if self.error == 0:
            return 0.0 if abs(self.mean) < margin else 1.0
        return _t_tail((margin - abs(self.mean)) / self.error, self.freedom)


def difference(
    by_seed: Sequence[float],
    items: Sequence[TaskItems] | None,
    noise: SeedNoise | None,
    *,
    within: float | None = None,
    noisy: bool = False,
) -> Estimate:
    """A row minus another of its block: the `contrast` with the weights 1 and -1."""
    return contrast((1.0, -1.0), by_seed, items, noise, within=within, noisy=noisy)


def contrast(
    weights: Sequence[float],
    by_seed: Sequence[float],
    items: Sequence[TaskItems] | None,
    noise: SeedNoise | None,
    *,
    within: float | None = None,
    noisy: bool = False,
) -> Estimate:
    """Σ c_m y_m over rows m of one block, ``weights`` being c: the estimator of the module's docstring.

    ``by_seed``: D_s, one value a seed that all rows have. ``items``: d by task, None where the items are not known; the
    interval then leaves out their choice. ``noise``: that of the block. ``noisy``: whether one of the rows scatters
    more than the others (`noisier`), so that the contrast's own variance takes the place of VS, with S - 1 degrees of
    freedom, unless its values are equal by chance.
    A single seed borrows VS = MS Σ c², with X = max(0, VI - ``within`` Σ c² / 2), ``within`` being the mean of S·VE
    over the pairs of rows that have seeds. Where the block's noise is not known the interval is of the items alone,
    unless no item tells anything at any seed: the contrast is then 0, without error.
    """
    values, squares = np.asarray(by_seed, dtype=np.float64), math.fsum(weight * weight for weight in weights)
    seeds = len(values)
    if noise is None or not noise.known:
        if noise is not None and noise.freedom >= _LEAST_FREEDOM and seeds > 1 and _alike(items):
            return Estimate(0.0, 0.0, float(noise.freedom), seeds, Basis.POOLED, True)
        return _of_models(values, items, pair=sorted(weights) == [-1, 1])
    own = float(np.var(values, ddof=1)) if noisy and seeds > 1 else 0.0
    if own > _NO_NOISE:
        of_seeds, freedom, basis = own / seeds, float(seeds - 1), Basis.OWN
    else:
        of_seeds, freedom = squares * noise.mean_square / seeds, float(noise.freedom)
        basis = Basis.POOLED if seeds > 1 else Basis.BORROWED
    return _combined(values, of_seeds, freedom, basis, item_noise(items or ()), (within or 0.0) * (squares / 2))


def _alike(items: Sequence[TaskItems] | None) -> bool:
    """Whether no item tells the rows apart."""
    return bool(items) and not any(values.any() for values, _ in items or ())


def alone(
    by_seed: Sequence[float],
    items: Sequence[TaskItems] | None,
    *,
    borrowed: SeedNoise | None = None,
    within: float | None = None,
) -> Estimate:
    """A row's own mean, a row minus the untrained model, or one setting minus another: V = s²/S + X, on S - 1 degrees.

    What a seed does to all rows alike does not cancel here. A single seed, or seeds that are equal by chance, take s²
    from ``borrowed`` (`spread_of_rows`), or else have an interval of the items alone. The other arguments are those of
    `difference`.
    """
    values = np.asarray(by_seed, dtype=np.float64)
    seeds = len(values)
    if seeds > 1 and (spread := float(np.var(values, ddof=1))) > _NO_NOISE:
        return _combined(values, spread / seeds, seeds - 1.0, Basis.OWN, item_noise(items or ()), within)
    if borrowed is not None and borrowed.mean_square > _NO_NOISE:
        of_seeds, freedom = borrowed.mean_square / seeds, float(borrowed.freedom)
        return _combined(values, of_seeds, freedom, Basis.BORROWED, item_noise(items or ()), within)
    return _of_models(values, items)


def spread_of_rows(means: npt.ArrayLike) -> SeedNoise | None:
    """The mean variance over seeds of the rows of ``means`` with two seeds or more; None where there is none.

    On one degree fewer than the most seeds of a row: the seeds are common, so many rows tell little more than one.
    """
    table = np.asarray(means, dtype=np.float64)
    counts = np.sum(~np.isnan(table), axis=1) if table.size else np.array([])
    if not (counts >= 2).any():
        return None
    spreads = np.nanvar(table[counts >= 2], axis=1, ddof=1)
    return SeedNoise(float(spreads.mean()), int(counts.max()) - 1)


def _combined(
    values: Floats, of_seeds: float, freedom: float, basis: Basis, items: ItemNoise | None, within: float | None
) -> Estimate:
    """VS and X in one error, with Satterthwaite's degrees of freedom."""
    excess = 0.0
    if items is not None:
        excess = max(0.0, items.variance - ((within or 0.0) if items.within is None else items.within))
    variance = of_seeds + excess
    parts = of_seeds**2 / freedom + (excess**2 / items.freedom if items else 0.0)
    return Estimate(
        float(values.mean()), math.sqrt(variance), variance**2 / parts, len(values), basis, items is not None
    )


def _of_models(values: Floats, items: Sequence[TaskItems] | None, *, pair: bool = True) -> Estimate:
    """The interval over items alone, with McNemar's exact p where all differences are those of right and wrong.

    ``pair``: whether they are of two models, of which alone that test speaks.
    """
    noise, mean = item_noise(items or ()), float(values.mean())
    if noise is None or items is None:
        return Estimate(mean, None, None, len(values), Basis.MODELS, False)
    exact = _mcnemar(items) if pair and len(values) == 1 else None
    return Estimate(mean, math.sqrt(noise.variance), noise.freedom, len(values), Basis.MODELS, True, exact)


def _mcnemar(items: Sequence[TaskItems]) -> float | None:
    """McNemar's exact p of one task; None for several, for clusters, and where values are not -1, 0 and 1."""
    if len(items) != 1 or items[0].groups is not None or not np.isin(items[0].values, (-1, 0, 1)).all():
        return None
    wins, losses = int(np.sum(items[0].values > 0)), int(np.sum(items[0].values < 0))
    return float(distributions.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def t_half_width(error: float, freedom: float) -> float:
    """Half the width of Student's 95 % interval around a mean with the standard error ``error``."""
    return _t_quantile(freedom) * error


# One estimate is asked for its ends, its p and its verdict many times over, and scipy takes long to look up a number.


@lru_cache(maxsize=2**16)
def _t_tail(value: float, freedom: float) -> float:
    return float(distributions.t.sf(value, freedom))


@lru_cache(maxsize=2**16)
def _t_quantile(freedom: float) -> float:
    return float(distributions.t.ppf(1 - LEVEL / 2, freedom))


# Effects of a factorial


class EffectWeights(NamedTuple):
    """A main effect or an interaction as a contrast of the cells of a factorial.

    ``factors``: positions of the factors that it is of. ``levels``: of each of them the level that is compared with the
    first one, 0. ``weights``: of every cell, in the order of `itertools.product` of the levels.
    """

    factors: tuple[int, ...]
    levels: tuple[int, ...]
    weights: tuple[float, ...]


def factorial_effects(levels: Sequence[int]) -> list[EffectWeights]:
    """The effects of a factorial whose factors have so many ``levels``, two or more each; main effects first.

    The effect of a level is that level minus the first, mean over all combinations of the other factors' levels. An
    interaction of two factors is the difference of such differences, mean over the others; one of three factors is the
    difference of two of these, and so on: the product over factors of (e_level - e_0) for those that the effect is of,
    and of 1 / levels for the others.

    >>> factorial_effects([2, 2])[2].weights
    (1.0, -1.0, -1.0, 1.0)
    """
    effects = []
    for order in range(1, len(levels) + 1):
        for factors in combinations(range(len(levels)), order):
            for chosen in product(*(range(1, levels[factor]) for factor in factors)):
                weights = np.ones(1)
                for factor, count in enumerate(levels):
                    of_factor = np.full(count, 1 / count)
                    if factor in factors:
                        of_factor = np.zeros(count)
                        of_factor[[0, chosen[factors.index(factor)]]] = -1, 1
                    weights = np.outer(weights, of_factor).ravel()
                effects.append(EffectWeights(factors, chosen, tuple(map(float, weights))))
    return effects


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment of a family of p-values, in the order given; None is no member.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    least = 0.0  # what the smaller ones came to
    for rank, (p, i) in enumerate(known):
        adjusted[i] = least = max(least, min(1.0, (len(known) - rank) * p))
    return adjusted


# What a study can see


@dataclass(frozen=True)
class PairNoise:
    """What the difference of two rows of a block errs by, as measured: the ground of a plan for other seeds and items.

    ``mean_square`` is MS and ``of_items`` the part of it that comes from the items (S·VE / 2, mean over pairs);
    ``excess`` is X, mean over pairs, where an F test at 5 % tells VI from VE, and else 0. ``item_freedom``: of X.
    """

    mean_square: float
    of_items: float = 0.0
    excess: float = 0.0
    item_freedom: float = math.inf

    def on(self, share: float) -> PairNoise:
        """The same with ``share`` of this study's items, 2 for twice as many: what they cause goes with 1 / share."""
        of_items = min(self.of_items, self.mean_square)
        return replace(
            self,
            mean_square=self.mean_square - of_items + of_items / share,
            of_items=of_items / share,
            excess=self.excess / share,
        )


def pair_noise(noise: SeedNoise, pairs: Sequence[ItemNoise], seeds: int) -> PairNoise:
    """The noise of a block's pairs: that of its seeds, and what the items of its ``pairs`` at ``seeds`` seeds add."""
    known = [  # but of two rows that answer alike, which have no noise and no degrees of freedom
        (pair.variance, pair.within, pair.freedom)
        for pair in pairs
        if pair.within is not None and pair.freedom < math.inf
    ]
    if not known:
        return PairNoise(noise.mean_square)
    across, within, freedom = map(float, np.mean(known, axis=0))
    told = within <= 0 or distributions.f.sf(across / within, freedom, freedom * (seeds - 1)) < LEVEL
    return PairNoise(noise.mean_square, seeds * within / 2, max(0.0, across - within) if told else 0.0, freedom)


def power(effect: float, noise: PairNoise, *, seeds: int, rows: int, freedom: float | None = None) -> float:
    """The chance that a true difference ``effect`` is told from none by ``rows`` rows of ``seeds`` seeds each.

    Two-sided at 5 %, for one comparison by itself, averaged over what MS may come to in such a study. ``freedom``: of
    MS, by default (rows - 1)(seeds - 1); a single seed has none of its own.
    """
    freedom = float((rows - 1) * (seeds - 1)) if freedom is None else freedom
    if freedom < _LEAST_FREEDOM:
        return 0.0
    squares = noise.mean_square * _quantiles_of_mean_square(freedom)
    of_seeds = 2 * squares / seeds
    variance = of_seeds + noise.excess
    estimated = variance**2 / (of_seeds**2 / freedom + noise.excess**2 / noise.item_freedom)
    critical = distributions.t.ppf(1 - LEVEL / 2, estimated) * np.sqrt(variance)
    error = math.sqrt(2 * noise.mean_square / seeds + noise.excess)
    upper = distributions.norm.sf((critical - effect) / error)
    lower = distributions.norm.sf((critical + effect) / error)
    return float(np.mean(upper + lower))


@lru_cache(maxsize=64)
def _quantiles_of_mean_square(freedom: float) -> Floats:
    """Evenly spaced quantiles of χ²/ν, over which a mean square is averaged."""
    shares = (np.arange(500) + 0.5) / 500
    return np.asarray(distributions.chi2.ppf(shares, freedom) / freedom, dtype=np.float64)


def detectable_effect(noise: PairNoise, *, seeds: int, rows: int, freedom: float | None = None) -> float | None:
    """The smallest true difference that is told from none with a chance of 80 %; None where none can be tested."""
    from scipy.optimize import brentq

    freedom = float((rows - 1) * (seeds - 1)) if freedom is None else freedom
    if freedom < _LEAST_FREEDOM or noise.mean_square <= _NO_NOISE:
        return None
    error = math.sqrt(2 * noise.mean_square / seeds + noise.excess)

    def lacking(effect: float) -> float:
        return power(effect, noise, seeds=seeds, rows=rows, freedom=freedom) - POWER

    return float(brentq(lacking, 0.0, 100 * error, xtol=1e-6 * error))


def seeds_for(effect: float, noise: PairNoise, *, rows: int, further: int = 0) -> int | None:
    """The fewest seeds a row with which ``effect`` is detectable; None where a thousand are not enough.

    ``further``: degrees of freedom of MS that rows of fewer seeds add.
    """

    def enough(seeds: int) -> bool:
        return power(effect, noise, seeds=seeds, rows=rows, freedom=(rows - 1) * (seeds - 1) + further) >= POWER

    if not enough(MOST_SEEDS):
        return None
    low, high = 1, MOST_SEEDS  # not enough, enough: power grows with the seeds
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def deviation_factors(freedom: int) -> tuple[float, float]:
    """What a standard deviation on ``freedom`` degrees is multiplied by for the ends of its 95 % interval (by χ²)."""
    ends = (float(distributions.chi2.ppf(share, freedom)) for share in (1 - LEVEL / 2, LEVEL / 2))
    low, high = (math.sqrt(freedom / end) for end in ends)
    return low, high


def smooth(values: Sequence[float], window: int) -> list[float]:
    """Centred running mean over ``window`` values, fewer at the ends; as long as the input."""
    half, sums, places = window // 2, np.concatenate([[0.0], np.cumsum(values)]), np.arange(len(values))
    low, high = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    means: list[float] = ((sums[high] - sums[low]) / (high - low)).tolist()
    return means


# Rows that share no block


class Sample(NamedTuple):
    """What one side of a comparison scored, of two that share no block: other studies, machines or conditions.

    ``by_seed``: a mean over tasks a seed. ``items``: its scores by task, their lines as in ``by_seed``; None where they
    are not known. ``fixed``: whether no seed moves it, as an untrained model. A single seed takes its variance from
    ``borrowed`` (`spread_of_rows`) and its VE from ``within``, the mean of S·VE over the rows that have several.
    """

    by_seed: Sequence[float]
    items: Sequence[TaskItems] | None = None
    fixed: bool = False
    borrowed: SeedNoise | None = None
    within: float | None = None


def between(ours: Sample, theirs: Sample, *, same_seeds: bool, same_items: Sequence[bool] = ()) -> Estimate:
    """One side minus another, for rows of no common block, whose noise of seeds cannot be pooled.

    ``same_seeds``: whether line s of one side is of the seed of line s of the other, and is compared with it.
    ``same_items``: of every task, whether the columns are of the same items. With a and b for the two sides, A and B
    for their means by seed, and the sums over tasks and clusters of `item_noise`:

        VS = s²(A_s - B_s) / S on S - 1 degrees of freedom with the same seeds, else s²(A)/S_A + s²(B)/S_B on
             VS² / Σ (s²/S)² / (S - 1) (Welch 1938, Satterthwaite 1946)
        VI = of a task with the same items that of ā·i - b̄·i, else the sum of those of ā·i and of b̄·i
        VE = with the same seeds and items that of a[s,i] - b[s,i], else the sum of those of a and of b
        X, V and their degrees of freedom as in the module's docstring

    With the same seeds and items this is `alone` of the differences. Where the variance of a side's seeds is not known
    the interval is of the items alone.
    """
    a, b = (np.asarray(side.by_seed, dtype=np.float64) for side in (ours, theirs))
    known = ours.items is not None and theirs.items is not None
    tasks = list(zip(ours.items or (), theirs.items or (), strict=True)) if known else []
    if same_seeds and all(same_items):
        return alone([*(a - b)], [TaskItems(x.values - y.values, x.groups) for x, y in tasks] or None)
    sides = [side for side in (ours, theirs) if not side.fixed]
    parts = [_spread(a - b, None)] if same_seeds else [_spread(side.by_seed, side.borrowed) for side in sides]
    mean, seeds = float(a.mean() - b.mean()), min((len(side.by_seed) for side in sides), default=1)
    items = _noise_of_two([_task_noise(x, y, same_seeds, same) for (x, y), same in zip(tasks, same_items, strict=True)])
    of_seeds = [part for part in parts if part is not None]
    if not parts or len(of_seeds) < len(parts):
        if items is None:
            return Estimate(mean, None, None, seeds, Basis.MODELS, False)
        return Estimate(mean, math.sqrt(items.variance), items.freedom, seeds, Basis.MODELS, True)
    borrowed = [side.within or 0.0 for side in sides if len(side.by_seed) == 1]
    excess = max(0.0, items.variance - (items.within or 0.0) - sum(borrowed)) if items else 0.0
    variance = sum(value for value, _ in of_seeds) + excess
    terms = [value**2 / freedom for value, freedom in of_seeds] + ([excess**2 / items.freedom] if items else [])
    basis = Basis.BORROWED if not same_seeds and any(_spread(s.by_seed, None) is None for s in sides) else Basis.OWN
    return Estimate(mean, math.sqrt(variance), variance**2 / sum(terms), seeds, basis, items is not None)


def _spread(by_seed: Sequence[float] | Floats, borrowed: SeedNoise | None) -> tuple[float, float] | None:
    """s²/S and its degrees of freedom, from the seeds or else from what is borrowed; None without either."""
    seeds = len(by_seed)
    if seeds > 1 and (spread := float(np.var(by_seed, ddof=1))) > _NO_NOISE:
        return spread / seeds, seeds - 1.0
    if borrowed is not None and borrowed.mean_square > _NO_NOISE:
        return borrowed.mean_square / seeds, float(borrowed.freedom)
    return None


def _task_noise(ours: TaskItems, theirs: TaskItems, same_seeds: bool, same_items: bool) -> list[ItemNoise | None]:
    """The noise of a task's items in a difference: one entry where they are the same, else one a side."""
    alone_each = [item_noise([ours]), item_noise([theirs])]
    if not same_items:
        return alone_each
    if same_seeds:
        return [item_noise([TaskItems(ours.values - theirs.values, ours.groups)])]
    means = ours.values.mean(axis=0) - theirs.values.mean(axis=0)
    together = item_noise([TaskItems(means[np.newaxis], ours.groups)])
    within = sum((noise.within or 0.0) for noise in alone_each if noise is not None)
    return [together and replace(together, within=within)]


def _noise_of_two(tasks: Sequence[Sequence[ItemNoise | None]]) -> ItemNoise | None:
    """The parts of `_task_noise` in one, of a mean over the tasks; None where there is none, or one is not known."""
    parts = [part for task in tasks for part in task if part is not None]
    if not tasks or len(parts) < sum(map(len, tasks)):
        return None
    share = 1 / len(tasks) ** 2
    variance = share * sum(part.variance for part in parts)
    squares = sum((share * part.variance) ** 2 / part.freedom for part in parts)
    return ItemNoise(
        variance, variance**2 / squares if squares > 0 else math.inf, share * sum(part.within or 0.0 for part in parts)
    )
