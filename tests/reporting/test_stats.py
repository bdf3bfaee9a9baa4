"""The statistics: by hand, against the plain version of every formula and statsmodels, and what must not matter."""

from __future__ import annotations

import doctest
import math
import warnings
from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mosld_bench.reporting import stats
from tests.support import plain_statistics as plain

MANY, FEW = settings(max_examples=60, deadline=None), settings(max_examples=25, deadline=None)


def test_doctests() -> None:
    assert doctest.testmod(stats).failed == 0


# By hand


def test_mean_and_sample_sd() -> None:
    mean, sd = stats.mean_sd([0.60, 0.62, 0.67])
    assert mean == pytest.approx(0.63)
    # squares of the deviations: 9 + 1 + 16 = 26 (in 1e-4), over n - 1 = 2
    assert sd == pytest.approx(0.0013**0.5)
    assert stats.mean_sd([0.5]) == (0.5, None)
    assert stats.mean_sd([]) == (None, None)


def test_holm_by_hand() -> None:
    # sorted: .005 x 4 = .02, .01 x 3 = .03, .03 x 2 = .06, .04 x 1 = .04 but not below .06
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.9, None, 0.6]) == [1.0, None, 1.0]
    assert stats.holm([]) == []


def test_smoothing_keeps_length_and_mean() -> None:
    assert stats.smooth([1.0, 2.0, 3.0, 4.0], 3) == pytest.approx([1.5, 2.0, 3.0, 3.5])
    assert stats.smooth([], 3) == []


def test_a_difference_by_hand() -> None:
    # Two seeds (lines), four items; row a minus row b.
    d = np.array([[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, -1.0]])
    # D = 1/2, 0. Means over seeds 1, 1/2, 0, -1/2 about 1/4: VI = 4/3 (9 + 1 + 1 + 9)/16 / 16 = 5/48.
    # r = ±(-1/4, 1/4, -1/4, 1/4): VE = 4/3 (8/16) / (2 · 1 · 16) = 1/48.
    noise = stats.item_noise([stats.TaskItems(d)])
    assert noise is not None
    assert (noise.variance, noise.freedom, noise.within) == pytest.approx((5 / 48, 3, 1 / 48))
    # Three rows at two seeds: residuals of row + seed are ±1/8, ±1/8 and ∓1/4; their squares sum to 3/16, on ν = 2.
    seeds = stats.seed_noise([[0.5, 0.0], [0.25, -0.25], [0.0, 0.25]])
    assert seeds is not None
    assert (seeds.mean_square, seeds.freedom) == pytest.approx((3 / 32, 2))
    estimate = stats.difference([0.5, 0.0], [stats.TaskItems(d)], seeds)
    of_seeds, excess = 3 / 32, 4 / 48  # VS = 2 MS / 2
    assert estimate.mean == 0.25
    assert estimate.error == pytest.approx((of_seeds + excess) ** 0.5)
    assert estimate.freedom == pytest.approx((of_seeds + excess) ** 2 / (of_seeds**2 / 2 + excess**2 / 3))


def test_mcnemar_of_two_models_on_one_task() -> None:
    # 9 items are won and 2 lost: twice the chance of 2 heads or fewer of 11, (1 + 11 + 55) / 2048.
    answers = np.array([[1.0] * 9 + [-1.0] * 2 + [0.0] * 30])
    estimate = stats.difference([7 / 41], [stats.TaskItems(answers)], None)
    assert estimate.basis is stats.Basis.MODELS
    assert not estimate.of_methods
    assert estimate.p == pytest.approx(2 * 67 / 2048)
    same = stats.difference([0.0], [stats.TaskItems(np.zeros((1, 5)))], None)
    assert same.p == 1.0
    graded = stats.difference([0.1], [stats.TaskItems(np.array([[0.5, 0.0, -0.2]]))], None)
    assert graded.exact is None
    assert graded.p is not None


