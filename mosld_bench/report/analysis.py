"""Analysis: what the records of a study say, before any table is set.

``gather`` decides once which records count, how a seed's score comes about and what a row of the report is;
tables, plots and sections only read it. Scores are fractions (0 to 1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mosld_bench.errors import BenchError
from mosld_bench.records.overlap import Overlap
from mosld_bench.records.profile import Profile
from mosld_bench.records.published import Published
from mosld_bench.records.record import Metric, Record
from mosld_bench.records.store import Sources
from mosld_bench.report import stats
from mosld_bench.spec.budget import Budget, Native
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import Condition, Trial, canonical

ALPHA = 0.05


@dataclass(frozen=True)
class Run:
    """One recipe, setting, budget and seed: one model, or in the setting ``single`` one model a task."""

    seed: int
    scores: dict[str, float]
    errors: dict[str, float | None]
    in_domain: float | None
    out_of_domain: float | None


@dataclass(frozen=True)
class Row:
    """A row of the tables: one recipe under one condition, over seeds."""

    recipe: Recipe
    block: Condition
    records: tuple[Record, ...]
    runs: tuple[Run, ...]

    @property
    def setting(self) -> str:
        return self.block.setting

    @property
    def budget(self) -> Budget:
        return self.block.budget

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
        return self.setting == "frozen"

    @property
    def trainable(self) -> int | None:
        return next((record.size.trainable for record in self.records if record.size), None)

    def by_seed(self, what: str = "in_domain") -> dict[int, float]:
        """Seed -> score of a task, ``in_domain`` or ``out_of_domain``; seeds without one are left out."""
        found = {run.seed: getattr(run, what) if what in _MEANS else run.scores.get(what) for run in self.runs}
        return {seed: value for seed, value in sorted(found.items()) if value is not None}

    def mean_sd(self, what: str = "in_domain") -> tuple[float | None, float | None]:
        return stats.mean_sd(list(self.by_seed(what).values()))

    @property
    def score(self) -> float | None:
        """Mean over seeds of the in-domain mean."""
        return self.mean_sd()[0]


@dataclass(frozen=True)
class Comparison:
    """A row against another of its block; ``adjusted`` is Holm's p within the block."""

    row: Row
    other: Row
    difference: stats.Difference
    adjusted: float | None

    @property
    def separated(self) -> bool:
        return self.adjusted is not None and self.adjusted < ALPHA


