"""Figure: training on the mixture against training on each task alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.figures.panels import legend, offset, wrapped
from mosld_bench.reporting.figures.plot import Plot
from mosld_bench.reporting.figures.style import PAGE_INCHES, RULE_COLOUR, RULE_POINTS, recipe_styles, scale_axis
from mosld_bench.reporting.rows import Row
from mosld_bench.reporting.stats import Estimate
from mosld_bench.spec.budget import NATIVE
from mosld_bench.spec.trial import Domain

_MOST_UPRIGHT = 9  # tasks; the titles of more are turned


class _Pair(NamedTuple):
    """The two rows of a recipe that differ in the setting alone."""

    mixture: Row
    single: Row


def draw(analysis: Analysis) -> Plot | str:
    """Mixture minus single by in-domain task, paired by seed, at the first budget that has both settings."""
    pairs = _pairs(analysis)
    if pairs and analysis.unlike(Domain.IN):
        return (
            "Mixture and single training are not drawn against each other: the in-domain tasks are scored on unlike "
            "scales, which have no axis in common."
        )
    if not pairs:
        return "Mixture and single training are not compared: the records hold one of the two settings only."
    conditions = {pair.mixture.condition for pair in pairs}
    first = next(condition for condition, _ in analysis.blocks() if condition in conditions)
    pairs = [pair for pair in pairs if pair.mixture.condition in (first, first._replace(budget=NATIVE))]
    figure = Figure(figsize=(PAGE_INCHES, 2.15), layout="constrained")
    axes = figure.subplots()
    _draw_pairs(axes, analysis, pairs)
    _task_axis(axes, analysis)
    legend(figure, analysis.recipes, {pair.mixture.recipe.name for pair in pairs}, False)
    spec, measure = analysis.study.train, analysis.measure
    confounder = "exposure" if spec is not None and spec.steps is not None else "the number of steps"
    caption = (
        f"{measure.capitalize()} after training on the mixture minus {measure} after training on the task alone, where "
        f"every task has an adapter of that size to itself ({first.budget.label}; rows of fixed size as "
        f"they are); {_common_seeds(analysis, pairs)}. The two differ in {confounder} as well; see Exposure."
    )
    drawn = [row for pair in pairs for row in pair]
    return Plot("settings", "the mixture against single tasks", caption, figure, wide=True, rows=drawn)


def _pairs(analysis: Analysis) -> list[_Pair]:
    """Rows of equal recipe and condition, but for the setting, that have records."""
    recorded = [row for row in analysis.trained if row.records]
    return [
        _Pair(row, other)
        for row in recorded
        for other in recorded
        if (row.setting, other.condition) == ("mixture", row.condition._replace(setting="single"))
        and row.recipe.name == other.recipe.name
    ]


def _draw_pairs(axes: Axes, analysis: Analysis, pairs: Sequence[_Pair]) -> None:
    """For every task a marker a recipe on its interval, or on a stem from zero where it has none."""
    styles = recipe_styles(analysis.recipes)
    for i, pair in enumerate(pairs):
        style, shift = styles[pair.mixture.recipe.name], offset(i, len(pairs))
        for x, task in enumerate(analysis.study.in_domain):
            delta = _difference(analysis, pair, task)
            if delta is not None:
                low, high = (0.0, delta.mean) if delta.low is None or delta.high is None else (delta.low, delta.high)
                axes.vlines(x + shift, low, high, color=style.colour, linewidth=0.8)
                axes.plot(x + shift, delta.mean, marker=style.marker, color=style.colour, markersize=3.6)


def _difference(analysis: Analysis, pair: _Pair, task: str) -> Estimate | None:
    return analysis.evidence.between_settings(pair.mixture, pair.single, task)


def _task_axis(axes: Axes, analysis: Analysis) -> None:
    tasks = analysis.study.in_domain
    axes.axhline(0, color=RULE_COLOUR, linewidth=RULE_POINTS)
    axes.grid(False, axis="x")
    axes.set_xticks(range(len(tasks)), [wrapped(analysis.title(task), 14) for task in tasks])
    if len(tasks) > _MOST_UPRIGHT:
        axes.tick_params(axis="x", labelrotation=90)
    axes.tick_params(axis="x", length=0)
    scale = analysis.scale(Domain.IN)
    unit = f" ({scale.points.strip()})" if scale.points else ""
    axes.set_ylabel(f"Mixture minus single{unit}{'' if scale.higher_is_better else '; lower is better'}")
    scale_axis(axes, scale)


def _common_seeds(analysis: Analysis, pairs: Sequence[_Pair]) -> str:
    """'mean over 1 to 3 common seeds with its 95 % interval'."""
    seeds = sorted({len(pair.mixture.by_seed().keys() & pair.single.by_seed().keys()) for pair in pairs})
    low, high = seeds[0], seeds[-1]
    deltas = [_difference(analysis, pair, task) for pair in pairs for task in analysis.study.in_domain]
    known = [delta.low is not None for delta in deltas if delta is not None]
    over = "the one common seed" if high <= 1 else f"{high if low == high else f'{low} to {high}'} common seeds"
    if not any(known):
        return f"mean over {over}, without intervals"
    text = f"mean over {over} with its 95 % interval"
    text += ", over items alone, of these trained models" if high <= 1 else ""
    return text if all(known) else f"{text}, or on a stem from zero where it has none"
