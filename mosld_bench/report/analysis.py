"""Analysis: what the records of a study say, before any table is set.

`analyse` decides once which records count (`selection.py`) and what the rows of the report are (`rows.py`); tables,
figures and sections only read the `Analysis` that it gives. Scores are lm-eval's numbers; which of two is better, and
how they are printed, is asked of their `Scale`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mosld_bench.format import one_line
from mosld_bench.records.overlap import Overlap
from mosld_bench.records.profile import Profile
from mosld_bench.records.published import Published
from mosld_bench.records.record import Metric, Record, Unscored
from mosld_bench.records.scale import SHARE, Scale
from mosld_bench.records.store import Sources
from mosld_bench.report import stats
from mosld_bench.report.rows import Row, make_rows, seed_scores
from mosld_bench.report.scales import Scales, find_scales
from mosld_bench.report.selection import Failure, select
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import Condition, Domain, Trial

ALPHA = 0.05  # the level below which an adjusted p separates two rows


@dataclass(frozen=True)
class Comparison:
    """A row minus another of its block, over common seeds; ``adjusted`` is Holm's p within the block.

    ``scale`` is that of the scores: a negative difference is the better one where lower is better.
    """

    row: Row
    other: Row
    difference: stats.Difference
    adjusted: float | None
    scale: Scale

    @property
    def separated(self) -> bool:
        """Whether a test holds the two apart; so it is not where there is no test."""
        return self.adjusted is not None and self.adjusted < ALPHA


@dataclass(frozen=True)
class Analysis:
    """Everything that a section may draw on.

    ``rows`` are in the order of the report and ``tasks`` holds the resolved definition of each task. ``missing``,
    ``failures``, ``other_protocol``, ``superseded`` and ``unasked`` are those of `selection.Selection`. ``outdated``:
    see `Sources`.
    """

    study: Study
    trials: tuple[Trial, ...]
    rows: tuple[Row, ...]
    tasks: Mapping[str, Mapping[str, Any]]
    overlaps: tuple[Overlap, ...] = ()
    other_overlaps: bool = False
    published: Published | None = None
    profile: Profile | None = None
    missing: tuple[Trial, ...] = ()
    failures: tuple[Failure, ...] = ()
    other_protocol: int = 0
    superseded: int = 0
    unasked: int = 0
    scales: Scales = field(default_factory=Scales)
    outdated: frozenset[str] = frozenset()

    # What there is

    @property
    def task_names(self) -> tuple[str, ...]:
        """The in-domain tasks, then the out-of-domain ones."""
        return self.study.in_domain + self.study.out_of_domain

    def tasks_in(self, domain: Domain) -> tuple[str, ...]:
        """The study's tasks of a domain."""
        return {Domain.IN: self.study.in_domain, Domain.OUT: self.study.out_of_domain}[domain]

    @property
    def domains(self) -> list[Domain]:
        """The domains that have a task, in-domain first."""
        return [domain for domain in Domain if self.tasks_in(domain)]

    @property
    def records(self) -> list[Record]:
        """The records that count, row by row."""
        return [record for row in self.rows for record in row.records]

    @property
    def dirty(self) -> int:
        """How many records were made with uncommitted changes in the working tree."""
        return sum(record.meta_info.get("dirty") is True for record in self.records)

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
        """The rows of trained models."""
        return [row for row in self.rows if not row.frozen]

    @property
    def frozen(self) -> list[Row]:
        """The rows of untrained models."""
        return [row for row in self.rows if row.frozen]

    def frozen_of(self, condition: Condition) -> Row | None:
        """The untrained model that the rows of a condition start from."""
        return next((row for row in self.frozen if row.condition.model == condition.model), None)

    @property
    def settings(self) -> list[str]:
        """The settings of the trained rows, in their order."""
        return list(dict.fromkeys(row.setting for row in self.trained))

    def blocks(self) -> Iterator[tuple[Condition, list[Row]]]:
        """Conditions and the trained rows under each; of a setting, equal sizes first, then equal ranks."""
        ordered = sorted(self.trained, key=lambda row: (not row.matched, not row.ranked))
        conditions = dict.fromkeys(row.condition for row in ordered)
        for setting in self.settings:
            for condition in conditions:
                if condition.setting == setting:
                    yield condition, [row for row in self.trained if row.condition == condition]

    # Tasks and metrics

    def title(self, task: str) -> str:
        """The task's name as tables print it."""
        return one_line(str(self._metadata(task).get("title") or task))

    def benchmark(self, task: str) -> str:
        """The name under which papers report the task, whichever way it is scored."""
        return str(self._metadata(task).get("benchmark") or task)

    def kind(self, task: str) -> str:
        """The kind of task that its definition gives, with spaces; empty where it gives none."""
        return str(self._metadata(task).get("kind") or "").replace("_", " ")

    def scored_by(self, task: str) -> str:
        """What of an option is scored, ``text`` or ``letter``, where the definition says so; else empty."""
        return str(self._metadata(task).get("scoring") or "")

    def _metadata(self, task: str) -> Mapping[str, Any]:
        metadata = self.tasks.get(task, {}).get("metadata")
        return metadata if isinstance(metadata, Mapping) else {}

    @property
    def measure(self) -> str:
        """What the scores are: accuracy, or where tasks are scored otherwise (ROUGE, exact match) just a score."""
        metrics = [metric for task in self.task_names if (metric := self.scales.primary.get(task))]
        return "accuracy" if all(metric.startswith("acc") for metric in metrics) else "score"

    def scale(self, of: Domain | str) -> Scale:
        """The scale of a task, or the one of a domain's tasks; that of a share where no record tells, or several do."""
        scale = self.scales.common(self.tasks_in(of)) if isinstance(of, Domain) else self.scales.of(of)
        return scale or SHARE

    def scale_under(self, metric: str | None, domain: Domain) -> Scale:
        """The scale of a domain's tasks under a metric, None for their primary ones."""
        return self.scales.common(self.tasks_in(domain), metric) or SHARE

    def unlike_under(self, metric: str | None) -> bool:
        """Whether a domain has no mean under a metric, None for the primary ones."""
        return any(self.scales.unlike(self.tasks_in(domain), metric) for domain in self.domains)

    @property
    def shares(self) -> bool:
        """Whether every task is scored by a share where more is better, so that nothing has to be said of scales."""
        return {self.scale(task) for task in self.task_names} <= {SHARE}

    def unlike(self, domain: Domain) -> bool:
        """Whether a domain has no mean, since its tasks are scored on several scales."""
        return self.scales.unlike(self.tasks_in(domain))

    def averaged(self) -> list[Domain]:
        """The domains over which means are taken, in-domain first."""
        return [domain for domain in self.domains if not self.unlike(domain)]

    def compared(self) -> list[Domain | str]:
        """On what rows are compared: the mean of each domain, or its tasks one by one where it has none."""
        return [of for domain in self.domains for of in (self.tasks_in(domain) if self.unlike(domain) else (domain,))]

    def label(self, of: Domain | str) -> str:
        """A domain's label or a task's title, as a heading has it."""
        return of.label if isinstance(of, Domain) else self.title(of)

    def metric_name(self, task: str) -> str:
        """lm-eval's name of a task's primary metric, without the filter `none`; empty where no record tells."""
        return self.scales.primary.get(task, "").removesuffix(",none")

    def tied_items(self) -> dict[str, tuple[int, int, int]]:
        """Task -> the least and the most items in which a record's best options are equal, and the items of the task.

        Of the tasks that have any.
        """
        metrics = [m for record in self.records for m in record.metrics if m.primary and m.tied is not None]
        counts = {
            task: [(m.tied or 0, m.items) for m in metrics if m.task == task] for task in self.task_names
        }  # fmt: skip
        return {
            task: (min(pairs)[0], max(pairs)[0], pairs[0][1])
            for task, pairs in counts.items()
            if any(tied for tied, _ in pairs)
        }

    def unscored(self) -> list[tuple[Record, Unscored]]:
        """The primary metrics that came to no number, record by record."""
        return [(record, absent) for record in self.records for absent in record.unscored if absent.primary]

    def metric(self, task: str) -> Metric | None:
        """The primary metric of a task, from the first record that has it."""
        of_task = (m for record in self.records for m in record.metrics if m.task == task and m.primary)
        return next(of_task, None)

    def other_metrics(self) -> list[str]:
        """The metrics that every task has beside its primary one, and every trained row under it."""
        names = [{m.metric for r in self.records for m in r.metrics if m.task == task} for task in self.task_names]
        primary = {metric.metric for task in self.task_names if (metric := self.metric(task))}
        return sorted(set.intersection(*names) - primary) if names else []

    def under(self, metric: str, row: Row) -> Row:
        """The row as another metric than the primary scores it."""
        return replace(row, seeds=tuple(seed_scores(self.study, row.setting, row.records, self.scales, metric=metric)))

    def chance(self, tasks: Sequence[str]) -> float | None:
        """Mean chance level; None unless every task has one."""
        levels = [metric.chance if metric else None for metric in map(self.metric, tasks)]
        known = [level for level in levels if level is not None]
        return sum(known) / len(known) if known and len(known) == len(levels) else None

    def item_errors(self, domain: Domain) -> list[float]:
        """Of every seed with the domain's mean, the standard error over items of that mean, if one model made it."""
        rows = [row for row in self.rows if domain is Domain.IN or row.setting != "single"]
        seeds = [seed for row in rows for seed in row.seeds if domain in seed.means]
        errors = [stats.item_error([seed.errors.get(task) for task in self.tasks_in(domain)]) for seed in seeds]
        return [error for error in errors if error is not None]

    def without_item_error(self) -> list[str]:
        """The metrics, as lm-eval names them, of tasks whose records have no standard error over items."""
        without = {m.task for r in self.records for m in r.metrics if m.primary and m.stderr is None and m.items > 1}
        return list(dict.fromkeys(self.metric_name(task) for task in self.task_names if task in without))

    # Comparisons within a block

    def scored(self, condition: Condition, of: Domain | str = Domain.IN) -> list[Row]:
        """The rows of a block that have the in-domain mean, or another score."""
        return [row for row in self.trained if row.condition == condition and row.by_seed(of)]

    def contenders(self, condition: Condition, of: Domain | str = Domain.IN) -> list[Row]:
        """Of a block of equal size or equal rank, the rows with the most seeds.

        A mean over fewer scatters more: it would often be the best by chance, and nothing could be tested.
        """
        rows = [row for row in self.scored(condition, of) if row.ranked]
        most = max((len(row.by_seed(of)) for row in rows), default=0)
        return [row for row in rows if len(row.by_seed(of)) == most]

    def best(self, condition: Condition, of: Domain | str = Domain.IN) -> Row | None:
        """The best in-domain mean of a block's contenders, or another score; None where there is none."""
        return self.scale(of).best(self.contenders(condition, of), lambda row: row.mean_sd(of)[0] or 0.0)

    def best_on(self, condition: Condition, task: str) -> list[Row]:
        """The contenders with the best score on a task; several where they are equal."""
        best = self.best(condition, task)
        return [
            row for row in self.contenders(condition, task) if best and row.mean_sd(task)[0] == best.mean_sd(task)[0]
        ]

    def against_best(self, condition: Condition) -> list[Comparison]:
        """Every other row of a block minus the best one."""
        best = self.best(condition)
        return self._against(best, Domain.IN) if best else []

    def tied(self, condition: Condition) -> list[Row]:
        """The other rows of a block that a test does not separate from its best."""
        return [c.row for c in self.against_best(condition) if c.adjusted is not None and not c.separated]

    def untested(self, condition: Condition) -> list[Row]:
        """The other rows of a block without a test against its best, for want of a second common seed."""
        best = self.best(condition)
        if best is None:
            return []
        tested = {c.row.key for c in self.against_best(condition) if c.adjusted is not None}
        return [row for row in self.scored(condition) if row.key not in {best.key, *tested}]

    def against_reference(self, condition: Condition, of: Domain | str = Domain.IN) -> list[Comparison]:
        """Every other row of a block minus the study's reference in it; empty where that is missing.

        Empty, too, for rows at their native size, which nothing makes comparable.
        """
        rows = (row for row in self.trained if row.condition == condition and row.ranked)
        reference = next((row for row in rows if row.recipe.name == self.study.reference), None)
        return self._against(reference, of) if reference else []

    def _against(self, other: Row, of: Domain | str) -> list[Comparison]:
        """Every row of the block of ``other`` minus it, where the two have a seed in common."""
        rows = [row for row in self.trained if row.condition == other.condition and row.key != other.key]
        paired = [(row, stats.paired(row.by_seed(of), other.by_seed(of))) for row in rows]
        pairs = [(row, difference) for row, difference in paired if difference is not None]
        adjusted = stats.holm([difference.p for _, difference in pairs])
        scale = self.scale(of)
        return [Comparison(row, other, delta, p, scale) for (row, delta), p in zip(pairs, adjusted, strict=True)]


def analyse(study: Study, trials: Sequence[Trial], sources: Sources) -> Analysis:
    """Choose the records that count and put them into rows; ``trials`` is the study's whole plan.

    Raises BenchError where no record counts, or where a task's definition names a scale that does not exist.
    """
    selection = select(study, trials, sources)
    scales = find_scales(selection.records, sources.tasks)
    return Analysis(
        study=study,
        trials=tuple(trials),
        rows=make_rows(study, trials, selection.records, scales),
        tasks=sources.tasks,
        overlaps=sources.overlaps,
        other_overlaps=sources.other_overlaps,
        published=sources.published,
        profile=sources.profile,
        missing=selection.missing,
        failures=selection.failures,
        other_protocol=selection.other_protocol,
        superseded=selection.superseded,
        unasked=selection.unasked,
        scales=scales,
        outdated=sources.outdated,
    )
