"""A search for learning rates while it runs: which trials are next, what their records say, and what is chosen.

`spec/search.py` has the rules, which are pure functions of losses; here they meet trials and records.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from mosld_bench.errors import BenchError
from mosld_bench.format import listed
from mosld_bench.records.record import Record
from mosld_bench.scheduling.plan import Plan, make_plan
from mosld_bench.scheduling.progress import in_domain_mean
from mosld_bench.spec.budget import Budget
from mosld_bench.spec.recipe import load_recipes
from mosld_bench.spec.search import (
    FACTORS,
    SEEDS,
    Wave,
    checked_factors,
    grown,
    kind_of,
    ranked,
    rivals_of,
    search_study,
    settled,
    waves_of,
)
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import VALIDATIONS, PlannedTrial
from mosld_bench.spec.tuning import RateSource, Run, TunedRecipe, Tuning
from mosld_bench.spec.workspace import Workspace

_LEAST_SEEDS = 2  # one tells nothing of the noise


class _Cell(NamedTuple):
    """What tells the runs of a search apart."""

    recipe: str
    seed: int
    factor: float


class SearchPrice(NamedTuple):
    """GPU-hours of a search by its estimate. A run that is stopped at once takes as much as its share of the steps."""

    most: float  # where no run of the grid is stopped
    least: float  # where every run that may be is stopped at the first validation
    growth_most: float  # of one more factor, for every recipe and seed
    growth_least: float


@dataclass
class Search:
    """A search for the learning rates of ``study``. It goes on by `wave` and `settle`, in turns.

    ``plan`` has a trial for each recipe and seed, whatever its factor; ``waves`` are those that the grid has come to.
    """

    study: Study
    plan: Plan
    start: tuple[float, ...]
    waves: list[Wave] = field(default_factory=list)
    runs: dict[_Cell, Run] = field(default_factory=dict)
    """As the rule has them, wave by wave."""
    _settled: int = 0  # waves
    _higher_is_better: bool = True

    def __post_init__(self) -> None:
        self.waves = self.waves or waves_of(self.start)

    # Its trials

    def planned(self, factors: Iterable[float]) -> list[PlannedTrial]:
        """The trials of every recipe and seed at ``factors``, held against nothing yet."""
        return [_at(member, factor) for member in self.plan.planned for factor in factors]

    def of(self, planned: Sequence[PlannedTrial]) -> Plan:
        """A plan of some of its trials, to be priced."""
        return replace(self.plan, planned=list(planned))

    @property
    def whole(self) -> Plan:
        """The plan of all runs of the grid as it is now."""
        return self.of(self.planned(sorted(factor for wave in self.waves for factor in wave)))

    def hours(self, planned: Sequence[PlannedTrial]) -> dict[str, float]:
        """Trial id -> its estimated GPU-hours if it is not stopped, 0 where there is no estimate."""
        return self.of(planned).hours(planned)

    @property
    def current(self) -> Wave:
        """The factors of `wave`; none where the search is over."""
        return self.waves[self._settled] if self._settled < len(self.waves) else ()

    def wave(self) -> list[PlannedTrial]:
        """The trials of the first wave that is not settled, each with its rivals; none where the search is over."""
        return [self._with_rivals(member) for member in self.planned(self.current)]

    def _with_rivals(self, member: PlannedTrial) -> PlannedTrial:
        trial = member.trial
        here = (trial.recipe.name, trial.seed)
        earlier = [run for cell, run in self.runs.items() if (cell.recipe, cell.seed) == here]
        return member._replace(trial=trial.model_copy(update={"rivals": rivals_of(earlier)}))

    def run_of(self, member: PlannedTrial, record: Record | None) -> Run | None:
        """What a trial of `wave` came to; None where it has to run, since there is no record, or one stopped too early.

        It was stopped too early where it was held against other runs than it is now, and they would let it go on.
        """
        if record is None or record.train_info is None:
            return None
        if score := in_domain_mean(record):
            self._higher_is_better = score[0].higher_is_better
        return settled(_as_run(record), member.trial.rivals or ())

    def settle(self, runs: Mapping[str, Run]) -> None:
        """Take the runs of all trials of `wave` (id -> run); the grid grows where it has to."""
        new = {
            _Cell(trial.recipe.name, trial.seed, trial.recipe.learning_rate_scale): runs[trial.id]
            for trial, _ in self.wave()
        }
        self.runs |= new
        self._settled += 1
        if self._settled == len(self.waves):
            more = grown(self.waves, [self.best(recipe) for recipe in self.recipes], self.start)
            self.waves += [more] if more else []

    def price(self) -> SearchPrice | None:
        """What it takes at most and at least; None where the plan has no hours for every trial."""
        prices = [price.gpu_hours if price else None for price in self.plan.prices]
        hours = [hours for hours in prices if hours is not None]
        if len(hours) < len(prices):
            return None
        one = sum(hours)
        first = len(self.waves[0])
        factors = sum(len(wave) for wave in self.waves)
        return SearchPrice(one * factors, one * (first + (factors - first) / VALIDATIONS), one, one / VALIDATIONS)

    # What it has found

    @property
    def recipes(self) -> list[str]:
        """The names of the recipes that are searched for, in the order of the tables."""
        return list(dict.fromkeys(trial.recipe.name for trial in self.plan.trials))

    @property
    def seeds(self) -> tuple[int, ...]:
        """Those of the search."""
        return self.plan.study.seeds

    def losses(self, recipe: str) -> dict[float, list[float]]:
        """Factor -> loss at the end by seed, of the factors that count: whose runs finished with every seed."""
        losses = {}
        for factor in sorted({cell.factor for cell in self.runs if cell.recipe == recipe}):
            found = [self.runs[_Cell(recipe, seed, factor)].loss for seed in self.seeds]
            known = [loss for loss in found if loss is not None]
            if len(known) == len(found):
                losses[factor] = known
        return losses

    def best(self, recipe: str) -> float | None:
        """The factor of the lowest mean loss; None where none counts."""
        return next(iter(ranked(_means(self.losses(recipe)))), None)

    def without_rate(self) -> list[str]:
        """The recipes of which no factor counts, since they diverged at every one."""
        return [recipe for recipe in self.recipes if self.best(recipe) is None]

    def saved_share(self) -> float:
        """The share of all steps that stopping has saved: 0 to 1."""
        whole = max((run.steps for run in self.runs.values()), default=0) * len(self.runs)
        return 1 - sum(run.steps for run in self.runs.values()) / whole if whole else 0.0

    def tuning(self) -> Tuning:
        """What was found. Raises BenchError where every recipe diverged at every factor."""
        recipes = [recipe for recipe in self.recipes if self.best(recipe) is not None]
        if not recipes:
            raise BenchError(
                f"No run of the search for {self.study.name!r} came to its end: every loss became no number. Lower "
                f"train.learning_rate, or --factors."
            )
        noise, freedom = noise_of_pair([list(self.losses(recipe).values()) for recipe in recipes])
        first = self.plan.trials[0]
        assert first.train is not None, "a study that is searched trains"
        return Tuning.of(
            study=self.study.name,
            results=self.plan.study.name,
            protocol=first.protocol,
            model=first.model.model_copy(update={"folder": None}),
            budget=self.plan.study.budgets[0],
            in_domain=first.task_digests,
            train=first.train,
            seeds=self.seeds,
            waves=tuple(self.waves),
            steps=max(run.steps for run in self.runs.values()),
            noise=noise,
            degrees_of_freedom=freedom,
            higher_is_better=self._higher_is_better,
            recipes={recipe: self._tuned(recipe) for recipe in recipes},
        )

    def _tuned(self, name: str) -> TunedRecipe:
        means = _means(self.losses(name))
        chosen, *others = ranked(means)
        runs = [run for cell, run in sorted(self.runs.items(), key=_by_factor) if cell.recipe == name]
        recipe = next(trial.recipe for trial in self.plan.trials if trial.recipe.name == name)
        grid = sorted(factor for wave in self.waves for factor in wave)
        found = TunedRecipe(
            recipe=kind_of(recipe),
            chosen=chosen,
            runner_up=others[0] if others else None,
            margin=means[others[0]] - means[chosen] if others else None,
            at_edge=chosen in (grid[0], grid[-1]),
            runs=tuple(runs),
        )
        scores, sign = found.scores(), 1 if self._higher_is_better else -1
        best = max(scores, key=lambda factor: (sign * scores[factor], -means[factor]), default=None)
        return found.model_copy(update={"by_score": best if len(scores) == len(means) else None})


def make_search(
    study: Study,
    workspace: Workspace,
    *,
    factors: Iterable[float] = FACTORS,
    seeds: Sequence[int] = SEEDS,
    include_paths: tuple[Path, ...] = (),
    model_root: Path | None = None,
) -> Search:
    """Plan the search for the learning rates of ``study``, of all recipes that it trains. Starts nothing.

    Raises BenchError for a study that cannot be searched as it is, and what `make_plan` raises.
    """
    start = checked_factors(factors)
    parts = study.selected(study.catalogue(load_recipes(workspace.methods)))
    budget = _checked(study, [part for part, _ in parts], seeds)
    trained = {recipe.name: recipe for _, chosen in parts for recipe in chosen if recipe.method != "base"}
    by_hand = [name for name in trained if study.rate_source(name) is RateSource.HAND]
    if by_hand:
        raise BenchError(
            f"The study {study.name!r} has factors written by hand for {listed(by_hand)} (learning_rate_scales), in "
            f"whose place no search comes. Take them out, here by --set learning_rate_scales={{}}, or name other "
            f"recipes by --methods."
        )
    if not trained:
        raise BenchError(f"The study {study.name!r} trains no recipe, so that there is no learning rate to search for.")
    plan = make_plan(
        search_study(study, list(trained), seeds, budget),
        workspace,
        include_paths=include_paths,
        model_root=model_root,
    )
    return Search(study, plan, start)


def _checked(study: Study, parts: Sequence[Study], seeds: Sequence[int]) -> Budget:
    """The one budget of a study's ``parts``. Raises BenchError for what no search can be made of, and what to do."""
    name = study.name
    if not study.trains:
        raise BenchError(f"The study {name!r} only counts parameters: it has no learning rate to search for.")
    if not study.holds_out:
        raise BenchError(
            f"The study {name!r} holds no item out of training, and a search must not look at test items. Set "
            f"train.validation_fraction and train.validation_items above 0."
        )
    settings = {setting for part in parts for setting in part.settings}
    if "mixture" not in settings:
        raise BenchError(
            f"The study {name!r} trains on single tasks alone; a search is made on their mixture. --settings mixture "
            f"makes it."
        )
    budgets = list(dict.fromkeys(budget for part in parts for budget in part.budgets))
    if len(budgets) > 1 or len(study.models) > 1:
        several = [f"the budgets {', '.join(budgets)}"] if len(budgets) > 1 else []
        several += [f"the models {study.model_names}"] if len(study.models) > 1 else []
        raise BenchError(
            f"The study {name!r} has {listed(several)}, and a search is made under one of each. Say which, by "
            f"{listed([option for option, of in (('--budget', budgets), ('--model', study.models)) if len(of) > 1])}."
        )
    if len(set(seeds)) != len(seeds) or len(seeds) < _LEAST_SEEDS:
        raise BenchError(
            f"A search takes {_LEAST_SEEDS} different seeds or more, since one tells nothing of the noise; given: "
            f"{', '.join(map(str, seeds)) or 'none'}."
        )
    reported = {seed for part in parts for seed in part.seeds}
    if both := sorted(reported & set(seeds)):
        raise BenchError(
            f"The seeds {', '.join(map(str, both))} are those of the study {name!r} as well. A rate that is chosen on "
            f"them would favour its own seeds; give others by --seeds."
        )
    return budgets[0]


