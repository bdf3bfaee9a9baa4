"""The section on what was scored without being trained here: models and adapters of any origin, on the study's items.

They stand apart. Nobody here knows their data, steps or rate, so no test, ranking, figure or mean of the study takes
them in; a score on other items than the study's is not shown beside the study's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd

from mosld_bench.records.record import Metric
from mosld_bench.records.scored import Scored
from mosld_bench.reporting import stats
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.document import Section, paragraph, section
from mosld_bench.reporting.evidence import answers_in, stacked
from mosld_bench.reporting.labels import count, named
from mosld_bench.reporting.table import Cell, Column, Line, Table, score_cell
from mosld_bench.spec.trial import Domain

if TYPE_CHECKING:
    from mosld_bench.records.scale import Scale

_TURNED_FROM = 5  # columns of tasks from which on their titles stand upright


#: What a reader is to know of all of them.
APART = (
    "These models and adapters were scored by `mosld-bench score` and not trained under this study: on which data, "
    "for how long and at which rate they were trained is not known here. No test, ranking or figure takes them in, "
    "and their sizes were matched to no budget."
)


def scored_section(analysis: Analysis) -> Section | None:
    """The scored records of the study in a table of their own; None where there are none."""
    rows = scored_rows(analysis)
    if not rows:
        return None
    shown = [row for row in rows if row.metrics]
    others = [f"{row.record.title}: {reason}." for row in rows for reason in row.differences()]
    return section(
        "Scored, not trained here",
        paragraph(f"{APART} ", " ".join(others)),
        _table(analysis, shown) if shown else None,
    )


def scored_rows(analysis: Analysis) -> list[ScoredRow]:
    """The scored records of the study, each with what of it may stand beside the rows."""
    return [ScoredRow(analysis, record) for record in analysis.scored_records]


@dataclass(frozen=True)
class ScoredRow:
    """A scored record beside the rows of a report. ``metrics``: task -> its score on the study's very items."""

    analysis: Analysis
    record: Scored
    metrics: dict[str, Metric] = field(init=False)

    def __post_init__(self) -> None:
        found = {
            metric.task: metric
            for metric in self.record.metrics
            if metric.primary and metric.task in self.analysis.task_names and self._same_items(metric.task)
        }
        object.__setattr__(self, "metrics", found)

    def _same_items(self, task: str) -> bool:
        """Whether it was scored on the items that the study's trials are scored on."""
        ours, theirs = self.analysis.study.evaluate, self.record.evaluate
        same_sample = ours.limit == theirs.limit and (ours.limit is None or ours.sample_seed == theirs.sample_seed)
        digests = {trial.task_digests.get(task) for trial in self.analysis.trials} - {None}
        return ours.split == "test" and same_sample and self.record.task_digests.get(task) in digests

    def differences(self) -> list[str]:
        """What is not the same as in the study, as ends of sentences; what its own notes say first."""
        analysis, record = self.analysis, self.record
        found = [note.rstrip(".") for note in record.notes]
        same = next((model for model in analysis.study.models if model.name == record.model.name), None)
        if same is None:
            found.append(f"its base model is {record.model.name}")
        elif same.load != record.model.load:
            rounded = [f"rounded to {model.load}" if model.load else "not rounded" for model in (record.model, same)]
            found.append(f"its base model is {rounded[0]}, the study's is {rounded[1]}")
        dtype = analysis.study.train.dtype if analysis.study.train else record.dtype
        if record.dtype != dtype:
            found.append(f"it was computed in {record.dtype}, the study in {dtype}")
        lacking = [analysis.title(task) for task in analysis.task_names if task not in record.tasks]
        if 0 < len(lacking) < len(analysis.task_names):
            found.append(f"it was not scored on {named(lacking, 'tasks')}")
        elsewhere = [task for task in record.tasks if task in analysis.task_names and task not in self.metrics]
        if elsewhere:
            titles = named([analysis.title(task) for task in elsewhere], "tasks")
            found.append(f"its scores on {titles} are left out, since they are of other items than the study's")
        if not lacking or len(lacking) < len(analysis.task_names):
            return found
        return [*found, "it was scored on none of the study's tasks"]

    def mean(self, domain: Domain) -> stats.Estimate | None:
        """Its mean over a domain, with what the choice of items moves it by; None where a task lacks a score."""
        tasks = self.analysis.tasks_in(domain)
        if self.analysis.unlike(domain) or not tasks or any(task not in self.metrics for task in tasks):
            return None
        value = sum(self.metrics[task].value for task in tasks) / len(tasks)
        items = [self._items(task) for task in tasks]
        known = [task for task in items if task is not None]
        return stats.alone([value], known if len(known) == len(items) else None)

    def _items(self, task: str) -> stats.TaskItems | None:
        """What it scored on the items of a task; None where they are not at hand or do not give its number."""
        frame = self.analysis.scored_items(self.record)
        of_task = None if frame is None else frame[frame["task"] == task]
        answers = answers_in(of_task, "score", [self.metrics[task].value])
        return None if answers is None else stacked([answers])


def _table(analysis: Analysis, rows: Sequence[ScoredRow]) -> Table:
    """Size and scores, task by task and in the mean, with half of the 95 % interval over items."""
    turned = len(analysis.task_names) >= _TURNED_FROM
    columns = [Column("Scored", "left"), Column("Base model", "left"), Column("Trainable")]
    for domain in analysis.domains:
        titles = [analysis.title(task) for task in analysis.tasks_in(domain)]
        columns += [Column(title, turned=turned, group=domain.label) for title in titles]
        columns += [] if analysis.unlike(domain) else [Column("Mean", group=domain.label)]
    return Table(
        "scored",
        "Scored on the items of this study and not trained under it; ± half of the 95 % interval over items.",
        tuple(columns),
        tuple(_line(analysis, row) for row in rows),
        pd.DataFrame([_numbers(analysis, row) for row in rows]),
        wide=len(columns) > 5,
    )


def _line(analysis: Analysis, row: ScoredRow) -> Line:
    record = row.record
    cells = [Cell(record.title), Cell(record.model.name.rsplit("/", 1)[-1]), Cell(count(record.parameters.trainable))]
    for domain in analysis.domains:
        for task in analysis.tasks_in(domain):
            metric = row.metrics.get(task)
            cells.append(score_cell(analysis.scale(task), metric.value if metric else None))
        if not analysis.unlike(domain):
            cells.append(_mean_cell(analysis.scale(domain), row.mean(domain)))
    return Line(tuple(cells))


def _mean_cell(scale: Scale, mean: stats.Estimate | None) -> Cell:
    return score_cell(scale, mean.mean, mean.half_width) if mean else score_cell(scale, None)


def _numbers(analysis: Analysis, row: ScoredRow) -> dict[str, object]:
    record = row.record
    numbers: dict[str, object] = {
        "scored": record.scored_id,
        "title": record.title,
        "model": record.model.name,
        "peft_type": record.adapter.peft_type if record.adapter else None,
        "trainable_parameters": record.parameters.trainable,
        "total_parameters": record.parameters.total,
    }
    for domain in analysis.domains:
        tasks = analysis.tasks_in(domain)
        numbers |= {task: row.metrics[task].value if task in row.metrics else None for task in tasks}
        if not analysis.unlike(domain):
            mean = row.mean(domain)
            numbers |= {
                f"{domain}_mean": mean.mean if mean else None,
                f"{domain}_low": mean.low if mean else None,
                f"{domain}_high": mean.high if mean else None,
            }
    return numbers