def test_a_row_that_scatters_more_but_moves_with_the_other_takes_the_pooled_noise() -> None:
    noise = stats.SeedNoise(0.25, 8)
    estimate = stats.difference([0.5, 0.5], [stats.TaskItems(np.array([[1.0, 0.0], [1.0, 0.0]]))], noise, noisy=True)
    assert estimate.basis is stats.Basis.POOLED
    # VS = 2 · 0.25 / 2, and VI = 2 (1/4 + 1/4) / 4 on one degree of freedom.
    assert (estimate.error, estimate.freedom) == pytest.approx((0.5**0.5, 0.25 / (0.25**2 / 8 + 0.25**2)))


def test_a_block_of_two_rows_that_answer_alike_is_tested_and_differs_by_nothing() -> None:
    same, noise = np.zeros((3, 4)), stats.seed_noise([[0.5, 0.25, 0.5], [0.5, 0.25, 0.5]])
    assert noise is not None
    assert (noise.mean_square, noise.freedom) == pytest.approx((0, 2))
    estimate = stats.difference([0.0] * 3, [stats.TaskItems(same)], noise)
    assert estimate.of_methods
    assert (estimate.mean, estimate.low, estimate.high, estimate.p, estimate.equal_p(0.01)) == (0, 0, 0, 1, 0)
    # Equal means of unlike answers, as few items give them by chance, are no such thing; nor are unknown answers.
    other = np.array([[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0], [0.0, 1.0, -1.0, 0.0]])
    assert not stats.difference([0.0] * 3, [stats.TaskItems(other)], noise).of_methods
    assert not stats.difference([0.0] * 3, None, noise).of_methods


# The plain version


class Made(NamedTuple):
    """Scores of rows: answers[row][task][seed][item], and the clusters of each task's items."""

    answers: list[list[np.ndarray[Any, Any]]]
    groups: list[np.ndarray[Any, Any] | None]

    def fractions(self, row: int, other: int, seeds: Sequence[int] | None = None) -> list[plain.Task]:
        """Differences of two rows at the first, or some, seeds, in fractions."""
        tasks = []
        for ours, theirs, groups in zip(self.answers[row], self.answers[other], self.groups, strict=True):
            d = (ours - theirs)[list(seeds) if seeds is not None else slice(None)]
            lines = [[Fraction(int(value), 2) for value in line] for line in d]
            tasks.append(plain.Task(lines, None if groups is None else groups.tolist()))
        return tasks

    def arrays(self, row: int, other: int, seeds: Sequence[int] | None = None) -> list[stats.TaskItems]:
        """The same as `stats` takes it."""
        chosen = list(seeds) if seeds is not None else slice(None)
        return [
            stats.TaskItems((ours - theirs)[chosen] / 2, groups)
            for ours, theirs, groups in zip(self.answers[row], self.answers[other], self.groups, strict=True)
        ]

    @property
    def seeds(self) -> int:
        """How many each row has."""
        return len(self.answers[0][0])

    def rows(self) -> list[dict[int, plain.Number]]:
        """Seed -> mean over tasks, row by row."""
        means = []
        for row in self.answers:
            of_tasks = [[Fraction(int(line.sum()), 2 * len(line)) for line in task] for task in row]
            means.append({seed: plain.mean(task[seed] for task in of_tasks) for seed in range(self.seeds)})
        return means


@st.composite
def made(draw: st.DrawFn, rows: tuple[int, int] = (2, 4), seeds: tuple[int, int] = (1, 4)) -> Made:
    """Rows with some seeds in common, on up to three tasks of unequal n, with passages or without.

    Scores are 0, 1/2 and 1; the arrays hold twice that.
    """
    row_count, seed_count = draw(st.integers(*rows)), draw(st.integers(*seeds))
    sizes = draw(st.lists(st.integers(2, 7), min_size=1, max_size=3))
    groups: list[np.ndarray[Any, Any] | None] = []
    for n in sizes:
        passages = draw(st.none() | st.lists(st.integers(0, 2), min_size=n, max_size=n))
        known = None if passages is None else np.unique(passages, return_inverse=True)[1]
        groups.append(known if known is None or known.max() else None)
    scores = st.integers(0, 2)
    answers = [
        [draw(arrays(np.int64, (seed_count, n), elements=scores)) for n in sizes] for _ in range(row_count)
    ]  # fmt: skip
    return Made(answers, groups)


