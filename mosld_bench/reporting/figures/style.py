"""How figures look: type, sizes, percent ticks, and each recipe's marker, colour and line, legible in grey too.

Drawn with Agg alone: no pyplot, and no settings changed outside `report_style`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.ticker import Formatter, MaxNLocator

from mosld_bench.records.scale import Scale
from mosld_bench.spec.recipe import Recipe

PAGE_INCHES = 6.93  # width of its type area, two columns

FONT = "STIXGeneral"  # comes with matplotlib; the report sets the same text in its own face

GRID_COLOUR = "#e4e4e4"
RULE_COLOUR = "#555555"  # zero, chance, the frozen base
BAND_COLOUR = "#ececec"  # the margin within which rows are equal
RULE_POINTS = 0.8  # width of such a line

SETTINGS: dict[Any, Any] = {
    "font.family": FONT,
    "mathtext.fontset": "stix",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID_COLOUR,
    "grid.linewidth": 0.5,
    "axes.unicode_minus": True,
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "mosld-bench",
    "savefig.dpi": 160,
    "text.parse_math": False,
}  # matplotlib's names; sizes and widths in points

# Okabe and Ito's colours and two of Tol's, ordered so that neighbours differ in lightness.
COLOURS = ("#7F7F7F", "#E69F00", "#000000", "#56B4E9", "#0072B2", "#009E73", "#CC79A7", "#D55E00", "#882255", "#999933")

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "*")

LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (3, 1, 1, 1, 1, 1)))


@contextmanager
def report_style() -> Iterator[None]:
    """Draw or save with the settings of the report's figures; what was set before comes back."""
    with matplotlib.rc_context(SETTINGS):
        yield


class Point(NamedTuple):
    """A mean on its place along x; ``sd``, its standard deviation over seeds, is None for a single seed."""

    x: float
    mean: float
    sd: float | None


@dataclass(frozen=True)
class RecipeStyle:
    """What tells a recipe's points and lines from those of others, in every figure of a report."""

    marker: str
    colour: str
    line: Any  # a line style of matplotlib

    def draw_curve(self, axes: Axes, points: Iterable[Point]) -> None:
        """Points joined by a line, each with a bar of one standard deviation where there is one."""
        drawn = list(points)
        axes.errorbar(
            [point.x for point in drawn],
            [point.mean for point in drawn],
            [bar_length(point.sd) for point in drawn],
            color=self.colour,
            marker=self.marker,
            linestyle=self.line,
            markersize=4,
            linewidth=0.9,
            elinewidth=0.7,
            capsize=1.5,
        )

    def draw_interval(
        self,
        axes: Axes,
        *,
        y: float,
        low: float | None,
        middle: float,
        high: float | None,
        filled: bool = True,
        dotted: bool = False,
    ) -> None:
        """A marker at ``middle``, on the height ``y``, and a line from ``low`` to ``high`` where both are given."""
        if low is not None and high is not None:
            axes.plot([low, high], [y, y], color=self.colour, linewidth=1.2, linestyle=":" if dotted else "-")
        face = self.colour if filled else "white"
        axes.plot(middle, y, marker=self.marker, color=self.colour, markerfacecolor=face, markersize=4.5)


def recipe_styles(recipes: Sequence[Recipe]) -> dict[str, RecipeStyle]:
    """Recipe name -> its style, by order; markers, colours and lines repeat at different periods.

    The frozen base has none: it is drawn as a rule.
    """
    trained = [recipe for recipe in recipes if recipe.method != "base"]
    return {
        recipe.name: RecipeStyle(MARKERS[i % len(MARKERS)], COLOURS[i % len(COLOURS)], LINES[i % len(LINES)])
        for i, recipe in enumerate(trained)
    }


def bar_length(sd: float | None) -> float:
    """Half the length of an error bar; NaN, which draws none, where there is no standard deviation."""
    return math.nan if sd is None else sd


class _Scaled(Formatter):
    """Values as their scale prints them (shares in per cent), with the decimals that tell neighbouring ticks apart."""

    def __init__(self, scale: Scale) -> None:
        self._factor = scale.factor

    def __call__(self, value: float, _: int | None = None) -> str:
        return self.format_ticks([value])[0]

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        gaps = [self._factor * (high - low) for low, high in pairwise(sorted(values)) if high > low]
        decimals = max(0, math.ceil(-math.log10(min(gaps)) - 1e-6)) if gaps else 1
        if self._factor * max(map(abs, values), default=0.0) >= 1e6:  # an overflowing perplexity
            return [f"{self._factor * value:.3g}".replace("-", "−") for value in values]
        return [f"{round(self._factor * value, decimals) + 0.0:.{decimals}f}".replace("-", "−") for value in values]


def scale_axis(axes: Axes, scale: Scale, which: Literal["x", "y"] = "y") -> None:
    """Label an axis of values, or of differences, as their scale prints them, at round numbers."""
    axis = axes.yaxis if which == "y" else axes.xaxis
    axis.set_major_locator(MaxNLocator("auto", steps=(1, 2, 5, 10)))
    axis.set_major_formatter(_Scaled(scale))


def rows_axis(axes: Axes, titles: Sequence[str]) -> None:
    """Label y with one title a row, the first on top, without ticks and rules."""
    axes.set_yticks(range(len(titles)), titles)
    axes.set_ylim(len(titles) - 0.4, -0.6)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
