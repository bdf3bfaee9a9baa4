"""The table of the other metrics: the two means under what all tasks measure beside their primary metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd

from mosld_bench.format import listed
from mosld_bench.records.scale import SHARE, Scale
from mosld_bench.report.analysis import Analysis
from mosld_bench.report.labels import block_label, row_title, short_label
from mosld_bench.report.rows import Row
from mosld_bench.report.sections.results.main_table import condition_numbers
from mosld_bench.report.table import Cell, Column, Line, Table, score_cell
from mosld_bench.spec.trial import Domain


class _Mean(NamedTuple):
    """One mean of a row: over a domain, under a metric as the column names it, on the metric's scale."""

    domain: Domain
    metric: str
    scale: Scale
    mean: float | None
    sd: float | None


def other_metrics_table(analysis: Analysis) -> Table | None:
    """The means of every row with a record, the primary metric first; None where tasks share no other metric.

    None, too, where a domain has no mean under one of them, since its tasks are on unlike scales.
    """
    metrics = analysis.other_metrics()
    if not metrics or any(map(analysis.unlike_under, (None, *metrics))):
        return None
    primary = {metric.metric for task in analysis.task_names if (metric := analysis.metric(task))}
    heads = [_short(name) for name in (primary.pop() if len(primary) == 1 else "primary", *metrics)]
    means = {row.key: _means(analysis, row, metrics, heads) for row in analysis.rows if row.records}
    frozen = [row for row in analysis.frozen if row.key in means]
    lines, listed_rows = [_line(row, means[row.key]) for row in frozen], frozen
    for condition, rows in analysis.blocks():
        recorded = [row for row in rows if row.key in means]
        lines += [Line.heading(block_label(condition), ruled=True)] if recorded else []
        lines += [_line(row, means[row.key]) for row in recorded]
        listed_rows = [*listed_rows, *recorded]
    norm = " acc_norm: the log-likelihood of an option is divided by its characters." if "acc_norm" in heads else ""
    return Table(
        "other-metrics",
        f"Means{_unit(analysis, metrics)} under what the definitions of all tasks measure beside their primary metric, "
        f"{heads[0]}; one standard deviation over seeds.{norm}",
        (
            Column("Method", "left"),
            Column("n"),
            *(Column(head, group=domain.label) for domain in analysis.domains for head in heads),
        ),
        tuple(lines),
        pd.DataFrame([_numbers(analysis, row, means[row.key]) for row in listed_rows]),
        tuple(filter(None, (_other_best(analysis, metric) for metric in metrics))),
    )


def _unit(analysis: Analysis, metrics: Sequence[str]) -> str:
    """' (%)' where all are shares; else which metrics are something else, and which way is better."""
    scales = {metric: analysis.scale_under(metric, Domain.IN) for metric in metrics}
    if analysis.shares and set(scales.values()) == {SHARE}:
        return " (%)"
    texts = [f"{_short(metric)}{scale.heading}" for metric, scale in scales.items() if scale.heading]
    return f" ({'; '.join(['shares in per cent', *texts])})"


def _short(metric: str) -> str:
    """lm-eval's name without its filter, where that is none."""
    return metric.removesuffix(",none")


def _means(analysis: Analysis, row: Row, metrics: Sequence[str], heads: Sequence[str]) -> list[_Mean]:
    """Domain by domain, the row's mean under the primary metric and under each of ``metrics``."""
    scored = [(None, row), *((metric, analysis.under(metric, row)) for metric in metrics)]
    return [
        _Mean(domain, head, analysis.scale_under(metric, domain), *under.mean_sd(domain))
        for domain in analysis.domains
        for head, (metric, under) in zip(heads, scored, strict=True)
    ]


def _line(row: Row, means: Sequence[_Mean]) -> Line:
    title = row_title(row.recipe.title, row.condition)
    return Line((Cell(title), Cell(str(row.n)), *(score_cell(mean.scale, mean.mean, mean.sd) for mean in means)))


def _numbers(analysis: Analysis, row: Row, means: Sequence[_Mean]) -> dict[str, Any]:
    """A line of the CSV."""
    line: dict[str, Any] = {"recipe": row.recipe.name, "setting": row.setting, "budget": row.budget}
    line |= {**condition_numbers(analysis, row.condition), "seeds": row.n}
    for mean in means:
        line |= {f"{mean.domain}_{mean.metric}": mean.mean, f"{mean.domain}_{mean.metric}_sd": mean.sd}
    return line


def _other_best(analysis: Analysis, metric: str) -> str:
    """The blocks in which another row would be the best, had the metric been the primary one."""
    scale = analysis.scale_under(metric, Domain.IN)

    def score(row: Row) -> float:
        return analysis.under(metric, row).score or 0.0

    turned = []
    for condition, _ in analysis.blocks():
        if best := analysis.best(condition):
            other = scale.best(analysis.contenders(condition), score)
            if other and scale.better(score(other), score(best)):  # and no tie
                turned.append(f"{other.recipe.title} and not {best.recipe.title} ({short_label(condition)})")
    if not turned:
        return ""
    return (
        f"{scale.best_word.capitalize()} in-domain under {_short(metric)}, of the rows with the most seeds: "
        f"{listed(turned)}."
    )
