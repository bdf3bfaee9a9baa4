"""Figure: accuracy by task."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.figures.panels import (
    Panel,
    first_blocks,
    legend,
    offset,
    panel_label,
    points_and_bars,
    wrapped,
)
from mosld_bench.reporting.figures.plot import Plot
from mosld_bench.reporting.figures.style import (
    GRID_COLOUR,
    PAGE_INCHES,
    RULE_COLOUR,
    RULE_POINTS,
    RecipeStyle,
    bar_length,
    recipe_styles,
    scale_axis,
)
from mosld_bench.reporting.rows import Row

_MOST_TASKS = 24
_MOST_UPRIGHT = 10  # tasks; the titles of more are turned


def draw(analysis: Analysis) -> Plot | str:
    """Accuracy by task, a panel a setting, at its first budget that matches sizes."""
    panels, tasks = first_blocks(analysis), list(analysis.task_names)
    if not panels or len(tasks) > _MOST_TASKS:
        return f"Accuracy by task is not drawn: there is no trained row, or there are more than {_MOST_TASKS} tasks."
    scales = {scale for task in tasks if (scale := analysis.scales.of(task))}
    if len(scales) > 1:
        return "Scores by task are not drawn: the tasks are scored on unlike scales, which have no axis in common."
    scale = analysis.scale(tasks[0])
    figure = Figure(figsize=(PAGE_INCHES, 1.45 * len(panels) + 0.95), layout="constrained")
    grid = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
    styles = recipe_styles(analysis.recipes)
    for axes, panel in zip(grid, panels, strict=True):
        _draw_rows(axes, panel.rows, tasks, styles)
        _draw_levels(axes, analysis, panel)
        _task_axis(axes, analysis)
        axes.set_ylabel(f"{analysis.measure.capitalize()}{scale.heading}")
        axes.set_title(panel_label(panel.condition), loc="left")
        scale_axis(axes, scale)
    rows = [row for panel in panels for row in panel.rows]
    legend(figure, analysis.recipes, {row.recipe.name for row in rows}, False)
    caption = (
        f"{analysis.measure.capitalize()} by task"
        + ("; in-domain tasks left of the dark line. " if analysis.study.out_of_domain else ". ")
        + points_and_bars(rows)
        + " Solid rule: frozen base; dotted: chance."
    )
    return Plot("tasks-by-method", f"{analysis.measure} by task", caption, figure, wide=True, rows=rows)


def _draw_rows(axes: Axes, rows: Sequence[Row], tasks: Sequence[str], styles: dict[str, RecipeStyle]) -> None:
    """Every row's mean on every task, rows beside each other within a task's width."""
    for i, row in enumerate(rows):
        style = styles[row.recipe.name]
        for x, task in enumerate(tasks):
            mean, sd = row.mean_sd(task)
            if mean is not None:
                axes.errorbar(
                    x + offset(i, len(rows)),
                    mean,
                    bar_length(sd),
                    color=style.colour,
                    marker=style.marker,
                    markersize=3.4,
                    elinewidth=0.7,
                    linestyle="none",
                )


def _draw_levels(axes: Axes, analysis: Analysis, panel: Panel) -> None:
    """Chance and the frozen base under every task, and lines between the tasks."""
    tasks, base = analysis.task_names, analysis.frozen_of(panel.condition)
    for x, task in enumerate(tasks):
        metric, span = analysis.metric(task), [x - 0.4, x + 0.4]
        if metric and metric.chance is not None:
            axes.plot(span, [metric.chance] * 2, color=RULE_COLOUR, linewidth=RULE_POINTS, linestyle=":")
        level = base.mean_sd(task)[0] if base else None
        if level is not None:
            axes.plot(span, [level] * 2, color=RULE_COLOUR, linewidth=RULE_POINTS)
    for x in range(len(tasks) - 1):
        last_in_domain = x + 1 == len(analysis.study.in_domain)
        axes.axvline(x + 0.5, color=RULE_COLOUR if last_in_domain else GRID_COLOUR, linewidth=0.6)


def _task_axis(axes: Axes, analysis: Analysis) -> None:
    tasks = analysis.task_names
    axes.grid(False, axis="x")
    axes.set_xlim(-0.5, len(tasks) - 0.5)
    width = 14 if len(tasks) <= _MOST_UPRIGHT else 60
    axes.set_xticks(range(len(tasks)), [wrapped(analysis.title(task), width) for task in tasks])
    if len(tasks) > _MOST_UPRIGHT:
        axes.tick_params(axis="x", labelrotation=90)
    axes.tick_params(axis="x", length=0)
