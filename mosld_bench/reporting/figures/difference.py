"""Figure: every row minus the study's reference with its interval, in-domain, out of domain and by task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mosld_bench.records.scale import Scale
from mosld_bench.reporting.analysis import Analysis, Comparison
from mosld_bench.reporting.figures.panels import panel_label, wrapped
from mosld_bench.reporting.figures.plot import Plot
from mosld_bench.reporting.figures.style import (
    BAND_COLOUR,
    PAGE_INCHES,
    RULE_COLOUR,
    RULE_POINTS,
    RecipeStyle,
    recipe_styles,
    rows_axis,
    scale_axis,
)
from mosld_bench.reporting.labels import short_label
from mosld_bench.reporting.rows import RowKey
from mosld_bench.reporting.stats import Basis
from mosld_bench.spec.trial import Condition, Domain

_ROW_INCHES = 0.155  # height that a row takes
_LEAST_ROWS = 2  # that a panel has room for
_FRAME_INCHES = 0.5  # title and axis of a panel
_LINE_INCHES = 0.13  # a further line of its title
_MOST_INCHES = 8.0  # height of all panels
_MOST_TASKS = 15  # of panels; the table has more
_ACROSS = 5  # panels of tasks side by side


class _Panel(NamedTuple):
    """One forest: the comparisons of a block on a domain or a task."""

    condition: Condition
    of: Domain | str
    title: str
    comparisons: list[Comparison]


def draw(analysis: Analysis) -> Plot | str:
    """Every row minus the reference in its block, with its 95 % interval and the margin as a band.

    A line of panels a block: its two domains; below them, of the first block, its tasks.
    """
    lines = _lines(analysis)
    if not lines:
        return f"No block of the study has {analysis.reference} beside another row, so no differences are drawn."
    titles = {panel.condition: _titles(line) for line in lines for panel in line}
    heights = [_height(line) for line in lines]
    figure = Figure(figsize=(PAGE_INCHES, sum(heights) + 0.15), layout="constrained")
    styles = recipe_styles(analysis.recipes)
    limits = _limits(lines)
    bands = figure.subfigures(len(lines), 1, squeeze=False, height_ratios=heights)[:, 0]
    for band, line in zip(bands, lines, strict=True):
        grid = band.subplots(1, _across(line), squeeze=False, sharey=True)[0]
        for axes in grid[len(line) :]:
            axes.set_visible(False)
        for axes, panel in zip(grid, line, strict=False):
            _draw_panel(axes, panel, titles[panel.condition], styles)
            axes.set_xlim(limits[_kind(panel)])
    figure.supxlabel(f"Minus {analysis.reference}{_unit(lines)}", fontsize=8)
    drawn = [row for line in lines for panel in line for c in panel.comparisons for row in (c.row, c.other)]
    return Plot(
        "difference",
        f"the differences to {analysis.reference}",
        _caption(analysis, [panel for line in lines for panel in line]),
        figure,
        wide=True,
        rows=drawn,
    )


def _lines(analysis: Analysis) -> list[list[_Panel]]:
    """The panels line by line, as many as a page holds: block by block the domains, then the first block's tasks."""
    by_block = {condition: _of_domains(analysis, condition) for condition, _ in analysis.blocks()}
    blocks = [(condition, panels) for condition, panels in by_block.items() if panels]
    tasks = _of_tasks(analysis, blocks[0][0]) if blocks else _first_tasks(analysis)
    several = len(blocks) > 1
    lines = [[_named(panel, several) for panel in panels] for _, panels in blocks]
    room = _MOST_INCHES - sum(map(_height, tasks))
    kept: list[list[_Panel]] = []
    for line in lines:
        room -= _height(line)
        if kept and room < 0:
            break
        kept.append(line)
    return [*kept, *tasks] if not kept or room + sum(map(_height, tasks)) > 0 else kept


def _of_domains(analysis: Analysis, condition: Condition) -> list[_Panel]:
    """A panel a domain that has a mean and a comparison."""
    panels = (
        _Panel(condition, domain, domain.label, analysis.against_reference(condition, domain))
        for domain in analysis.averaged()
    )
    return [panel for panel in panels if panel.comparisons]


def _first_tasks(analysis: Analysis) -> list[list[_Panel]]:
    """The tasks of the first block that has the reference, where no domain has a mean."""
    return next((lines for condition, _ in analysis.blocks() if (lines := _of_tasks(analysis, condition))), [])


def _of_tasks(analysis: Analysis, condition: Condition) -> list[list[_Panel]]:
    """A panel a task, in lines of equal length; none where they are too many. A domain's only task is its mean."""
    domains = [d for d in analysis.domains if len(analysis.tasks_in(d)) > 1 or analysis.unlike(d)]
    if sum(len(analysis.tasks_in(domain)) for domain in domains) > _MOST_TASKS:
        return []
    panels = []
    for domain in domains:
        comparisons = analysis.by_task(condition, domain)
        for task in analysis.tasks_in(domain):
            of_task = [c for c in comparisons if c.of == task]
            panels += [_Panel(condition, task, wrapped(analysis.title(task), 22), of_task)] if of_task else []
    if not panels:
        return []
    across = math.ceil(len(panels) / math.ceil(len(panels) / _ACROSS))
    return [panels[start : start + across] for start in range(0, len(panels), across)]