@dataclass(frozen=True)
class Analysis:
    """Everything that a section may draw on."""

    study: Study
    trials: tuple[Trial, ...]
    rows: tuple[Row, ...]
    tasks: Mapping[str, Mapping[str, Any]]
    overlaps: tuple[Overlap, ...] = ()
    published: Published | None = None
    profile: Profile | None = None
    missing: tuple[Trial, ...] = ()
    failures: tuple[tuple[Trial, str], ...] = ()  # those of the missing that were run, and the end of their error
    other_protocol: int = 0
    superseded: int = 0

    @property
    def task_names(self) -> tuple[str, ...]:
        return self.study.in_domain + self.study.out_of_domain

    @property
    def records(self) -> list[Record]:
        return [record for row in self.rows for record in row.records]

    @property
    def recipes(self) -> list[Recipe]:
        """In the order of the rows, each once: the order gives a recipe its marker and colour."""
        return list({row.recipe.name: row.recipe for row in self.rows}.values())

    @property
    def reference(self) -> str:
        """Title of the recipe that rows are compared with."""
        titles = {recipe.name: recipe.title for recipe in self.recipes}
        return titles.get(self.study.reference, self.study.reference)

    @property
    def trained(self) -> list[Row]:
        return [row for row in self.rows if not row.frozen]

    @property
    def frozen(self) -> list[Row]:
        """The untrained models."""
        return [row for row in self.rows if row.frozen]

    def frozen_of(self, block: Condition) -> Row | None:
        """The untrained model of a block's rows."""
        return next((row for row in self.frozen if row.block.model == block.model), None)

    @property
    def settings(self) -> list[str]:
        return list(dict.fromkeys(row.setting for row in self.trained))

    @property
    def budgets(self) -> list[str]:
        return list(dict.fromkeys(row.budget for row in self.trained))

    @property
    def dirty(self) -> int:
        """How many records were made with uncommitted changes in the working tree."""
        return sum(record.meta_info.get("dirty") is True for record in self.records)

    def blocks(self) -> Iterator[tuple[Condition, list[Row]]]:
        """Conditions and the trained rows under each; of a setting, equal sizes first, then equal ranks."""
        order = dict.fromkeys(
            row.block for row in sorted(self.trained, key=lambda row: (not row.matched, not row.ranked))
        )
        for setting in self.settings:
            for block in order:
                if block.setting == setting:
                    yield block, [row for row in self.trained if row.block == block]

    def title(self, task: str) -> str:
        return str(self._metadata(task).get("title") or task)

    def benchmark(self, task: str) -> str:
        """The name under which papers report the task, whichever way it is scored."""
        return str(self._metadata(task).get("benchmark") or task)

    def kind(self, task: str) -> str:
        return str(self._metadata(task).get("kind") or "").replace("_", " ")

    def scored_by(self, task: str) -> str:
        """What of an option is scored, ``text`` or ``letter``, where the definition says so."""
        return str(self._metadata(task).get("scoring") or "")

    def _metadata(self, task: str) -> Mapping[str, Any]:
        found = self.tasks.get(task, {}).get("metadata")
        return found if isinstance(found, Mapping) else {}

    @property
    def measure(self) -> str:
        """What the scores are: accuracy, or where tasks are scored otherwise (ROUGE, exact match) just a score."""
        metrics = [metric for task in self.task_names if (metric := self.metric(task))]
        return "accuracy" if all(metric.metric.startswith("acc") for metric in metrics) else "score"

    def metric(self, task: str) -> Metric | None:
        """The primary metric of a task, from the first record that has it."""
        of_task = (m for record in self.records for m in record.metrics if m.task == task and m.primary)
        return next(of_task, None)

    def other_metrics(self) -> list[str]:
        """The metrics that every task has beside its primary one, and every trained row under it."""
        found = [{m.metric for r in self.records for m in r.metrics if m.task == task} for task in self.task_names]
        primary = {metric.metric for task in self.task_names if (metric := self.metric(task))}
        return sorted(set.intersection(*found) - primary) if found else []

    def under(self, metric: str, row: Row) -> Row:
        """The row as another metric than the primary scores it."""
        return replace(row, runs=tuple(_runs(self.study, row.setting, row.records, metric)))

    def chance(self, tasks: Sequence[str]) -> float | None:
        """Mean chance level; None unless every task has one."""
        levels = [metric.chance if metric else None for metric in map(self.metric, tasks)]
        known = [level for level in levels if level is not None]
        return sum(known) / len(known) if known and len(known) == len(levels) else None

    def scored(self, block: Condition) -> list[Row]:
        """The rows of a block that have an in-domain mean."""
        return [row for row in self.trained if row.block == block and row.score is not None]

    def contenders(self, block: Condition) -> list[Row]:
        """Of a block of equal size or equal rank, the rows with the most seeds.

        A mean over fewer scatters more: it would often be the highest by chance, and nothing could be tested.
        """
        rows = [row for row in self.scored(block) if row.ranked]
        most = max((len(row.by_seed()) for row in rows), default=0)
        return [row for row in rows if len(row.by_seed()) == most]

    def best(self, block: Condition) -> Row | None:
        """The highest in-domain mean of a block's contenders."""
        return max(self.contenders(block), key=lambda row: row.score or 0.0, default=None)

    def against_best(self, block: Condition) -> list[Comparison]:
        """Every other row of a block minus the best one."""
        best = self.best(block)
        return self._against(best, block) if best else []

    def tied(self, block: Condition) -> list[Row]:
        """The other rows of a block that a test does not separate from its best."""
        return [c.row for c in self.against_best(block) if c.adjusted is not None and not c.separated]

    def untested(self, block: Condition) -> list[Row]:
        """The other rows of a block without a test against its best, for want of a second common seed."""
        best, tested = self.best(block), {id(c.row) for c in self.against_best(block) if c.adjusted is not None}
        return [row for row in self.scored(block) if row is not best and id(row) not in tested] if best else []

    def against_reference(self, block: Condition, what: str = "in_domain") -> list[Comparison]:
        """Every other row of a block minus the study's reference in it; empty where that is missing.

        Empty, too, for rows at their native size, which nothing makes comparable.
        """
        rows = (row for row in self.trained if row.block == block and row.ranked)
        reference = next((row for row in rows if row.recipe.name == self.study.reference), None)
        return self._against(reference, block, what) if reference else []

    def _against(self, other: Row, block: Condition, what: str = "in_domain") -> list[Comparison]:
        rows = [row for row in self.trained if row.block == block and row is not other]
        found = [(row, stats.paired(row.by_seed(what), other.by_seed(what))) for row in rows]
        pairs = [(row, difference) for row, difference in found if difference is not None]
        adjusted = stats.holm([difference.p for _, difference in pairs])
        return [Comparison(row, other, delta, p) for (row, delta), p in zip(pairs, adjusted, strict=True)]

    def item_errors(self, what: str = "in_domain") -> list[float]:
        """For every run with all tasks of ``what``, the standard error over items of its mean, if one model made it."""
        rows = [row for row in self.rows if what == "in_domain" or row.setting != "single"]
        runs = [run for row in rows for run in row.runs if getattr(run, what) is not None]
        found = [stats.item_error([run.errors.get(task) for task in getattr(self.study, what)]) for run in runs]
        return [error for error in found if error is not None]


_MEANS = ("in_domain", "out_of_domain")


