"""Pairs: two rows that are compared, and what each has to be compared by: its scores by seed and its items."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mosld_bench.records.record import Record
from mosld_bench.reporting import stats
from mosld_bench.reporting.comparing.sources import Source
from mosld_bench.reporting.evidence import PROBABILITY, Answers
from mosld_bench.reporting.rows import Row
from mosld_bench.spec.trial import Domain

if TYPE_CHECKING:
    import pandas as pd

#: Items of a task are paired where both have at least this share of the fewer ones: two samples of many that overlap by
#: chance tell more each for itself.
_ENOUGH = 0.5


@dataclass(frozen=True, eq=False)
class Member:
    """A row of a source: one of two that are compared."""

    row: Row
    source: Source
    _keys: dict[str, dict[int, str] | None] = field(default_factory=dict, repr=False)
    _scores: dict[tuple[tuple[str, ...], str | None], dict[int, float]] = field(default_factory=dict, repr=False)

    def scored_on(self) -> set[str]:
        """The tasks of its records."""
        return {task for record in self.row.records for task in record.trial.scored_on}

    def metrics(self, task: str) -> set[str]:
        """The metrics under which a record has a number for a task."""
        return {m.metric for record in self.row.records for m in record.metrics if m.task == task}

    def answered(self, task: str) -> Iterator[tuple[Record, pd.DataFrame | None]]:
        """The records that a task is scored in, by seed, each with the items of the task; None where it has none.

        Raises BadFileError for a file that holds no items.
        """
        for record in sorted(self.row.records, key=lambda record: record.trial.seed):
            if task in record.trial.scored_on:
                yield record, (self.source.items(record) or {}).get(task)

    def keys(self, task: str) -> dict[int, str] | None:
        """The items of a task that all records have: ``doc`` -> ``doc_hash``; None where a record has no items."""
        if task not in self._keys:
            frames = [frame for _, frame in self.answered(task)]
            keys = [set(zip(f["doc"], f["doc_hash"], strict=True)) for f in frames if f is not None]
            self._keys[task] = dict(set.intersection(*keys)) if keys and len(keys) == len(frames) else None
        return self._keys[task]

    def answers(self, task: str, metric: str | None) -> dict[int, Answers]:
        """Seed -> the scores on the items of a task, see `Evidence.answers`."""
        return self.source.analysis.evidence.answers(self.row, task, metric)

    def by_seed(self, tasks: Sequence[str], metric: str | None) -> dict[int, float]:
        """Seed -> the mean over tasks, of the seeds that have a score on all of them."""
        key = tuple(tasks), metric
        if key not in self._scores:
            row = self.source.analysis.under(metric, self.row)
            each = [row.by_seed(task) for task in tasks]
            if metric == PROBABILITY:
                items = [self.answers(task, metric) for task in tasks]
                each = [{seed: float(answers.values.mean()) for seed, answers in of_task.items()} for of_task in items]
            seeds = sorted(set.intersection(*map(set, each))) if each else []
            self._scores[key] = {seed: float(np.mean([of_task[seed] for of_task in each])) for seed in seeds}
        return self._scores[key]

    def has_items(self, tasks: Sequence[str], metric: str | None, seeds: Collection[int]) -> bool:
        """Whether the scores are known item by item."""
        return all(set(seeds) <= self.answers(task, metric).keys() for task in tasks)

    def matrix(self, task: str, metric: str | None, seeds: Sequence[int], docs: Collection[int]) -> stats.TaskItems:
        """The scores on the items ``docs`` of a task: seeds × items."""
        by_seed = [self.answers(task, metric)[seed] for seed in seeds]
        wanted = np.array(sorted(docs), dtype=np.int64)
        values = np.stack([answers.values[np.isin(answers.docs, wanted)] for answers in by_seed])
        groups = by_seed[0].groups
        if groups is None:
            return stats.TaskItems(values)
        own = groups[np.isin(by_seed[0].docs, wanted)].astype(str)
        return stats.TaskItems(values, np.unique(own, return_inverse=True)[1])

    def block(self) -> list[Member]:
        """The rows that it is compared with in its source, itself among them; none at its native size."""
        rows = self.source.analysis.pool(self.row.condition)
        return [Member(row, self.source) for row in rows if row.records] if self.row.ranked else []


@dataclass(frozen=True)
class TaskOverlap:
    """How many items of a task either side was scored on, None where that is not known, and how many both were.

    An item is known by its position in the evaluation set and its content (``doc`` and ``doc_hash``).
    """

    task: str
    ours: int | None
    theirs: int | None
    common: int | None

    @property
    def paired(self) -> bool:
        """Whether the common items are compared, one with itself, and not all of either side."""
        fewer = min(self.ours or 0, self.theirs or 0)
        return self.common is not None and self.common >= max(2, _ENOUGH * fewer)


@dataclass(frozen=True, eq=False)
class Pair:
    """Two rows that are compared."""

    ours: Member
    theirs: Member
    _common: dict[str, set[int] | None] = field(default_factory=dict, repr=False)

    @property
    def members(self) -> tuple[Member, Member]:
        """The two."""
        return self.ours, self.theirs

    @property
    def one_source(self) -> bool:
        """Whether both are of one study or folder."""
        return self.ours.source is self.theirs.source

    def tasks(self, of: Domain | str) -> tuple[str, ...]:
        """The tasks of a domain that both were scored on and that are of it in both; a task itself."""
        if not isinstance(of, Domain):
            return (of,)
        ours, theirs = (member.source.analysis.tasks_in(of) for member in self.members)
        scored = self.ours.scored_on() & self.theirs.scored_on()
        return tuple(task for task in ours if task in theirs and task in scored)

    def domains(self) -> dict[Domain | None, tuple[str, ...]]:
        """The tasks that both were scored on by domain; under None those that are of another domain in the other."""
        found: dict[Domain | None, tuple[str, ...]] = {domain: self.tasks(domain) for domain in Domain}
        of_domain = {task for tasks in found.values() for task in tasks}
        apart = self.ours.scored_on() & self.theirs.scored_on() - of_domain
        return found | {None: tuple(task for task in self.ours.source.analysis.task_names if task in apart)}

    def primary(self, task: str) -> str | None:
        """The primary metric of a task; None where the two have different ones."""
        ours, theirs = (member.source.analysis.scales.primary.get(task) for member in self.members)
        return ours if ours == theirs else None

    def title(self, task: str) -> str:
        """The title of a task, of the side that knows one."""
        titles = [member.source.analysis.title(task) for member in self.members]
        return titles[0] if titles[0] != task else titles[1]

    def common(self, task: str) -> set[int] | None:
        """The positions of the items that both were scored on; None where that is not known."""
        if task not in self._common:
            ours, theirs = (member.keys(task) for member in self.members)
            unknown = ours is None or theirs is None
            self._common[task] = None if unknown else {doc for doc, _ in (ours or {}).items() & (theirs or {}).items()}
        return self._common[task]

    def overlap(self, task: str) -> TaskOverlap:
        """How many items the two have in common."""
        ours, theirs = (member.keys(task) for member in self.members)
        common = self.common(task)
        return TaskOverlap(
            task,
            None if ours is None else len(ours),
            None if theirs is None else len(theirs),
            None if common is None else len(common),
        )
