"""The scales of a study's tasks, and the tasks whose scores may be averaged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mosld_bench.records.record import Metric, Record, Unscored
from mosld_bench.records.scale import Scale, declared_range


class Measured(NamedTuple):
    """What was measured: a task, under lm-eval's name of a metric."""

    task: str
    metric: str


@dataclass(frozen=True)
class Scales:
    """The scale of everything that records measure; ``primary``: task -> the metric that tables show for it."""

    of_measured: Mapping[Measured, Scale] = field(default_factory=dict)
    primary: Mapping[str, str] = field(default_factory=dict)

    def of(self, task: str, metric: str | None = None) -> Scale | None:
        """The scale of a task under a metric, by default its primary one; None where no record tells."""
        metric = self.primary.get(task) if metric is None else metric
        return None if metric is None else self.of_measured.get(Measured(task, metric))

    def common(self, tasks: Sequence[str], metric: str | None = None) -> Scale | None:
        """The one scale of the tasks that are known; None where they have several, or none is known.

        A mean is taken over tasks of one scale, and else over none of them: one over a part would change with the part.
        """
        known = self._known(tasks, metric)
        return known.pop() if len(known) == 1 else None

    def unlike(self, tasks: Sequence[str], metric: str | None = None) -> bool:
        """Whether the tasks have several scales, so that no mean is taken over them."""
        return len(self._known(tasks, metric)) > 1

    def _known(self, tasks: Sequence[str], metric: str | None) -> set[Scale]:
        return {scale for task in tasks if (scale := self.of(task, metric)) is not None}


def find_scales(records: Iterable[Record], definitions: Mapping[str, Mapping[str, Any]]) -> Scales:
    """The scales of what ``records`` measure; ``definitions``: task -> its resolved definition.

    Raises BadFileError where a definition names a scale that does not exist.
    """
    values: dict[Measured, list[float]] = {}
    higher: dict[Measured, bool] = {}
    primary: dict[str, str] = {}
    for record in records:
        for metric in record.metrics:
            values.setdefault(Measured(metric.task, metric.metric), []).append(metric.value)
        measured: tuple[Metric | Unscored, ...] = (*record.metrics, *record.unscored)
        for one in measured:
            higher.setdefault(Measured(one.task, one.metric), one.higher_is_better)
            if one.primary:
                primary.setdefault(one.task, one.metric)
    declared = {task: declared_range(task, definition) for task, definition in definitions.items()}
    of_measured = {
        of: Scale.of(
            of.metric,
            higher_is_better=up,
            values=values.get(of, ()),
            declared=declared.get(of.task) if primary.get(of.task) == of.metric else None,
        )
        for of, up in higher.items()
    }
    return Scales(of_measured, primary)