def gather(study: Study, trials: Sequence[Trial], sources: Sources) -> Analysis:
    """Choose the records that count and put them into rows. Raises BenchError where none does."""
    planned = {trial.id: trial for trial in trials}
    protocols = {trial.protocol for trial in trials}
    records = sources.records
    here = [r for r in records if r.trial_id in planned or r.trial.protocol in protocols]
    counted = _current(here, planned)
    if not counted:
        elsewhere = "run"
        if records:
            elsewhere = (
                f"there are {len(records)} of other conditions. Give the options of the run that made them (--steps, "
                "--model, --set, ...), or run"
            )
        raise BenchError(
            f"There is no finished trial of the study {study.name!r} as it is asked for; {elsewhere} "
            f"`mosld-bench run {study.name}` first."
        )
    grouped: dict[tuple[str, Condition], list[Record]] = {}
    for trial in trials:  # the plan gives the order, and rows to what has no record yet
        grouped.setdefault((trial.recipe.name, trial.condition), [])
    for record in counted:
        grouped.setdefault((record.trial.recipe.name, record.trial.condition), []).append(record)
    several = len({condition.model for _, condition in grouped}) > 1
    recipes = {r.trial.recipe.name: r.trial.recipe for r in counted} | {t.recipe.name: t.recipe for t in trials}
    rows = [
        Row(
            recipes[recipe],
            condition if several else condition._replace(model=""),
            tuple(members),
            tuple(_runs(study, condition.setting, members)),
        )
        for (recipe, condition), members in grouped.items()
    ]
    noted = sources.failures
    present = {record.trial_id for record in counted}
    return Analysis(
        study=study,
        trials=tuple(trials),
        rows=tuple(sorted(rows, key=lambda row: (not row.frozen, row.ranked, row.recipe.method != "full"))),
        tasks=sources.tasks,
        overlaps=sources.overlaps,
        published=sources.published,
        profile=sources.profile,
        missing=tuple(trial for trial in trials if trial.id not in present),
        failures=tuple((t, noted[t.id]) for t in trials if t.id in noted and t.id not in present),
        other_protocol=len(records) - len(here),
        superseded=len(here) - len(counted),
    )


def _current(records: Sequence[Record], planned: Mapping[str, Trial]) -> list[Record]:
    """One record a cell and one definition a recipe: the plan's, else that of the latest record.

    A recipe that was changed since has older records under its name; they say nothing about it as it is now.
    """
    latest = sorted(records, key=lambda r: (r.trial_id in planned, str(r.meta_info.get("started", "")), r.trial_id))
    meaning = {r.trial.recipe.name: _definition(r.trial.recipe) for r in latest}
    meaning |= {trial.recipe.name: _definition(trial.recipe) for trial in planned.values()}
    cells = {
        (t.recipe.name, t.condition, t.seed, t.train_on): record
        for record in latest
        for t in [record.trial]
        if _definition(t.recipe) == meaning[t.recipe.name]
    }
    # A budget may be named after a recipe that was changed since: of a block, the latest target counts.
    targets = {(r.trial.condition, r.trial.model): r.size.target for r in cells.values() if r.size and r.size.target}
    cells = {
        cell: r
        for cell, r in cells.items()
        if not (r.size and r.size.target) or targets[r.trial.condition, r.trial.model] == r.size.target
    }
    order = {trial: place for place, trial in enumerate(planned)}
    return sorted(cells.values(), key=lambda r: (order.get(r.trial_id, len(order)), r.trial.recipe.order, r.trial_id))


def _definition(recipe: Recipe) -> str:
    return canonical(recipe.identity)


def _runs(study: Study, setting: str, records: Sequence[Record], name: str | None = None) -> Iterator[Run]:
    """Scores by seed, under each task's primary metric or the one called ``name``.

    In the setting single a task's score is its own model's; out-of-domain scores are averaged over
    the models, and are there only if all models are.
    """
    for seed in sorted({record.trial.seed for record in records}):
        of_seed = [record for record in records if record.trial.seed == seed]
        metrics = [metric for record in of_seed for metric in record.metrics if _counts(metric, name)]
        models = len(study.in_domain) if setting == "single" else 1
        scores: dict[str, float] = {}
        errors: dict[str, float | None] = {}
        for task in study.in_domain + study.out_of_domain:
            found = [metric for metric in metrics if metric.task == task]
            if len(found) == (models if task in study.out_of_domain else 1):
                scores[task] = sum(metric.value for metric in found) / len(found)
                errors[task] = found[0].stderr
        means = [_mean(scores, part) for part in (study.in_domain, study.out_of_domain)]
        yield Run(seed, scores, errors, *means)


def _counts(metric: Metric, name: str | None) -> bool:
    return metric.primary if name is None else metric.metric == name


def _mean(scores: Mapping[str, float], tasks: Sequence[str]) -> float | None:
    complete = bool(tasks) and all(task in scores for task in tasks)
    return sum(scores[task] for task in tasks) / len(tasks) if complete else None
