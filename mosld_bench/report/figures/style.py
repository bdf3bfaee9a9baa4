"""How figures look: type, sizes, and the marker, colour and line of each recipe, legible in grey too."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import Formatter, MaxNLocator

from mosld_bench.report.labels import short_label
from mosld_bench.report.rows import Row
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.trial import Condition

COLUMN, PAGE = 3.33, 6.93  # inches: the width of a column and of the type area

FONT = "STIXGeneral"  # comes with matplotlib; the report sets the same text in its own face

STYLE = {
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
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.5,
    "axes.unicode_minus": True,
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "mosld-bench",
    "savefig.dpi": 160,
    "text.parse_math": False,
}

# Okabe and Ito's colours and two of Tol's, ordered so that neighbours differ in lightness.
COLOURS = ("#7F7F7F", "#E69F00", "#000000", "#56B4E9", "#0072B2", "#009E73", "#CC79A7", "#D55E00", "#882255", "#999933")

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "*")

LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (3, 1, 1, 1, 1, 1)))


@dataclass(frozen=True)
class Look:
    marker: str
    colour: str
    line: Any


def looks(recipes: Sequence[Recipe]) -> dict[str, Look]:
    """Recipe name -> its look, by order; markers, colours and lines repeat at different periods."""
    return {
        recipe.name: Look(MARKERS[i % len(MARKERS)], COLOURS[i % len(COLOURS)], LINES[i % len(LINES)])
        for i, recipe in enumerate(recipe for recipe in recipes if recipe.method != "base")
    }


@dataclass(frozen=True)
class Plot:
    """A drawn figure: its name (and its files'), what it tells ('Figure 1 shows ...'), caption, width, place."""

    name: str
    tells: str
    caption: str
    figure: Figure
    wide: bool = False
    section: str = "Results"  # of the report


@contextmanager
def style() -> Iterator[None]:
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        yield


def save(plot: Plot, folder: Path) -> None:
    """Write ``NAME.pdf`` and ``NAME.png``; the same analysis gives the same bytes."""
    with style():
        plot.figure.savefig(folder / f"{plot.name}.pdf", metadata={"CreationDate": None})
        plot.figure.savefig(folder / f"{plot.name}.png", metadata={"Software": None})


def save_svg(plot: Plot, path: Path, face: str) -> None:
    """Write an SVG whose text stays text, in the typeface ``face`` of the document that takes it up."""
    with style():
        plot.figure.savefig(path, format="svg", metadata={"Date": None})
    path.write_text(path.read_text(encoding="utf-8").replace(FONT, face), encoding="utf-8")


class _Percent(Formatter):
    """Fractions as per cent, with the decimals that tell neighbouring ticks apart."""

    def __call__(self, value: float, _: int | None = None) -> str:
        return self.format_ticks([value])[0]

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        gaps = [100 * (high - low) for low, high in pairwise(sorted(values)) if high > low]
        decimals = max(0, math.ceil(-math.log10(min(gaps)) - 1e-6)) if gaps else 1
        return [f"{round(100 * value, decimals) + 0.0:.{decimals}f}".replace("-", "−") for value in values]


def bar(sd: float | None) -> float:
    """The half-length of an error bar; none is drawn where there is no standard deviation."""
    return math.nan if sd is None else sd


def spread_told(rows: Sequence[Row]) -> str:
    """What the points and bars of a figure stand for."""
    single = [len(row.by_seed()) == 1 for row in rows if row.by_seed()]
    if all(single):
        return "Every point is one seed, so there are no bars."
    text = "Points are means over seeds, bars one sample standard deviation"
    return f"{text}; a point without a bar is one seed." if any(single) else f"{text}."


def percent_axis(axes: Axes, which: str = "y") -> None:
    axis = axes.yaxis if which == "y" else axes.xaxis
    axis.set_major_locator(MaxNLocator("auto", steps=(1, 2, 5, 10)))
    axis.set_major_formatter(_Percent())


def legend(figure: Figure, recipes: Sequence[Recipe], shown: Container[str], line: bool) -> None:
    """One legend below the panels: those of all ``recipes`` whose names are ``shown``, in their order."""
    look = looks(recipes)
    drawn = [recipe for recipe in recipes if recipe.name in look and recipe.name in shown]
    handles = [
        Line2D(
            [],
            [],
            color=look[recipe.name].colour,
            marker=look[recipe.name].marker,
            linestyle=look[recipe.name].line if line else "none",
            markersize=4,
            linewidth=1,
        )
        for recipe in drawn
    ]
    labels = [recipe.title for recipe in drawn]
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=max(1, len(labels)) if len(labels) <= 8 else -(-len(labels) // 2),
        columnspacing=1.2,
        handletextpad=0.4,
        handlelength=2.2 if line else 1.2,
    )


def panel_label(block: Condition) -> str:
    label = short_label(block)
    return label[:1].upper() + label[1:]


def broken(text: str, width: int) -> str:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(line if len(line) <= 2 * width else line[: 2 * width - 1] + "…" for line in lines)
