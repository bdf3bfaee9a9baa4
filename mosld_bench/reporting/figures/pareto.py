"""Figure: scores against each cost, with the front and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from matplotlib.transforms import ScaledTranslation
from scipy.optimize import isotonic_regression

from mosld_bench.format import short_count
from mosld_bench.records.scale import Scale
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.figures.panels import legend
from mosld_bench.reporting.figures.plot import Plot
from mosld_bench.reporting.figures.style import (
    PAGE_INCHES,
    RULE_COLOUR,
    RULE_POINTS,
    RecipeStyle,
    recipe_styles,
    scale_axis,
)
from mosld_bench.reporting.pareto import COSTS, Cost, CostKind, Group, Member, at, groups, steps
from mosld_bench.reporting.sections.pareto import TITLE, group_label

_PANEL_INCHES = 1.75  # height
_AXIS_SHARE = 0.8  # of a panel's width
_MARKER_POINTS = 3.5  # as many are neighbours of like cost apart, where that moves none too far
_MOST_SHIFT_POINTS = 8.0  # that a marker is drawn beside its place
_MOST_INTERVALS = 60  # points of a panel that have their intervals: those of more would cover them
_LOGARITHMIC = 5.0  # times that the largest cost is the smallest one, from which the axis is logarithmic
_LEAST_SPAN = 0.1  # of a cost, that the axis goes beyond the smallest and the largest of like ones
_MOST_TICKS = 3
_BAND_COLOUR = "#dddddd"
_BASE = RecipeStyle("o", RULE_COLOUR, "none")  # where the frozen base costs something


def draw(analysis: Analysis) -> Plot | None:
    """A panel for every domain and cost, of the first setting and model; None where records have no such costs."""
    found = groups(analysis)
    if not found:
        return None
    first = [group for group in found if (group.setting, group.model) == (found[0].setting, found[0].model)]
    kinds = [kind for kind in COSTS if any(kind in group.kinds for group in first)]
    figure = Figure(figsize=(PAGE_INCHES, _PANEL_INCHES * len(first) + 0.45), layout="constrained")
    grid = figure.subplots(len(first), len(kinds), squeeze=False, sharex="col", sharey="row")
    with_intervals = all(len(group.members) <= _MOST_INTERVALS for group in first)
    points = 72 * _AXIS_SHARE * PAGE_INCHES / len(kinds)
    for group, panels in zip(first, grid, strict=True):
        for axes, kind in zip(panels, kinds, strict=True):
            _panel(axes, group, kind, analysis, points=points, with_intervals=with_intervals)
        _score_axis(panels[0], group, analysis.scale(group.of))
    for axes, kind in zip(grid[-1], kinds, strict=True):
        axes.set_xlabel(kind.label)
    legend(figure, analysis.recipes, {member.row.recipe.name for group in first for member in group.members}, False)
    intervals = f", with 95 % intervals{_of_times(kinds)}" if with_intervals else ""
    caption = (
        f"Mean {analysis.measure} against costs{intervals}. The line is the front, the "
        "best mean that is to be had for so much; the band lies between the best lower and the best upper ends. The "
        "frozen base is a hollow circle, where it costs nothing a dashed line, and left out far from the others. "
        "Points of like cost are spread sideways. Axes do not begin at zero; those of costs that differ much are "
        "logarithmic."
    )
    rows = [member.row for member in first[0].members if not member.row.frozen]
    return Plot("fronts", f"{analysis.measure} against costs", caption, figure, wide=True, section=TITLE, rows=rows)


def _of_times(kinds: Sequence[CostKind]) -> str:
    """What the bars along measured costs are, as the end of a clause."""
    keys = {kind.key for kind in kinds}
    of_decoding = ", of decoding time the range over rounds" if "decode_ms" in keys else ""
    return (", of training time over seeds" if "train_seconds" in keys else "") + of_decoding


def _panel(
    axes: Axes, group: Group, kind: CostKind, analysis: Analysis, *, points: float, with_intervals: bool
) -> None:
    """The points of a group on one cost, the front and its band. ``points``: the width of the axis."""
    styles, scale = recipe_styles(analysis.recipes), analysis.scale(group.of)
    members = [member for member in group.members if kind.key in member.costs]
    paid = [member for member in members if member.costs[kind.key].value > 0]
    if not paid:
        return
    costs = [member.costs[kind.key] for member in paid]
    axis = CostAxis.of(costs, points, spread=kind.counted)
    _cost_axis(axes, kind, axis)
    _front(axes, members, kind, scale)
    for member in members:
        if member not in paid:
            axes.axhline(member.score.mean, color=RULE_COLOUR, linewidth=RULE_POINTS, linestyle=(0, (2, 2)))
    for member, shift in zip(paid, axis.shifts, strict=True):
        style = styles.get(member.row.recipe.name, _BASE)
        _point(axes, member, kind, style, shift=shift, with_intervals=with_intervals)


def _score_axis(axes: Axes, group: Group, scale: Scale) -> None:
    """Wide enough for what is trained: an untrained model far below would leave no room to tell the others apart."""
    trained = [member.score for member in group.members if not member.row.frozen]
    ends = [end for score in trained for end in (score.low, score.mean, score.high) if end is not None]
    room = 0.12 * (max(ends) - min(ends)) or 0.1 * abs(max(ends)) or 1.0
    axes.set_ylim(min(ends) - room, max(ends) + room)
    axes.set_ylabel(f"{group_label(group)}{scale.heading}")
    scale_axis(axes, scale)


@dataclass(frozen=True)
class CostAxis:
    """The ends of an axis of costs, and by how many points each is drawn beside its place."""

    left: float
    right: float
    logarithmic: bool
    shifts: tuple[float, ...]

    @classmethod
    def of(cls, costs: Sequence[Cost], points: float, *, spread: bool) -> CostAxis:
        """An axis of a width of ``points`` with room for all ``costs``, which are above 0, and their intervals.

        ``spread``: whether points of like cost are spread sideways.
        """
        least = min(cost.value if cost.low is None or cost.low <= 0 else cost.low for cost in costs)
        most = max(cost.value if cost.high is None else cost.high for cost in costs)
        beside = _MARKER_POINTS + (_MOST_SHIFT_POINTS if spread else 0.0)
        room = max(0.0, _LEAST_SPAN * most - (most - least) / 2)
        scale = (points - 2 * beside) / (most - least + 2 * room)
        left, right = least - room - beside / scale, most + room + beside / scale
        logarithmic = most > _LOGARITHMIC * least or left <= 0  # on a narrow axis the room is wide in costs
        place, cost_at = (math.log, math.exp) if logarithmic else (float, float)
        if logarithmic:
            scale = (points - 2 * beside) / (place(most) - place(least))
            left, right = place(least) - beside / scale, place(most) + beside / scale
        places = [scale * (place(cost.value) - left) for cost in costs]
        moved = shifts(places, _MARKER_POINTS, _MOST_SHIFT_POINTS) if spread else [0.0] * len(costs)
        return cls(cost_at(left), cost_at(right), logarithmic, tuple(moved))


def _cost_axis(axes: Axes, kind: CostKind, axis: CostAxis) -> None:
    """The axis of a cost with a few ticks at round numbers, whose labels do not touch."""
    if axis.logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xticks(round_ticks(axis.left, axis.right))
        axes.set_xticks([], minor=True)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(_MOST_TICKS - 1, steps=(1, 2, 5, 10)))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: short_count(value) if kind.counted else f"{value:.4g}")
    )
    axes.set_xlim(axis.left, axis.right)


def round_ticks(left: float, right: float) -> list[float]:
    """Of 1, 2 and 5 times powers of ten within the limits a few at like distances; the limits where there are none."""
    powers = range(math.floor(math.log10(left)), math.ceil(math.log10(right)) + 1)
    found: list[float] = []
    for digits in ((1, 2, 5), (1, 3), (1,)):
        found = [digit * 10.0**power for power in powers for digit in digits if left <= digit * 10.0**power <= right]
        if len(found) <= _MOST_TICKS:
            break
    return found[:: math.ceil(len(found) / _MOST_TICKS)] if found else [left, right]


def shifts(places: Sequence[float], apart: float, most: float) -> list[float]:
    """By how much points at ``places`` move so that neighbours are ``apart``: the least, by squares.

    Their order stays; of points at one place it is the order given. Neighbours are closer, all alike, where a point
    would else move by more than ``most``.
    """
    order = sorted(range(len(places)), key=lambda i: places[i])
    rising = np.array([places[i] for i in order])
    while True:
        ladder = apart * np.arange(len(places))
        by = isotonic_regression(rising - ladder).x + ladder - rising
        if np.abs(by).max() <= most:
            break
        apart *= 0.9
    found = [0.0] * len(places)
    for i, shift in zip(order, by.tolist(), strict=True):
        found[i] = shift
    return found


def _point(
    axes: Axes, member: Member, kind: CostKind, style: RecipeStyle, *, shift: float, with_intervals: bool
) -> None:
    """A marker, perhaps with its intervals, ``shift`` points to the right of its place."""
    cost, score = member.costs[kind.key], member.score
    moved = axes.transData + ScaledTranslation(shift / 72, 0, axes.get_figure(root=True).dpi_scale_trans)  # type: ignore[union-attr]
    if with_intervals and score.low is not None and score.high is not None:
        axes.plot([cost.value] * 2, [score.low, score.high], color=style.colour, linewidth=0.8, transform=moved)
    if with_intervals and not kind.counted and cost.low is not None and cost.high is not None:
        axes.plot([cost.low, cost.high], [score.mean] * 2, color=style.colour, linewidth=0.5, transform=moved)
    face = "white" if member.row.frozen else style.colour
    axes.plot(
        [cost.value], [score.mean], marker=style.marker, color=style.colour, markerfacecolor=face,
        markersize=_MARKER_POINTS,
        linestyle="none", transform=moved,
    )  # fmt: skip


def _front(axes: Axes, members: Sequence[Member], kind: CostKind, scale: Scale) -> None:
    """The step line from the cheapest row on, or from the left edge, and the band between the ends of intervals."""
    left, right = axes.get_xlim()
    costs = [max(member.costs[kind.key].value, left) for member in members]
    scores = [member.score for member in members]
    ends = [sorted(scale.rank(s.mean if end is None else end) for end in (s.low, s.high)) for s in scores]
    ranks = [scale.rank(s.mean) for s in scores], [worse for worse, _ in ends], [better for _, better in ends]
    means, low, high = (steps(costs, of_line) for of_line in ranks)
    grid = sorted({cost for line in (means, low, high) for cost, _ in line} | {right})
    below, above, best = ([scale.rank(at(line, x)) for x in grid] for line in (low, high, means))
    axes.fill_between(grid, below, above, step="post", color=_BAND_COLOUR, linewidth=0, zorder=0.5)
    axes.step(grid, best, where="post", color=RULE_COLOUR, linewidth=RULE_POINTS, zorder=1)
