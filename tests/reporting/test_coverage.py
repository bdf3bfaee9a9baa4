"""Coverage and power of the intervals in studies of known truth that are like the kept one, 500 or 1,000 of each."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from mosld_bench.reporting import stats
from tests.support.simulated import (
    KEPT,
    LARGER_SHIFTS,
    UNLIKE_ANSWERS,
    Answers,
    Noise,
    answers,
    by_task,
    means,
    minus_first,
    true_level,
)

pytestmark = pytest.mark.slow
SCENARIOS = {"as kept": KEPT, "larger shifts": LARGER_SHIFTS, "unlike answers": UNLIKE_ANSWERS}
each_scenario = pytest.mark.parametrize("noise", SCENARIOS.values(), ids=SCENARIOS)


def studies(noise: Noise, seeds: int, count: int = 1000, **design: Any) -> Iterator[Answers]:
    """So many of one design."""
    draw = np.random.default_rng(seeds)
    return (answers(draw, noise, seeds, **design) for _ in range(count))


def covers(estimate: stats.Estimate, truth: float) -> bool:
    """Whether the interval holds the truth."""
    assert estimate.half_width is not None
    return abs(estimate.mean - truth) <= estimate.half_width


def found(estimate: stats.Estimate) -> bool:
    """Whether a difference is told from none, by itself."""
    return estimate.p is not None and estimate.p < stats.LEVEL


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
@each_scenario
def test_intervals_cover_and_families_hold_their_level(noise: Noise, seeds: int) -> None:
    """All rows are alike, so that what is covered is 0 and what is told apart is an error."""
    families = [minus_first(study) for study in studies(noise, seeds)]
    assert 0.93 <= np.mean([covers(estimate, 0) for family in families for estimate in family]) <= 0.97
    errors = [min(p for p in stats.holm([e.p for e in family]) if p is not None) < stats.LEVEL for family in families]
    assert np.mean(errors) <= 0.065  # 5 % and twice the error of a thousand


def borrowed(study: Answers) -> stats.Estimate:
    """The first row, of which only the first seed is known, minus the second; all others have all seeds."""
    several = study[1:]
    pairs = [stats.item_noise(by_task(a - b)) for a, b in combinations(several, 2)]
    within = [len(study[0]) * pair.within for pair in pairs if pair is not None and pair.within is not None]
    d = study[0, :1] - study[1, :1]
    noise = stats.seed_noise(means(several))
    return stats.difference([float(d.mean())], by_task(d), noise, within=float(np.mean(within)))


@each_scenario
def test_a_row_of_one_seed_is_covered_with_what_it_borrows(noise: Noise) -> None:
    estimates = [borrowed(study) for study in studies(noise, 3, rows=6)]
    assert {estimate.basis for estimate in estimates} == {stats.Basis.BORROWED}
    assert 0.93 <= np.mean([covers(estimate, 0) for estimate in estimates]) <= 0.97


@pytest.mark.parametrize("seeds", [3, 10])
@each_scenario
def test_a_rows_own_mean_is_covered(noise: Noise, seeds: int) -> None:
    covered = []
    for (row,) in studies(noise, seeds, rows=1):
        estimate = stats.alone(row.mean(axis=(1, 2)).tolist(), by_task(row))
        covered.append(covers(estimate, true_level(noise)))
    assert 0.92 <= np.mean(covered) <= 0.98


@pytest.mark.parametrize("seeds", [3, 10])
@pytest.mark.parametrize("noise", [KEPT, UNLIKE_ANSWERS], ids=["as kept", "unlike answers"])
def test_differences_on_passages_are_covered(noise: Noise, seeds: int) -> None:
    """25 passages a task; four fifths of what acts on an item act on its whole passage."""
    covered, blind = [], []
    for study in studies(noise, seeds, 500, passage=20):
        covered += [covers(estimate, 0) for estimate in minus_first(study, passage=20)]
        blind += [covers(estimate, 0) for estimate in minus_first(study)]
    assert 0.93 <= np.mean(covered) <= 0.97
    assert np.mean(blind) < np.mean(covered)


@pytest.fixture(scope="module")
def pilot() -> stats.PairNoise:
    """What two rows of a study as kept differ by: the mean over many."""
    draw, squares, pairs = np.random.default_rng(0), [], []
    for _ in range(300):
        study = answers(draw, KEPT, 3)
        noise = stats.seed_noise(means(study))
        assert noise is not None
        squares.append(noise.mean_square)
        pairs += [pair for row in range(1, 5) if (pair := stats.item_noise(by_task(study[row] - study[0]))) is not None]
    across, within = (
        float(np.mean(values)) for values in zip(*((p.variance, p.within or 0) for p in pairs), strict=True)
    )
    return stats.PairNoise(float(np.mean(squares)), 3 * within / 2, across - within, 2000.0)


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_a_difference_of_one_point_is_found_as_often_as_the_power_says(pilot: stats.PairNoise, seeds: int) -> None:
    """About 51, 80, 97 and 100 %; where the scatter of a row gives a false alarm, one time in ten, less often."""
    truth, pooled, plain, estimates = true_level(KEPT, 1.0) - true_level(KEPT), [], [], []
    for study in studies(KEPT, seeds, effect=1.0):
        guarded = minus_first(study)
        estimates += guarded
        pooled += [found(estimate) for estimate in guarded if estimate.basis is stats.Basis.POOLED]
        plain += [found(estimate) for estimate in minus_first(study, guard=False)]
    power = stats.power(truth, pilot, seeds=seeds, rows=5)
    assert np.mean(plain) == pytest.approx(power, abs=0.05)
    assert np.mean(pooled) == pytest.approx(power, abs=0.05)
    assert 0.07 < 1 - len(pooled) / len(estimates) < 0.13
    assert 0.93 <= np.mean([covers(estimate, -truth) for estimate in estimates]) <= 0.97


def test_a_row_of_one_seed_is_found_as_often_as_the_power_says(pilot: stats.PairNoise) -> None:
    """About 37 % at one point."""
    truth = true_level(KEPT, 1.0) - true_level(KEPT)
    estimates = [borrowed(study) for study in studies(KEPT, 3, rows=6, effect=1.0)]
    power = stats.power(truth, pilot, seeds=1, rows=5, freedom=8)
    assert np.mean([found(estimate) for estimate in estimates]) == pytest.approx(power, abs=0.05)


@pytest.mark.parametrize(
    ("seeds", "guarded", "plain"), [(2, 0.87, 0.85), (3, 0.89, 0.83), (5, 0.92, 0.84), (10, 0.95, 0.85)]
)
def test_a_row_of_three_times_the_noise_goes_by_its_own(seeds: int, guarded: float, plain: float) -> None:
    """The standard deviation of the first row over seeds, items and all, is three times that of the others."""
    covered: dict[bool, list[bool]] = {True: [], False: []}
    for study in studies(KEPT, seeds, first_row_seed=9 * 0.142 - 0.092):
        for guard, values in covered.items():
            values += [covers(estimate, 0) for estimate in minus_first(study, guard=guard)]
    assert np.mean(covered[True]) == pytest.approx(guarded, abs=0.03)
    assert np.mean(covered[False]) == pytest.approx(plain, abs=0.03)


def test_what_more_items_would_buy_is_what_they_do_buy(pilot: stats.PairNoise) -> None:
    noises = [stats.seed_noise(means(study)) for study in studies(KEPT, 3, items=1000)]
    doubled = np.mean([noise.mean_square for noise in noises if noise is not None])
    assert pilot.on(2).mean_square == pytest.approx(doubled, rel=0.06)


EFFECTS = stats.factorial_effects([2, 2])


def effects(study: Answers) -> list[stats.Estimate]:
    """The two main effects and the interaction of the first four rows, as `Evidence` has them estimated."""
    table = means(study)
    noise = stats.seed_noise(table)
    noisy = any(p is not None and p < stats.LEVEL for p in (stats.noisier(table, row) for row in range(4)))
    return [
        stats.contrast(
            effect.weights,
            (np.array(effect.weights) @ table[:4]).tolist(),
            by_task(np.tensordot(effect.weights, study[:4], axes=1)),
            noise,
            noisy=noisy,
        )
        for effect in EFFECTS
    ]


@pytest.mark.parametrize("seeds", [3, 5])
@each_scenario
def test_effects_of_a_factorial_are_covered(noise: Noise, seeds: int) -> None:
    """One cell is better by two points: a planted interaction, and half of it in each main effect."""
    truth = true_level(noise, 2.0) - true_level(noise)
    estimates = [effects(study) for study in studies(noise, seeds, 400, rows=4, effect=2.0)]
    for of_effect, expected in zip(zip(*estimates, strict=True), (-truth / 2, -truth / 2, truth), strict=True):
        assert 0.92 <= np.mean([covers(estimate, expected) for estimate in of_effect]) <= 0.98
        assert np.mean([estimate.mean for estimate in of_effect]) == pytest.approx(expected, abs=0.001)


def test_an_interaction_of_cells_of_one_seed_is_covered_with_what_it_borrows() -> None:
    """Four cells of one seed beside four rows of three."""
    covered = []
    for study in studies(UNLIKE_ANSWERS, 3, 400, rows=8):
        several, cells = study[4:], study[:4, :1]
        pairs = [stats.item_noise(by_task(a - b)) for a, b in combinations(several, 2)]
        within = [3 * pair.within for pair in pairs if pair is not None and pair.within is not None]
        noise = stats.seed_noise(means(several))
        for effect in EFFECTS:
            d = np.tensordot(effect.weights, cells, axes=1)
            estimate = stats.contrast(
                effect.weights, [float(d.mean())], by_task(d), noise, within=float(np.mean(within))
            )
            covered.append(covers(estimate, 0))
            assert estimate.basis is stats.Basis.BORROWED
    assert 0.93 <= np.mean(covered) <= 0.97
