"""The figure along a study's own axis: general data, rank, base model, dropout or experts."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from mosld_bench.report.analysis import Analysis
from mosld_bench.report.figures.style import PAGE, Plot, bar, legend, looks, percent_axis, spread_told
from mosld_bench.report.labels import parameter_label, setting_label
from mosld_bench.report.rows import Row
from mosld_bench.spec.budget import Rank
from mosld_bench.spec.design_space import Coordinates
from mosld_bench.spec.trial import canonical


def along(analysis: Analysis) -> Plot | str:
    """Means along the study's own axis: the amount of general data, the rank, the model, the dropout, the experts."""
    axis = analysis.study.axis
    if axis is None:
        return ""
    curves: dict[str, list[tuple[Any, Row]]] = {}
    for row in analysis.trained:
        place = _place(row, axis)
        if place is not None and row.score is not None:
            family = {
                **row.recipe.identity,
                "name": "",
                "params": {k: v for k, v in row.recipe.params.items() if k not in _MOVED[axis]},
            }
            apart = row.condition._replace(**_MERGED.get(axis, {}))
            curves.setdefault(canonical([apart, family]), []).append((place, row))
    if not curves:
        return f"Nothing is drawn along the axis {_AXES[axis]}: no row on it has all of its in-domain tasks yet."
    kinds = analysis.domains
    settings = [s for s in analysis.settings if any(points[0][1].setting == s for points in curves.values())]
    figure = Figure(figsize=(PAGE, 1.75 * len(settings) + 0.55), layout="constrained")
    grid = figure.subplots(len(settings), len(kinds), squeeze=False, sharex=True, sharey="col")
    places = sorted({place for points in curves.values() for place, _ in points})
    look = looks(analysis.recipes)
    leaders = []
    for points in curves.values():
        points.sort(key=lambda point: point[0])
        reference = analysis.study.reference
        leader = min((row.recipe for _, row in points), key=lambda one: (one.name != reference, one.order))
        leaders.append(leader)
        for axes, kind in zip(grid[settings.index(points[0][1].setting)], kinds, strict=True):
            known = [(places.index(place), *row.mean_sd(kind)) for place, row in points]
            drawn = [(x, mean, bar(sd)) for x, mean, sd in known if mean is not None]
            own = look[leader.name]
            axes.errorbar(
                *zip(*drawn, strict=True), color=own.colour, marker=own.marker, linestyle=own.line,
                markersize=4, linewidth=0.9, elinewidth=0.7, capsize=1.5,
            )  # fmt: skip
    for setting, panels in zip(settings, grid, strict=True):
        for axes, kind in zip(panels, kinds, strict=True):
            axes.set_title(f"{kind.label}, {setting_label(setting)}")
            axes.set_xticks(range(len(places)), [_place_label(analysis, place, axis) for place in places])
            axes.set_xlim(-0.4, len(places) - 0.6)
            percent_axis(axes)
        panels[0].set_ylabel(f"Mean {analysis.measure} (%)")
    for axes in grid[-1]:
        axes.set_xlabel(_AXES[axis].capitalize())
    legend(figure, analysis.recipes, {recipe.name for recipe in leaders}, True)
    caption = (
        f"{analysis.measure.capitalize()} along the {_AXES[axis]}, in equal steps whatever the values. "
        f"{spread_told([row for points in curves.values() for _, row in points])} A line joins rows that differ in "
        "nothing else. Scales are the same down a column and do not begin at zero."
    )
    return Plot("axis", f"{analysis.measure} along the {_AXES[axis]}", caption, figure, wide=True)


_AXES = {
    "general": "number of general items mixed in",
    "rank": "rank",
    "model": "base model",
    "dropout": "dropout ratio",
    "experts": "experts by depth, first layers to last",
}
_MOVED: dict[str, set[str]] = {"dropout": {"dropout", "dropout_on"}, "experts": {"experts"}}
#: Fields of a condition that an axis runs over.
_MERGED: dict[str, dict[str, Any]] = {"general": {"general": 0}, "rank": {"budget": ""}, "model": {"model": ""}}
_MOVED |= {axis: set() for axis in _AXES if axis not in _MOVED}


def _place(row: Row, axis: str) -> Any:
    """Where a row stands on an axis; None for a row that the axis does not order."""
    if axis == "general":
        return row.condition.general
    if axis == "rank":
        return row.budget.rank if isinstance(row.budget, Rank) else None
    if axis == "model":
        size = next((record.size for record in row.records if record.size), None)
        return (size.total - size.trainable, row.condition.model) if size and row.ranked else None
    if row.recipe.method != "mixture":
        return None
    point = Coordinates.of(row.recipe.params)
    return point.dropout if axis == "dropout" else parameter_label(point.experts)


def _place_label(analysis: Analysis, place: Any, axis: str) -> str:
    if axis == "model":
        return str(place[1] or analysis.study.models[0].name).rsplit("/", 1)[-1]
    return f"{place:,}" if isinstance(place, int) else str(place)
