"""The tables of differences: every row minus the study's reference, minus the untrained model, and between settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from mosld_bench.format import listed
from mosld_bench.records.scale import Scale
from mosld_bench.reporting.analysis import Analysis, Comparison, Judged
from mosld_bench.reporting.labels import MISSING, amounts, block_label, p_value
from mosld_bench.reporting.rows import RowKey
from mosld_bench.reporting.sections.results.marks import (
    basis_legend,
    basis_mark,
    common_basis,
    common_marks,
    marks_in,
    verdict_legend,
    verdict_mark,
    verdict_words,
    without,
)
from mosld_bench.reporting.sections.results.pages import in_pages
from mosld_bench.reporting.stats import Estimate
from mosld_bench.reporting.table import Cell, Column, Line, Table
from mosld_bench.spec.trial import Condition, Domain

_TASKS_A_TABLE = 9
NO_INTERVALS = ". There is neither an interval nor a test, for want of seeds and of items."


def differences_tables(analysis: Analysis) -> list[Table]:
    """Every row minus the reference, on every domain that has a mean; none where no block holds it beside another."""
    domains = analysis.averaged()
    compared = [
        c for block, _ in analysis.blocks() for domain in domains for c in analysis.against_reference(block, domain)
    ]
    return _tables(
        analysis,
        "differences",
        f"Mean {analysis.measure} minus that of {analysis.reference} in the same setting and at the same budget",
        f"p is corrected for the rows of a block{', in-domain and out-of-domain apart' if len(domains) > 1 else ''}",
        compared,
    )


def base_tables(analysis: Analysis) -> list[Table]:
    """Every row minus the untrained model that it starts from; none without a record of that."""
    compared = [
        c
        for block, _ in analysis.blocks()
        for domain in analysis.averaged()
        for c in analysis.against_base(block, domain)
    ]
    subject = f"Mean {analysis.measure} minus that of the untrained model"
    correction = "p is corrected for the rows of a block"
    return _tables(analysis, "differences-to-base", subject, correction, compared, shared=False)


def settings_tables(analysis: Analysis) -> list[Table]:
    """Every row of the mixture minus the same recipe and size on single tasks; none where there is one setting."""
    compared = [c for domain in analysis.averaged() for c in analysis.between_settings(domain)]
    subject = f"Mean {analysis.measure} after training on the mixture minus that of the same method on each task alone"
    correction = "p is corrected for all rows"
    return _tables(analysis, "differences-of-settings", subject, correction, compared, shared=False)


def _tables(
    analysis: Analysis,
    name: str,
    subject: str,
    correction: str,
    comparisons: Sequence[Comparison],
    *,
    shared: bool = True,
) -> list[Table]:
    """Differences with interval, p and verdict; none without a comparison, several where one is longer than a page.

    ``shared``: as of `basis_mark`.
    """
    if not comparisons:
        return []
    domains = [domain for domain in analysis.domains if any(c.of == domain for c in comparisons)]
    common = common_marks([basis_mark(c.difference, shared=shared) for c in comparisons])
    intervals = any(c.difference.low is not None for c in comparisons)
    tested = any(c.difference.of_methods for c in comparisons)
    heads = [
        Column("difference"),
        *([Column("p")] if intervals else []),
        *([Column("verdict", "left")] if tested else []),
    ]

    def cells(comparison: Comparison | None) -> list[Cell]:
        if comparison is None:
            return [Cell(MISSING)] * len(heads)
        delta = comparison.difference
        mark = without(basis_mark(delta, shared=shared), common) if intervals else ""
        verdict = comparison.verdict if delta.of_methods else MISSING
        told = [
            Cell(difference_text(comparison.scale, delta), mark=mark),
            Cell(p_value(comparison.adjusted)),
            Cell(verdict),
        ]
        return told[: len(heads)]

    columns = [Column("Method", "left"), *(replace(head, group=domain.label) for domain in domains for head in heads)]
    blocks = _blocks(comparisons, domains, cells)
    caption = f"{subject}{_units(analysis, comparisons)}" + (
        f", with its 95 % interval; {correction}.{verdict_words(analysis, comparisons)}"
        f"{basis_legend(marks_in(line for lines in blocks for line in lines), common)}"
        if intervals
        else NO_INTERVALS
    )
    wide = len(columns) > 5
    return in_pages(Table(name, caption, tuple(columns), (), comparison_frame(comparisons), wide=wide), blocks)


def task_tables(analysis: Analysis) -> list[Table]:
    """Every row minus the reference task by task, a few tasks a table; the first has the numbers of all.

    The only task of a domain that has a mean is left to the table of means.
    """
    shown = [d for d in analysis.domains if analysis.unlike(d) or len(analysis.tasks_in(d)) > 1]
    tasks = [task for domain in shown for task in analysis.tasks_in(domain)]
    comparisons = [
        c for block, _ in analysis.blocks() for domain in analysis.domains for c in analysis.by_task(block, domain)
    ]
    tables: list[Table] = []
    evenly = math.ceil(len(tasks) / math.ceil(len(tasks) / _TASKS_A_TABLE)) if tasks else 1
    for start in range(0, len(tasks), evenly):
        part = tasks[start : start + evenly]
        if of_part := [c for c in comparisons if c.of in part]:
            name = f"differences-by-task{f'-{len(tables) + 1}' if tables else ''}"
            tables += _task_tables(analysis, name, part, of_part, None if tables else comparison_frame(comparisons))
    return tables


def _task_tables(
    analysis: Analysis, name: str, tasks: Sequence[str], comparisons: Sequence[Comparison], frame: pd.DataFrame | None
) -> list[Table]:
    common = common_basis(comparisons)

    def cells(comparison: Comparison | None) -> list[Cell]:
        if comparison is None:
            return [Cell(MISSING)]
        scale, delta = comparison.scale, comparison.difference
        text, mark = scale.text(delta.mean, sign=True), without(verdict_mark(comparison), common)
        return [Cell(text, scale.spread(delta.mean, delta.half_width), mark=mark)]

    blocks = _blocks(comparisons, tasks, cells)
    marks = marks_in(line for lines in blocks for line in lines)
    titles = [analysis.title(task) for task in tasks]
    turned = len(tasks) > 5 and any(len(title) > 12 for title in titles)
    columns = [
        Column(title, turned=turned, group=analysis.domain(task).label)
        for task, title in zip(tasks, titles, strict=True)
    ]
    intervals = any(c.difference.low is not None for c in comparisons)
    subject = (
        f"{analysis.measure.capitalize()} by task minus that of {analysis.reference}{_units(analysis, comparisons)}"
    )
    caption = subject + (
        f"; ± half the 95 % interval.{verdict_legend(analysis, marks, 'the rows and tasks of a block and domain')}"
        f"{basis_legend(marks, common)}"
        if intervals
        else NO_INTERVALS
    )
    wide = len(columns) > 4
    return in_pages(Table(name, caption, (Column("Method", "left"), *columns), (), frame, wide=wide), blocks)


def _blocks(
    comparisons: Sequence[Comparison],
    columns: Sequence[Domain | str],
    cells: Callable[[Comparison | None], list[Cell]],
) -> list[list[Line]]:
    """Every block under its heading, with a row's comparisons in ``columns``."""
    by_row: dict[Condition, dict[RowKey, dict[Domain | str, Comparison]]] = {}
    for c in comparisons:
        by_row.setdefault(c.row.condition, {}).setdefault(c.row.key, {})[c.of] = c
    blocks: list[list[Line]] = []
    for condition, rows in by_row.items():
        lines = [Line.heading(block_label(condition), ruled=bool(blocks))]
        for row in rows.values():
            title = next(iter(row.values())).row.recipe.title
            lines.append(Line((Cell(title), *(cell for column in columns for cell in cells(row.get(column))))))
        blocks.append(lines)
    return blocks


