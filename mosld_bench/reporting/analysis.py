"""Analysis: what the records of a study say, before any table is set.

`analyse` decides once which records count (`selection.py`) and what the rows of the report are (`rows.py`); tables,
figures and sections only read the `Analysis` that it gives. Scores are lm-eval's numbers; which of two is better, and
how they are printed, is asked of their `Scale`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import combinations
from typing import TYPE_CHECKING, Any

from mosld_bench.format import one_line
from mosld_bench.records.overlap import Overlap
from mosld_bench.records.profile import Profile
from mosld_bench.records.published import Published
from mosld_bench.records.record import Metric, Record, Unscored
from mosld_bench.records.scale import SHARE, Scale
from mosld_bench.records.scored import Scored
from mosld_bench.records.store import Sources, no_scored_items, no_texts
from mosld_bench.reporting import stats
from mosld_bench.reporting.evidence import PROBABILITY, Evidence
from mosld_bench.reporting.routers import Routed, Routers
from mosld_bench.reporting.rows import Row, RowKey, make_rows, seed_scores
from mosld_bench.reporting.scales import Scales, find_scales
from mosld_bench.reporting.selection import Failure, select
from mosld_bench.spec.ablation import leaders
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import Condition, Domain, Trial

if TYPE_CHECKING:
    import pandas as pd


#: Rows of a block whose differences on its tasks are tested for all pairs.
MOST_PAIRED = 60


class Verdict(StrEnum):
    """What the tests say of a row beside another."""

    BETTER = "better"
    WORSE = "worse"
    EQUAL = "equal"
    """Within the margin that the study states."""
    OPEN = "open"
    """Neither told apart nor shown equal."""
    UNTESTED = "untested"
    """No test speaks of the methods: no seeds to judge by, or no score."""


class Judged:
    """What tests say of a difference: that of two rows, or an effect that several rows have.

    ``adjusted`` is Holm's p within the family that it is of. ``margin`` is what still counts as equal, in the unit of
    the scores, None where the scale has none. A negative difference is the better one where lower is better
    (``scale``).
    """

    difference: stats.Estimate
    adjusted: float | None
    margin: float | None
    scale: Scale

    @property
    def separated(self) -> bool:
        """Whether a test holds the methods apart; so it is not where there is no test."""
        return self.difference.of_methods and self.adjusted is not None and self.adjusted < stats.LEVEL

    @property
    def equal_p(self) -> float | None:
        """p of the two one-sided tests that they differ by more than the margin; None without a test or a margin."""
        known = self.margin is not None and self.difference.of_methods
        return self.difference.equal_p(self.margin) if known and self.margin is not None else None

    @property
    def within(self) -> bool:
        """Whether the difference is shown to be less than the margin, told from none or not."""
        return self.equal_p is not None and self.equal_p < stats.LEVEL

    @property
    def verdict(self) -> Verdict:
        """A difference that is told from none is one, however small."""
        if not self.difference.of_methods or self.adjusted is None:
            return Verdict.UNTESTED
        if self.separated:
            return Verdict.BETTER if self.scale.better(self.difference.mean, 0) else Verdict.WORSE
        return Verdict.EQUAL if self.within else Verdict.OPEN


@dataclass(frozen=True)
class Comparison(Judged):
    """A row minus another, under a metric (None: the primary ones)."""

    row: Row
    other: Row
    of: Domain | str
    metric: str | None
    difference: stats.Estimate
    adjusted: float | None
    margin: float | None
    scale: Scale

    @property
    def turned(self) -> Comparison:
        """The other row minus this one, by the same test."""
        return replace(self, row=self.other, other=self.row, difference=self.difference.negative)


@dataclass(frozen=True)
class Analysis:
    """Everything that a section may draw on.

    ``rows`` are in the order of the report and ``tasks`` holds the resolved definition of each task. ``missing``,
    ``failures``, ``other_protocol``, ``superseded`` and ``unasked`` are those of `selection.Selection`. ``outdated``,
    ``tracebacks``, ``texts`` and ``scored_items``: see `Sources`. ``scored_records``: what was scored for the study and
    not trained here. ``preliminary``: whether what is missing is still to be run, which a report says on its face.
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
    scored_records: tuple[Scored, ...] = ()
    scored_items: Callable[[Scored], pd.DataFrame | None] = no_scored_items
    preliminary: bool = False
    tracebacks: Mapping[str, str] = field(default_factory=dict)
    evidence: Evidence = field(kw_only=True)
    routers: Routers = field(default_factory=Routers, kw_only=True)
    texts: Callable[[], pd.DataFrame | None] = field(default=no_texts, kw_only=True)
    _families: dict[tuple[Any, ...], list[Comparison]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _pools: dict[Condition, list[Row]] = field(default_factory=dict, init=False, repr=False, compare=False)

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
        """In the order of the rows, each once, at its chosen learning rate: the order gives its marker and colour."""
        chosen = {row.recipe.name: row.recipe for row in self.rows if row.condition.rate == "chosen"}
        return list(({row.recipe.name: row.recipe for row in self.rows} | chosen).values())

    @property
    def leaders(self) -> dict[str, str]:
        """Recipe of an ablation -> the one that it is around, by names; it has the learning rate of that one."""
        return leaders(self.study.ablate, self.study.factorial, {recipe.name: recipe for recipe in self.recipes})

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

    def routed(self) -> list[tuple[Condition, list[Routed]]]:
        """The blocks that have rows with a file of what their routers did, and these."""
        blocks = [
            (condition, [routed for row in rows if (routed := self.routers.of(row))])
            for condition, rows in self.blocks()
        ]
        return [(condition, rows) for condition, rows in blocks if rows]

    # Tasks and metrics

    def domain(self, task: str) -> Domain:
        """The domain of one of the study's tasks."""
        return next(domain for domain in Domain if task in self.tasks_in(domain))

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

    def test_items(self, task: str) -> int | None:
        """How many test items the task's data has, where its definition says so."""
        size = self._metadata(task).get("size")
        return size.get("test") if isinstance(size, Mapping) else None

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
        return SHARE if metric == PROBABILITY else self.scales.common(self.tasks_in(domain), metric) or SHARE

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

    def under(self, metric: str | None, row: Row) -> Row:
        """The row as another metric than the primary scores it; itself under None and the probability of items."""
        if metric is None or metric == PROBABILITY:
            return row
        return replace(row, seeds=tuple(seed_scores(self.study, row.setting, row.records, self.scales, metric=metric)))

    def chance(self, tasks: Sequence[str]) -> float | None:
        """Mean chance level; None unless every task has one."""
        levels = [metric.chance if metric else None for metric in map(self.metric, tasks)]
        known = [level for level in levels if level is not None]
        return sum(known) / len(known) if known and len(known) == len(levels) else None

    # Comparisons within a block

    def scored(self, condition: Condition, of: Domain | str = Domain.IN) -> list[Row]:
        """The rows of a block that have the in-domain mean, or another score."""
        return [row for row in self.trained if row.condition == condition and row.by_seed(of)]

    def pool(self, condition: Condition, metric: str | None = None) -> list[Row]:
        """The rows that are compared with each other, whose seeds together tell the noise; none at native sizes."""
        if metric is not None:
            return [self.under(metric, row) for row in self.pool(condition)]
        if condition not in self._pools:
            self._pools[condition] = [row for row in self.trained if row.condition == condition and row.ranked]
        return self._pools[condition]

    def contenders(self, condition: Condition, of: Domain | str = Domain.IN) -> list[Row]:
        """Of a block of equal size or equal rank, the rows with the most seeds.

        A mean over fewer scatters more: it would often be the best by chance.
        """
        rows = [row for row in self.scored(condition, of) if row.ranked]
        most = max((len(row.by_seed(of)) for row in rows), default=0)
        return [row for row in rows if len(row.by_seed(of)) == most]

    def best(self, condition: Condition, of: Domain | str = Domain.IN) -> Row | None:
        """The best in-domain mean of a block's contenders, or another score; None where there is none.

        A row of fewer seeds takes its place only where a test tells that it is the better one.
        """
        first = self._first(self.contenders(condition, of), of)
        ahead = [c.row for c in self._against(first, condition, of) if c.verdict is Verdict.BETTER] if first else []
        return self._first(ahead, of) or first

    def _first(self, rows: Sequence[Row], of: Domain | str) -> Row | None:
        return self.scale(of).best(rows, lambda row: row.mean_sd(of)[0] or 0.0)

    def against_best(self, condition: Condition, of: Domain | str = Domain.IN) -> list[Comparison]:
        """Every other row of a block minus the best one.

        Holm's family is all pairs of rows, of a task those on all tasks of its domain: which is the best was seen and
        not asked, and any pair might have come up.
        """
        best = self.best(condition, of)
        return self._against(best, condition, of) if best else []

    def _against(self, best: Row, condition: Condition, of: Domain | str) -> list[Comparison]:
        both_ways = ((c, c.other.key == best.key) for c in self._all_pairs(condition, of))
        return [c if is_other else c.turned for c, is_other in both_ways if is_other or c.row.key == best.key]

    def pairs(self, condition: Condition, of: Domain | str = Domain.IN) -> list[Comparison]:
        """Every row of a block minus every other, so that each pair is there both ways; none at native sizes.

        One family of tests is all pairs, of a task those on all tasks of its domain: what to say of a difference that
        was picked after a look at all of them. There are none on the tasks of a block of more than `MOST_PAIRED` rows:
        of hundreds of thousands of tests in one family none would tell anything.
        """
        return [comparison for c in self._all_pairs(condition, of) for comparison in (c, c.turned)]

    def _all_pairs(self, condition: Condition, of: Domain | str) -> list[Comparison]:
        """`pairs` one way."""
        key = condition, isinstance(of, Domain), of
        if key not in self._families:
            pool = self.pool(condition)
            pairs = [(row, other) for i, other in enumerate(pool) for row in pool[i + 1 :]]
            ofs = (of,) if isinstance(of, Domain) else self.tasks_in(self.domain(of))
            tested = isinstance(of, Domain) or len(pool) <= MOST_PAIRED
            family = self._compared(pairs, ofs, pool) if tested else []
            self._families[key] = [c for c in family if c.of == of]
        return self._families[key]

    def tied(self, condition: Condition, of: Domain | str = Domain.IN) -> list[Row]:
        """The other rows of a block that a test does not separate from its best."""
        return [c.row for c in self.against_best(condition, of) if c.verdict in {Verdict.EQUAL, Verdict.OPEN}]

    def untested(self, condition: Condition, of: Domain | str = Domain.IN) -> list[Row]:
        """The other rows of a block without a test against its best."""
        best = self.best(condition, of)
        if best is None:
            return []
        tested = {c.row.key for c in self.against_best(condition, of) if c.verdict is not Verdict.UNTESTED}
        return [row for row in self.scored(condition, of) if row.key not in {best.key, *tested}]

    def leads(self, condition: Condition, of: Domain | str = Domain.IN) -> bool:
        """Whether the best row of a block is separated from all others, so that it may be called the best."""
        others = self.against_best(condition, of)
        return bool(others) and all(c.verdict is Verdict.WORSE for c in others) and not self.untested(condition, of)

    def reference_row(self, condition: Condition) -> Row | None:
        """The study's reference in a block; None where it has none, or at native sizes."""
        return next((row for row in self.pool(condition) if row.recipe.name == self.study.reference), None)

    def against_reference(
        self, condition: Condition, of: Domain | str = Domain.IN, metric: str | None = None
    ) -> list[Comparison]:
        """Every other row of a block minus the study's reference in it; empty where that is missing.

        Empty, too, for rows at their native size, which nothing makes comparable. Holm's family is the rows of the
        block; of a task, the rows and tasks of its domain (`by_task`).
        """
        if not isinstance(of, Domain):
            return [c for c in self.by_task(condition, self.domain(of), metric) if c.of == of]
        return self._against_reference(condition, [of], metric)

    def by_task(self, condition: Condition, domain: Domain, metric: str | None = None) -> list[Comparison]:
        """Every other row of a block minus the reference on every task of a domain: one family of tests."""
        return self._against_reference(condition, self.tasks_in(domain), metric)

    def _against_reference(
        self, condition: Condition, ofs: Sequence[Domain | str], metric: str | None
    ) -> list[Comparison]:
        reference = self.reference_row(condition)
        if reference is None:
            return []
        pool = self.pool(condition, metric)
        other = next(row for row in pool if row.key == reference.key)
        return self._compared([(row, other) for row in pool if row.key != other.key], ofs, pool, metric)

    def _compared(
        self,
        pairs: Sequence[tuple[Row, Row]],
        ofs: Sequence[Domain | str],
        pool: Sequence[Row],
        metric: str | None = None,
    ) -> list[Comparison]:
        """The pairs of rows on each of ``ofs``, where they have a seed in common: one family of tests."""
        members = tuple(row.key for row in pool)
        key = (
            *((row.key, other.key) for row, other in pairs),
            *((isinstance(of, Domain), of) for of in ofs),
            metric,
            members,
        )
        if key not in self._families:
            found = [
                (row, other, of, estimate)
                for of in ofs
                for row, other, estimate in self.evidence.differences(pairs, of, pool, metric)
            ]
            self._families[key] = self._family(found, metric)
        return self._families[key]

    def compared_with(self, other: Row, rows: Sequence[Row], pool: Sequence[Row], of: Domain | str) -> list[Comparison]:
        """Each of ``rows`` minus ``other``, which with them are in the ``pool`` that tells the noise: one family."""
        return self._compared([(row, other) for row in rows], [of], pool)

    def against_base(
        self, condition: Condition, of: Domain | str = Domain.IN, metric: str | None = None
    ) -> list[Comparison]:
        """Every row of a block minus the untrained model that it starts from: one family of tests."""
        base = self.frozen_of(condition)
        if base is None:
            return []
        base, rows = self.under(metric, base), [row for row in self.trained if row.condition == condition]
        rows = [self.under(metric, row) for row in rows]
        pairs = [(row, self.evidence.against_base(row, base, of, rows, metric)) for row in rows]
        return self._family([(row, base, of, estimate) for row, estimate in pairs if estimate], metric)

    def between_settings(self, of: Domain | str = Domain.IN) -> list[Comparison]:
        """Every row of the mixture minus the same recipe and size trained task by task: one family of tests."""
        single = {row.key: row for row in self.trained if row.setting == "single"}
        found = []
        for row in self.trained:
            other = single.get(RowKey(row.recipe.name, row.condition._replace(setting="single")))
            if row.setting == "mixture" and other is not None:
                estimate = self.evidence.between_settings(row, other, of)
                found += [(row, other, of, estimate)] if estimate is not None else []
        return self._family(found, None)

    def changes(self, of: Domain | str = Domain.IN) -> list[Comparison]:
        """How far the difference of a row to the reference moves from one block to another: one family of tests.

        Of every two blocks that differ in one thing: setting, size or rank, model, or amount of data. ``row`` is that
        of the later block, ``other`` the same recipe in the earlier one.
        """
        blocks = [
            (condition, {c.row.recipe.name: c for c in self.against_reference(condition, of)})
            for condition, _ in self.blocks()
        ]
        found = [
            (later[recipe].row, earlier[recipe].row, of, _change(later[recipe].difference, earlier[recipe].difference))
            for (first, earlier), (second, later) in combinations(blocks, 2)
            if sum(a != b for a, b in zip(first, second, strict=True)) == 1
            for recipe in earlier
            if recipe in later
        ]
        return self._family(found, None)

    def _family(
        self, estimates: Sequence[tuple[Row, Row, Domain | str, stats.Estimate]], metric: str | None
    ) -> list[Comparison]:
        """The estimates as comparisons, their p-values corrected together."""
        adjusted = stats.holm([estimate.p for *_, estimate in estimates])
        comparisons = []
        for (row, other, of, estimate), p in zip(estimates, adjusted, strict=True):
            scale = self._scale(of, metric)
            margin = scale.margin(self.study.margin)
            comparisons.append(Comparison(row, other, of, metric, estimate, p, margin, scale))
        return comparisons

    def _scale(self, of: Domain | str, metric: str | None) -> Scale:
        """The scale of a domain or task under a metric."""
        if metric is None:
            return self.scale(of)
        if metric == PROBABILITY:
            return SHARE
        return self.scale_under(metric, of) if isinstance(of, Domain) else self.scales.of(of, metric) or SHARE

    def pair_noise(self, condition: Condition, of: Domain | str = Domain.IN) -> stats.PairNoise | None:
        """What two rows of a block differ by through seeds and items; None where its seeds do not tell."""
        return self.evidence.pair_noise(self.pool(condition), of)

    def detectable(
        self, condition: Condition, of: Domain | str = Domain.IN, seeds: int | None = None, share: float = 1.0
    ) -> float | None:
        """The smallest true difference that the block's rows, with their ``seeds``, find with a chance of 80 %.

        By default the seeds of the rows that have the most; ``share``: with so many times the items. None where the
        noise of seeds is not known.
        """
        noise, rows = self.pair_noise(condition, of), len(self.contenders(condition, of))
        most = max((len(row.by_seed(of)) for row in self.pool(condition)), default=0)
        return stats.detectable_effect(noise.on(share), seeds=seeds or most, rows=rows) if noise else None


def _change(later: stats.Estimate, earlier: stats.Estimate) -> stats.Estimate:
    """``later`` minus ``earlier`` as if they were independent, on the degrees of freedom of Welch (1947).

    Blocks share items and seeds, so that the interval is rather too wide than too narrow. It speaks of models only
    where one of the two does, and has no error where one has none.
    """
    weakest_first = stats.Basis.MODELS, stats.Basis.BORROWED, stats.Basis.OWN, stats.Basis.POOLED
    basis = next(basis for basis in weakest_first if basis in {later.basis, earlier.basis})
    mean, seeds = later.mean - earlier.mean, min(later.seeds, earlier.seeds)
    of_items = later.of_items and earlier.of_items
    if later.error is None or later.freedom is None or earlier.error is None or earlier.freedom is None:
        return stats.Estimate(mean, None, None, seeds, basis, of_items)
    variance = later.error**2 + earlier.error**2
    parts = later.error**4 / later.freedom + earlier.error**4 / earlier.freedom
    freedom = variance**2 / parts if parts else math.inf
    return stats.Estimate(mean, math.sqrt(variance), freedom, seeds, basis, of_items)


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
        scored_records=sources.scored,
        scored_items=sources.scored_items,
        tracebacks=sources.tracebacks,
        evidence=Evidence(study, scales, sources.items),
        routers=Routers(sources.router),
        texts=sources.texts,
    )
