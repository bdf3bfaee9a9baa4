"""The tables of the other metrics: what all tasks measure beside the primary one, and the probability of the answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pandas as pd

from mosld_bench.records.scale import Scale
from mosld_bench.reporting import stats
from mosld_bench.reporting.analysis import Analysis, Comparison
from mosld_bench.reporting.evidence import PROBABILITY
from mosld_bench.reporting.labels import MISSING, block_label, row_title
from mosld_bench.reporting.rows import Row, RowKey
from mosld_bench.reporting.sections.results.differences import difference_text, estimate_numbers
from mosld_bench.reporting.sections.results.main_table import condition_numbers
from mosld_bench.reporting.sections.results.marks import (
    basis_legend,
    common_basis,
    marks_in,
    verdict_legend,
    verdict_mark,
    without,
)
from mosld_bench.reporting.sections.results.pages import in_pages
from mosld_bench.reporting.table import Cell, Column, Line, Table, score_cell
from mosld_bench.spec.trial import Domain

_COLUMNS_A_TABLE = 4  # of a metric on a domain, each with a mean and a difference


class _Scored(NamedTuple):
    """A metric on a domain: its scale, seed by seed the mean of every row, and the rows' comparisons."""

    metric: str
    domain: Domain
    scale: Scale
    by_seed: dict[RowKey, list[float]]
    comparisons: dict[RowKey, Comparison]

    @property
    def name(self) -> str:
        """lm-eval's name without its filter, where that is none."""
        return self.metric.removesuffix(",none")


def other_metrics_tables(analysis: Analysis) -> list[Table]:
    """Every row's means under the other metrics, and what they differ from the reference by; none without such.

    A domain whose tasks are on unlike scales under a metric has no mean, and so no column.
    """
    columns = list(_scored(analysis))
    tables: list[Table] = []
    for start in range(0, len(columns), _COLUMNS_A_TABLE):
        name = f"other-metrics{f'-{len(tables) + 1}' if tables else ''}"
        frame = None if tables else _frame(analysis, columns)
        tables += _tables(analysis, name, columns[start : start + _COLUMNS_A_TABLE], frame)
    return tables


def _scored(analysis: Analysis) -> Iterator[_Scored]:
    """The columns metric by metric, as far as any row has a mean."""
    for metric in (*analysis.other_metrics(), PROBABILITY):
        for domain in analysis.domains:
            rows = {row.key: analysis.under(metric, row) for row in analysis.rows}
            by_seed = {key: list(analysis.evidence.by_seed(row, domain, metric).values()) for key, row in rows.items()}
            if any(by_seed.values()):
                comparisons = {
                    c.row.key: c
                    for condition, _ in analysis.blocks()
                    for c in analysis.against_reference(condition, domain, metric)
                }
                yield _Scored(metric, domain, analysis.scale_under(metric, domain), by_seed, comparisons)


def _tables(analysis: Analysis, name: str, columns: Sequence[_Scored], frame: pd.DataFrame | None) -> list[Table]:
    compared = [comparison for column in columns for comparison in column.comparisons.values()]
    intervals = any(comparison.difference.low is not None for comparison in compared)
    common = common_basis(compared)
    blocks = [[_line(row, columns, common) for row in analysis.frozen if row.records]]
    for condition, rows in analysis.blocks():
        lines = [_line(row, columns, common) for row in rows if row.records]
        blocks += [[Line.heading(block_label(condition), ruled=bool(blocks[-1])), *lines]] if lines else []
    marks = marks_in(line for lines in blocks for line in lines)
    heads = [Column("Method", "left"), Column("n")]
    for column in columns:
        group = f"{column.domain.label}, {column.name}" if len(analysis.domains) > 1 else column.name
        heads.append(Column("mean", group=group))
        heads += [Column("difference", group=group)] if column.comparisons else []
    caption = (
        f"Beside {_primary(analysis)}, never in its place: {_about(columns)}. "
        f"Mean{_unit(columns)} ± one standard deviation over seeds"
        f"{f', and the difference to {analysis.reference}' if compared else ''}"
        f"{' with its 95 % interval' if intervals else ''}."
        f"{verdict_legend(analysis, marks, 'the rows of a block')}{basis_legend(marks, common) if intervals else ''}"
    )
    return in_pages(Table(name, caption, tuple(heads), (), frame, wide=len(heads) > 4), blocks)


def _primary(analysis: Analysis) -> str:
    """The primary metric by its name, where tasks have one."""
    names = {analysis.metric_name(task) for task in analysis.task_names} - {""}
    return names.pop() if len(names) == 1 else "the primary metrics"


def _about(columns: Sequence[_Scored]) -> str:
    """What the metrics are, as far as their names do not say."""
    texts = {
        "acc_norm": "acc_norm, which divides the log-likelihood of an option by its characters",
        PROBABILITY: "the mean probability of the right option, by a softmax over the log-likelihoods of all",
    }
    return "; ".join(texts.get(name, name) for name in dict.fromkeys(column.name for column in columns))


def _unit(columns: Sequence[_Scored]) -> str:
    """' (%)' where all are shares; else which metrics are something else, and which way is better."""
    headings = {column.name: column.scale.heading for column in columns}
    if set(headings.values()) == {" (%)"}:
        return " (%)"
    return f" ({'; '.join(f'{name}{heading}' for name, heading in headings.items())})"


def _line(row: Row, columns: Sequence[_Scored], common: str) -> Line:
    cells = [Cell(row_title(row.recipe.title, row.condition)), Cell(str(row.n))]
    for column in columns:
        cells.append(score_cell(column.scale, *stats.mean_sd(column.by_seed[row.key])))
        if comparison := column.comparisons.get(row.key):
            text = difference_text(comparison.scale, comparison.difference)
            cells.append(Cell(text, mark=without(verdict_mark(comparison), common)))
        elif column.comparisons:
            cells.append(Cell("" if row.frozen else MISSING))
    return Line(tuple(cells))


def _frame(analysis: Analysis, columns: Sequence[_Scored]) -> pd.DataFrame:
    """A line a row, metric and domain."""
    scored = [(row, column) for row in analysis.rows for column in columns if column.by_seed[row.key]]
    return pd.DataFrame([_numbers(analysis, row, column) for row, column in scored])


def _numbers(analysis: Analysis, row: Row, column: _Scored) -> dict[str, Any]:
    values, comparison = column.by_seed[row.key], column.comparisons.get(row.key)
    mean, sd = stats.mean_sd(values)
    line: dict[str, Any] = {"recipe": row.recipe.name, "setting": row.setting, "budget": row.budget}
    line |= condition_numbers(analysis, row.condition)
    line |= {"metric": column.name, "of": str(column.domain), "mean": mean, "sd": sd, "row_seeds": len(values)}
    return line | (estimate_numbers(comparison) if comparison else {})
