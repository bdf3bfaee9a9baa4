"""The rows of a report: the records of one recipe under one condition, with their scores seed by seed.

Scores are lm-eval's numbers. A mean over tasks is there only where every task of it has a score, all on one scale.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from mosld_bench.records.record import Metric, Record
from mosld_bench.reporting import stats
from mosld_bench.reporting.scales import Scales
from mosld_bench.spec.budget import Budget, Native
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import Condition, Domain, Trial


@dataclass(frozen=True)
class SeedScores:
    """What one seed scored: by one model, or in the setting ``single`` by one model a task.

    ``scores`` are by task, ``means`` over the tasks of a domain; what cannot be known is left out. ``complete``:
    whether every in-domain task has a score.
    """

    seed: int
    scores: Mapping[str, float]
    means: Mapping[Domain, float]
    complete: bool


class RowKey(NamedTuple):
    """What tells the rows of a report apart: the recipe's name and the condition."""

    recipe: str
    condition: Condition


@dataclass(frozen=True)
class Row:
    """A row of the tables: one recipe under one condition, over seeds."""

    recipe: Recipe
    condition: Condition
    records: tuple[Record, ...]
    seeds: tuple[SeedScores, ...]

    @cached_property
    def key(self) -> RowKey:
        """No other row of the report has it."""
        return RowKey(self.recipe.name, self.condition)

    @property
    def setting(self) -> str:
        """The condition's setting."""
        return self.condition.setting

    @property
    def budget(self) -> Budget:
        """The condition's budget."""
        return self.condition.budget

    @property
    def ranked(self) -> bool:
        """Whether it may be compared with its block: at equal size, or at equal rank, never across the two."""
        return not isinstance(self.budget, Native)

    @property
    def matched(self) -> bool:
        """Whether a budget gave it its size."""
        return self.budget.sets_size

    @property
    def frozen(self) -> bool:
        """Whether it is an untrained model."""
        return self.setting == "frozen"

    @property
    def trainable(self) -> int | None:
        """Trainable parameters of its first record with a size; None without one."""
        return next((record.size.trainable for record in self.records if record.size), None)

    @property
    def n(self) -> int:
        """Seeds with a score on every in-domain task."""
        return sum(seed.complete for seed in self.seeds)

    def by_seed(self, of: Domain | str = Domain.IN) -> dict[int, float]:
        """Seed -> mean over a domain, or score of the task of that name; seeds without one are left out."""
        if isinstance(of, Domain):
            return {seed.seed: seed.means[of] for seed in self.seeds if of in seed.means}
        return {seed.seed: seed.scores[of] for seed in self.seeds if of in seed.scores}

    def mean_sd(self, of: Domain | str = Domain.IN) -> tuple[float | None, float | None]:
        """Mean and sample standard deviation over seeds of a domain or a task (`stats.mean_sd`)."""
        key = isinstance(of, Domain), of  # a task may be called as a domain is
        if key not in self._mean_sds:
            self._mean_sds[key] = stats.mean_sd(list(self.by_seed(of).values()))
        return self._mean_sds[key]

    @cached_property
    def _mean_sds(self) -> dict[tuple[bool, str], tuple[float | None, float | None]]:
        """What `mean_sd` has given: tables, figures and ranks ask for it over and over."""
        return {}

    @property
    def score(self) -> float | None:
        """Mean over seeds of the in-domain mean."""
        return self.mean_sd()[0]


def make_rows(study: Study, trials: Sequence[Trial], records: Sequence[Record], scales: Scales) -> tuple[Row, ...]:
    """The rows that the plan asks for, with or without a record.

    Frozen rows come first, then rows at their native size (full fine-tuning before others), then those that are
    compared; within these in the order of the plan. Where all rows have one base model, conditions leave it out.
    """
    grouped: dict[RowKey, list[Record]] = {}
    for trial in trials:
        grouped.setdefault(RowKey(trial.recipe.name, trial.condition), [])
    for record in records:
        grouped.setdefault(RowKey(record.trial.recipe.name, record.trial.condition), []).append(record)
    several = len({condition.model for _, condition in grouped}) > 1
    recipes = {
        RowKey(trial.recipe.name, trial.condition): trial.recipe
        for trial in (*(record.trial for record in records), *trials)
    }
    rows = [
        Row(
            recipes[RowKey(recipe, condition)],
            condition if several else condition._replace(model=""),
            tuple(members),
            tuple(seed_scores(study, condition.setting, members, scales)),
        )
        for (recipe, condition), members in grouped.items()
    ]
    return tuple(sorted(rows, key=lambda row: (not row.frozen, row.ranked, row.recipe.method != "full")))


def seed_scores(
    study: Study, setting: str, records: Sequence[Record], scales: Scales, *, metric: str | None = None
) -> Iterator[SeedScores]:
    """Scores seed by seed, under each task's primary metric or the one called ``metric``.

    In the setting ``single`` a task's score is that of its own model; out-of-domain scores are averaged over
    the models, and are there only if all models are. A domain whose tasks have several ``scales`` has no mean.
    """
    tasks = {Domain.IN: study.in_domain, Domain.OUT: study.out_of_domain}
    averaged = {domain: names for domain, names in tasks.items() if not scales.unlike(names, metric)}
    for seed in sorted({record.trial.seed for record in records}):
        of_seed = [record for record in records if record.trial.seed == seed]
        values: dict[str, list[Metric]] = {}
        for record in of_seed:
            for value in record.metrics:
                if value.primary if metric is None else value.metric == metric:
                    values.setdefault(value.task, []).append(value)
        models = len(study.in_domain) if setting == "single" else 1
        expected = dict.fromkeys(study.in_domain, 1) | dict.fromkeys(study.out_of_domain, models)
        complete = {task: values[task] for task, n in expected.items() if len(values.get(task, ())) == n}
        scores = {task: sum(value.value for value in of_task) / len(of_task) for task, of_task in complete.items()}
        means = {domain: mean for domain, names in averaged.items() if (mean := _mean(scores, names)) is not None}
        answered = bool(study.in_domain) and all(task in scores for task in study.in_domain)
        yield SeedScores(seed, scores, means, answered)


def _mean(scores: Mapping[str, float], tasks: Sequence[str]) -> float | None:
    """Mean over ``tasks``; None where there are none, or one has no score."""
    complete = bool(tasks) and all(task in scores for task in tasks)
    return sum(scores[task] for task in tasks) / len(tasks) if complete else None
