"""The figures of the report: each file draws one from the analysis, or says in a sentence why there is none.

To add a figure, write a file with a function ``draw(analysis) -> Plot | str | None`` (the figure; the sentence that the
report prints in its place; or None where the study does not ask for it), and put the function into `FIGURES` under the
name by which a study.yaml is to ask for it, which `Study.figures` must allow as well. Lengths are inches; widths of
lines and sizes of type and markers are points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.figures import (
    ablation,
    difference,
    factorial,
    learning_rates,
    pareto,
    relative_time,
    routing,
    settings,
    size,
    sweep,
    tasks,
    training,
)
from mosld_bench.reporting.figures.panels import not_drawn
from mosld_bench.reporting.figures.plot import Plot
from mosld_bench.reporting.figures.style import report_style

#: The figures of the records, by the names that `Study.figures` lists.
FIGURES: dict[str, Callable[[Analysis], Plot | str | None]] = {
    "axis": sweep.draw,
    "size": size.draw,
    "tasks": tasks.draw,
    "difference": difference.draw,
    "ablation": ablation.draw,
    "factorial": factorial.draw,
    "settings": settings.draw,
    "training": training.draw,
    "fronts": pareto.draw,
}


def draw_all(analysis: Analysis) -> list[Plot | str]:
    """The figures that the study asks for, in its order, or the sentences in their place; and those of what is there.

    That is its routers, its search and its profile; a study that trains nothing has the last alone.
    """
    with report_style():
        asked = [FIGURES[name](analysis) for name in analysis.study.figures] if analysis.study.trains else []
        drawn = [*asked, *routing.draw(analysis), learning_rates.draw(analysis), relative_time.draw(analysis)]
    return [_with_what_is_not_drawn(analysis, figure) for figure in drawn if figure is not None]


def _with_what_is_not_drawn(analysis: Analysis, figure: Plot | str) -> Plot | str:
    """The figure, its caption with the rows that it leaves out: a reader must not take them for missing."""
    if isinstance(figure, str) or figure.rows is None or not (sentence := not_drawn(analysis, figure.rows)):
        return figure
    return replace(figure, caption=f"{figure.caption} {sentence}")