def _named(panel: _Panel, several: bool) -> _Panel:
    """The panel with its block in the title, where there are ``several``."""
    return panel._replace(title=f"{panel.title}: {panel_label(panel.condition)}") if several else panel


def _height(line: Sequence[_Panel]) -> float:
    broken = max(panel.title.count("\n") for panel in line)
    return _ROW_INCHES * max(_LEAST_ROWS, len(_titles(line))) + _FRAME_INCHES + _LINE_INCHES * broken


def _across(line: Sequence[_Panel]) -> int:
    """Places side by side: as many as the line has, two at least, so that a panel is as wide as its like."""
    return max(2, len(line))


def _titles(line: Sequence[_Panel]) -> dict[RowKey, str]:
    """The rows of a line's panels, each once."""
    return {c.row.key: c.row.recipe.title for panel in line for c in panel.comparisons}


def _kind(panel: _Panel) -> tuple[bool, Scale]:
    """Panels of one kind have one axis."""
    return isinstance(panel.of, Domain), panel.comparisons[0].scale


def _limits(lines: Sequence[Sequence[_Panel]]) -> dict[tuple[bool, Scale], tuple[float, float]]:
    """The ends of the axis of every kind of panel: around all its intervals and the margin."""
    ends: dict[tuple[bool, Scale], list[float]] = {}
    for panel in (panel for line in lines for panel in line):
        values = ends.setdefault(_kind(panel), [0.0])
        for comparison in panel.comparisons:
            margin, delta = comparison.margin or 0.0, comparison.difference
            known = (end for end in (delta.low, delta.mean, delta.high) if end is not None)
            values += [-1.3 * margin, 1.3 * margin, *known]
    limits = {}
    for kind, values in ends.items():
        low, high = min(values), max(values)
        room = 0.04 * (high - low) or 1e-3
        limits[kind] = low - room, high + room
    return limits


def _draw_panel(axes: Axes, panel: _Panel, titles: dict[RowKey, str], styles: dict[str, RecipeStyle]) -> None:
    places = {key: y for y, key in enumerate(titles)}
    margin, scale = panel.comparisons[0].margin, panel.comparisons[0].scale
    if margin is not None:
        axes.axvspan(-margin, margin, color=BAND_COLOUR, linewidth=0, zorder=0)
    axes.axvline(0, color=RULE_COLOUR, linewidth=RULE_POINTS, zorder=1)
    for comparison in panel.comparisons:
        delta = comparison.difference
        styles[comparison.row.recipe.name].draw_interval(
            axes,
            y=places[comparison.row.key],
            low=delta.low,
            middle=delta.mean,
            high=delta.high,
            filled=comparison.separated,
            dotted=delta.basis is Basis.MODELS,
        )
    rows_axis(axes, list(titles.values()))
    axes.set_title(panel.title, loc="left")
    scale_axis(axes, scale, "x")


def _unit(lines: Sequence[Sequence[_Panel]]) -> str:
    """' (points)' where all differences are, and which side is better where all agree."""
    scales = {panel.comparisons[0].scale for line in lines for panel in line}
    unit = " (points)" if all(scale.points for scale in scales) else ""
    directions = {scale.higher_is_better for scale in scales}
    if len(directions) > 1:
        return unit
    return f"{unit}; {'right' if directions.pop() else 'left'} is better"


def _caption(analysis: Analysis, panels: Sequence[_Panel]) -> str:
    comparisons = [comparison for panel in panels for comparison in panel.comparisons]
    text = (
        f"Every row minus {analysis.reference} in the same setting and at the same budget, with its 95 % interval over "
        "seeds and items"
    )
    if any(c.margin is not None for c in comparisons):
        text += f"; the band is the margin of ±{analysis.study.margin:g} {_points(analysis)}"
    blocks = dict.fromkeys(panel.condition for panel in panels)
    if len(blocks) > 1 and any(not isinstance(panel.of, Domain) for panel in panels):
        text += f". By task: {short_label(next(iter(blocks)))}"
    text += ". Filled: told apart after Holm's correction" if any(c.separated for c in comparisons) else ""
    text += "; hollow: not told apart." if any(c.separated for c in comparisons) else ". No row is told apart."
    if any(c.difference.basis is Basis.MODELS and c.difference.low is not None for c in comparisons):
        text += " Dotted: over items alone, of these trained models."
    if any(c.difference.low is None for c in comparisons):
        text += " A marker without a bar has no interval: one seed, and no items at hand."
    unlike = [domain.label.lower() for domain in analysis.domains if analysis.unlike(domain)]
    if unlike:
        text += f" There is no {' or '.join(unlike)} mean, as the tasks are scored on unlike scales."
    return text


def _points(analysis: Analysis) -> str:
    return "point" if analysis.study.margin == 1 else "points"
