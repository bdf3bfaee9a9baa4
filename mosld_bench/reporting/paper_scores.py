"""The scores that the paper prints against ours: which row is compared, the interval of the gap, and a verdict.

A printed score is compared with our row of the same recipe, setting and rank (or, for a method without a rank, at its
native size), never with a row of equal size. The interval is that of the gap: Student's t with the spread over our
seeds (one seed borrows that of the rows of its block), taken for the paper's three seeds too, since it prints none.
Where the two test sets differ in size, the choice of items is added: of ours as our items tell it, of the paper's, and
of ours where items are not at hand, as a binomial sample has it. Scores are fractions (0 to 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from mosld_bench.records.published import AVERAGE, PARAMETERS_TABLE, RANK, PrintedScore, Protocol, Published
from mosld_bench.records.scale import SHARE
from mosld_bench.reporting import stats
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.rows import Row
from mosld_bench.spec.budget import Native, Rank
from mosld_bench.spec.trial import Domain

_PAPER_SEEDS = 3  # of every printed mean


class Verdict(StrEnum):
    """What a comparison says: the interval of the gap holds zero, lies above or below it, or why none is told."""

    AGREES = "agrees"
    ABOVE = "above"
    BELOW = "below"
    UNTESTED = "untested"
    OTHER_MODEL = "other model"
    NO_RECORD = "no record"


@dataclass(frozen=True)
class ComparedScore:
    """A printed score beside ours; the fields are the columns of ``reproduction.csv``.

    ``ours`` and ``sd`` are over our ``seeds``, ``gap`` is ours minus the paper's, ``low`` to ``high`` its 95 %
    interval, and ``basis`` where its noise of seeds comes from (`stats.Basis`); each is None where it cannot be known.
    """

    table: str
    recipe: str
    setting: str
    task: str
    rank: int
    model: str
    published: float
    ours: float | None
    sd: float | None
    seeds: int
    gap: float | None
    low: float | None
    high: float | None
    basis: str | None
    verdict: Verdict


def compared_scores(analysis: Analysis, published: Published) -> list[ComparedScore]:
    """Every printed score of the study's tables that has a place in this study, in the order of the tables.

    An average has one where it is over just the study's in-domain tasks. What is a slip is compared as it must have
    been meant (`Published.right`).
    """
    compared = []
    for name in analysis.study.published:
        if name == PARAMETERS_TABLE:
            continue
        right = published.right(name)
        benchmarks = {score.task for score in published.scores(name)} - {AVERAGE} or set(published.protocol.tasks)
        for printed in published.scores(name):
            of = _scored(analysis, printed, benchmarks)
            row = _row(analysis, published.protocol, printed)
            if of is not None and row is not None:
                level = float(right.get(printed, printed.percent)) / 100
                comparison = _Comparison(analysis, published.protocol, row, of, printed, level)
                compared.append(comparison.result(name))
    return compared


def _scored(analysis: Analysis, printed: PrintedScore, benchmarks: set[str]) -> Domain | str | None:
    """What of our rows a printed score is of: the in-domain mean, or the task of that name; None for neither.

    ``benchmarks`` are those that the averages of its table are over. None, too, where a task of the study is not scored
    by a share.
    """
    if any(analysis.scale(task) != SHARE for task in analysis.study.in_domain):
        return None  # the paper prints accuracies
    tasks = {analysis.benchmark(task): task for task in analysis.study.in_domain}
    if printed.task == AVERAGE:
        return Domain.IN if benchmarks == set(tasks) else None
    return tasks.get(printed.task)


def _row(analysis: Analysis, protocol: Protocol, printed: PrintedScore) -> Row | None:
    """Our row for a printed score; None, too, for another of the paper's models that is not in this study."""
    model, models = protocol.models[printed.model], [model.name for model in analysis.study.models]
    if model not in models and any(name in models for name in protocol.models.values()):
        return None
    rows = (
        row
        for row in analysis.trained
        if (row.recipe.name, row.setting) == (printed.recipe, printed.setting)
        and _at_rank(row, printed.rank or RANK)
        and row.condition.model in ("", model)
        and row.condition.general == 0
        and row.condition.rate == "chosen"
    )
    return next(rows, None)


def _at_rank(row: Row, rank: int) -> bool:
    """Whether a row has ``rank``: by its budget, or at its native size by its recipe, which may have none."""
    if isinstance(row.budget, Rank):
        return row.budget.rank == rank
    return isinstance(row.budget, Native) and row.recipe.params.get("r", rank) == rank


@dataclass(frozen=True)
class _Comparison:
    """A printed score, of the value ``level``, and the row and what of it (``of``) it is compared with."""

    analysis: Analysis
    protocol: Protocol
    row: Row
    of: Domain | str
    printed: PrintedScore
    level: float

    def result(self, table: str) -> ComparedScore:
        """The comparison in numbers; ``table`` is the name of the printed table."""
        values = list(self.row.by_seed(self.of).values())
        mean, sd = stats.mean_sd(values)
        gap = None if mean is None else mean - self.level
        block = [row for row in self.analysis.trained if row.condition == self.row.condition]
        own = self.analysis.evidence.mean(self.row, self.of, block, other_items=False)
        half = None if own is None else self._half_width(own)
        return ComparedScore(
            table=table,
            recipe=self.printed.recipe,
            setting=self.row.setting,
            task=self.printed.task,
            rank=self.printed.rank or RANK,
            model=self.printed.model,
            published=self.level,
            ours=mean,
            sd=sd,
            seeds=len(values),
            gap=gap,
            low=None if gap is None or half is None else gap - half,
            high=None if gap is None or half is None else gap + half,
            basis=None if own is None or half is None else own.basis.value,
            verdict=self._verdict(gap, half),
        )

    def _half_width(self, own: stats.Estimate) -> float | None:
        """Half the 95 % interval of the gap; ``own`` is our mean, with the error of its seeds. None without one."""
        if own.error is None or own.freedom is None:
            return None
        of_seeds = own.error**2 * (1 + own.seeds / _PAPER_SEEDS)
        tasks = self.analysis.tasks_in(self.of) if isinstance(self.of, Domain) else (self.of,)
        variance = of_seeds + sum(map(self._item_variance, tasks)) / len(tasks) ** 2
        return stats.t_half_width(math.sqrt(variance), own.freedom * (variance / of_seeds) ** 2)

    def _item_variance(self, task: str) -> float:
        """Variance of the gap that comes from other test items; none where the paper's test set is ours."""
        paper, ours = self.protocol.tasks.get(self.analysis.benchmark(task)), self.analysis.metric(task)
        if paper is None or ours is None or paper.scored == ours.items:
            return 0.0
        binomial = self.level * (1 - self.level)
        noise = self.analysis.evidence.item_noise(self.row, task)
        of_ours = binomial / ours.items if noise is None else max(0.0, noise.variance - (noise.within or 0.0))
        return binomial / paper.scored + of_ours

    def _verdict(self, gap: float | None, half: float | None) -> Verdict:
        """Of a gap and half the width of its interval."""
        if gap is None:
            return Verdict.NO_RECORD
        if self.protocol.models[self.printed.model] not in [model.name for model in self.analysis.study.models]:
            return Verdict.OTHER_MODEL
        if half is None:
            return Verdict.UNTESTED
        if abs(gap) <= half:
            return Verdict.AGREES
        return Verdict.ABOVE if gap > 0 else Verdict.BELOW
