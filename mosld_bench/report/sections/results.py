"""The tables of accuracy: from the analysis to rows of cells, beside the numbers that go into the CSV."""

from __future__ import annotations

from typing import Any

import pandas as pd

from mosld_bench.format import listed
from mosld_bench.report import labels
from mosld_bench.report.analysis import Analysis, Comparison
from mosld_bench.report.labels import MISSING, block_label, count, interval, p_value, percent
from mosld_bench.report.rows import Row
from mosld_bench.report.table import Cell, Column, Line, Table, score_cell
from mosld_bench.spec.trial import Domain


def main(analysis: Analysis) -> list[Table]:
    """The table of results; where the tasks are more than ten, their scores go to tables of their own."""
    names, study = list(analysis.task_names), analysis.study
    inside, outside = list(study.in_domain), list(study.out_of_domain)
    frame = _main_frame(analysis)
    tied = any(analysis.tied(block) for block, _ in analysis.blocks())
    caption = f"{analysis.measure.capitalize()} {_MAIN_CAPTION}{_TIED if tied else ''}"
    if len(names) <= 10:
        return _paged("main", caption, analysis, (inside, outside), True, frame)
    found = _paged("main", caption, analysis, ([], []), True, frame)
    for start in range(0, len(names), 12):
        part = names[start : start + 12]
        split = [t for t in part if t in inside], [t for t in part if t in outside]
        columns = ["recipe", "setting", "budget", *_axes(analysis, analysis.rows[0]), *part]
        name = f"tasks-{start // 12 + 1}"
        found += _paged(
            name,
            f"{analysis.measure.capitalize()} by task (%), mean over seeds.",
            analysis,
            split,
            False,
            frame[columns],
        )
    return found


_MAIN_CAPTION = (
    "(%), mean over seeds; of the two means also one sample standard deviation over seeds. n: "
    "seeds. Bold: highest in-domain mean of its block, among the rows with the most seeds; blocks of equal size and of "
    "equal rank are ranked apart."
)
_TIED = " †: not separated from that row by a paired test over seeds (Holm-adjusted p ≥ 0.05)."

_LONGEST = 34  # rows that fit the largest float of the report


def _paged(
    name: str,
    caption: str,
    analysis: Analysis,
    tasks: tuple[list[str], list[str]],
    means: bool,
    frame: pd.DataFrame,
) -> list[Table]:
    """One table, or several of whole blocks where it would be longer than a page."""
    inside, outside = tasks
    turned = any(len(analysis.title(task)) > 9 for task in inside + outside) and len(inside + outside) > 4
    columns = [Column("Method", "left"), Column("n"), Column("Trainable")] if means else [Column("Method", "left")]
    for group, part, what in (
        (Domain.IN.label, inside, Domain.IN),
        (Domain.OUT.label, outside, Domain.OUT),
    ):
        columns += [Column(analysis.title(task), turned=turned, group=group) for task in part]
        if means and analysis.tasks_in(what):
            columns.append(Column("Mean", group=group))
    top = [_chance_line(analysis, tasks, means)]
    top += [_line(analysis, row, tasks, means) for row in analysis.frozen]
    pages: list[list[Line]] = [top]
    for block, rows in analysis.blocks():
        best = analysis.best(block)
        tied = {row.key for row in analysis.tied(block)} if means else set()
        lines = [Line((Cell(block_label(block)),), ruled=True)]
        lines += [
            _line(analysis, row, tasks, means, best is row and means, "†" if row.key in tied else "") for row in rows
        ]
        if len(pages[-1]) + len(lines) > _LONGEST:
            pages.append([])
        pages[-1] += lines
    notes = _notes(analysis) if means else ()
    return [
        Table(
            name if i == 0 else f"{name}-continued-{i}",
            caption if i == 0 else "Continued from the table before.",
            tuple(columns),
            tuple(page),
            frame if i == 0 else None,
            notes if i == len(pages) - 1 else (),
            wide=len(columns) > 5,
        )
        for i, page in enumerate(pages)
    ]


