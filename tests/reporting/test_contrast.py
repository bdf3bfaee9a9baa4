"""Contrasts of several rows and the effects of a factorial: by hand, against the plain version, and what must hold."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations, product
from math import prod

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mosld_bench.reporting import stats
from tests.reporting.test_stats import FEW, MANY, Made, agree, made, table_of
from tests.support import plain_statistics as plain

WEIGHTS = st.lists(st.integers(-2, 2), min_size=4, max_size=4).filter(lambda c: sum(c) == 0 and any(c))
HALVES = WEIGHTS.map(lambda c: [Fraction(weight, 2) for weight in c])


def fractions(study: Made, seeds: Sequence[int] | None = None) -> list[list[plain.Task]]:
    """Rows × tasks, at the first, or some, seeds."""
    chosen = list(seeds) if seeds is not None else list(range(study.seeds))
    return [
        [
            plain.Task([[Fraction(int(x), 2) for x in task[s]] for s in chosen], g if g is None else g.tolist())
            for task, g in zip(row, study.groups, strict=True)
        ]
        for row in study.answers
    ]


def arrays(study: Made, weights: Sequence[Fraction], seeds: Sequence[int] | None = None) -> list[stats.TaskItems]:
    """The contrast task by task, as `stats` takes it."""
    chosen = list(seeds) if seeds is not None else slice(None)
    return [
        stats.TaskItems(
            sum((float(c) * row[t][chosen] / 2 for c, row in zip(weights, study.answers, strict=True)), np.zeros(1)), g
        )
        for t, g in enumerate(study.groups)
    ]


def by_seed(study: Made, weights: Sequence[Fraction], seeds: Sequence[int]) -> list[float]:
    """D_s."""
    rows = study.rows()
    return [float(plain.total(c * row[s] for c, row in zip(weights, rows, strict=True))) for s in seeds]


@MANY
@given(made(rows=(4, 4), seeds=(2, 4)), HALVES, st.booleans())
def test_a_contrast_agrees_with_the_formulas(study: Made, weights: list[Fraction], noisy: bool) -> None:
    known, values = plain.seed_noise(study.rows()), by_seed(study, weights, range(study.seeds))
    assert known is not None
    assume(known.freedom >= 2 and known.mean_square > 0 and not (noisy and np.var(values) < 1e-12))
    noise, items = stats.seed_noise(table_of(study.rows())), arrays(study, weights)
    estimate = stats.contrast(list(map(float, weights)), values, items, noise, noisy=noisy)
    agree(estimate, plain.contrast(fractions(study), weights, known, noisy=noisy))
    assert estimate.basis is (stats.Basis.OWN if noisy else stats.Basis.POOLED)


@MANY
@given(made(rows=(4, 4), seeds=(2, 4)), HALVES)
def test_a_contrast_of_one_seed_borrows_by_the_formulas(study: Made, weights: list[Fraction]) -> None:
    """The rows have the first seed in common; the noise, and the part of it in items, is that of all their seeds."""
    known = plain.seed_noise(study.rows())
    assert known is not None
    assume(known.freedom >= 2 and known.mean_square > 0)
    pairs = [plain.item_noise(study.fractions(row, other)) for row, other in combinations(range(4), 2)]
    within = plain.mean(study.seeds * (pair.within or 0) for pair in pairs if pair is not None)
    noise, items = stats.seed_noise(table_of(study.rows())), arrays(study, weights, [0])
    values = by_seed(study, weights, [0])
    estimate = stats.contrast(list(map(float, weights)), values, items, noise, within=float(within))
    agree(estimate, plain.contrast(fractions(study, [0]), weights, known, within=within))
    assert estimate.basis is stats.Basis.BORROWED


@MANY
@given(made(rows=(2, 4)), st.booleans())
def test_the_difference_of_two_rows_is_the_contrast_of_one_and_minus_one(study: Made, noisy: bool) -> None:
    noise, items = stats.seed_noise(table_of(study.rows())), study.arrays(0, 1)
    values = [float(value) for value in plain.by_seed(study.fractions(0, 1))]
    known = {"noise": noise, "within": 0.01, "noisy": noisy}
    assert stats.contrast((1, -1), values, items, **known) == stats.difference(values, items, **known)  # type: ignore[arg-type]
    assert stats.contrast((-1, 1), values, items, **known) == stats.difference(values, items, **known)  # type: ignore[arg-type]


def test_mcnemars_test_is_of_two_models_alone() -> None:
    """Of an interaction the values may be -1, 0 and 1 by chance, and come from four models all the same."""
    items = [stats.TaskItems(np.array([[1.0, 1.0, 1.0, 0.0, -1.0]]))]
    assert stats.difference([0.4], items, None).exact is not None
    assert stats.contrast((1, -1, -1, 1), [0.4], items, None).exact is None


def test_the_effects_of_two_by_two_by_hand() -> None:
    # Cells (0, 0), (0, 1), (1, 0), (1, 1).
    assert stats.factorial_effects([2, 2]) == [
        stats.EffectWeights((0,), (1,), (-0.5, -0.5, 0.5, 0.5)),
        stats.EffectWeights((1,), (1,), (-0.5, 0.5, -0.5, 0.5)),
        stats.EffectWeights((0, 1), (1, 1), (1.0, -1.0, -1.0, 1.0)),
    ]
    # Sharing adds 1 without dropout and 4 with it: 2.5 on the mean, and dropout changes that by 3.
    means = np.array([10.0, 20.0, 11.0, 24.0])
    assert [float(np.dot(effect.weights, means)) for effect in stats.factorial_effects([2, 2])] == [2.5, 11.5, 3.0]


@FEW
@given(st.lists(st.integers(2, 3), min_size=1, max_size=3))
def test_effects_agree_with_their_definition(levels: list[int]) -> None:
    cells = list(product(*map(range, levels)))
    draw = np.random.default_rng(len(cells))
    means = {cell: Fraction(int(draw.integers(-99, 99)), 7) for cell in cells}
    expected = plain.effects(means)
    found = stats.factorial_effects(levels)
    assert len(found) == len(expected) == prod(levels) - 1, "as many as the cells have degrees of freedom"
    for effect in found:
        value = sum(weight * float(mean) for weight, mean in zip(effect.weights, means.values(), strict=True))
        assert value == pytest.approx(float(expected[tuple(zip(effect.factors, effect.levels, strict=True))]))
        assert sum(effect.weights) == pytest.approx(0, abs=1e-15)


@FEW
@given(st.lists(st.floats(-1, 1), min_size=4, max_size=4))
def test_what_adds_up_does_not_interact(parts: list[float]) -> None:
    first, second, third, level = parts
    means = [level + i * first + j * second + k * third for i, j, k in product(range(2), repeat=3)]
    for effect in stats.factorial_effects([2, 2, 2]):
        value = float(np.dot(effect.weights, means))
        expected = [first, second, third][effect.factors[0]] if len(effect.factors) == 1 else 0.0
        assert value == pytest.approx(expected, abs=1e-12)
