"""Evidence: what rows answered item by item, and the estimates that are made of it.

The one place where records, seeds and items become the arrays of `stats.py`. A task whose items are not at hand, or
whose number is no mean over items, is compared by its numbers alone; the interval then leaves out the choice of items,
and says so (`Estimate.of_items`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mosld_bench.records.record import Record
from mosld_bench.records.store import no_items
from mosld_bench.reporting import stats
from mosld_bench.reporting.rows import Row, RowKey
from mosld_bench.reporting.scales import Scales
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import Domain, Trial

if TYPE_CHECKING:
    import pandas as pd

#: The mean probability of the right option, of items.parquet: a metric beside those of lm-eval.
PROBABILITY = "probability"

_ROUNDING = 1e-6  # that the mean of a record's items may be off its number


class Term(NamedTuple):
    """A row of a sum, and what it counts there: 1 for the row itself, -1 for what is taken from it."""

    row: Row
    weight: float


def _minus(row: Row, other: Row) -> list[Term]:
    return [Term(row, 1.0), Term(other, -1.0)]


class Answers(NamedTuple):
    """What was scored on items of a task: their positions in the evaluation set, their scores, and their clusters."""

    docs: stats.Integers
    values: stats.Floats
    groups: np.ndarray | None


@dataclass
class _Pool:
    """What the rows of a block have in common under a metric.

    ``number`` tells it from others, ``scores`` are rows × seeds, and ``places`` where a row stands in them.
    """

    number: int
    scores: stats.Floats
    places: Mapping[RowKey, int]
    _noisier: dict[RowKey, bool] = field(default_factory=dict)

    @cached_property
    def noise(self) -> stats.SeedNoise | None:
        """MS and ν of the rows; None where there are none."""
        return stats.seed_noise(self.scores)

    def is_noisier(self, row: Row) -> bool:
        """Whether a row is shown to scatter more over seeds than the others."""
        if row.key not in self._noisier:
            p = stats.noisier(self.scores, self.places[row.key])
            self._noisier[row.key] = p is not None and p < stats.LEVEL
        return self._noisier[row.key]


@dataclass
class Evidence:
    """The items of a report's records, read when they are asked for, each file once."""

    study: Study
    scales: Scales
    items: Callable[[Trial], pd.DataFrame | None] = no_items
    _read: dict[str, dict[str, pd.DataFrame]] = field(default_factory=dict)
    _of_rows: dict[tuple[RowKey, str, str | None], dict[int, Answers]] = field(default_factory=dict)
    _of_pairs: dict[tuple[Any, ...], list[tuple[stats.ItemNoise, int]]] = field(default_factory=dict)
    _contrasts: dict[tuple[Any, ...], stats.Estimate | None] = field(default_factory=dict)
    _pools: dict[tuple[Any, ...], _Pool] = field(default_factory=dict)

    # What a row scored

    def by_seed(self, row: Row, of: Domain | str, metric: str | None = None) -> dict[int, float]:
        """Seed -> the row's mean over a domain, or its score on a task, under ``metric`` (None: the primary one).

        ``row`` is to be one under the metric already (`Analysis.under`), but for the probability of the right option,
        which only items have.
        """
        if metric != PROBABILITY:
            return row.by_seed(of)
        tasks = self.tasks_of(of)
        answers = [self.answers(row, task, metric) for task in tasks]
        seeds = reduce(set.intersection, (set(of_task) for of_task in answers)) if answers else set()
        return {seed: float(np.mean([np.mean(of_task[seed].values) for of_task in answers])) for seed in sorted(seeds)}

    def tasks_of(self, of: Domain | str) -> tuple[str, ...]:
        """The tasks of a domain, or the task itself."""
        in_domain, outside = self.study.in_domain, self.study.out_of_domain
        return {Domain.IN: in_domain, Domain.OUT: outside}[of] if isinstance(of, Domain) else (of,)

    def answers(self, row: Row, task: str, metric: str | None = None) -> dict[int, Answers]:
        """Seed -> the scores of a row on the items of a task; seeds without items are left out.

        In the setting ``single`` they are those of the task's own model, or out of domain the mean over all models.
        """
        key = row.key, task, metric
        if key not in self._of_rows:
            self._of_rows[key] = {}
            for seed in sorted({record.trial.seed for record in row.records}):
                records = [r for r in row.records if r.trial.seed == seed and task in r.trial.scored_on]
                each = [self._of_record(record, task, metric) for record in records]
                known = [answers for answers in each if answers is not None]
                if known and len(known) == len(records) == self._models(row, task):
                    self._of_rows[key][seed] = _mean(known)
        return self._of_rows[key]

    def _models(self, row: Row, task: str) -> int:
        """How many models of a seed score a task."""
        outside = row.setting == "single" and task in self.study.out_of_domain
        return len(self.study.in_domain) if outside else 1

    def frame(self, record: Record, task: str) -> pd.DataFrame | None:
        """The items of a task as a record has them (`records.items.COLUMNS`); None where it has none."""
        if record.trial_id not in self._read:
            items = self.items(record.trial)
            self._read[record.trial_id] = {} if items is None else {str(t): f for t, f in items.groupby("task")}
        return self._read[record.trial_id].get(task)

    def _of_record(self, record: Record, task: str, metric: str | None) -> Answers | None:
        """The scores of a record's items; None where there are none, or they do not give the record's number."""
        numbers = [
            m.value for m in record.metrics if m.task == task and (m.primary if metric is None else m.metric == metric)
        ]
        column, known = "score" if metric is None else metric, None if metric == PROBABILITY else numbers
        return answers_in(self.frame(record, task), column, known)

    # Estimates

    def difference(
        self, row: Row, other: Row, of: Domain | str, pool: Sequence[Row], metric: str | None = None
    ) -> stats.Estimate | None:
        """``row`` minus ``other``, two rows of the block ``pool``; None where they have no seed in common."""
        return self.contrast(_minus(row, other), of, pool, metric)

    def contrast(
        self, terms: Sequence[Term], of: Domain | str, pool: Sequence[Row], metric: str | None = None
    ) -> stats.Estimate | None:
        """The weighted sum of several rows of the block ``pool``; None where they have no seed in common."""
        return self._known_contrast(terms, of, pool, metric, self._pool(pool, of, metric))

    def differences(
        self, pairs: Iterable[tuple[Row, Row]], of: Domain | str, pool: Sequence[Row], metric: str | None = None
    ) -> Iterator[tuple[Row, Row, stats.Estimate]]:
        """The pairs of rows of a block that have a seed in common, each with its `difference`."""
        shared = self._pool(pool, of, metric)
        for row, other in pairs:
            estimate = self._known_contrast(_minus(row, other), of, pool, metric, shared)
            if estimate is not None:
                yield row, other, estimate

    def _pool(self, pool: Sequence[Row], of: Domain | str, metric: str | None) -> _Pool:
        """What all contrasts of a block under a metric share, found once."""
        key = *(member.key for member in pool), isinstance(of, Domain), of, metric
        if key not in self._pools:
            places = {member.key: i for i, member in enumerate(pool)}
            self._pools[key] = _Pool(len(self._pools), self._scores(pool, of, metric), places)
        return self._pools[key]

    def _known_contrast(
        self, terms: Sequence[Term], of: Domain | str, pool: Sequence[Row], metric: str | None, shared: _Pool
    ) -> stats.Estimate | None:
        key = shared.number, *((term.row.key, term.weight) for term in terms)
        if key not in self._contrasts:
            self._contrasts[key] = self._contrast(terms, of, pool, metric, shared)
        return self._contrasts[key]

    def _contrast(
        self, terms: Sequence[Term], of: Domain | str, pool: Sequence[Row], metric: str | None, shared: _Pool
    ) -> stats.Estimate | None:
        scores = [self.by_seed(row, of, metric) for row, _ in terms]
        seeds = sorted(seed for seed in scores[0] if all(seed in of_row for of_row in scores))
        if not seeds:
            return None
        noisy = len(seeds) > 1 and any(shared.is_noisier(row) for row, _ in terms)
        weights = [term.weight for term in terms]
        return stats.contrast(
            weights,
            [sum(weight * of_row[seed] for weight, of_row in zip(weights, scores, strict=True)) for seed in seeds],
            self._aligned(terms, of, seeds, metric),
            shared.noise,
            within=_within(self._pairs(pool, of, metric)) if len(seeds) == 1 else None,
            noisy=noisy,
        )

    def against_base(
        self, row: Row, base: Row, of: Domain | str, pool: Sequence[Row], metric: str | None = None
    ) -> stats.Estimate | None:
        """A row minus the untrained model, which has no seeds; None where one of them has no score."""
        ours, theirs = self.by_seed(row, of, metric), self.by_seed(base, of, metric)
        if not ours or not theirs:
            return None
        level, seeds = next(iter(theirs.values())), sorted(ours)
        items = self._aligned(_minus(row, base), of, seeds, metric)
        return self._alone([ours[seed] - level for seed in seeds], items, of, pool, metric)

    def between_settings(
        self, row: Row, other: Row, of: Domain | str, metric: str | None = None
    ) -> stats.Estimate | None:
        """A row in one setting minus the same recipe in another; None where they have no seed in common."""
        ours, theirs = self.by_seed(row, of, metric), self.by_seed(other, of, metric)
        seeds = sorted(ours.keys() & theirs.keys())
        if not seeds:
            return None
        return stats.alone([ours[s] - theirs[s] for s in seeds], self._aligned(_minus(row, other), of, seeds, metric))

    def mean(
        self,
        row: Row,
        of: Domain | str,
        pool: Sequence[Row],
        metric: str | None = None,
        *,
        other_items: bool = True,
    ) -> stats.Estimate | None:
        """A row's own mean; None without a score. ``other_items``: whether it stands for other items than these."""
        ours = self.by_seed(row, of, metric)
        if not ours:
            return None
        seeds = sorted(ours)
        items = self._aligned([Term(row, 1.0)], of, seeds, metric) if other_items else None
        return self._alone([ours[seed] for seed in seeds], items, of, pool, metric)

    def item_noise(self, row: Row, of: Domain | str, metric: str | None = None) -> stats.ItemNoise | None:
        """What the choice of items moves a row's own mean by; None where its items are not at hand."""
        seeds = sorted(self.by_seed(row, of, metric))
        items = self._aligned([Term(row, 1.0)], of, seeds, metric) if seeds else None
        return stats.item_noise(items) if items else None

    def _alone(
        self,
        by_seed: Sequence[float],
        items: Sequence[stats.TaskItems] | None,
        of: Domain | str,
        pool: Sequence[Row],
        metric: str | None,
    ) -> stats.Estimate:
        """What does not cancel the common effect of seeds; a single seed borrows from the rows of ``pool``."""
        table = self._scores(pool, of, metric)
        within = _within(self._each(pool, of, metric)) if len(by_seed) == 1 else None
        return stats.alone(by_seed, items, borrowed=stats.spread_of_rows(table), within=within)

    def seed_noise(self, pool: Sequence[Row], of: Domain | str, metric: str | None = None) -> stats.SeedNoise | None:
        """MS and ν of the rows of a block; None where its seeds do not tell."""
        noise = stats.seed_noise(self._scores(pool, of, metric))
        return noise if noise is not None and noise.known else None

    def pair_noise(self, pool: Sequence[Row], of: Domain | str, metric: str | None = None) -> stats.PairNoise | None:
        """What two rows of the block differ by through seeds and items; None where its seeds do not tell."""
        noise = self.seed_noise(pool, of, metric)
        if noise is None:
            return None
        pairs = self._pairs(pool, of, metric)
        seeds = max((count for _, count in pairs), default=1)
        return stats.pair_noise(noise, [items for items, count in pairs if count == seeds], seeds)

    def _each(self, pool: Sequence[Row], of: Domain | str, metric: str | None) -> list[tuple[stats.ItemNoise, int]]:
        """Of every row with two seeds or more, the noise of items in its mean, and these seeds."""
        found = []
        for row in pool:
            seeds = sorted(self.by_seed(row, of, metric))
            items = self._aligned([Term(row, 1.0)], of, seeds, metric) if len(seeds) > 1 else None
            if items and (noise := stats.item_noise(items)):
                found.append((noise, len(seeds)))
        return found

    def _scores(self, pool: Sequence[Row], of: Domain | str, metric: str | None) -> stats.Floats:
        """The rows' scores as rows × seeds, NaN where a row lacks a seed."""
        return _table([self.by_seed(member, of, metric) for member in pool])

    def _pairs(self, pool: Sequence[Row], of: Domain | str, metric: str | None) -> list[tuple[stats.ItemNoise, int]]:
        """Of every two rows with two common seeds or more, the noise of items in their difference, and these seeds."""
        key = *(row.key for row in pool), isinstance(of, Domain), of, metric
        if key not in self._of_pairs:
            pairs = self._of_pairs[key] = []
            for row, other in combinations(pool, 2):
                seeds = sorted(self.by_seed(row, of, metric).keys() & self.by_seed(other, of, metric).keys())
                items = self._aligned(_minus(row, other), of, seeds, metric) if len(seeds) > 1 else None
                if items and (noise := stats.item_noise(items)):
                    pairs.append((noise, len(seeds)))
        return self._of_pairs[key]

    def _aligned(
        self, terms: Sequence[Term], of: Domain | str, seeds: Sequence[int], metric: str | None
    ) -> list[stats.TaskItems] | None:
        """The weighted sum of rows item by item, seed by seed and task by task.

        The untrained model, which has no seeds, has its one answer at each. None where a task's items are not known of
        every row for every seed.
        """
        tasks = []
        for task in self.tasks_of(of):
            lines: list[list[Answers]] = []
            for row, _ in terms:
                found = self.answers(row, task, metric)
                if row.frozen and len(terms) > 1:
                    found = dict.fromkeys(seeds, next(iter(found.values()))) if found else {}
                if any(seed not in found for seed in seeds):
                    return None
                lines.append([found[seed] for seed in seeds])
            tasks.append(_summed(lines, [weight for _, weight in terms]))
        return tasks or None