def _line(
    analysis: Analysis,
    row: Row,
    tasks: tuple[list[str], list[str]],
    means: bool,
    best: bool = False,
    mark: str = "",
) -> Line:
    cells = [Cell(labels.row_title(row.recipe.title, row.condition), bold=best)]
    if means:
        cells += [Cell(str(len(row.by_seed())) if row.records else "0"), Cell(count(row.trainable))]
    for part, what in zip(tasks, Domain, strict=True):
        cells += [Cell(percent(row.mean_sd(task)[0])) for task in part]
        if means and analysis.tasks_in(what):
            inside = what is Domain.IN
            cells.append(score_cell(*row.mean_sd(what), bold=best and inside, mark=mark if inside else ""))
    return Line(tuple(cells))


def _chance_line(analysis: Analysis, tasks: tuple[list[str], list[str]], means: bool) -> Line:
    cells = [Cell("Chance")] + ([Cell(""), Cell("")] if means else [])
    for part, what in zip(tasks, Domain, strict=True):
        cells += [Cell(percent(analysis.chance([task]))) for task in part]
        if means and analysis.tasks_in(what):
            cells.append(Cell(percent(analysis.chance(analysis.tasks_in(what)))))
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
        on = f" on {analysis.title(trial.train_on[0])}" if trial.setting == "single" else ""
        notes.append(f"Failed: {trial.recipe.title}{on}, {trial.budget.label}, seed {trial.seed}: {error}")
    if any(row.setting == "single" for row in analysis.trained):
        notes.append(
            "Single task: each in-domain score is that of the model trained on this task alone; "
            "out-of-domain scores are averaged over these models."
        )
    if any(len(row.by_seed()) == 1 for row in analysis.trained):
        notes.append("A row with n = 1 has no standard deviation and cannot be tested.")
    return tuple(notes)


def _main_frame(analysis: Analysis) -> pd.DataFrame:
    rows = []
    for row in analysis.rows:
        inside, outside = row.mean_sd(), row.mean_sd(Domain.OUT)
        rows.append(
            {
                "recipe": row.recipe.name,
                "setting": row.setting,
                "budget": row.budget,
                **_axes(analysis, row),
                "trainable_parameters": row.trainable,
                "in_domain_mean": inside[0],
                "in_domain_sd": inside[1],
                "out_of_domain_mean": outside[0],
                "out_of_domain_sd": outside[1],
                "seeds": len(row.by_seed()),
                **{task: row.mean_sd(task)[0] for task in analysis.task_names},
            }
        )
    frame = pd.DataFrame(rows)
    whole = {"trainable_parameters": "Int64", "seeds": "Int64"}
    scores = [name for name in frame.columns if name.endswith(("_mean", "_sd")) or name in analysis.task_names]
    return frame.astype({**dict.fromkeys(scores, "float64"), **whole})


def _axes(analysis: Analysis, row: Row) -> dict[str, Any]:
    """The columns that tell blocks apart where a study has several models or amounts of general data."""
    model = {"model": row.condition.model} if len(analysis.study.models) > 1 else {}
    return model | ({"general_items": row.condition.general} if analysis.study.general else {})


def other_metrics(analysis: Analysis) -> Table | None:
    """The two means under the other metrics that all tasks share, beside the primary; None where there are none."""
    names = analysis.other_metrics()
    kinds = [kind for kind in Domain if analysis.tasks_in(kind)]
    if not names:
        return None
    lines, numbers = [], []
    primary = {metric.metric for task in analysis.task_names if (metric := analysis.metric(task))}
    heads = [name.removesuffix(",none") for name in (primary.pop() if len(primary) == 1 else "primary", *names)]

    def line(row: Row) -> Line:
        scored = [row, *(analysis.under(name, row) for name in names)]
        means = {(kind, head): one.mean_sd(kind) for kind in kinds for head, one in zip(heads, scored, strict=True)}
        own = {f"{kind}_{head}{end}": value for (kind, head), pair in means.items()
               for end, value in zip(("", "_sd"), pair, strict=True)}  # fmt: skip
        key = {"recipe": row.recipe.name, "setting": row.setting, "budget": row.budget, **_axes(analysis, row)}
        numbers.append({**key, "seeds": len(row.by_seed()), **own})
        title = labels.row_title(row.recipe.title, row.condition)
        return Line((Cell(title), Cell(str(len(row.by_seed()))), *(score_cell(*pair) for pair in means.values())))

    lines += [line(row) for row in analysis.frozen if row.records]
    for block, rows in analysis.blocks():
        if present := [row for row in rows if row.records]:
            lines.append(Line((Cell(block_label(block)),), ruled=True))
            lines += [line(row) for row in present]
    norm = " acc_norm: the log-likelihood of an option is divided by its characters." if "acc_norm" in heads else ""
    return Table(
        "other-metrics",
        f"Means (%) under what the definitions of all tasks measure beside their primary metric, {heads[0]}; one "
        f"standard deviation over seeds.{norm}",
        (Column("Method", "left"), Column("n"), *(Column(head, group=kind.label) for kind in kinds for head in heads)),
        tuple(lines),
        pd.DataFrame(numbers),
        tuple(filter(None, (_other_best(analysis, name) for name in names))),
    )


