"""The rules of a search: its grid, who is stopped, and what a search must share with its study."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mosld_bench.errors import BenchError
from mosld_bench.spec.search import (
    EXTENSIONS,
    FACTORS,
    LEAST_RIVALS,
    checked_factors,
    goes_on,
    grown,
    ranked,
    rivals_of,
    search_study,
    settled,
    waves_of,
)
from mosld_bench.spec.trial import RUNGS
from mosld_bench.spec.tuning import Run
from mosld_bench.spec.workspace import Workspace
from tests.spec.tiny import tiny_study

LOSSES = st.floats(0.0, 20.0)
GRIDS = st.lists(st.integers(-8, 8), min_size=3, max_size=9, unique=True).map(lambda powers: [2.0**p for p in powers])


def run(losses: Sequence[float], *, ended: str = "finished", factor: float = 1.0) -> Run:
    """A run of 50 steps, validated every ten, that came to these losses."""
    at = tuple(range(10, 10 * len(losses) + 1, 10))
    content = {"ended": ended, "steps": at[-1] if at else 3, "at": at, "losses": tuple(losses)}
    return Run.model_validate({"trial": f"x{factor}", "factor": factor, "seed": 0, **content})


# The grid


def test_the_default_grid_goes_from_the_middle_outwards() -> None:
    assert waves_of(FACTORS) == [(0.5, 1.0, 2.0), (0.25, 4.0)]
    assert waves_of((1.0, 2.0, 4.0)) == [(1.0, 2.0, 4.0)]
    assert waves_of((1.0, 2.0, 4.0, 8.0)) == [(1.0, 2.0, 4.0), (8.0,)]


@given(GRIDS)
def test_waves_are_the_whole_grid_and_each_lies_around_those_before(powers: list[float]) -> None:
    grid = checked_factors(powers)
    waves = waves_of(grid)
    assert sorted(factor for wave in waves for factor in wave) == list(grid)
    assert len(waves[0]) == LEAST_RIVALS
    assert all(1 <= len(wave) <= 2 for wave in waves[1:])
    places: list[int] = []
    for wave in waves:
        places = sorted([*places, *map(grid.index, wave)])
        assert places == list(range(places[0], places[-1] + 1)), "no gap is left in the middle"


@pytest.mark.parametrize(
    ("factors", "problem"),
    [
        ((0, 1, 2), "above 0; given: 0, 1, 2"), ((-1, 1, 2), "above 0"), ((1, 2, math.inf), "above 0"),
        ((math.nan, 1, 2), "above 0"), ((1, 2), "3 factors or more"), ((1, 1, 2), "have one twice"),
        ((), "given: none"),
    ],
)  # fmt: skip
def test_factors_that_make_no_grid_are_refused(factors: tuple[float, ...], problem: str) -> None:
    with pytest.raises(BenchError, match=problem):
        checked_factors(factors)


def test_a_grid_grows_at_the_edge_where_a_best_factor_is_and_by_its_own_step() -> None:
    waves = waves_of(FACTORS)
    assert grown(waves, [1.0, 0.5], FACTORS) is None
    assert grown(waves, [1.0, 4.0], FACTORS) == (8.0,)
    assert grown(waves, [0.25, 1.0], FACTORS) == (0.125,)
    assert grown(waves, [0.25, 4.0, 1.0], FACTORS) == (0.125, 8.0)
    assert grown(waves, [None, 1.0], FACTORS) == (0.125,), "what diverges everywhere needs smaller ones"
    assert grown([(1.0, 3.0, 9.0)], [9.0], (1.0, 3.0, 9.0)) == (27.0,)


@pytest.mark.parametrize("side", [-1, 1])
def test_a_grid_grows_so_often_and_no_further(side: int) -> None:
    waves = waves_of(FACTORS)
    while wave := grown(waves, [min(map(min, waves)) if side < 0 else max(map(max, waves))], FACTORS):
        waves.append(wave)
    assert waves[2:] == [(4.0 * 2.0**k,) if side > 0 else (0.25 / 2.0**k,) for k in range(1, EXTENSIONS + 1)]


# Stopping


@given(LOSSES, st.lists(LOSSES, min_size=LEAST_RIVALS, max_size=12))
def test_a_run_goes_on_where_it_is_in_the_better_half(loss: float, rivals: list[float]) -> None:
    """Its place among all of them, from 1, equals shared, is at most half of their number, rounded up."""
    place = sorted([*rivals, loss]).index(loss) + 1
    assert goes_on(loss, rivals) == (place <= math.ceil((len(rivals) + 1) / 2))


@given(LOSSES, LOSSES, st.lists(LOSSES, max_size=12))
def test_a_better_loss_never_stops_what_a_worse_one_lets_go_on(one: float, other: float, rivals: list[float]) -> None:
    better, worse = sorted((one, other))
    assert goes_on(better, rivals) or not goes_on(worse, rivals)


@given(LOSSES, st.lists(LOSSES, max_size=LEAST_RIVALS - 1))
def test_nobody_is_stopped_by_fewer_than_three(loss: float, rivals: list[float]) -> None:
    assert goes_on(loss, rivals)
    assert not goes_on(math.nan, rivals)
    assert not goes_on(math.inf, rivals)


@given(st.lists(LOSSES, min_size=5, max_size=5), st.lists(st.lists(LOSSES, min_size=5, max_size=5), max_size=6))
def test_what_the_rule_says_of_a_run_follows_from_losses_alone(losses: list[float], earlier: list[list[float]]) -> None:
    """Of one that went on, of one that was stopped where the rule stops it, and of one that was stopped too early."""
    rivals = rivals_of(map(run, earlier))
    whole = run(losses)
    found = settled(whole, rivals)
    assert found is not None
    at = [rung for rung, others in zip(RUNGS, rivals, strict=True) if not goes_on(losses[rung - 1], others)]
    if not at:
        assert found == whole
    else:
        assert (found.ended, found.losses, found.loss) == ("stopped", whole.losses[: at[0]], None)
        assert found.steps == 10 * at[0]
        assert found.rivals == tuple(row[at[0] - 1] for row in earlier)
        assert settled(found, rivals) == found
    for rung in RUNGS:
        early = run(losses[:rung], ended="stopped")
        again = settled(early, rivals)
        assert again == (None if not at or rung < at[0] else found)


def test_a_run_that_ends_early_is_no_rival_further_on() -> None:
    runs = [run([3.0, 2.0, 1.0, 0.5, 0.4]), run([4.0], ended="stopped"), run([5.0, 4.5], ended="diverged"), run([])]
    assert rivals_of(runs) == ((3.0, 4.0, 5.0), (2.0, 4.5), (0.5,))


def test_the_end_of_a_short_training_is_no_rung() -> None:
    """Four steps have four validations, the last of which is the loss that factors are chosen by."""
    last = run([4.0, 3.0, 2.0, 9.0])
    rivals = rivals_of([run([4.0, 3.0, 2.0, 1.0])] * 3)
    assert settled(last, rivals) == last


def test_a_run_that_diverged_stays_one() -> None:
    diverged = run([4.0], ended="diverged")
    assert settled(diverged, rivals_of([run([5.0, 4.0, 3.0, 2.0, 1.0])] * 3)) == diverged
    assert diverged.loss is None


def test_the_lowest_loss_comes_first_and_of_equals_the_smaller_factor() -> None:
    assert ranked({4.0: 1.0, 2.0: 0.5, 1.0: 0.5, 0.5: 2.0}) == [1.0, 2.0, 4.0, 0.5]


# The study of a search


def test_the_runs_of_a_search_are_trials_of_the_study_that_touch_no_test_item(tiny: Path) -> None:
    workspace = Workspace(tiny, tiny)
    study = tiny_study(tiny, budgets=["6k"], settings=["mixture", "single"], **{"evaluate.limit": 7})
    searched = search_study(study, ["lora", "mosld"], (1000, 1001), study.budgets[0])
    trials = searched.plan(workspace)
    assert [(trial.recipe.name, trial.setting, trial.seed) for trial in trials] == [
        (name, "mixture", seed) for name in ("lora", "mosld") for seed in (1000, 1001)
    ]
    assert study.train is not None
    for trial in trials:
        assert trial.train == study.train.model_copy(update={"validation_items": None})
        assert (trial.evaluate.split, trial.evaluate.limit, trial.out_of_domain) == ("validation", None, ())
        assert (trial.study, trial.budget, trial.model.name) == ("tiny-tuning", study.budgets[0], "model")
    (protocol,) = {trial.protocol for trial in trials}
    assert protocol not in {trial.protocol for trial in study.plan(workspace)}, "no report takes them for its own"
    same = tiny_study(tiny, seeds=[5], out_of_domain=[], budgets=["9k"], **{"evaluate.limit": 3})
    assert {trial.protocol for trial in search_study(same, ["lora"]).plan(workspace)} == {protocol}
    other = tiny_study(tiny, **{"train.steps": 5})
    assert {trial.protocol for trial in search_study(other, ["lora"]).plan(workspace)} != {protocol}