def table_of(rows: Sequence[plain.Row]) -> np.ndarray[Any, Any]:
    """Rows × seeds, NaN where there is none."""
    seeds = sorted({seed for row in rows for seed in row})
    return np.array([[float(row[seed]) if seed in row else math.nan for seed in seeds] for row in rows])


def agree(estimate: stats.Estimate, expected: plain.Estimate) -> None:
    """All that is printed of an estimate, and the equivalence at two margins."""
    assert estimate.mean == pytest.approx(expected.mean, abs=1e-12)
    assert estimate.error == pytest.approx(expected.error, rel=1e-7, abs=1e-9)
    assert estimate.freedom == pytest.approx(expected.freedom, rel=1e-6)
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), rel=1e-6, abs=1e-9)
    assert estimate.p == pytest.approx(expected.p, rel=1e-6, abs=1e-9)
    for margin in (0.01, 0.3):
        assert estimate.equal_p(margin) == pytest.approx(expected.equal_p(margin), rel=1e-6, abs=1e-9)


@MANY
@given(made())
def test_the_noise_of_items_agrees_with_its_formulas(study: Made) -> None:
    noise, expected = stats.item_noise(study.arrays(0, 1)), plain.item_noise(study.fractions(0, 1))
    assert noise is not None
    assert expected is not None
    assert noise.variance == pytest.approx(float(expected.variance), abs=1e-14)
    assert (noise.within is None) == (expected.within is None)
    assert noise.within is None or noise.within == pytest.approx(float(expected.within or 0), abs=1e-14)
    if expected.variance:
        assert noise.freedom == pytest.approx(expected.freedom)


ROWS = st.lists(st.dictionaries(st.integers(0, 4), st.integers(-9, 9).map(lambda n: Fraction(n, 8))), max_size=5)


@MANY
@given(ROWS)
def test_the_noise_of_seeds_agrees_with_exact_least_squares_whatever_seeds_rows_have(rows: list[plain.Row]) -> None:
    noise, expected = stats.seed_noise(table_of(rows)), plain.seed_noise(rows)
    assert (noise is None) == (expected is None)
    if noise is not None and expected is not None:
        assert noise.freedom == expected.freedom
        assert noise.mean_square == pytest.approx(float(expected.mean_square), abs=1e-12)


@FEW
@given(st.integers(2, 6), st.integers(2, 6))
def test_degrees_of_freedom_of_balanced_rows(rows: int, seeds: int) -> None:
    noise = stats.seed_noise(np.random.default_rng(0).normal(size=(rows, seeds)))
    assert noise is not None
    assert noise.freedom == (rows - 1) * (seeds - 1)


@MANY
@given(ROWS, st.integers(0, 4))
def test_the_test_of_a_rows_scatter_agrees_with_its_formula(rows: list[plain.Row], which: int) -> None:
    assume(which < len(rows))
    p, expected = stats.noisier(table_of(rows), which), plain.scatter_p(rows, which)
    assert (p is None) == (expected is None)
    assert p is None or p == pytest.approx(expected, rel=1e-7, abs=1e-12)


