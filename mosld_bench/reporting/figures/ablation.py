"""Figure: the values of every factor minus the row that the ablations are around, a panel a block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mosld_bench.reporting.ablation import Factor, Level, ablated_blocks, factors
from mosld_bench.reporting.analysis import Analysis, Verdict
from mosld_bench.reporting.figures.panels import UNLIKE, panel_label
from mosld_bench.reporting.figures.plot import Plot
from mosld_bench.reporting.figures.style import BAND_COLOUR, COLOURS, PAGE_INCHES, RULE_COLOUR, RULE_POINTS, scale_axis
from mosld_bench.reporting.labels import margin_label
from mosld_bench.reporting.stats import Basis
from mosld_bench.spec.trial import Condition, Domain

_LINE_INCHES = 0.145  # height of a value, or of a factor's title
_FRAME_INCHES = 0.75
_MOST_PANELS = 3
_VERDICTS = {Verdict.BETTER: COLOURS[4], Verdict.WORSE: COLOURS[7]}  # other values are black


class _Line(NamedTuple):
    """A line of the forest: a factor's title, or one of its values."""

    title: str
    factor: str
    value: bool


def draw(analysis: Analysis) -> Plot | str | None:
    """A forest a block, factor by factor, in-domain; None for a study without ablations."""
    if analysis.study.ablate is None:
        return None
    if analysis.unlike(Domain.IN):
        return UNLIKE.format("Ablations are not drawn")
    found = {block: factors(analysis, block) for block in ablated_blocks(analysis)[:_MOST_PANELS]}
    if not found:
        return f"No block has {analysis.study.ablate.around} beside its ablations yet, so these are not drawn."
    lines = _lines([factor for of_block in found.values() for factor in of_block])
    figure = Figure(figsize=(PAGE_INCHES, _LINE_INCHES * len(lines) + _FRAME_INCHES), layout="constrained")
    grid = figure.subplots(1, max(2, len(found)), squeeze=False, sharey=True, sharex=True)[0]
    for axes in grid[len(found) :]:
        axes.set_visible(False)
    for axes, (block, of_block) in zip(grid, found.items(), strict=False):
        _draw_panel(axes, analysis, block, of_block, lines)
    _label_lines(grid[0], lines)
    levels = [level for of_block in found.values() for factor in of_block for level in factor.levels]
    title = next(level.row.recipe.title for level in levels if level.own)
    scale = analysis.scale(Domain.IN)
    unit = f" ({scale.points.strip()})" if scale.points else ""
    side = "right" if scale.higher_is_better else "left"
    figure.supxlabel(f"Minus {title}, in-domain{unit}; {side} is better", fontsize=8)
    return Plot(
        "ablation-forest",
        "the ablations",
        _caption(analysis, title, levels),
        figure,
        wide=True,
        section="Ablations",
        early=True,
    )


def _lines(found: Sequence[Factor]) -> list[_Line]:
    """The lines from top to bottom: every factor's title and below it its values, of whichever block has them."""
    by_factor: dict[str, dict[str, None]] = {}
    for factor in found:
        by_factor.setdefault(factor.title, {}).update(dict.fromkeys(level.label for level in factor.levels))
    return [
        line
        for title, labels in by_factor.items()
        for line in (_Line(title, title, False), *(_Line(label, title, True) for label in labels))
    ]


def _draw_panel(
    axes: Axes, analysis: Analysis, block: Condition, found: Sequence[Factor], lines: Sequence[_Line]
) -> None:
    levels = {(factor.title, level.label): level for factor in found for level in factor.levels}
    scale = analysis.scale(Domain.IN)
    if (margin := scale.margin(analysis.study.margin)) is not None:
        axes.axvspan(-margin, margin, color=BAND_COLOUR, linewidth=0, zorder=0)
    axes.axvline(0, color=RULE_COLOUR, linewidth=RULE_POINTS, zorder=1)
    for y, line in enumerate(lines):
        if line.value and (level := levels.get((line.factor, line.title))):
            _draw_level(axes, y, level)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_title(panel_label(block), loc="left")
    scale_axis(axes, scale, "x")


def _label_lines(axes: Axes, lines: Sequence[_Line]) -> None:
    """The titles of factors, in italics, and of values along y, which all panels share."""
    titles = [line.title if line.value else line.title[0].upper() + line.title[1:] for line in lines]
    axes.set_yticks(range(len(lines)), titles)
    for label, line in zip(axes.get_yticklabels(), lines, strict=True):
        label.set_fontstyle("normal" if line.value else "italic")
    axes.set_ylim(len(lines) - 0.4, -0.6)


def _draw_level(axes: Axes, y: int, level: Level) -> None:
    """The difference with its interval; the row itself as a diamond at 0."""
    if level.own:
        axes.plot(0, y, marker="D", color=RULE_COLOUR, markerfacecolor="white", markersize=4)
    if level.comparison is None:
        return
    delta = level.comparison.difference
    colour = _VERDICTS.get(level.comparison.verdict, "#000000")
    if delta.low is not None and delta.high is not None:
        style = ":" if delta.basis is Basis.MODELS else "-"
        axes.plot([delta.low, delta.high], [y, y], color=colour, linewidth=1.2, linestyle=style)
    face = colour if level.comparison.separated else "white"
    axes.plot(delta.mean, y, marker="o", color=colour, markerfacecolor=face, markersize=4)


def _caption(analysis: Analysis, title: str, levels: Sequence[Level]) -> str:
    comparisons = [level.comparison for level in levels if level.comparison]
    text = (
        f"One factor at a time around {title}, in-domain: every value minus {title} (diamond) in its block, with the "
        "95 % interval over seeds and items"
    )
    if any(c.margin is not None for c in comparisons):
        text += f"; the band is the margin of ±{margin_label(analysis.study.margin)}"
    if any(c.separated for c in comparisons):
        text += ". Filled: told apart after Holm's correction over the values of the factor; hollow: not told apart."
    else:
        text += ". No value is told apart."
    if any(c.difference.basis is Basis.MODELS and c.difference.low is not None for c in comparisons):
        text += " Dotted: over items alone, of these trained models."
    return text
