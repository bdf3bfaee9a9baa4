"""Figure: the validation loss of every method against its learning rate, from the study's search."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.figures.plot import Plot
from mosld_bench.reporting.figures.style import GRID_COLOUR, PAGE_INCHES, RecipeStyle, recipe_styles
from mosld_bench.reporting.sections.tuning import TITLE, tuned_recipes
from mosld_bench.spec.tuning import TunedRecipe

_ACROSS = 4  # panels side by side
_PANEL_INCHES = 1.25
_MOST_ABOVE = 0.1  # of the lowest loss that another may lie above it and still be in sight
_NOISES = 8  # or as many times the noise, if that is more


def draw(analysis: Analysis) -> Plot | None:
    """A panel a method: its loss at every factor, mean over seeds and each seed; None for a study without a search."""
    tuning = analysis.study.tuning
    recipes = tuned_recipes(analysis)
    if tuning is None or not recipes:
        return None
    across = min(_ACROSS, len(recipes))
    lines = math.ceil(len(recipes) / across)
    figure = Figure(figsize=(PAGE_INCHES, _PANEL_INCHES * lines + 0.35), layout="constrained")
    grid = list(figure.subplots(lines, across, squeeze=False, sharex=True).flat)
    styles, titles = recipe_styles(analysis.recipes), {recipe.name: recipe.title for recipe in analysis.recipes}
    for axes in grid[len(recipes) :]:
        axes.set_visible(False)
    for axes, (name, found) in zip(grid, recipes.items(), strict=False):
        _draw_panel(axes, found, tuning.noise, styles[name])
        axes.set_title(titles[name], loc="left")
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(FixedLocator(tuning.factors[:: math.ceil(len(tuning.factors) / 6)]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.tick_params(labelbottom=True)
    rate = analysis.study.train.learning_rate if analysis.study.train else 1.0
    figure.supxlabel(f"Factor on the learning rate of {rate:g}", fontsize=8)
    figure.supylabel("Validation loss (nats a token)", fontsize=8)
    caption = (
        "Validation loss against the learning rate in the search: the line is the mean over seeds, small points are "
        "the seeds; filled: the factor that was chosen, hollow: the next best. "
        + ("" if tuning.noise is None else "Band: the noise of a pair above the lowest mean. ")
        + "Crosses: runs that were stopped, at their last loss, or at the upper edge where that is out of sight."
    )
    return Plot("learning-rates", "the search for learning rates", caption, figure, wide=True, section=TITLE)


def _draw_panel(axes: Axes, found: TunedRecipe, noise: float | None, style: RecipeStyle) -> None:
    means = dict(sorted(found.means().items()))
    ended = [(run.factor, run.loss) for run in found.runs if run.loss is not None]
    low, high = _sight(list(means.values()), [loss for _, loss in ended], noise)
    if noise is not None:
        axes.axhspan(min(means.values()), min(means.values()) + noise, color=GRID_COLOUR, linewidth=0, zorder=0)
    axes.plot(list(means), list(means.values()), color=style.colour, linewidth=0.9)
    axes.plot(*zip(*ended, strict=True), linestyle="none", marker=".", color=style.colour, markersize=2.5)
    for factor, face in ((found.runner_up, "white"), (found.chosen, style.colour)):
        if factor is not None:
            axes.plot(
                factor, means[factor], marker=style.marker, color=style.colour, markerfacecolor=face, markersize=4.5
            )
    for run in found.runs:
        if run.loss is None:
            last = run.losses[-1] if run.losses and math.isfinite(run.losses[-1]) else high
            axes.plot(run.factor, min(last, high), marker="x", color=style.colour, markersize=3.5, clip_on=False)
    axes.set_ylim(low, high)


def _sight(means: Sequence[float], losses: Sequence[float], noise: float | None) -> tuple[float, float]:
    """The ends of the axis: around the lowest loss and the next, without what lies far above them."""
    lowest, *others = sorted(means)
    room = max(_MOST_ABOVE * lowest, _NOISES * (noise or 0.0), *(1.05 * (loss - lowest) for loss in others[:1]), 0.0)
    span = min(max([*means, *losses]), lowest + room) - lowest or room or 1.0
    return min([lowest, *losses]) - 0.08 * span, lowest + 1.15 * span