def answers_in(frame: pd.DataFrame | None, column: str, numbers: Sequence[float] | None) -> Answers | None:
    """The scores in a column of a task's items (`records.items.COLUMNS`), by item.

    None where they are not at hand, or their mean is none of the ``numbers`` of the task's record; None for these
    where there is no number to hold them to.
    """
    if frame is None or column not in frame or frame.empty or frame[column].isna().any():
        return None
    frame = frame.sort_values("doc")
    values = frame[column].to_numpy(np.float64)
    mean = float(values.mean())
    if numbers is not None and not any(abs(mean - n) <= _ROUNDING * max(1.0, abs(n)) for n in numbers):
        return None
    groups = frame["group"].to_numpy(object) if frame["group"].notna().all() else None
    return Answers(frame["doc"].to_numpy(np.int64), values, groups)


def _within(noise: Iterable[tuple[stats.ItemNoise, int]]) -> float | None:
    """Mean of S·VE over what has two seeds or more; None without any."""
    known = [seeds * items.within for items, seeds in noise if items.within is not None]
    return float(np.mean(known)) if known else None


def _table(rows: Iterable[Mapping[int, float]]) -> stats.Floats:
    """Scores as rows × seeds, NaN where a row lacks a seed."""
    scores = list(rows)
    seeds = sorted({seed for row in scores for seed in row})
    return np.array([[row.get(seed, np.nan) for seed in seeds] for row in scores], dtype=np.float64)