def difference_text(scale: Scale, delta: Estimate) -> str:
    """'−0.2 [−0.9, +0.6]', without the interval where there is none."""
    ends = f" [{scale.interval(delta.low, delta.high, ', ')}]" if delta.low is not None else ""
    return scale.text(delta.mean, sign=True) + ends


def _units(analysis: Analysis, comparisons: Sequence[Comparison]) -> str:
    """What the differences are in; where lower is better, that a negative one is the better."""
    scales = {analysis.label(c.of): c.scale for c in comparisons}
    points = [label for label, scale in scales.items() if scale.points]
    lower = [label for label, scale in scales.items() if not scale.higher_is_better]
    unit = ", in points" if len(points) == len(scales) else f", in points for {listed(points)}" if points else ""
    of = "" if len(lower) == len(scales) else f"for {listed(lower)} "
    return unit + (f" ({of}lower is better, so that a negative difference is)" if lower else "")


def comparison_frame(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """The comparisons as the lines of a CSV, with all that an interval and a verdict rest on."""
    frame = pd.DataFrame([comparison_numbers(comparison) for comparison in comparisons])
    return frame.drop(columns="higher_is_better") if frame["higher_is_better"].all() else frame


def comparison_numbers(comparison: Comparison) -> dict[str, Any]:
    """A line of a CSV: the row, what it is compared with and on, and `estimate_numbers`."""
    row, other = comparison.row, comparison.other
    return {
        "recipe": row.recipe.name,
        "setting": row.setting,
        "budget": row.budget,
        "model": row.condition.model or None,
        **amounts(row.condition),
        "rate": row.condition.rate,
        "reference": other.recipe.name,
        "reference_setting": other.setting,
        "of": str(comparison.of),
        **estimate_numbers(comparison),
        "higher_is_better": comparison.scale.higher_is_better,
    }


def estimate_numbers(comparison: Judged) -> dict[str, Any]:
    """The difference, its interval and tests, what they rest on, and the verdict; in the unit of the scores."""
    delta = comparison.difference
    return {
        "difference": delta.mean,
        "low": delta.low,
        "high": delta.high,
        "p": delta.p,
        "p_holm": comparison.adjusted,
        "p_equal": comparison.equal_p,
        "margin": comparison.margin,
        "verdict": comparison.verdict.value,
        "seeds": delta.seeds,
        "error": delta.error,
        "freedom": delta.freedom,
        "basis": delta.basis.value,
        "of_items": delta.of_items,
    }
