"""The table of results: every row with its size, its two means and its score on each task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from mosld_bench.format import listed
from mosld_bench.records.scale import SHARE, Scale
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.labels import MISSING, block_label, count, named, percent, row_title
from mosld_bench.reporting.rows import Row, RowKey
from mosld_bench.reporting.sections.results.marks import TIED, Standing, marks_in, standings, verdict_legend
from mosld_bench.reporting.sections.results.pages import in_pages
from mosld_bench.reporting.table import Cell, Column, Line, Table, score_cell
from mosld_bench.spec.trial import Condition, Domain

_MOST_TASKS = 10  # that one table has beside the means
_TASKS_A_TABLE = 12  # where they go to tables of their own
_MOST_NAMED = 4  # trials that a note names


class MainScore(NamedTuple):
    """One column of a row: the mean of a domain or, where that has none, a task; its scale; the score over seeds.

    ``mean`` and ``sd``, the standard deviation, are None where there is none. ``mark``: what tests say of it
    (`Standing.mark`).
    """

    title: str
    scale: Scale
    mean: float | None
    sd: float | None
    mark: str = ""


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
    stands = _all_standings(analysis)
    return [
        MainRow(
            recipe=row.recipe.name,
            setting=row.setting if row.condition.rate == "chosen" else f"{row.setting}, runner-up rate",
            budget=row.budget,
            trainable=row.trainable,
            seeds=row.n,
            scores=tuple(
                MainScore(
                    _terminal_title(analysis, of),
                    analysis.scale(of),
                    *row.mean_sd(of),
                    _standing(stands, row, of).mark,
                )
                for of in analysis.compared()
            ),
        )
        for row in analysis.rows
    ]


def main_notes(analysis: Analysis) -> list[str]:
    """What is to be said of the rows for a terminal: the marks, and `scoring_notes`."""
    marks = "".join(score.mark for row in main_rows(analysis) for score in row.scores)
    legend = f"{_tied_legend(marks)}{verdict_legend(analysis, marks)}".strip()
    return [*filter(None, [legend]), *scoring_notes(analysis)]


#: Of every row on every domain with a mean, or on its tasks where it has none (`_column`); others say nothing.
_Standings = Mapping[tuple[RowKey, str], Standing]


def _all_standings(analysis: Analysis) -> _Standings:
    found: dict[tuple[RowKey, str], Standing] = {}
    for condition, _ in analysis.blocks():
        for of in analysis.compared():
            found |= {(key, _column(of)): standing for key, standing in standings(analysis, condition, of).items()}
    return found


def _standing(stands: _Standings, row: Row, of: Domain | str) -> Standing:
    return stands.get((row.key, _column(of)), Standing())


def _column(of: Domain | str) -> str:
    """The column of the CSV that has the mean of a domain, or the score on a task."""
    return f"{of}_mean" if isinstance(of, Domain) else of


def _terminal_title(analysis: Analysis, of: Domain | str) -> str:
    """In-domain, or a task with its metric; and where lower is better, that it is; each in a line of its own."""
    scale, tasks = analysis.scale(of), analysis.tasks_in(of) if isinstance(of, Domain) else (of,)
    metrics = list(dict.fromkeys(name for task in tasks if (name := analysis.metric_name(task))))
    lines = [of.label.lower() if isinstance(of, Domain) else analysis.title(of)]
    lines += [listed(metrics)] if metrics and (scale != SHARE or not isinstance(of, Domain)) else []
    lines += [] if scale.higher_is_better else ["lower is better"]
    return "\n".join(lines)


def _unit(analysis: Analysis, tasks: Sequence[str]) -> str:
    """' (%)' where all scores are shares; else which of ``tasks`` are something else, and which way is better."""
    if analysis.shares:
        return " (%)"
    texts: dict[str, list[str]] = {}
    for task in tasks:
        scale = analysis.scale(task)
        if analysis.scales.of(task) is not None:
            what = analysis.metric_name(task) if scale != SHARE else "a share in per cent"
            texts.setdefault(f"{what}{'' if scale.higher_is_better else ', lower is better'}", []).append(task)
    told = [f"{listed([analysis.title(task) for task in of])}: {text}" for text, of in texts.items()]
    return f" ({'; '.join(told)})" if told else ""


def _caption(analysis: Analysis, tasks: Sequence[str], lines: Sequence[Line], *, by_task: bool = False) -> str:
    """What the table of these lines shows, and what bold and the marks in it mean; ``tasks``: those it is about."""
    cells = [cell for line in lines for cell in line.cells]
    text = f"{analysis.measure.capitalize()}{' by task' if by_task else ''}{_unit(analysis, tasks)}, mean over seeds"
    text += "" if by_task else " (n)"
    if any(cell.sd for cell in cells):
        text += (
            "; ± one standard deviation over seeds, part of which moves all rows alike and cancels in their differences"
        )
    if any(cell.bold for cell in cells):
        text += ". Bold: the best of its block, told apart from all its other rows"
    marks = marks_in(lines)
    return f"{text}.{_tied_legend(marks)}{verdict_legend(analysis, marks)}"


def _tied_legend(marks: str) -> str:
    return f" {TIED}: not told apart from the best of its block, corrected for all pairs." if TIED in marks else ""


def main_tables(analysis: Analysis) -> list[Table]:
    """The table of results; where the tasks are more than ten, their scores go to tables of their own."""
    names, stands = analysis.task_names, _all_standings(analysis)
    frame = _frame(analysis, stands)
    if len(names) <= _MOST_TASKS:
        return _Layout(analysis, stands, names, means=True).tables("main", frame)
    tables = _Layout(analysis, stands, (), means=True).tables("main", frame)
    keys = ["recipe", "setting", "budget", *condition_numbers(analysis, analysis.rows[0].condition)]
    for i, start in enumerate(range(0, len(names), _TASKS_A_TABLE), start=1):
        part = names[start : start + _TASKS_A_TABLE]
        told = [name for task in part for name in _standing_columns(task) if name in frame]
        tables += _Layout(analysis, stands, part, means=False).tables(f"tasks-{i}", frame[[*keys, *part, *told]])
    return tables


@dataclass(frozen=True)
class _Layout:
    """What the columns of a table are: the scores of ``tasks``; with ``means``, the size and the two means too."""

    analysis: Analysis
    standings: _Standings
    tasks: Sequence[str]
    means: bool

    def tables(self, name: str, frame: pd.DataFrame) -> list[Table]:
        """One table, or several of whole blocks where it would be longer than a page."""
        blocks, columns = self._blocks(), self._columns()
        averaged = [task for domain in self.analysis.averaged() for task in self.analysis.tasks_in(domain)]
        lines = [line for of_block in blocks for line in of_block]
        caption = _caption(self.analysis, self.tasks or averaged, lines, by_task=not self.means)
        notes = _notes(self.analysis) if self.means else ()
        return in_pages(Table(name, caption, columns, (), frame, notes, wide=len(columns) > 5), blocks)

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

    def _blocks(self) -> list[list[Line]]:
        """Chance, the untrained models, and every block under its heading."""
        blocks = [[self._chance(), *map(self._line, self.analysis.frozen)]]
        for condition, rows in self.analysis.blocks():
            blocks.append([Line.heading(block_label(condition), ruled=True), *map(self._line, rows)])
        return blocks

    def _chance(self) -> Line:
        cells = [Cell("Chance"), *([Cell(""), Cell("")] if self.means else [])]
        for domain in self.analysis.domains:
            cells += [Cell(percent(self.analysis.chance([task]))) for task in self._tasks_in(domain)]
            if self._averaged(domain):
                cells.append(Cell(percent(self.analysis.chance(self.analysis.tasks_in(domain)))))
        return Line(tuple(cells))

    def _line(self, row: Row) -> Line:
        """A row; its name is bold where it leads in-domain."""
        leads = self.means and _standing(self.standings, row, Domain.IN).leads
        cells = [Cell(row_title(row.recipe.title, row.condition), bold=leads)]
        if self.means:
            cells += [Cell(str(row.n)), Cell(count(row.trainable))]
        for domain in self.analysis.domains:
            cells += [self._score(row, task, None) for task in self._tasks_in(domain)]
            if self._averaged(domain):
                cells.append(self._score(row, domain, row.mean_sd(domain)[1]))
        return Line(tuple(cells))

    def _score(self, row: Row, of: Domain | str, sd: float | None) -> Cell:
        standing = _standing(self.standings, row, of)
        scale = self.analysis.scale(of)
        return score_cell(scale, row.mean_sd(of)[0], sd, bold=standing.leads, mark=standing.mark)


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
    if any(row.n == 1 and row.ranked and _noise_known(analysis, row) for row in analysis.trained):
        notes.append("A row with n = 1 is tested with the seed noise of the rows of its block that have more.")
    return (*notes, *scoring_notes(analysis))


def _noise_known(analysis: Analysis, row: Row) -> bool:
    """Whether the seeds of the row's block tell what it is compared with noise of."""
    pool = analysis.pool(row.condition)
    return any(analysis.evidence.seed_noise(pool, of) for of in analysis.compared())


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
        yield f"{named(texts, 'tasks')} tie between options that score highest; lm-eval counts the first of them."