def _mean(models: Sequence[Answers]) -> Answers:
    """The mean over models, item by item."""
    if len(models) == 1:
        return models[0]
    together, common = stacked(models), _common(models)
    docs = models[0].docs if common is None else common
    return Answers(docs, together.values.mean(axis=0), together.groups)


def stacked(answers: Sequence[Answers]) -> stats.TaskItems:
    """One line of values each, over the items that all of them have; clusters are told by the first that has any."""
    common = _common(answers)
    values = np.stack([a.values if common is None else a.values[np.isin(a.docs, common)] for a in answers])
    grouped = next((a for a in answers if a.groups is not None), None)
    if grouped is None or grouped.groups is None:
        return stats.TaskItems(values)
    groups = grouped.groups if common is None else grouped.groups[np.isin(grouped.docs, common)]
    return stats.TaskItems(values, np.unique(groups.astype(str), return_inverse=True)[1])


def _summed(rows: Sequence[Sequence[Answers]], weights: Sequence[float]) -> stats.TaskItems:
    """The weighted sum of rows, each of which has answers seed by seed, over the items that all have."""
    values, groups = stacked([answers for row in rows for answers in row])
    of_rows = np.split(values, len(rows))
    return stats.TaskItems(reduce(np.add, [weight * own for weight, own in zip(weights, of_rows, strict=True)]), groups)


def _common(answers: Sequence[Answers]) -> stats.Integers | None:
    """The positions of the items that all have; None where all have the same."""
    if all(np.array_equal(a.docs, answers[0].docs) for a in answers):
        return None
    return reduce(np.intersect1d, (a.docs for a in answers))
