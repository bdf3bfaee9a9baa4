"""Rows that share no block: the estimate against a plain version, and how often its interval holds the truth."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats as distributions

from mosld_bench.reporting import stats
from mosld_bench.reporting.stats import Basis, Sample, SeedNoise, TaskItems

ITEMS, TASKS = 60, 3


def _sample(seeds: int, *, seed: int, clustered: bool = True) -> Sample:
    """Made-up scores on the items of three tasks, of which the first has passages of three items."""
    draw = np.random.default_rng(seed)
    groups = [np.arange(ITEMS) // 3 if clustered else None, None, None]
    tasks = [TaskItems(draw.normal(size=(seeds, ITEMS)) + draw.normal(size=ITEMS), group) for group in groups]
    return Sample([float(np.mean([task.values[s].mean() for task in tasks])) for s in range(seeds)], tasks)


def _sums(deviations: np.ndarray, groups: np.ndarray | None) -> float:
    """Sum over clusters of squared sums, one by one."""
    names = range(len(deviations)) if groups is None else groups
    sums: dict[int, float] = {}
    for value, name in zip(deviations, names, strict=True):
        sums[int(name)] = sums.get(int(name), 0.0) + float(value)
    return sum(value**2 for value in sums.values())


def _item_parts(task: TaskItems) -> tuple[float, float, float]:
    """A task's VI, its degrees of freedom, and VE, by the formulas as they are written."""
    values, seeds = task.values, len(task.values)
    clusters = ITEMS if task.groups is None else len(set(task.groups.tolist()))
    factor = clusters / (clusters - 1) / ITEMS**2
    across = factor * _sums(values.mean(axis=0) - values.mean(), task.groups)
    within = 0.0
    if seeds > 1:
        for s in range(seeds):
            rest = [values[s, i] - values[s].mean() - values[:, i].mean() + values.mean() for i in range(ITEMS)]
            within += factor * _sums(np.array(rest), task.groups) / (seeds * (seeds - 1))
    return across, clusters - 1.0, within


def _plain(a: Sample, b: Sample, same_seeds: bool, same_items: bool) -> tuple[float, float, float]:
    """Difference, standard error and degrees of freedom, by the formulas of the docstring."""
    means = [np.array(side.by_seed) for side in (a, b)]
    if same_seeds:
        count = len(means[0])
        seeds = [(float(np.var(means[0] - means[1], ddof=1)) / count, count - 1)]
    else:
        seeds = [(float(np.var(m, ddof=1)) / len(m), len(m) - 1) for m in means]
    parts: list[tuple[float, float]] = []
    within = 0.0
    for x, y in zip(a.items or (), b.items or (), strict=True):
        if same_items and same_seeds:
            across, freedom, own = _item_parts(TaskItems(x.values - y.values, x.groups))
            parts.append((across / TASKS**2, freedom))
            within += own / TASKS**2
            continue
        sides = [_item_parts(x), _item_parts(y)]
        within += sum(own for *_, own in sides) / TASKS**2
        if same_items:
            difference = TaskItems((x.values.mean(axis=0) - y.values.mean(axis=0))[None], x.groups)
            across, freedom, _ = _item_parts(difference)
            parts.append((across / TASKS**2, freedom))
        else:
            parts += [(across / TASKS**2, freedom) for across, freedom, _ in sides]
    across = sum(v for v, _ in parts)
    item_freedom = across**2 / sum(v**2 / f for v, f in parts)
    excess = max(0.0, across - within)
    variance = sum(v for v, _ in seeds) + excess
    freedom = variance**2 / (sum(v**2 / f for v, f in seeds) + excess**2 / item_freedom)
    return float(means[0].mean() - means[1].mean()), math.sqrt(variance), freedom


@pytest.mark.parametrize(("same_seeds", "same_items"), list(product([True, False], repeat=2)))
@pytest.mark.parametrize("seeds", [(3, 3), (2, 5)])
def test_an_estimate_is_that_of_the_plain_formulas(seeds: tuple[int, int], same_seeds: bool, same_items: bool) -> None:
    if same_seeds:
        seeds = (seeds[1], seeds[1])
    ours, theirs = _sample(seeds[0], seed=1), _sample(seeds[1], seed=2)
    found = stats.between(ours, theirs, same_seeds=same_seeds, same_items=[same_items] * TASKS)
    mean, error, freedom = _plain(ours, theirs, same_seeds, same_items)
    assert (found.mean, found.error, found.freedom) == pytest.approx((mean, error, freedom), rel=1e-12)
    assert (found.basis, found.of_items) == (Basis.OWN, True)


