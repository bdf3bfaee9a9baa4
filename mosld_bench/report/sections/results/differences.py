"""The table of differences: every row minus the study's reference in its block."""

from __future__ import annotations

from typing import Any

import pandas as pd

from mosld_bench.report.analysis import Analysis, Comparison
from mosld_bench.report.labels import MISSING, block_label, interval, p_value, percent
from mosld_bench.report.rows import RowKey
from mosld_bench.report.table import Column, Line, Table
from mosld_bench.spec.trial import Condition, Domain


def differences_table(analysis: Analysis) -> Table | None:
    """The differences in- and out-of-domain; None where no block holds the reference beside another row."""
    lines: list[Line] = []
    numbers = []
    for condition, rows in analysis.blocks():
        comparisons = _comparisons(analysis, condition)
        compared = [row for row in rows if any((row.key, domain) in comparisons for domain in analysis.domains)]
        if compared:
            lines.append(Line.heading(block_label(condition), ruled=bool(lines)))
        for row in compared:
            texts = [row.recipe.title]
            for domain in analysis.domains:
                comparison = comparisons.get((row.key, domain))
                texts += _texts(comparison)
                numbers += [_numbers(comparison, domain)] if comparison else []
            lines.append(Line.of(*texts))
    if not numbers:
        return None
    columns = [Column("Method", "left")]
    for domain in analysis.domains:
        columns += [Column("difference", group=domain.label), Column("p", group=domain.label)]
    return Table(
        "differences",
        f"Mean {analysis.measure} minus that of {analysis.reference} in the same setting and at the same budget, in "
        f"points: {_tests(sorted({line['pairs'] for line in numbers}))}.",
        tuple(columns),
        tuple(lines),
        pd.DataFrame(numbers),
    )


def _comparisons(analysis: Analysis, condition: Condition) -> dict[tuple[RowKey, Domain], Comparison]:
    return {
        (comparison.row.key, domain): comparison
        for domain in analysis.domains
        for comparison in analysis.against_reference(condition, domain)
    }


def _tests(pairs: list[int]) -> str:
    """What stands behind an interval and a p, where rows have so many common seeds."""
    if pairs == [1]:
        return "on one common seed, which gives no interval and no test"
    return (
        f"mean over paired seeds ({' or '.join(map(str, pairs))} pairs) with its 95 % t interval, which takes "
        "two; p is Holm-corrected over the tested rows of a block, in-domain and out-of-domain apart"
    )


def _texts(comparison: Comparison | None) -> list[str]:
    """The difference with its interval, and p."""
    if comparison is None:
        return [MISSING, MISSING]
    delta = comparison.difference
    ends = f" [{interval(delta.low, delta.high, ', ')}]" if delta.low is not None else ""
    return [percent(delta.mean, sign=True) + ends, p_value(comparison.adjusted)]


def _numbers(comparison: Comparison, domain: Domain) -> dict[str, Any]:
    """A line of the CSV."""
    row, delta = comparison.row, comparison.difference
    return {
        "recipe": row.recipe.name,
        "reference": comparison.other.recipe.name,
        "setting": row.setting,
        "budget": row.budget,
        "model": row.condition.model or None,
        "general_items": row.condition.general,
        "mean_of": domain.value,
        "pairs": delta.pairs,
        "difference": delta.mean,
        "low": delta.low,
        "high": delta.high,
        "p": delta.p,
        "p_holm": comparison.adjusted,
    }
