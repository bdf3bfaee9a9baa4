"""Figure: accuracy against trainable parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise, product

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from mosld_bench.format import short_count
from mosld_bench.reporting import stats
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.figures.panels import UNLIKE, legend, panel_title, points_and_bars
from mosld_bench.reporting.figures.plot import Plot
from mosld_bench.reporting.figures.style import PAGE_INCHES, RULE_COLOUR, RULE_POINTS, Point, recipe_styles, scale_axis
from mosld_bench.reporting.forgetting import forgetting, text_title
from mosld_bench.reporting.labels import setting_label
from mosld_bench.reporting.rows import Row, RowKey
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.trial import Domain


def draw(analysis: Analysis) -> Plot | str:
    """Mean accuracy against trainable parameters: a row of panels for every setting, in- and out-of-domain."""
    rows = _rows(analysis)
    if analysis.unlike(Domain.IN):
        return UNLIKE.format("Nothing is drawn against size")
    if not rows:
        return "No trained row has all of its in-domain tasks yet, so nothing is drawn against size."
    domains = analysis.averaged()
    settings = [setting for setting in analysis.settings if any(row.setting == setting for row in rows)]
    forgotten = {one.row.key: one for one in forgetting(analysis, rows)}
    columns = len(domains) + bool(forgotten)
    figure = Figure(figsize=(PAGE_INCHES, 1.85 * len(settings) + 0.55), layout="constrained")
    grid = figure.subplots(len(settings), columns, squeeze=False, sharex=True, sharey="col")
    recipes = analysis.recipes
    step_decades = _spread_decades(rows) / max(1, len({row.recipe.name for row in rows if row.matched}))
    _size_axis(grid[0][0], rows)
    for setting, panels in zip(settings, grid, strict=True):
        of_setting = [row for row in rows if row.setting == setting]
        for axes, domain in zip(panels, domains, strict=False):  # the last column is of forgetting
            _panel(axes, of_setting, {row.key: row.mean_sd(domain) for row in of_setting}, recipes, step_decades)
            scale_axis(axes, analysis.scale(domain))
            axes.set_title(panel_title(analysis, domain, setting))
        if forgotten:
            costs = {key: stats.mean_sd(list(one.by_seed.values())) for key, one in forgotten.items()}
            _panel(panels[-1], of_setting, costs, recipes, step_decades)
            panels[-1].yaxis.set_major_locator(MaxNLocator("auto", steps=(1, 2, 5, 10)))
            panels[-1].axhline(0, color=RULE_COLOUR, linewidth=RULE_POINTS, linestyle=(0, (2, 2)))
            panels[-1].set_title(f"Forgetting (nats a token), {setting_label(setting)}")
        panels[0].set_ylabel(f"Mean {analysis.measure}{analysis.scale(Domain.IN).heading}")
    for axes in grid[-1]:
        axes.set_xlabel("Trainable parameters")
    for domain, column in zip(domains, grid.T, strict=False):  # of one scale, which is known when all points are drawn
        frozen = analysis.frozen[0].mean_sd(domain)[0] if len(analysis.frozen) == 1 else None
        low, high = column[0].get_ylim()
        if frozen is not None and low <= frozen <= high:
            for axes in column:
                _frozen_line(axes, frozen)
    legend(figure, recipes, {row.recipe.name for row in rows}, True)
    caption = (
        f"{analysis.measure.capitalize()} against trainable parameters (logarithmic). {points_and_bars(rows)} Points "
        "of one budget are spread sideways to be told apart; a line joins the budgets of a method. Scales are the "
        f"same down a column and do not begin at zero.{_of_forgetting(analysis) if forgotten else ''}"
    )
    return Plot("size", f"{analysis.measure} against size", caption, figure, wide=True, rows=rows)


def _rows(analysis: Analysis) -> list[Row]:
    """The rows with a size and an in-domain mean, of the least general data, and the most items, of the study.

    At the chosen learning rates: the others would be a second curve of every recipe.
    """
    least = min((row.condition.general for row in analysis.trained), default=0)
    most = max((row.condition.items for row in analysis.trained), default=0)
    scored = [row for row in analysis.trained if row.score is not None and row.trainable]
    shown = least, most, "chosen"
    return [r for r in scored if (r.condition.general, r.condition.items, r.condition.rate) == shown]


def _of_forgetting(analysis: Analysis) -> str:
    return (
        f" The last column has by how much more the held-out text ({text_title(analysis)}) costs after training than "
        "before, on the frozen base; lower is better."
    )


def _panel(
    axes: Axes,
    rows: Sequence[Row],
    values: Mapping[RowKey, tuple[float | None, float | None]],
    recipes: Sequence[Recipe],
    step_decades: float,
) -> None:
    """A curve for each recipe and model; those of a budget stand ``step_decades`` apart on the axis of sizes.

    ``values``: row -> mean and standard deviation over seeds.
    """
    styles = recipe_styles(recipes)
    names = [recipe.name for recipe in recipes if any(row.recipe.name == recipe.name for row in rows)]
    spread = [name for name in names if any(row.matched for row in rows if row.recipe.name == name)]
    models = list(dict.fromkeys(row.condition.model for row in rows))
    for name, model in product(names, models):
        of_curve = [row for row in rows if (row.recipe.name, row.condition.model) == (name, model)]
        steps = spread.index(name) - (len(spread) - 1) / 2 if name in spread else 0
        points = []
        for row in sorted(of_curve, key=lambda row: row.trainable or 0):
            mean, sd = values.get(row.key, (None, None))
            if mean is not None:
                points.append(Point((row.trainable or 0) * 10 ** (step_decades * steps), mean, sd))
        styles[name].draw_curve(axes, points)
    axes.margins(y=0.12)


def _frozen_line(axes: Axes, score: float) -> None:
    axes.axhline(score, color=RULE_COLOUR, linewidth=RULE_POINTS, linestyle=(0, (2, 2)))
    axes.annotate(
        "frozen base",
        (0.99, score),
        (0, 2),
        axes.get_yaxis_transform(),
        "offset points",
        ha="right",
        fontsize=7,
    )


def _size_axis(axes: Axes, rows: Sequence[Row]) -> None:
    """The scale that all panels share: wide enough for every row, a tick a size where they are apart."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    sizes = sorted({row.trainable or 1 for row in rows})
    ticks: list[int] = []
    for value in (int(float(f"{size:.1e}")) for size in sizes):
        if not ticks or value / ticks[-1] > max(1.4, (max(sizes) / min(sizes)) ** 0.12):
            ticks.append(value)
    axes.set_xticks(ticks)
    axes.set_xticks([], minor=True)
    room = 10 ** (_spread_decades(rows) / 2 + 0.08)
    axes.set_xlim(min(sizes) / room, max(sizes) * room)


def _spread_decades(rows: Sequence[Row]) -> float:
    """Decades over which the points of one budget may be spread: clear of the next budget's points."""
    sizes = sorted(math.log10(row.trainable or 1) for row in rows if row.matched)
    gaps = [high - low for low, high in pairwise(sizes) if high - low > 0.05]
    return min(0.5, 0.6 * min(gaps, default=1.0))