def noise_of_pair(losses: Sequence[Sequence[Sequence[float]]]) -> tuple[float | None, int]:
    """Standard error of the difference of two mean losses over seeds, in nats, and its degrees of freedom.

    ``losses``: by recipe, factor and seed. sqrt(2 MS / S), with S seeds and MS the residual mean square of the additive
    fit factor + seed within every recipe, pooled over the recipes: Σ_r Σ_fs (L_fs - L_f. - L_.s + L_..)² over
    Σ_r (F_r - 1)(S - 1). A seed that is good for all factors of a recipe adds nothing: pairs have their seeds in
    common. None where no recipe has two factors.
    """
    squares, freedom, seeds = 0.0, 0, 0
    for by_factor in losses:
        if not by_factor:
            continue
        seeds = len(by_factor[0])
        of_factor = [sum(row) / seeds for row in by_factor]
        of_seed = [sum(column) / len(by_factor) for column in zip(*by_factor, strict=True)]
        mean = sum(of_factor) / len(by_factor)
        squares += sum(
            (loss - of_factor[i] - of_seed[j] + mean) ** 2
            for i, row in enumerate(by_factor)
            for j, loss in enumerate(row)
        )
        freedom += (len(by_factor) - 1) * (seeds - 1)
    return (math.sqrt(2 * squares / freedom / seeds), freedom) if freedom else (None, 0)


