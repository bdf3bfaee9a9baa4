"""The table of results: every row with its size, its two means and its score on each task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from mosld_bench.report.analysis import Analysis
from mosld_bench.report.labels import MISSING, block_label, count, percent, row_title
from mosld_bench.report.rows import Row
from mosld_bench.report.table import Cell, Column, Line, Table, score_cell
from mosld_bench.spec.trial import Condition, Domain

_CAPTION = (
    "(%), mean over seeds; of the two means also one sample standard deviation over seeds. n: "
    "seeds. Bold: highest in-domain mean of its block, among the rows with the most seeds; blocks of equal size and of "
    "equal rank are ranked apart."
)
_TIED = " †: not separated from that row by a paired test over seeds (Holm-adjusted p ≥ 0.05)."
_MOST_TASKS = 10  # that one table has beside the means
_TASKS_A_TABLE = 12  # where they go to tables of their own
_LONGEST = 34  # rows that fit the largest float of the report


@dataclass(frozen=True)
class MainRow:
    """A row of results as numbers: the two means (0 to 1) with their standard deviations, None where there is none."""

    recipe: str
    setting: str
    budget: str
    trainable: int | None
    in_domain: tuple[float | None, float | None]
    out_of_domain: tuple[float | None, float | None]
    seeds: int


def main_rows(analysis: Analysis) -> list[MainRow]:
    """The rows of the report in their order."""
    return [
        MainRow(
            recipe=row.recipe.name,
            setting=row.setting,
            budget=row.budget,
            trainable=row.trainable,
            in_domain=row.mean_sd(Domain.IN),
            out_of_domain=row.mean_sd(Domain.OUT),
            seeds=len(row.by_seed()),
        )
        for row in analysis.rows
    ]


def main_tables(analysis: Analysis) -> list[Table]:
    """The table of results; where the tasks are more than ten, their scores go to tables of their own."""
    names, frame = analysis.task_names, _frame(analysis)
    tied = any(analysis.tied(condition) for condition, _ in analysis.blocks())
    caption = f"{analysis.measure.capitalize()} {_CAPTION}{_TIED if tied else ''}"
    if len(names) <= _MOST_TASKS:
        return _Layout(analysis, names, means=True).tables("main", caption, frame)
    tables = _Layout(analysis, (), means=True).tables("main", caption, frame)
    keys = ["recipe", "setting", "budget", *condition_numbers(analysis, analysis.rows[0].condition)]
    caption = f"{analysis.measure.capitalize()} by task (%), mean over seeds."
    for i, start in enumerate(range(0, len(names), _TASKS_A_TABLE), start=1):
        part = names[start : start + _TASKS_A_TABLE]
        tables += _Layout(analysis, part, means=False).tables(f"tasks-{i}", caption, frame[[*keys, *part]])
    return tables


@dataclass(frozen=True)
class _Layout:
    """What the columns of a table are: the scores of ``tasks``; with ``means``, the size and the two means too."""

    analysis: Analysis
    tasks: Sequence[str]
    means: bool

    def tables(self, name: str, caption: str, frame: pd.DataFrame) -> list[Table]:
        """One table, or several of whole blocks where it would be longer than a page."""
        pages, columns = self._pages(), self._columns()
        first = Table(name, caption, columns, tuple(pages[0]), frame, wide=len(columns) > 5)
        tables = [first]
        for i, page in enumerate(pages[1:], start=1):
            caption = "Continued from the table before."
            tables.append(replace(first, name=f"{name}-continued-{i}", caption=caption, rows=tuple(page), frame=None))
        if self.means:
            tables[-1] = replace(tables[-1], notes=_notes(self.analysis))
        return tables

    def _tasks_in(self, domain: Domain) -> list[str]:
        return [task for task in self.tasks if task in self.analysis.tasks_in(domain)]

    def _columns(self) -> tuple[Column, ...]:
        title = self.analysis.title
        turned = len(self.tasks) > 4 and any(len(title(task)) > 9 for task in self.tasks)
        columns = [Column("Method", "left"), *([Column("n"), Column("Trainable")] if self.means else [])]
        for domain in self.analysis.domains:
            columns += [Column(title(task), turned=turned, group=domain.label) for task in self._tasks_in(domain)]
            columns += [Column("Mean", group=domain.label)] if self.means else []
        return tuple(columns)

    def _pages(self) -> list[list[Line]]:
        """Chance, the untrained models, and every block under its heading."""
        pages = [[self._chance(), *map(self._line, self.analysis.frozen)]]
        for condition, rows in self.analysis.blocks():
            lines = [Line.heading(block_label(condition), ruled=True), *self._block(condition, rows)]
            if len(pages[-1]) + len(lines) > _LONGEST:
                pages.append([])
            pages[-1] += lines
        return pages

    def _chance(self) -> Line:
        cells = [Cell("Chance"), *([Cell(""), Cell("")] if self.means else [])]
        for domain in self.analysis.domains:
            cells += [Cell(percent(self.analysis.chance([task]))) for task in self._tasks_in(domain)]
            if self.means:
                cells.append(Cell(percent(self.analysis.chance(self.analysis.tasks_in(domain)))))
        return Line(tuple(cells))

    def _block(self, condition: Condition, rows: Sequence[Row]) -> list[Line]:
        """The rows of a block; of the means, the best is bold and those that are tied with it are marked."""
        if not self.means:
            return [self._line(row) for row in rows]
        best = self.analysis.best(condition)
        tied = {row.key for row in self.analysis.tied(condition)}
        return [
            self._line(row, best=best is not None and row.key == best.key, mark="†" if row.key in tied else "")
            for row in rows
        ]

    def _line(self, row: Row, *, best: bool = False, mark: str = "") -> Line:
        cells = [Cell(row_title(row.recipe.title, row.condition), bold=best)]
        if self.means:
            cells += [Cell(str(len(row.by_seed()))), Cell(count(row.trainable))]
        for domain in self.analysis.domains:
            cells += [Cell(percent(row.mean_sd(task)[0])) for task in self._tasks_in(domain)]
            if self.means:
                inside = domain is Domain.IN
                cells.append(score_cell(*row.mean_sd(domain), bold=best and inside, mark=mark if inside else ""))
        return Line(tuple(cells))


def _notes(analysis: Analysis) -> tuple[str, ...]:
    notes = []
    if limit := analysis.study.evaluate.limit:
        notes.append(f"Scored on a fixed sample of at most {limit:,} test items a task.")
    if analysis.missing:
        notes.append(
            f"{len(analysis.missing)} of {len(analysis.trials)} trials have no record; what they would "
            f"have filled is shown as {MISSING}, and a mean that needs them is left out."
        )
    for trial, error in analysis.failures:
        data = f" on {analysis.title(trial.train_on[0])}" if trial.setting == "single" else ""
        notes.append(f"Failed: {trial.recipe.title}{data}, {trial.budget.label}, seed {trial.seed}: {error}")
    if any(row.setting == "single" for row in analysis.trained):
        notes.append(
            "Single task: each in-domain score is that of the model trained on this task alone; "
            "out-of-domain scores are averaged over these models."
        )
    if any(len(row.by_seed()) == 1 for row in analysis.trained):
        notes.append("A row with n = 1 has no standard deviation and cannot be tested.")
    return tuple(notes)


def condition_numbers(analysis: Analysis, condition: Condition) -> dict[str, Any]:
    """The columns of a CSV that tell blocks apart where a study has several models or amounts of general data."""
    model = {"model": condition.model} if len(analysis.study.models) > 1 else {}
    return model | ({"general_items": condition.general} if analysis.study.general else {})


def _frame(analysis: Analysis) -> pd.DataFrame:
    """The whole table as numbers, every task in a column of its own."""
    numbers = []
    for row in analysis.rows:
        line: dict[str, Any] = {"recipe": row.recipe.name, "setting": row.setting, "budget": row.budget}
        line |= condition_numbers(analysis, row.condition) | {"trainable_parameters": row.trainable}
        for domain in Domain:
            line[f"{domain}_mean"], line[f"{domain}_sd"] = row.mean_sd(domain)
        line["seeds"] = len(row.by_seed())
        numbers.append(line | {task: row.mean_sd(task)[0] for task in analysis.task_names})
    means = [f"{domain}_{part}" for domain in Domain for part in ("mean", "sd")]
    types = dict.fromkeys([*means, *analysis.task_names], "float64")
    return pd.DataFrame(numbers).astype({**types, "trainable_parameters": "Int64", "seeds": "Int64"})
