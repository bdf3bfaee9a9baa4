"""The table of differences: every row minus the study's reference in its block."""

from __future__ import annotations

from typing import Any

import pandas as pd

from mosld_bench.format import listed
from mosld_bench.report.analysis import Analysis, Comparison
from mosld_bench.report.labels import MISSING, block_label, p_value
from mosld_bench.report.rows import RowKey
from mosld_bench.report.table import Column, Line, Table
from mosld_bench.spec.trial import Condition, Domain


def differences_table(analysis: Analysis) -> Table | None:
    """The differences in- and out-of-domain, or task by task where a domain has no mean.

    None where no block holds the reference beside another row.
    """
    compared_on = analysis.compared()
    lines: list[Line] = []
    numbers = []
    for condition, rows in analysis.blocks():
        comparisons = _comparisons(analysis, condition)
        compared = [row for row in rows if any((row.key, of) in comparisons for of in compared_on)]
        if compared:
            lines.append(Line.heading(block_label(condition), ruled=bool(lines)))
        for row in compared:
            texts = [row.recipe.title]
            for of in compared_on:
                comparison = comparisons.get((row.key, of))
                texts += _texts(comparison)
                numbers += [_numbers(comparison, of)] if comparison else []
            lines.append(Line.of(*texts))
    if not numbers:
        return None
    columns = [Column("Method", "left")]
    for of in compared_on:
        group = analysis.label(of)
        columns += [Column("difference", group=group), Column("p", group=group)]
    frame = pd.DataFrame(numbers)
    if frame["higher_is_better"].all():
        frame = frame.drop(columns="higher_is_better")
    return Table(
        "differences",
        f"Mean {analysis.measure} minus that of {analysis.reference} in the same setting and at the same budget"
        f"{_units(analysis)}: {_tests(analysis, sorted({line['pairs'] for line in numbers}))}.",
        tuple(columns),
        tuple(lines),
        frame,
        wide=len(columns) > 5,
    )


def _comparisons(analysis: Analysis, condition: Condition) -> dict[tuple[RowKey, Domain | str], Comparison]:
    return {
        (comparison.row.key, of): comparison
        for of in analysis.compared()
        for comparison in analysis.against_reference(condition, of)
    }


def _units(analysis: Analysis) -> str:
    """What the differences are in; where lower is better, that a negative one is the better."""
    scales = {analysis.label(of): analysis.scale(of) for of in analysis.compared()}
    points = [label for label, scale in scales.items() if scale.points]
    lower = [label for label, scale in scales.items() if not scale.higher_is_better]
    unit = ", in points" if len(points) == len(scales) else f", in points for {listed(points)}" if points else ""
    return unit + (f" (for {listed(lower)} lower is better, so that a negative difference is)" if lower else "")


def _tests(analysis: Analysis, pairs: list[int]) -> str:
    """What stands behind an interval and a p, where rows have so many common seeds."""
    if pairs == [1]:
        return "on one common seed, which gives no interval and no test"
    apart = "tasks" if any(map(analysis.unlike, analysis.domains)) else "in-domain and out-of-domain"
    return (
        f"mean over paired seeds ({' or '.join(map(str, pairs))} pairs) with its 95 % t interval, which takes "
        f"two; p is Holm-corrected over the tested rows of a block, {apart} apart"
    )


def _texts(comparison: Comparison | None) -> list[str]:
    """The difference with its interval, and p."""
    if comparison is None:
        return [MISSING, MISSING]
    delta, scale = comparison.difference, comparison.scale
    ends = f" [{scale.interval(delta.low, delta.high, ', ')}]" if delta.low is not None else ""
    return [scale.text(delta.mean, sign=True) + ends, p_value(comparison.adjusted)]


def _numbers(comparison: Comparison, of: Domain | str) -> dict[str, Any]:
    """A line of the CSV."""
    row, delta = comparison.row, comparison.difference
    return {
        "recipe": row.recipe.name,
        "reference": comparison.other.recipe.name,
        "setting": row.setting,
        "budget": row.budget,
        "model": row.condition.model or None,
        "general_items": row.condition.general,
        "mean_of": str(of),
        "pairs": delta.seeds,
        "difference": delta.mean,
        "low": delta.low,
        "high": delta.high,
        "p": delta.p,
        "p_holm": comparison.adjusted,
        "higher_is_better": comparison.scale.higher_is_better,
    }
