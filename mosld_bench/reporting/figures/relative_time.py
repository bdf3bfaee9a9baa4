"""Figure: the time that each method takes relative to the frozen base, from a profile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mosld_bench.format import counted
from mosld_bench.records.profile import Entry, Phase
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.figures.plot import Plot
from mosld_bench.reporting.figures.style import PAGE_INCHES, RULE_COLOUR, RULE_POINTS, recipe_styles, rows_axis
from mosld_bench.reporting.sections.profile import TITLE, against
from mosld_bench.spec.recipe import Recipe


class _Panel(NamedTuple):
    phase: Phase
    title: str
    label: str  # of the axis


def draw(analysis: Analysis) -> Plot | None:
    """Time of prompt and decoding relative to the frozen base, of training relative to the reference.

    None where no profile was made, or none of recipes as they are now.
    """
    profile = analysis.profile
    if profile is None or not (entries := profile.current(analysis.recipes)):
        return None
    compared = [entry for entry in entries if entry.recipe.method != "base"]
    panels = [_Panel("prompt", "Prompt", "× base"), _Panel("decode", "Decoding", "× base")]
    if reference := profile.entry(profile.reference):
        panels.append(_Panel("train", "Training", f"× {reference.recipe.title}"))
    figure = Figure(figsize=(PAGE_INCHES, 0.165 * len(compared) + 0.7), layout="constrained")
    styles = recipe_styles(_palette(analysis, entries))
    for axes, panel in zip(figure.subplots(1, len(panels), sharey=True), panels, strict=True):
        for y, entry in enumerate(compared):
            if ratio := profile.relative(entry, panel.phase):
                style = styles[entry.recipe.name]
                style.draw_interval(axes, y=y, low=ratio.low, middle=ratio.median, high=ratio.high)
        axes.axvline(1, color=RULE_COLOUR, linewidth=RULE_POINTS)
        rows_axis(axes, [entry.recipe.title for entry in compared])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        axes.xaxis.set_major_locator(MaxNLocator(3, steps=(1, 2, 5, 10)))
        axes.margins(x=0.12)
        axes.set_title(panel.title)
        axes.set_xlabel(panel.label)
    caption = (
        f"Time {against(profile)}: median over {counted(profile.load.rounds, 'round')} of the quotient within "
        f"a round, and its range; {profile.model.name}, {profile.dtype}, {profile.device_label}. Left is faster. "
        "The axes do not begin at zero."
    )
    return Plot("relative-time", "the time that a method takes", caption, figure, wide=True, section=TITLE)


def _palette(analysis: Analysis, entries: Sequence[Entry]) -> list[Recipe]:
    """The recipes of the report first, so that each looks as it does elsewhere, then those of the profile alone."""
    known = {recipe.name: recipe for recipe in analysis.recipes}
    return [*known.values(), *(entry.recipe for entry in entries if entry.recipe.name not in known)]
