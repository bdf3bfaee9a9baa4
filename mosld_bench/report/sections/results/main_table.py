"""The table of results: every row with its size, its two means and its score on each task."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pandas as pd

from mosld_bench.format import listed
from mosld_bench.records.scale import SHARE, Scale
from mosld_bench.report.analysis import Analysis
from mosld_bench.report.labels import MISSING, block_label, count, percent, row_title
from mosld_bench.report.rows import Row
from mosld_bench.report.table import Cell, Column, Line, Table, score_cell
from mosld_bench.spec.trial import Condition, Domain

_APART = "among the rows with the most seeds; blocks of equal size and of equal rank are ranked apart."
_TIED = " †: not separated from that row by a paired test over seeds (Holm-adjusted p ≥ 0.05)."
_MOST_TASKS = 10  # that one table has beside the means
_TASKS_A_TABLE = 12  # where they go to tables of their own
_MOST_NAMED = 4  # trials that a note names
_LONGEST = 34  # rows that fit the largest float of the report


class MainScore(NamedTuple):
    """One column of a row: the mean of a domain or, where that has none, a task; its scale; the score over seeds.

    ``mean`` and ``sd``, the standard deviation, are None where there is none.
    """

    title: str
    scale: Scale
    mean: float | None
    sd: float | None


@dataclass(frozen=True)
class MainRow:
    """A row of results as numbers; ``scores`` has the same columns in every row."""

    recipe: str
    setting: str
    budget: str
    trainable: int | None
    scores: tuple[MainScore, ...]
    seeds: int


def main_rows(analysis: Analysis) -> list[MainRow]:
    """The rows of the report in their order."""
    return [
        MainRow(
            recipe=row.recipe.name,
            setting=row.setting if row.condition.rate == "chosen" else f"{row.setting}, runner-up rate",
            budget=row.budget,
            trainable=row.trainable,
            seeds=row.n,
            scores=tuple(
                MainScore(_terminal_title(analysis, of), analysis.scale(of), *row.mean_sd(of))
                for of in analysis.compared()
            ),
        )
        for row in analysis.rows
    ]


def _terminal_title(analysis: Analysis, of: Domain | str) -> str:
    """In-domain, or a task with its metric; and where lower is better, that it is; each in a line of its own."""
    scale, tasks = analysis.scale(of), analysis.tasks_in(of) if isinstance(of, Domain) else (of,)
    metrics = list(dict.fromkeys(name for task in tasks if (name := analysis.metric_name(task))))
    lines = [of.label.lower() if isinstance(of, Domain) else analysis.title(of)]
    lines += [listed(metrics)] if metrics and (scale != SHARE or not isinstance(of, Domain)) else []
    lines += [] if scale.higher_is_better else ["lower is better"]
    return "\n".join(lines)


def _unit(analysis: Analysis) -> str:
    """' (%)' where all scores are shares; else which are something else, and which way is better."""
    if analysis.shares:
        return " (%)"
    texts: dict[str, list[str]] = {}
    for task in analysis.task_names:
        scale = analysis.scale(task)
        if analysis.scales.of(task) is not None:
            what = analysis.metric_name(task) if scale != SHARE else "a share in per cent"
            texts.setdefault(f"{what}{'' if scale.higher_is_better else ', lower is better'}", []).append(task)
    return f" ({'; '.join(f'{listed([analysis.title(t) for t in of])}: {text}' for text, of in texts.items())})"


def _caption(analysis: Analysis) -> str:
    """What the main table shows, and what is bold in it."""
    unlike = [domain for domain in analysis.domains if analysis.unlike(domain)]
    means = "" if unlike == analysis.domains else "of the mean" if unlike else "of the two means"
    spread = f"; {means} also one sample standard deviation over seeds" if means else ""
    text = f"{_unit(analysis)}, mean over seeds{spread}. n: seeds."
    if not analysis.unlike(Domain.IN):
        return f"{text} Bold: {analysis.scale(Domain.IN).best_word} in-domain mean of its block, {_APART}"
    tasks = "" if len(analysis.task_names) <= _MOST_TASKS else ", in the tables by task"
    return f"{text} Bold{tasks}: best of its block on an in-domain task, {_APART}"


def main_tables(analysis: Analysis) -> list[Table]:
    """The table of results; where the tasks are more than ten, their scores go to tables of their own."""
    names, frame = analysis.task_names, _frame(analysis)
    tied = any(analysis.tied(condition) for condition, _ in analysis.blocks())
    caption = f"{analysis.measure.capitalize()}{_caption(analysis)}{_TIED if tied else ''}"
    if len(names) <= _MOST_TASKS:
        return _Layout(analysis, names, means=True).tables("main", caption, frame)
    tables = _Layout(analysis, (), means=True).tables("main", caption, frame)
    keys = ["recipe", "setting", "budget", *condition_numbers(analysis, analysis.rows[0].condition)]
    caption = f"{analysis.measure.capitalize()} by task{_unit(analysis)}, mean over seeds."
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

    def _averaged(self, domain: Domain) -> bool:
        """Whether the domain has a column for its mean."""
        return self.means and not self.analysis.unlike(domain)

    def _tasks_in(self, domain: Domain) -> list[str]:
        return [task for task in self.tasks if task in self.analysis.tasks_in(domain)]

    def _columns(self) -> tuple[Column, ...]:
        title = self.analysis.title
        turned = len(self.tasks) > 4 and any(len(title(task)) > 9 for task in self.tasks)
        columns = [Column("Method", "left"), *([Column("n"), Column("Trainable")] if self.means else [])]
        for domain in self.analysis.domains:
            columns += [Column(title(task), turned=turned, group=domain.label) for task in self._tasks_in(domain)]
            columns += [Column("Mean", group=domain.label)] if self._averaged(domain) else []
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
            if self._averaged(domain):
                cells.append(Cell(percent(self.analysis.chance(self.analysis.tasks_in(domain)))))
        return Line(tuple(cells))

    def _block(self, condition: Condition, rows: Sequence[Row]) -> list[Line]:
        """The rows of a block; of the means, the best is bold and those that are tied with it are marked."""
        if self.analysis.unlike(Domain.IN):
            tasks = set(self._tasks_in(Domain.IN))
            leading = [task for task in tasks if self.analysis.leads(condition, task)]
            best_on = {task: {best.key} for task in leading if (best := self.analysis.best(condition, task))}
            return [self._line(row, best_on={t for t in tasks if row.key in best_on.get(t, ())}) for row in rows]
        if not self.means:
            return [self._line(row) for row in rows]
        best = self.analysis.best(condition)
        tied = {row.key for row in self.analysis.tied(condition)}
        return [
            self._line(row, best=best is not None and row.key == best.key, mark="†" if row.key in tied else "")
            for row in rows
        ]

    def _line(self, row: Row, *, best: bool = False, mark: str = "", best_on: Collection[str] = ()) -> Line:
        cells = [Cell(row_title(row.recipe.title, row.condition), bold=best)]
        if self.means:
            cells += [Cell(str(row.n)), Cell(count(row.trainable))]
        for domain in self.analysis.domains:
            cells += [
                score_cell(self.analysis.scale(task), row.mean_sd(task)[0], bold=task in best_on)
                for task in self._tasks_in(domain)
            ]
            if self._averaged(domain):
                inside, scale = domain is Domain.IN, self.analysis.scale(domain)
                cells.append(score_cell(scale, *row.mean_sd(domain), bold=best and inside, mark=mark if inside else ""))
        return Line(tuple(cells))


def _notes(analysis: Analysis) -> tuple[str, ...]:
    notes = []
    if analysis.study.evaluate.split == "validation":
        notes.append("Scored on items that are held out of training, and on no test item.")
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
    if any(row.n == 1 for row in analysis.trained):
        notes.append("A row with n = 1 has no standard deviation and cannot be tested.")
    return (*notes, *scoring_notes(analysis))


def scoring_notes(analysis: Analysis) -> list[str]:
    """What a reader of the scores must know: means that are left out, metrics that came to no number, and ties."""
    return [*_left_out(analysis), *absent(analysis), *ties(analysis)]


def _left_out(analysis: Analysis) -> Iterator[str]:
    for domain in analysis.domains:
        if analysis.unlike(domain):
            metrics = dict.fromkeys(analysis.metric_name(task) for task in analysis.tasks_in(domain))
            yield (
                f"No {domain.label.lower()} mean is taken, and nothing that is made of one: the tasks are scored on "
                f"unlike scales ({listed([metric for metric in metrics if metric])})."
            )


def absent(analysis: Analysis) -> Iterator[str]:
    """Task by task and reason by reason, in which trials the primary metric came to no number."""
    trials: dict[tuple[str, str], list[str]] = {}
    for record, metric in analysis.unscored():
        trial = record.trial
        trials.setdefault((metric.task, metric.reason), []).append(f"{trial.recipe.title} (seed {trial.seed})")
    for (task, reason), of in trials.items():
        which = listed(of) if len(of) <= _MOST_NAMED else f"{len(of)} trials"
        yield (
            f"No score on {analysis.title(task)}: {analysis.metric_name(task)} came to no number in {which} "
            f"({reason}); their other scores stand."
        )


def ties(analysis: Analysis, least_share: float = 0.0) -> Iterator[str]:
    """In how many items no score tells the best options apart, of tasks where that is a share of ``least_share``."""
    texts = []
    for task, (least, most, items) in analysis.tied_items().items():
        if most >= least_share * items:
            count = f"{most:,}" if least == most else f"{least:,} to {most:,}"
            texts.append(f"{count} of {items:,} items of {analysis.title(task)}")
    if texts:
        yield f"{listed(texts)} tie between options that score highest; lm-eval counts the first of them."


def condition_numbers(analysis: Analysis, condition: Condition) -> dict[str, Any]:
    """The columns of a CSV that tell blocks apart, where there are several models, amounts of general data or rates."""
    model = {"model": condition.model} if len(analysis.study.models) > 1 else {}
    general = {"general_items": condition.general} if analysis.study.general else {}
    several = any(row.condition.rate != "chosen" for row in analysis.rows)
    return model | general | ({"rate": condition.rate} if several else {})


def _frame(analysis: Analysis) -> pd.DataFrame:
    """The whole table as numbers, every task in a column of its own."""
    numbers = []
    for row in analysis.rows:
        line: dict[str, Any] = {"recipe": row.recipe.name, "setting": row.setting, "budget": row.budget}
        line |= condition_numbers(analysis, row.condition) | {"trainable_parameters": row.trainable}
        for domain in Domain:
            line[f"{domain}_mean"], line[f"{domain}_sd"] = row.mean_sd(domain)
        line["seeds"] = row.n
        numbers.append(line | {task: row.mean_sd(task)[0] for task in analysis.task_names})
    means = [f"{domain}_{part}" for domain in Domain for part in ("mean", "sd")]
    types = dict.fromkeys([*means, *analysis.task_names], "float64")
    return pd.DataFrame(numbers).astype({**types, "trainable_parameters": "Int64", "seeds": "Int64"})