@MANY
@given(made(rows=(3, 4), seeds=(2, 4)), st.booleans())
def test_a_difference_agrees_with_the_formulas(study: Made, noisy: bool) -> None:
    tasks, rows = study.fractions(0, 1), study.rows()
    known = plain.seed_noise(rows)
    assert known is not None
    by_seed = plain.by_seed(tasks)
    assume(known.freedom >= 2 and known.mean_square > 0 and not (noisy and plain.variance(by_seed) == 0))
    noise = stats.seed_noise(table_of(rows))
    estimate = stats.difference(list(map(float, by_seed)), study.arrays(0, 1), noise, noisy=noisy)
    agree(estimate, plain.difference(tasks, known, noisy=noisy))
    assert (estimate.basis, estimate.of_items) == (stats.Basis.OWN if noisy else stats.Basis.POOLED, True)
    numbers_alone = stats.difference(list(map(float, by_seed)), None, noise)
    agree(
        numbers_alone, plain.combined(plain.mean(by_seed), 2 * known.mean_square / study.seeds, known.freedom, None, 0)
    )
    assert not numbers_alone.of_items


@MANY
@given(made(rows=(4, 4), seeds=(2, 4)))
def test_a_row_of_one_seed_borrows_by_the_formulas(study: Made) -> None:
    """The first row has the first seed alone; the other three have all."""
    rows = study.rows()
    rows[0] = {0: rows[0][0]}
    known = plain.seed_noise(rows)
    assert known is not None
    assume(known.freedom >= 2 and known.mean_square > 0)
    pairs = [plain.item_noise(study.fractions(row, other)) for row, other in combinations((1, 2, 3), 2)]
    within = plain.mean(study.seeds * (pair.within or 0) for pair in pairs if pair is not None)
    tasks, noise = study.fractions(0, 1, [0]), stats.seed_noise(table_of(rows))
    by_seed = list(map(float, plain.by_seed(tasks)))
    estimate = stats.difference(by_seed, study.arrays(0, 1, [0]), noise, within=float(within))
    agree(estimate, plain.difference(tasks, known, within=within))
    assert estimate.basis is stats.Basis.BORROWED


@MANY
@given(made(seeds=(2, 4)))
def test_a_mean_agrees_with_the_formulas(study: Made) -> None:
    tasks = study.fractions(0, 1)
    by_seed = plain.by_seed(tasks)
    assume(plain.variance(by_seed) > 0)
    estimate = stats.alone(list(map(float, by_seed)), study.arrays(0, 1))
    agree(estimate, plain.alone(tasks))
    assert estimate.basis is stats.Basis.OWN


@MANY
@given(made(seeds=(1, 1)))
def test_of_two_models_the_interval_is_over_items(study: Made) -> None:
    tasks = study.fractions(0, 1)
    items, mean = plain.item_noise(tasks), plain.mean(plain.by_seed(tasks))
    assert items is not None
    assume(items.variance > 0)
    estimate = stats.difference([float(mean)], study.arrays(0, 1), None)
    expected = plain.estimate(float(mean), float(items.variance) ** 0.5, items.freedom)
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high))
    assert estimate.basis is stats.Basis.MODELS


@MANY
@given(st.lists(st.none() | st.floats(0, 1), max_size=8))
def test_holm_agrees_with_its_definition(p_values: list[float | None]) -> None:
    expected = iter(plain.holm([p for p in p_values if p is not None]))
    assert stats.holm(p_values) == [None if p is None else pytest.approx(next(expected)) for p in p_values]


def test_holm_agrees_with_statsmodels() -> None:
    from statsmodels.stats.multitest import multipletests

    p_values = [0.013, 0.9, 0.2, 0.004, 0.013, 0.04]
    assert stats.holm([*p_values, None]) == [*map(pytest.approx, multipletests(p_values, method="holm")[1]), None]


@MANY
@given(st.floats(-3, 3), st.floats(0.01, 2), st.floats(1, 300), st.floats(0.01, 3))
def test_equal_is_two_one_sided_tests(mean: float, error: float, freedom: float, margin: float) -> None:
    estimate = stats.Estimate(mean, error, freedom, 3, stats.Basis.POOLED, True)
    expected = plain.estimate(mean, error, freedom)
    assert estimate.equal_p(margin) == pytest.approx(expected.equal_p(margin), rel=1e-9, abs=1e-300)
    # At 5 %, just where the interval of 90 % lies within the margin.
    half = scipy.stats.t.isf(0.05, freedom) * error
    inside = margin - max(abs(mean - half), abs(mean + half))
    assume(abs(inside) > 1e-9)
    assert ((estimate.equal_p(margin) or 0) < 0.05) == (inside > 0)