def condition_numbers(analysis: Analysis, condition: Condition) -> dict[str, Any]:
    """The columns of a CSV that tell blocks apart, where there are several models, amounts of items or rates."""
    model = {"model": condition.model} if len(analysis.study.models) > 1 else {}
    general = {"general_items": condition.general} if analysis.study.general else {}
    several = any(row.condition.rate != "chosen" for row in analysis.rows)
    items = {"task_items": condition.items} if analysis.study.task_items else {}
    return model | general | items | ({"rate": condition.rate} if several else {})


def _standing_columns(of: Domain | str) -> tuple[str, str]:
    """The columns of the CSV that have what marks say: beside the reference, and beside the best of the block."""
    return f"{_column(of)}_verdict", f"{_column(of)}_tied"


def _frame(analysis: Analysis, stands: _Standings) -> pd.DataFrame:
    """The whole table as numbers, every task in a column of its own."""
    numbers = []
    for row in analysis.rows:
        line: dict[str, Any] = {"recipe": row.recipe.name, "setting": row.setting, "budget": row.budget}
        line |= condition_numbers(analysis, row.condition) | {"trainable_parameters": row.trainable}
        for domain in Domain:
            line[f"{domain}_mean"], line[f"{domain}_sd"] = row.mean_sd(domain)
        line["seeds"] = row.n
        line |= {task: row.mean_sd(task)[0] for task in analysis.task_names}
        for of in dict.fromkeys([*Domain, *analysis.compared()]):
            standing = _standing(stands, row, of)
            line |= zip(_standing_columns(of), (standing.verdict or None, standing.tied), strict=True)
        numbers.append(line)
    means = [f"{domain}_{part}" for domain in Domain for part in ("mean", "sd")]
    types = dict.fromkeys([*means, *analysis.task_names], "float64")
    return pd.DataFrame(numbers).astype({**types, "trainable_parameters": "Int64", "seeds": "Int64"})
