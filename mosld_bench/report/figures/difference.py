"""Figure: every row minus the study's reference, with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mosld_bench.records.scale import Scale
from mosld_bench.report.analysis import Analysis, Comparison
from mosld_bench.report.figures.panels import UNLIKE, panel_label
from mosld_bench.report.figures.plot import Plot
from mosld_bench.report.figures.style import (
    COLUMN_INCHES,
    PAGE_INCHES,
    RULE_COLOUR,
    RULE_POINTS,
    RecipeStyle,
    recipe_styles,
    rows_axis,
    scale_axis,
)
from mosld_bench.spec.trial import Condition, Domain

_LINE_INCHES = 0.185  # height that a row takes
_PANELS_INCHES = 5  # height that all panels may take


class _Panel(NamedTuple):
    condition: Condition
    comparisons: list[Comparison]


def draw(analysis: Analysis) -> Plot | str:
    """Every row minus the reference in its block (in-domain mean), with its interval: one panel a block."""
    panels = [_Panel(condition, analysis.against_reference(condition)) for condition, _ in analysis.blocks()]
    panels = [panel for panel in panels if panel.comparisons]
    if analysis.unlike(Domain.IN):
        return UNLIKE.format("Differences are not drawn")
    if not panels:
        return f"No block of the study has {analysis.reference} beside another row, so no differences are drawn."
    if len(panels) > 2:  # the table has them all
        panels = [panel for panel in panels if panel.condition.setting == panels[-1].condition.setting]
    lines = max(len(panel.comparisons) for panel in panels) + 1.2
    columns = min(len(panels), 2)
    rows = min(math.ceil(len(panels) / columns), max(1, int(_PANELS_INCHES / (_LINE_INCHES * lines))))
    panels = panels[: rows * columns]
    wide = columns > 1 or lines > 8
    size = (PAGE_INCHES if wide else COLUMN_INCHES, _LINE_INCHES * lines * rows + 0.45)
    figure = Figure(figsize=size, layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False, sharex=True).flat)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    styles, scale = recipe_styles(analysis.recipes), analysis.scale(Domain.IN)
    for axes, panel in zip(grid, panels, strict=False):
        _draw_panel(axes, panel, styles, scale)
    unit = f" ({scale.points.strip()})" if scale.points else ""
    direction = "" if scale.higher_is_better else "; left is better"
    figure.supxlabel(f"In-domain mean minus that of {analysis.reference}{unit}{direction}", fontsize=8)
    caption = (
        f"Difference to {analysis.reference} in the same setting and at the same budget: mean over paired seeds and "
        f"95 % t interval, not corrected for the number of rows.{_without_interval(panels)}"
    )
    drawn = [row for panel in panels for comparison in panel.comparisons for row in (comparison.row, comparison.other)]
    return Plot("difference", f"the differences to {analysis.reference}", caption, figure, wide=wide, rows=drawn)


def _draw_panel(axes: Axes, panel: _Panel, styles: dict[str, RecipeStyle], scale: Scale) -> None:
    for y, comparison in enumerate(panel.comparisons):
        delta = comparison.difference
        style = styles[comparison.row.recipe.name]
        style.draw_interval(axes, y=y, low=delta.low, middle=delta.mean, high=delta.high)
    axes.axvline(0, color=RULE_COLOUR, linewidth=RULE_POINTS)
    rows_axis(axes, [comparison.row.recipe.title for comparison in panel.comparisons])
    axes.tick_params(axis="x", labelbottom=True)
    axes.set_title(panel_label(panel.condition), loc="left")
    scale_axis(axes, scale, "x")


def _without_interval(panels: Sequence[_Panel]) -> str:
    """The end of the caption where rows have no interval."""
    bare = [comparison.difference.low is None for panel in panels for comparison in panel.comparisons]
    if all(bare):
        return " There is one common seed only, and so no interval."
    return " A marker without a bar has one common seed, and so no interval." if any(bare) else ""