# statsmodels


@pytest.mark.parametrize(("rows", "seed"), [(2, 3), (2, 5), (3, 3), (3, 5)])
def test_it_is_the_crossed_mixed_model(rows: int, seed: int) -> None:
    """REML of score ~ row + (seed) + (item) + (seed × item) + (row × seed) + (row × item), no component negative.

    With three rows and more the model has one variance of row × item for all pairs, so ours are averaged over them.
    """
    from statsmodels.formula.api import mixedlm

    scores = _crossed(np.random.default_rng(seed), rows, 5, 8)
    noise = stats.seed_noise(scores.mean(axis=2))
    squares, means = [], []
    for a, b in combinations(range(rows), 2):
        items = stats.item_noise([stats.TaskItems(scores[b] - scores[a])])
        assert items is not None
        assert items.within is not None
        assert items.variance > items.within
        estimate = stats.difference(
            (scores[b] - scores[a]).mean(axis=1).tolist(), [stats.TaskItems(scores[b] - scores[a])], noise
        )
        squares.append((estimate.error or 0) ** 2)
        means.append(estimate.mean)
    cells = [(f"r{r}", f"s{s}", f"i{i}", value) for (r, s, i), value in np.ndenumerate(scores)]
    frame = pd.DataFrame(cells, columns=["row", "seed", "item", "score"]).assign(all=1)
    components = {
        "seed": "0 + seed", "item": "0 + item", "both": "0 + seed:item", "row_seed": "0 + row:seed",
        "row_item": "0 + row:item",
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that variances may be zero, which the last lines look at
        fit = mixedlm("score ~ row", frame, groups="all", vc_formula=components).fit(reml=True, method="bfgs")
    assert fit.converged
    assert min(fit.vcomp) > 0.01
    assert fit.fe_params["row[T.r1]"] == pytest.approx(means[0], abs=1e-9)
    assert fit.bse_fe["row[T.r1]"] == pytest.approx(np.mean(squares) ** 0.5, rel=3e-4)


def _crossed(draw: np.random.Generator, rows: int, seeds: int, items: int) -> np.ndarray[Any, Any]:
    """Scores, rows × seeds × items, of crossed normal effects."""
    shapes = {
        (rows, 1, 1): 0.3, (1, seeds, 1): 0.3, (1, 1, items): 0.5, (1, seeds, items): 0.4, (rows, seeds, 1): 0.3,
        (rows, 1, items): 0.3, (rows, seeds, items): 0.5,
    }  # fmt: skip
    effects = [draw.normal(size=shape) * sd for shape, sd in shapes.items()]
    return np.asarray(sum(effects[1:], effects[0]))


# What must not matter


def _whole(study: Made, row: int = 0, other: int = 1, *, unit: float = 1.0) -> stats.Estimate | None:
    """The difference of two rows, the guard included; None where the seeds do not tell."""
    table = table_of(study.rows()) * unit
    noise = stats.seed_noise(table)
    if noise is None or not noise.known:
        return None
    noisy = any(p is not None and p < 0.05 for p in (stats.noisier(table, row), stats.noisier(table, other)))
    items = [stats.TaskItems(values * unit, groups) for values, groups in study.arrays(row, other)]
    by_seed = np.mean([values.mean(axis=1) for values, _ in items], axis=0).tolist()
    return stats.difference(by_seed, items, noise, noisy=noisy)


STUDIES = made(rows=(3, 4), seeds=(2, 4))


def _same(ours: stats.Estimate | None, theirs: stats.Estimate | None, *, factor: float = 1.0) -> None:
    assume(ours is not None and theirs is not None)
    assert ours is not None
    assert theirs is not None
    assert ours.basis == theirs.basis
    ends = [factor * end if end is not None else None for end in (ours.mean, ours.low, ours.high)]
    assert (theirs.mean, *sorted((theirs.low or 0, theirs.high or 0))) == pytest.approx(
        (ends[0], *sorted((ends[1] or 0, ends[2] or 0))), rel=1e-6, abs=1e-9
    )
    assert theirs.p == pytest.approx(ours.p, rel=1e-5, abs=1e-9)
    assert theirs.equal_p(0.1 * abs(factor)) == pytest.approx(ours.equal_p(0.1), rel=1e-5, abs=1e-9)


@FEW
@given(STUDIES, st.randoms(use_true_random=False))
def test_the_order_of_seeds_items_rows_and_tasks_does_not_matter(study: Made, random: Any) -> None:
    seeds, tasks = list(range(study.seeds)), list(range(len(study.groups)))
    others = list(range(2, len(study.answers)))
    orders = [list(range(task.shape[1])) for task in study.answers[0]]
    for order in (seeds, tasks, others, *orders):
        random.shuffle(order)
    answers = [[study.answers[row][t][seeds][:, orders[t]] for t in tasks] for row in (0, 1, *others)]
    groups = [None if (known := study.groups[t]) is None else known[orders[t]] for t in tasks]
    _same(_whole(study), _whole(Made(answers, groups)))


@FEW
@given(STUDIES, st.permutations(range(3)))
def test_the_names_of_clusters_do_not_matter(study: Made, names: list[int]) -> None:
    renamed = [None if known is None else np.array([names[group] for group in known]) for known in study.groups]
    _same(_whole(study), _whole(study._replace(groups=[_numbered(known) for known in renamed])))


def _numbered(groups: np.ndarray[Any, Any] | None) -> np.ndarray[Any, Any] | None:
    return None if groups is None else np.unique(groups, return_inverse=True)[1]


@FEW
@given(STUDIES)
def test_clusters_of_one_item_are_no_clusters(study: Made) -> None:
    each = study._replace(groups=[np.arange(task.shape[1]) for task in study.answers[0]])
    _same(_whole(study._replace(groups=[None] * len(study.groups))), _whole(each))


@FEW
@given(STUDIES)
def test_swapping_the_two_rows_swaps_the_sign(study: Made) -> None:
    _same(_whole(study), _whole(study, 1, 0), factor=-1)


@FEW
@given(STUDIES, st.sampled_from([100.0, -1.0, 0.25]))
def test_the_unit_of_scores_does_not_matter(study: Made, unit: float) -> None:
    _same(_whole(study), _whole(study, unit=unit), factor=unit)


@FEW
@given(STUDIES, st.lists(st.integers(-4, 4), min_size=4, max_size=4))
def test_what_a_seed_does_to_all_rows_alike_cancels(study: Made, shifts: list[int]) -> None:
    by_seed = np.array(shifts[: study.seeds])[:, None]
    _same(_whole(study), _whole(study._replace(answers=[[task + by_seed for task in row] for row in study.answers])))


@FEW
@given(STUDIES, st.integers(0, 3), st.integers(-4, 4))
def test_what_a_task_has_of_constant_for_all_rows_cancels(study: Made, task: int, shift: int) -> None:
    shifted = [[t + shift * (i == task) for i, t in enumerate(row)] for row in study.answers]
    _same(_whole(study), _whole(study._replace(answers=shifted)))


# Power


@pytest.mark.parametrize(
    ("seeds", "rows", "excess", "effect"),
    [(2, 5, 0.0, 1.4), (3, 5, 0.0, 1.0), (3, 2, 0.05, 1.2), (5, 5, 0.2, 1.0), (10, 9, 0.1, 0.5)],
)
def test_power_is_how_often_such_studies_find_it(seeds: int, rows: int, excess: float, effect: float) -> None:
    """Differences and mean squares drawn, tested by the formulas; 40,000 studies, their error 0.25 points at most."""
    draw, studies, square, freedom = np.random.default_rng(seeds), 40_000, 0.142, (rows - 1) * (seeds - 1)
    noise = stats.PairNoise(square, 0.09, excess, 400.0)
    differences = effect + draw.normal(size=studies) * (2 * square / seeds + excess) ** 0.5
    of_seeds = 2 * square * draw.chisquare(freedom, studies) / freedom / seeds
    whole = of_seeds + excess
    estimated = whole**2 / (of_seeds**2 / freedom + excess**2 / 400)
    found = np.mean(2 * scipy.stats.t.sf(np.abs(differences) / whole**0.5, estimated) < 0.05)
    assert stats.power(effect, noise, seeds=seeds, rows=rows) == pytest.approx(found, abs=0.01)


@FEW
@given(st.integers(2, 12), st.integers(2, 9), st.floats(0, 0.5), st.floats(0.01, 1))
def test_the_detectable_effect_has_a_power_of_80_per_cent(seeds: int, rows: int, excess: float, square: float) -> None:
    assume((rows - 1) * (seeds - 1) >= 2)
    noise = stats.PairNoise(square, square / 2, excess, 200.0)
    effect = stats.detectable_effect(noise, seeds=seeds, rows=rows)
    assert effect is not None
    assert stats.power(effect, noise, seeds=seeds, rows=rows) == pytest.approx(0.8, abs=1e-4)
    assert stats.power(-effect, noise, seeds=seeds, rows=rows) == pytest.approx(0.8, abs=1e-4)
    # It is of the unit of the scores.
    scaled = stats.PairNoise(1e-4 * square, 1e-4 * square / 2, 1e-4 * excess, 200.0)
    assert stats.detectable_effect(scaled, seeds=seeds, rows=rows) == pytest.approx(effect / 100, rel=1e-4)


def test_the_fewest_seeds_for_an_effect() -> None:
    noise = stats.PairNoise(0.142, 0.09, 0.02, 400.0)
    for effect in (0.4, 0.7, 1.5):
        seeds = stats.seeds_for(effect, noise, rows=5)
        assert seeds is not None
        assert stats.power(effect, noise, seeds=seeds, rows=5) >= 0.8
        assert stats.power(effect, noise, seeds=seeds - 1, rows=5) < 0.8
    # Items alone hide what is below their noise, however many seeds there are.
    assert stats.seeds_for(0.2, noise, rows=5) is None


def test_without_degrees_of_freedom_nothing_is_detectable() -> None:
    noise = stats.PairNoise(0.142)
    assert stats.power(5, noise, seeds=1, rows=5) == 0
    assert stats.detectable_effect(noise, seeds=2, rows=2) is None
    assert stats.detectable_effect(noise, seeds=1, rows=5, freedom=8) is not None  # borrowed


def test_two_rows_that_answer_alike_do_not_hide_what_items_add() -> None:
    seeds, pair = stats.SeedNoise(0.142, 8), stats.ItemNoise(0.2, 100.0, 0.06)
    noise = stats.pair_noise(seeds, [pair, pair], 3)
    assert noise == stats.PairNoise(0.142, 0.09, 0.2 - 0.06, 100.0)
    twins = stats.item_noise([stats.TaskItems(np.zeros((3, 9)))])
    assert twins is not None
    assert stats.pair_noise(seeds, [pair, twins, pair], 3) == noise
    assert stats.pair_noise(seeds, [twins], 3) == stats.PairNoise(0.142)


def test_more_items_shrink_what_items_cause() -> None:
    noise = stats.PairNoise(0.142, 0.09, 0.02, 400.0)
    assert noise.on(1) == noise
    doubled = noise.on(2)
    assert (doubled.mean_square, doubled.of_items, doubled.excess) == pytest.approx((0.097, 0.045, 0.01))