def _other_best(analysis: Analysis, metric: str) -> str:
    """The blocks in which another row would be the highest, had the metric been the primary one."""
    if any(m.metric == metric and not m.higher_is_better for record in analysis.records for m in record.metrics):
        return ""

    def under(row: Row) -> float:
        return analysis.under(metric, row).score or 0.0

    found = []
    for block, _ in analysis.blocks():
        if best := analysis.best(block):
            other = max(analysis.contenders(block), key=under)
            if under(other) > under(best):  # and no tie
                found.append(f"{other.recipe.title} and not {best.recipe.title} ({labels.short_label(block)})")
    name = metric.removesuffix(",none")
    return f"Highest in-domain under {name}, of the rows with the most seeds: {listed(found)}." if found else ""


def differences(analysis: Analysis) -> Table | None:
    """Every row minus the reference of its block, in- and out-of-domain; None where there is no such pair."""
    kinds = [kind for kind in Domain if analysis.tasks_in(kind)]
    lines: list[Line] = []
    numbers = []
    for block, rows in analysis.blocks():
        found = {kind: {c.row.key: c for c in analysis.against_reference(block, kind)} for kind in kinds}
        present = [row for row in rows if any(row.key in found[kind] for kind in kinds)]
        if present:
            lines.append(Line((Cell(block_label(block)),), ruled=bool(lines)))
        for row in present:
            texts = [row.recipe.title]
            for kind in kinds:
                comparison = found[kind].get(row.key)
                texts += _difference_texts(comparison)
                numbers += [_difference_numbers(comparison, kind)] if comparison else []
            lines.append(Line(tuple(map(Cell, texts))))
    if not numbers:
        return None
    pairs = sorted({number["pairs"] for number in numbers})
    tests = (
        "on one common seed, which gives no interval and no test"
        if pairs == [1]
        else f"mean over paired seeds ({' or '.join(map(str, pairs))} pairs) with its 95 % t interval, which takes "
        "two; p is Holm-corrected over the tested rows of a block, in-domain and out-of-domain apart"
    )
    columns = [Column("Method", "left")]
    for kind in kinds:
        columns += [Column("difference", group=kind.label), Column("p", group=kind.label)]
    return Table(
        "differences",
        f"Mean {analysis.measure} minus that of {analysis.reference} in the same setting and at the same budget, in "
        f"points: {tests}.",
        tuple(columns),
        tuple(lines),
        pd.DataFrame(numbers),
    )


def _difference_texts(comparison: Comparison | None) -> list[str]:
    if comparison is None:
        return [MISSING, MISSING]
    delta = comparison.difference
    span = f" [{interval(delta.low, delta.high, ', ')}]" if delta.low is not None else ""
    return [percent(delta.mean, sign=True) + span, p_value(comparison.adjusted)]


def _difference_numbers(comparison: Comparison, kind: Domain) -> dict[str, Any]:
    row, delta = comparison.row, comparison.difference
    return {
        "recipe": row.recipe.name,
        "reference": comparison.other.recipe.name,
        "setting": row.setting,
        "budget": row.budget,
        "model": row.condition.model or None,
        "general_items": row.condition.general,
        "mean_of": kind,
        "pairs": delta.pairs,
        "difference": delta.mean,
        "low": delta.low,
        "high": delta.high,
        "p": delta.p,
        "p_holm": comparison.adjusted,
    }
