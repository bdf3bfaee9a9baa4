"""What several figures share: which rows a panel holds, its labels, the legend, and what points and bars stand for."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.figures.style import recipe_styles
from mosld_bench.reporting.labels import named, setting_label, short_label
from mosld_bench.reporting.rows import Row
from mosld_bench.spec.budget import NATIVE
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.trial import Condition, Domain

#: In place of a figure of means, where there are none; the beginning is to be put in.
UNLIKE = "{}: the in-domain tasks are scored on unlike scales, over which no mean is taken."

_LEGEND_CHARACTERS = 60  # of a line of a title in a legend
_TWO_ROWS_INCHES = 0.4  # height of a legend of two rows
_MOST_PARTS = 6  # of the sentence that names what is not drawn


class Panel(NamedTuple):
    """The rows that one panel shows."""

    condition: Condition
    rows: list[Row]


def first_blocks(analysis: Analysis) -> list[Panel]:
    """For every setting its first block with records (of equal size, if one is).

    Full fine-tuning, which no budget gives its size, stands beside it.
    """
    panels: dict[str, Panel] = {}
    for condition, rows in analysis.blocks():
        native = [r for r in analysis.trained if r.condition == condition._replace(budget=NATIVE) and r not in rows]
        full = [row for row in native if row.recipe.method == "full"]
        recorded = [row for row in full + rows if row.records]
        if recorded:
            panels.setdefault(condition.setting, Panel(condition, recorded))
    return list(panels.values())


def offset(place: int, places: int) -> float:
    """How far from the middle of its task a row is drawn: at most 0.1 of a task's width to the next row."""
    return min(0.1, 0.8 / places) * (place - (places - 1) / 2)


def legend(figure: Figure, recipes: Sequence[Recipe], shown: Container[str], line: bool) -> None:
    """One legend below the panels: those of all ``recipes`` whose names are ``shown``, in their order.

    It has as many rows as it takes to be no wider than the figure, which grows by those beyond the first two.
    ``line``: with the line of a recipe as well as its marker.
    """
    styles = recipe_styles(recipes)
    drawn = [recipe for recipe in recipes if recipe.name in styles and recipe.name in shown]
    handles = [
        Line2D(
            [],
            [],
            color=styles[recipe.name].colour,
            marker=styles[recipe.name].marker,
            linestyle=styles[recipe.name].line if line else "none",
            markersize=4,
            linewidth=1,
        )
        for recipe in drawn
    ]
    labels = [wrapped(recipe.title, _LEGEND_CHARACTERS) for recipe in drawn]
    rows = 1 if len(labels) <= 8 else 2
    while True:
        drawn_legend = figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=max(1, -(-len(labels) // rows)),
            columnspacing=1.2,
            handletextpad=0.4,
            handlelength=2.2 if line else 1.2,
        )
        extent = drawn_legend.get_window_extent()
        if rows >= len(labels) or extent.width <= figure.bbox.width:
            break
        drawn_legend.remove()
        rows += 1
    figure.set_figheight(figure.get_figheight() + max(0.0, extent.height / figure.dpi - _TWO_ROWS_INCHES))


def points_and_bars(rows: Sequence[Row]) -> str:
    """The sentence of a caption that says what the points and bars of ``rows`` stand for."""
    single = [len(row.by_seed()) == 1 for row in rows if row.by_seed()]
    if all(single):
        return "Every point is one seed, so there are no bars."
    text = "Points are means over seeds, bars one sample standard deviation"
    return f"{text}; a point without a bar is one seed." if any(single) else f"{text}."


def not_drawn(analysis: Analysis, drawn: Sequence[Row]) -> str:
    """The sentence that names the recorded trained rows that are not ``drawn``; empty where all are.

    A condition of which none is drawn is named as a whole.
    """
    keys = {row.key for row in drawn}
    left = [row for row in analysis.trained if row.records and row.key not in keys]
    conditions = {row.condition for row in drawn}
    parts = []
    for condition in dict.fromkeys(row.condition for row in left):
        titles = [row.recipe.title for row in left if row.condition == condition]
        part = short_label(condition)
        whole = condition not in conditions and len(titles) > 1
        parts.append(part if whole else f"{named(titles)} ({part})")
    shown = parts if len(parts) <= _MOST_PARTS else [*parts[: _MOST_PARTS - 1], f"{len(parts) - _MOST_PARTS + 1} more"]
    return f"Not drawn, but in the tables: {'; '.join(shown)}." if parts else ""


def panel_title(analysis: Analysis, domain: Domain, setting: str) -> str:
    """'Out-of-domain, mixture', and what is measured where it is not what the label of the first panel says."""
    scale = analysis.scale(domain)
    other = f"{scale.metric or 'score'}{scale.heading}" if scale != analysis.scale(Domain.IN) else ""
    return f"{domain.label}, {setting_label(setting)}{f': {other}' if other else ''}"


def panel_label(condition: Condition) -> str:
    """The condition of a panel's rows, as a sentence begins."""
    label = short_label(condition)
    return label[:1].upper() + label[1:]


def wrapped(text: str, width: int) -> str:
    """``text`` in lines of about ``width`` characters; a word is never broken, and one of twice the width is cut."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(line if len(line) <= 2 * width else line[: 2 * width - 1] + "…" for line in lines)
