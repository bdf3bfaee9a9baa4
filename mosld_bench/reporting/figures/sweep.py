"""Figure: accuracy along what the study varies: general data, training items, rank, base model, dropout or experts.

To let a study vary something else, add an entry to `SWEEPS`, and its name to the choices of `Study.axis`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mosld_bench.records.record import Record
from mosld_bench.reporting import stats
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.figures.panels import UNLIKE, legend, panel_title, points_and_bars
from mosld_bench.reporting.figures.plot import Plot
from mosld_bench.reporting.figures.style import PAGE_INCHES, Point, recipe_styles, scale_axis
from mosld_bench.reporting.labels import parameter_label
from mosld_bench.reporting.rows import Row
from mosld_bench.spec.budget import Rank
from mosld_bench.spec.design_space import Coordinates
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.trial import Domain, canonical


def draw(analysis: Analysis) -> Plot | str | None:
    """Means along the study's ``axis``, a curve for rows that differ in nothing else; None where the study has none."""
    if analysis.study.axis is None:
        return None
    sweep = SWEEPS[analysis.study.axis]
    curves = _curves(analysis, sweep)
    if analysis.unlike(Domain.IN):
        return UNLIKE.format(f"Nothing is drawn along the axis {sweep.label}")
    if not curves:
        return f"Nothing is drawn along the axis {sweep.label}: no row on it has all of its in-domain tasks yet."
    values = sorted({stop.value for curve in curves for stop in curve})
    domains = analysis.averaged()
    settings = [setting for setting in analysis.settings if any(curve[0].row.setting == setting for curve in curves)]
    rows, columns = len(settings) + sweep.losses, max(len(domains), 2 if sweep.losses else 1)
    figure = Figure(figsize=(PAGE_INCHES, 1.75 * rows + 0.55), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
    styles = recipe_styles(analysis.recipes)
    for column in range(len(domains)):
        for panel in grid[1 : len(settings), column]:
            panel.sharey(grid[0, column])
    for axes in grid[: len(settings), len(domains) :].flat:
        axes.remove()

    def panels_of(setting: str) -> Sequence[Axes]:
        return list(grid[settings.index(setting), : len(domains)])

    for curve in curves:
        style = styles[_leader(analysis, curve).name]
        for axes, domain in zip(panels_of(curve[0].row.setting), domains, strict=True):
            means = [(values.index(stop.value), *stop.row.mean_sd(domain)) for stop in curve]
            style.draw_curve(axes, [Point(x, mean, sd) for x, mean, sd in means if mean is not None])
        for axes, (_, of_record) in zip(grid[-1], _LOSSES.items() if sweep.losses else (), strict=False):
            losses = [
                (values.index(stop.value), *stats.mean_sd(list(filter(None, map(of_record, stop.row.records)))))
                for stop in curve
            ]
            style.draw_curve(axes, [Point(x, mean, sd) for x, mean, sd in losses if mean is not None])
    for setting in settings:
        panels = panels_of(setting)
        for axes, domain in zip(panels, domains, strict=True):
            axes.set_title(panel_title(analysis, domain, setting))
            scale_axis(axes, analysis.scale(domain))
        panels[0].set_ylabel(f"Mean {analysis.measure}{analysis.scale(Domain.IN).heading}")
    for axes, label in zip(grid[-1], _LOSSES if sweep.losses else (), strict=False):
        axes.set_title(label)
    if sweep.losses:
        grid[-1, 0].set_ylabel("Loss (nats a token)")
    for axes in figure.axes:
        axes.set_xticks(range(len(values)), [sweep.tick(analysis, value) for value in values])
        axes.set_xlim(-0.4, len(values) - 0.6)
    for axes in grid[-1]:
        axes.set_xlabel(sweep.label.capitalize())
    legend(figure, analysis.recipes, {_leader(analysis, curve).name for curve in curves}, True)
    caption = (
        f"{analysis.measure.capitalize()} along the {sweep.label}, in equal steps whatever the values. "
        f"{points_and_bars([stop.row for curve in curves for stop in curve])} A line joins rows that differ in "
        "nothing else. Scales are the same down a column and do not begin at zero."
    )
    if sweep.losses:
        caption += " Losses, by contrast, are of the answers on the items that were trained on and that were held out."
    drawn = [stop.row for curve in curves for stop in curve]
    return Plot("axis", f"{analysis.measure} along the {sweep.label}", caption, figure, wide=True, rows=drawn)


def _training_loss(record: Record) -> float | None:
    """At the end, over the last tenth of the curve, since the loss of a batch varies with its items."""
    losses = [point.loss for point in record.train_info.curve if point.loss is not None] if record.train_info else []
    return sum(last) / len(last) if (last := losses[-max(1, len(losses) // 10) :]) else None


def _validation_loss(record: Record) -> float | None:
    return record.train_info.final_validation_loss if record.train_info else None


#: Title of a panel -> the loss that it shows, in nats a token.
_LOSSES: dict[str, Callable[[Record], float | None]] = {
    "Training loss at the end": _training_loss,
    "Validation loss at the end": _validation_loss,
}


class _Stop(NamedTuple):
    """A row and the value at which it stands."""

    value: Any
    row: Row


def _curves(analysis: Analysis, sweep: Sweep) -> list[list[_Stop]]:
    """The rows with an in-domain mean, those that differ in the swept value alone together, by value.

    At the chosen learning rates: the others would be a second curve of every recipe.
    """
    curves: dict[str, list[_Stop]] = {}
    for row in analysis.trained:
        value = sweep.value(row)
        if value is not None and row.score is not None and row.condition.rate == "chosen":
            params = {key: param for key, param in row.recipe.params.items() if key not in sweep.params}
            recipe = {**row.recipe.identity, "name": "", "params": params}
            condition = row.condition._replace(**sweep.condition)
            curves.setdefault(canonical([condition, recipe]), []).append(_Stop(value, row))
    return [sorted(curve, key=lambda stop: stop.value) for curve in curves.values()]


def _leader(analysis: Analysis, curve: list[_Stop]) -> Recipe:
    """The recipe that gives a curve its style and title: the study's reference where it is on it, else the first."""
    reference = analysis.study.reference
    return min((stop.row.recipe for stop in curve), key=lambda recipe: (recipe.name != reference, recipe.order))


def _short(analysis: Analysis, value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


@dataclass(frozen=True)
class Sweep:
    """What a study may vary from row to row."""

    label: str
    value: Callable[[Row], Any]  # of a row, to sort by; None for a row that does not stand on the axis
    tick: Callable[[Analysis, Any], str] = _short  # the label of a value
    condition: Mapping[str, Any] = field(default_factory=dict)  # fields of the condition that it sets, made equal
    params: frozenset[str] = frozenset()  # the params of the recipe that it sets
    losses: bool = False  # whether the losses are drawn along it, too


def _model_size(row: Row) -> tuple[int, str] | None:
    """Parameters of the base model, and its name."""
    size = next((record.size for record in row.records if record.size), None)
    return (size.total - size.trainable, row.condition.model) if size and row.ranked else None


def _model_name(analysis: Analysis, value: tuple[int, str]) -> str:
    return str(value[1] or analysis.study.models[0].name).rsplit("/", 1)[-1]


def _coordinates(row: Row) -> Coordinates | None:
    """The place of a mixture in the design space; None for another method's recipe."""
    return Coordinates.of(row.recipe.params) if row.recipe.method == "mixture" else None


def _items(row: Row) -> int | None:
    return row.condition.items or None


def _rank(row: Row) -> int | None:
    return row.budget.rank if isinstance(row.budget, Rank) else None


def _dropout(row: Row) -> float | None:
    """The one rate of a mixture; None, too, where several places are dropped, each at a rate of its own."""
    rates = point.dropouts if (point := _coordinates(row)) else None
    return None if rates is None or len(rates) > 1 else next(iter(rates.values()), 0.0)


def _experts(row: Row) -> str | None:
    return parameter_label(point.experts) if (point := _coordinates(row)) else None


#: By the name that a study gives as its ``axis``.
SWEEPS = {
    "general": Sweep("number of general items mixed in", lambda row: row.condition.general, condition={"general": 0}),
    "items": Sweep("training items of a task", _items, condition={"items": 0}, losses=True),
    "rank": Sweep("rank", _rank, condition={"budget": ""}),
    "model": Sweep("base model", _model_size, _model_name, condition={"model": ""}),
    "dropout": Sweep("dropout ratio", _dropout, params=frozenset({"dropout", "dropout_on"})),
    "experts": Sweep("experts by depth, first layers to last", _experts, params=frozenset({"experts"})),
}
