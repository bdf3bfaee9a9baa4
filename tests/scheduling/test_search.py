"""A search as it goes on: the same runs for every recipe, whoever is faster; what is known is not run again."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mosld_bench.errors import BenchError
from mosld_bench.records.record import Judgement, Point, Record
from mosld_bench.scheduling.plan import Plan
from mosld_bench.scheduling.search import Search, make_search, noise_of_pair
from mosld_bench.spec.search import EXTENSIONS, FACTORS, goes_on, search_study
from mosld_bench.spec.trial import RUNGS, Fit, PlannedTrial
from mosld_bench.spec.workspace import Workspace
from tests.spec.tiny import tiny_study
from tests.support.synthetic import RECIPES, make_record, make_study, make_trials

NAMES = ("lora", "mola", "mosld")
SEEDS = (1000, 1001)
STEPS = 50
FIT = Fit(target=None, trainable=1, total=2, residual=None, params={})

#: Loss of a recipe at a factor, with a seed, after a share of the steps (1 to 5 fifths); None where it diverges there.
Loss = Callable[[str, float, int, int], float | None]


def search(start: tuple[float, ...] = FACTORS, names: tuple[str, ...] = NAMES) -> Search:
    study = make_study(recipes=names)
    searched = search_study(study, names, SEEDS, study.budgets[0])
    trials = make_trials(searched, [RECIPES[name] for name in names])
    return Search(study, Plan(searched, [PlannedTrial(trial, FIT) for trial in trials], {}, {}), start)


def bowl(best: Mapping[str, float], noise: float = 0.0, wall: float = math.inf) -> Loss:
    """The further from its best factor, in octaves, the higher the loss, at any time; above ``wall`` it diverges."""

    def loss(name: str, factor: float, seed: int, fifth: int) -> float | None:
        if factor > wall:
            return None
        chance = random.Random(f"{name}-{factor}-{seed}").gauss(0, noise)
        return 3.0 - 0.2 * fifth + 0.1 * abs(math.log2(factor / best[name])) + chance + 0.01 * (seed - 1000)

    return loss


def record(planned: PlannedTrial, loss: Loss) -> Record:
    """What a worker makes of a trial: judged at its rungs, as `trial.train` does."""
    trial, curve, judged, diverged = planned.trial, [], [], None
    assert trial.rivals is not None
    rivals = dict(zip(RUNGS, trial.rivals, strict=False))
    for fifth in range(1, 6):
        value = loss(trial.recipe.name, trial.recipe.learning_rate_scale, trial.seed, fifth)
        if value is None:
            diverged = f"The loss became nan at step {10 * fifth}."
            break
        curve.append(Point(step=10 * fifth, validation_loss=value, seconds=1.0))
        others = rivals.get(fifth, ())
        if others:
            judged.append(Judgement(step=10 * fifth, loss=value, rivals=others, goes_on=goes_on(value, others)))
        if fifth < 5 and not goes_on(value, others):
            break
    whole = make_record(trial, make_study(recipes=NAMES))
    assert whole.train_info is not None
    steps = 10 * len(curve) + (5 if diverged else 0)
    info = {"steps": steps, "curve": tuple(curve), "judged": tuple(judged), "diverged": diverged}
    trained = whole.train_info.model_copy(update=info)
    if not trained.stopped:
        return whole.model_copy(update={"train_info": trained})
    return whole.model_copy(update={"train_info": trained, "status": "stopped", "metrics": ()})


def carried_out(search: Search, loss: Loss, known: dict[str, Record] | None = None, shuffle: int = 0) -> list[str]:
    """Run a search to its end, as the pipeline does; trials of a wave end in any order. Returns the ids that ran."""
    known = {} if known is None else known
    ran: list[str] = []
    while wave := search.wave():
        order = list(wave)
        random.Random(shuffle).shuffle(order)
        for member in order:
            if search.run_of(member, known.get(member.trial.id)) is None:
                known[member.trial.id] = record(member, loss)
                ran.append(member.trial.id)
        runs = {member.trial.id: search.run_of(member, known[member.trial.id]) for member in wave}
        search.settle({trial: run for trial, run in runs.items() if run is not None})
    return ran


def factors_of(search: Search) -> dict[tuple[str, int], list[float]]:
    """(recipe, seed) -> the factors that were tried."""
    found: dict[tuple[str, int], list[float]] = {}
    for recipe, seed, factor in search.runs:
        found.setdefault((recipe, seed), []).append(factor)
    return {key: sorted(factors) for key, factors in found.items()}


MIDDLE = {"lora": 1.0, "mola": 2.0, "mosld": 0.5}


def test_a_search_of_recipes_with_their_best_in_the_middle_runs_the_grid_and_no_more() -> None:
    found = search()
    ran = carried_out(found, bowl(MIDDLE))
    assert len(ran) == len(set(ran)) == len(NAMES) * len(SEEDS) * len(FACTORS)
    tuning = found.tuning()
    assert {name: recipe.chosen for name, recipe in tuning.recipes.items()} == MIDDLE
    assert tuning.waves == ((0.5, 1.0, 2.0), (0.25, 4.0))
    assert not any(recipe.at_edge for recipe in tuning.recipes.values())
    assert {name: recipe.margin for name, recipe in tuning.recipes.items()} == pytest.approx(dict.fromkeys(NAMES, 0.1))
    assert tuning.noise == pytest.approx(0.0, abs=1e-9)
    assert all(tuning.separated(name) for name in NAMES)
    assert tuning.recipes["lora"].runner_up == 0.5, "of equal ones the smaller factor"


def test_rates_that_cannot_win_are_stopped_and_what_that_saves_is_counted() -> None:
    found = search()
    carried_out(found, bowl(MIDDLE))
    lora = [run for run in found.tuning().recipes["lora"].runs if run.factor in (0.25, 4.0)]
    assert {(run.ended, run.steps, run.loss) for run in lora} == {("stopped", 10, None)}
    middle = sorted(2.8 + 0.1 * octaves for octaves in (0, 1, 1))
    assert sorted(next(run.rivals for run in lora if run.seed == 1000)) == pytest.approx(middle)
    steps = [run.steps for run in found.runs.values()]
    assert found.saved_share() == pytest.approx(1 - sum(steps) / (STEPS * len(steps)))
    assert 0.2 < found.saved_share() < 0.35


@given(st.dictionaries(st.sampled_from(NAMES), st.integers(-9, 9), min_size=3), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_every_recipe_has_the_same_runs_and_the_best_of_the_grid_is_found(
    octaves: dict[str, int], shuffle: int
) -> None:
    """Wherever the bests lie, and in whatever order trials end: noise apart, stopping loses no best factor."""
    best = {name: 2.0**octave for name, octave in octaves.items()}
    one, other = search(), search()
    carried_out(one, bowl(best))
    carried_out(other, bowl(best), shuffle=shuffle)
    assert other.tuning().text() == one.tuning().text()
    grid = one.tuning().factors
    assert set(map(tuple, factors_of(one).values())) == {grid}
    limits = min(FACTORS) / 2**EXTENSIONS, max(FACTORS) * 2**EXTENSIONS
    for name, recipe in one.tuning().recipes.items():
        assert recipe.chosen == min(max(best[name], limits[0]), limits[1])
        assert recipe.at_edge == (recipe.chosen in (grid[0], grid[-1]))
        assert not recipe.at_edge or recipe.chosen in limits, "at an edge only where the grid grows no more"
    assert len(grid) == len(set(grid)) <= len(FACTORS) + 2 * EXTENSIONS


@pytest.mark.parametrize("seed", range(5))
def test_with_noise_every_decision_follows_from_the_losses(seed: int) -> None:
    loss = bowl(MIDDLE, noise=0.08 + 0.01 * seed)
    found, again = search(), search()
    known: dict[str, Record] = {}
    carried_out(found, loss, known, shuffle=seed)
    assert carried_out(again, loss, dict(known)) == [], "what is recorded is not run again"
    assert again.tuning() == found.tuning()
    for name, recipe in found.tuning().recipes.items():
        means = recipe.means()
        assert recipe.chosen == min(means, key=lambda factor: means[factor])
        assert recipe.margin is not None
        assert recipe.margin >= 0
        assert len(found.losses(name)) >= 3, "the middle of the grid runs to its end"


def test_a_search_that_was_broken_off_goes_on_to_the_same_end() -> None:
    """From every point: what ran before is known, what was under way is run, and nothing else."""
    loss = bowl(MIDDLE | {"mola": 8.0}, noise=0.05)
    whole, known = search(), dict[str, Record]()
    ran = carried_out(whole, loss, known)
    for cut in range(0, len(ran), 7):
        kept = {trial: known[trial] for trial in ran[:cut]}
        again = search()
        assert sorted(carried_out(again, loss, kept)) == sorted(ran[cut:])
        assert again.tuning() == whole.tuning()


def test_a_record_that_was_stopped_by_another_grid_runs_again_where_it_would_go_on_now() -> None:
    """A smaller grid around another middle has stopped what is now in the middle; what went on is not run again."""
    loss = bowl({"lora": 0.5, "mola": 0.5, "mosld": 0.5})
    known: dict[str, Record] = {}
    narrow = search((0.25, 0.5, 1.0, 2.0, 4.0))
    carried_out(narrow, loss, known)
    stopped = {run.trial for run in narrow.runs.values() if run.ended == "stopped"}
    assert {run.factor for run in narrow.runs.values() if run.trial in stopped} == {4.0}
    wide, before = search((1.0, 2.0, 4.0, 8.0)), dict(known)
    ran = carried_out(wide, loss, known)
    again = [trial for trial in ran if trial in before]
    assert set(again) == stopped
    assert all(known[trial].status == "finished" for trial in again)
    fresh = search((1.0, 2.0, 4.0, 8.0))
    carried_out(fresh, loss)
    assert fresh.tuning() == wide.tuning()


def test_a_record_that_ran_further_than_the_rule_lets_it_counts_as_far_as_it_does() -> None:
    """The recipe is of equal trials: those of a grid that never stops are held to the rule like any others."""
    known: dict[str, Record] = {}
    whole = search((0.25, 0.5, 1.0))
    carried_out(whole, bowl({"lora": 1.0, "mola": 1.0, "mosld": 1.0}), known)
    usual, fresh = search(), search()
    loss = bowl({"lora": 2.0, "mola": 2.0, "mosld": 2.0})
    ran_to_the_end = {
        trial: record(PlannedTrial(r.trial.model_copy(update={"rivals": ()}), FIT), loss) for trial, r in known.items()
    }
    carried_out(usual, loss, ran_to_the_end)
    carried_out(fresh, loss)
    assert usual.tuning() == fresh.tuning()
    assert {run.ended for run in usual.runs.values() if run.factor == 0.25} == {"stopped"}


def test_rates_that_diverge_are_stopped_runs_and_no_failure() -> None:
    found = search()
    carried_out(found, bowl(MIDDLE, wall=1.5))
    tuning = found.tuning()
    assert {run.ended for name in NAMES for run in tuning.recipes[name].runs if run.factor > 1.5} == {"diverged"}
    assert {name: recipe.chosen for name, recipe in tuning.recipes.items()} == {"lora": 1.0, "mola": 1.0, "mosld": 0.5}
    assert all(run.loss is None and run.score is None for run in tuning.recipes["mola"].runs if run.factor > 1.5)


def test_what_diverges_everywhere_is_tried_at_smaller_rates_and_then_told() -> None:
    found = search()
    usual = bowl(MIDDLE)
    carried_out(found, lambda name, *rest: None if name == "mola" else usual(name, *rest))
    assert found.without_rate() == ["mola"]
    assert min(found.tuning().factors) == min(FACTORS) / 2**EXTENSIONS
    assert set(found.tuning().recipes) == {"lora", "mosld"}
    nothing = search()
    carried_out(nothing, lambda *rest: None)
    with pytest.raises(BenchError, match=r"every loss became no number.*Lower train\.learning_rate"):
        nothing.tuning()


def test_a_factor_that_finished_with_one_seed_alone_is_not_chosen() -> None:
    """Seed 1001 is stopped at 4, where seed 1000 has the lowest loss of all."""
    usual = bowl(MIDDLE)

    def loss(name: str, factor: float, seed: int, fifth: int) -> float | None:
        if factor == 4.0:
            return 0.1 if seed == 1000 else 9.0
        return usual(name, factor, seed, fifth)

    found = search()
    carried_out(found, loss)
    assert {name: found.best(name) for name in NAMES} == MIDDLE
    assert 4.0 not in found.losses("lora")
    ended = {(run.factor, run.seed): run.ended for run in found.tuning().recipes["lora"].runs}
    assert (ended[4.0, 1000], ended[4.0, 1001]) == ("finished", "stopped"), "no comparison is lost"


def test_the_choice_by_score_stands_beside_that_by_loss() -> None:
    found, known = search(), dict[str, Record]()
    carried_out(found, bowl(MIDDLE), known)
    for name, recipe in found.tuning().recipes.items():
        scores = {
            factor: sum(_score(known[run.trial]) for run in recipe.runs if run.factor == factor) / len(SEEDS)
            for factor in recipe.means()
        }
        assert recipe.scores() == pytest.approx(scores), name
        assert recipe.by_score == max(scores, key=lambda factor: scores[factor])
        assert recipe.agrees == (recipe.by_score == recipe.chosen)


def _score(record: Record) -> float:
    primary = [metric.value for metric in record.metrics if metric.primary]
    return sum(primary) / len(primary)


def test_the_noise_of_a_pair_by_hand_and_without_what_seeds_share() -> None:
    """Two factors, two seeds: the residuals are ± a quarter of the interaction; pooled with a recipe without any."""
    one = [[1.0, 1.4], [2.0, 2.0]]
    noise, freedom = noise_of_pair([one])
    assert freedom == 1
    assert noise == pytest.approx(math.sqrt(2 * (4 * 0.1**2) / 1 / 2))
    shifted = [[row[0] + 5, row[1] - 3] for row in one]
    assert noise_of_pair([shifted])[0] == pytest.approx(noise)
    exact = [[1.0, 2.0], [3.0, 4.0], [0.0, 1.0]]
    noise, freedom = noise_of_pair([one, exact])
    assert freedom == 3
    assert noise == pytest.approx(math.sqrt(2 * 0.04 / 3 / 2))
    assert noise_of_pair([[[1.0, 2.0]], []]) == (None, 0)


@given(
    st.lists(
        st.lists(st.lists(st.floats(0, 9), min_size=3, max_size=3), min_size=2, max_size=5), min_size=1, max_size=4
    )
)
@settings(max_examples=50, deadline=None)
def test_the_noise_is_that_of_a_least_squares_fit(losses: list[list[list[float]]]) -> None:
    import numpy as np

    squares, freedom = 0.0, 0
    for recipe in losses:
        values = np.array(recipe)
        factors, seeds = values.shape
        design = np.zeros((factors * seeds, factors + seeds))
        for i in range(factors):
            for j in range(seeds):
                design[i * seeds + j, [i, factors + j]] = 1
        fitted = design @ np.linalg.lstsq(design, values.ravel(), rcond=None)[0]
        squares += float(np.sum((values.ravel() - fitted) ** 2))
        freedom += factors * seeds - (factors + seeds - 1)
    noise, found = noise_of_pair(losses)
    assert found == freedom
    assert noise == pytest.approx(math.sqrt(2 * squares / freedom / 3), abs=1e-6)


def test_a_search_is_priced_between_its_bounds(tiny: Path) -> None:
    size = "metadata: {version: 1.0, size: {train: 20, test: 20, tokens: 9}, "
    for name in ("copy", "count", "other"):
        file = tiny / "tasks" / f"{name}.yaml"
        file.write_text(file.read_text().replace("metadata: {version: 1.0, ", size))
    planned = make_search(tiny_study(tiny), Workspace(tiny, tiny))
    price = planned.price()
    assert price is not None
    assert price.most == pytest.approx(sum(planned.hours(planned.planned(FACTORS)).values()))
    assert price.growth_most == pytest.approx(price.most / 5)
    assert price.least == pytest.approx(price.most * (3 + 2 / 5) / 5)
    assert price.growth_least == pytest.approx(price.growth_most / 5)
    assert len(planned.whole.planned) == 2 * 2 * 5