def _at(member: PlannedTrial, factor: float) -> PlannedTrial:
    """The trial at another factor on the learning rate; its size is the same."""
    recipe = member.trial.recipe.model_copy(update={"learning_rate_scale": factor})
    return member._replace(trial=member.trial.model_copy(update={"recipe": recipe, "rivals": ()}))


def _as_run(record: Record) -> Run:
    """What a record says of a run."""
    info = record.train_info
    assert info is not None, "a run of a search trains"
    validated = [point for point in info.curve if point.validation_loss is not None]
    score = in_domain_mean(record)
    last = next((judgement for judgement in info.judged if not judgement.goes_on), None)
    return Run(
        trial=record.trial_id,
        factor=record.trial.recipe.learning_rate_scale,
        seed=record.trial.seed,
        ended="diverged" if info.diverged else "stopped" if last else "finished",
        steps=info.steps,
        at=tuple(point.step for point in validated),
        losses=tuple(point.validation_loss for point in validated if point.validation_loss is not None),
        rivals=last.rivals if last else (),
        score=score[1] if score else None,
    )


def _means(losses: Mapping[float, Sequence[float]]) -> dict[float, float]:
    return {factor: sum(by_seed) / len(by_seed) for factor, by_seed in losses.items()}


def _by_factor(item: tuple[_Cell, Run]) -> tuple[float, int]:
    return item[0].factor, item[0].seed