def test_tasks_may_be_paired_one_by_one() -> None:
    ours, theirs = _sample(3, seed=1), _sample(3, seed=2)
    errors = [
        stats.between(ours, theirs, same_seeds=False, same_items=same).error
        for same in ([True] * 3, [True, True, False], [False] * 3)
    ]
    assert len({round(error or 0, 9) for error in errors}) == 3


def test_with_the_same_seeds_and_items_it_is_the_estimate_of_one_row_alone() -> None:
    ours, theirs = _sample(3, seed=1), _sample(3, seed=2)
    differences = [a - b for a, b in zip(ours.by_seed, theirs.by_seed, strict=True)]
    items = [
        TaskItems(x.values - y.values, x.groups) for x, y in zip(ours.items or (), theirs.items or (), strict=True)
    ]
    assert stats.between(ours, theirs, same_seeds=True, same_items=[True] * 3) == stats.alone(differences, items)


def test_without_items_other_seeds_give_welchs_test() -> None:
    ours, theirs = [0.70, 0.72, 0.71, 0.69], [0.66, 0.71]
    found = stats.between(Sample(ours), Sample(theirs), same_seeds=False)
    welch = distributions.ttest_ind(ours, theirs, equal_var=False)
    assert (found.p, found.freedom) == pytest.approx((welch.pvalue, welch.df))
    assert (found.low, found.high) == pytest.approx(tuple(welch.confidence_interval()))
    assert not found.of_items


def test_a_single_seed_borrows_its_noise_and_else_speaks_of_models_alone() -> None:
    one, three = _sample(1, seed=1), _sample(3, seed=2)
    same = [True] * TASKS
    alone = stats.between(one, three, same_seeds=False, same_items=same)
    assert (alone.basis, alone.seeds) == (Basis.MODELS, 1)
    assert alone.error is not None
    borrowing = one._replace(borrowed=SeedNoise(0.01, 2))
    borrowed = stats.between(borrowing, three, same_seeds=False, same_items=same)
    assert borrowed.basis is Basis.BORROWED
    less = stats.between(borrowing._replace(within=0.005), three, same_seeds=False, same_items=same)
    assert (borrowed.error or 0) ** 2 - (less.error or 0) ** 2 == pytest.approx(0.005)
    assert stats.between(Sample([0.5]), Sample([0.4]), same_seeds=False).error is None


def test_an_untrained_model_has_no_noise_of_seeds() -> None:
    base, row = _sample(1, seed=1)._replace(fixed=True), _sample(3, seed=2)
    found = stats.between(row, base, same_seeds=False, same_items=[True] * TASKS)
    against = [value - base.by_seed[0] for value in row.by_seed]
    items = [TaskItems(x.values - y.values, x.groups) for x, y in zip(row.items or (), base.items or (), strict=True)]
    as_alone = stats.alone(against, items)
    assert (found.mean, found.error, found.freedom) == pytest.approx(
        (as_alone.mean, as_alone.error, as_alone.freedom), rel=1e-9
    )
    assert stats.between(base, base, same_seeds=False, same_items=[True] * TASKS).basis is Basis.MODELS


@pytest.mark.parametrize(
    ("same_seeds", "same_items", "of_seed"),
    [(False, True, 0.02), (False, False, 0.02), (True, False, 0.02), (False, True, 0.1)],
)
def test_the_interval_holds_the_truth_as_often_as_it_says(same_seeds: bool, same_items: bool, of_seed: float) -> None:
    """Scores of items (shared by the sides or not), of seeds, and of seeds on items; 600 studies of 4 and 3 seeds."""
    draw, truth, held, studies, items = np.random.default_rng(7), 0.3, 0, 600, 150
    counts = (4, 4) if same_seeds else (4, 3)
    for _ in range(studies):
        shared = draw.normal(size=(2, items))
        common = draw.normal(size=4) * of_seed
        sides = []
        for side, count in enumerate(counts):
            tasks = []
            for task in range(2):
                ease = shared[task] if same_items else draw.normal(size=items)
                own = 0.4 * draw.normal(size=items)  # what the method answers otherwise, whatever the seed
                of_seeds = of_seed * draw.normal(size=(count, 1)) + (common[:count, None] if same_seeds else 0)
                tasks.append(
                    TaskItems(ease + own + of_seeds + 0.5 * draw.normal(size=(count, items)) + (side == 0) * truth)
                )
            sides.append(Sample([float(np.mean([t.values[s].mean() for t in tasks])) for s in range(count)], tasks))
        found = stats.between(sides[0], sides[1], same_seeds=same_seeds, same_items=[same_items] * 2)
        held += (found.low or 0.0) <= truth <= (found.high or 0.0)
    assert 0.92 <= held / studies <= 0.985
