"""Figure: the cells of a factorial, a line a level of the first factor; lines that are parallel do not interact."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mosld_bench.reporting import stats
from mosld_bench.reporting.ablation import Cell, cells, crossed_blocks, factor_titles
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.figures.panels import panel_label
from mosld_bench.reporting.figures.plot import Plot
from mosld_bench.reporting.figures.style import COLOURS, LINES, MARKERS, PAGE_INCHES, bar_length, scale_axis
from mosld_bench.spec.trial import Condition, Domain

_COLOURS = (COLOURS[4], COLOURS[7], *COLOURS[:4])
_APART = 0.05  # of the distance of two levels, that lines are shifted by so that their bars do not lie on each other


def draw(analysis: Analysis) -> Plot | str | None:
    """A panel a block and domain, the last factor's levels along x; None for a study without a factorial."""
    if analysis.study.factorial is None:
        return None
    blocks, domains = crossed_blocks(analysis), analysis.averaged()
    if not blocks or not domains:
        return "No block has all cells of the factorial yet, so it is not drawn."
    panels = [(block, domain) for block in blocks for domain in domains]
    across = len(domains) if len(blocks) > 2 else len(panels)
    down = math.ceil(len(panels) / across)
    figure = Figure(figsize=(PAGE_INCHES, 1.85 * down + 0.3), layout="constrained")
    grid = list(figure.subplots(down, across, squeeze=False).flat)
    for axes, (block, domain) in zip(grid, panels, strict=True):
        _draw_panel(axes, analysis, block, domain)
        axes.set_title(f"{domain.label}\n{panel_label(block)}", loc="left")
    grid[0].set_ylabel(f"Mean {analysis.measure}{analysis.scale(domains[0]).heading}")
    *first, _ = factor_titles(analysis)
    figure.legend(
        *grid[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=6,
        title=", ".join(first).capitalize(),
        title_fontsize=7.5,
    )
    caption = (
        "The cells of the factorial: mean over seeds; bars: 95 % by the seed noise of the block's rows, without what a "
        "seed does to all of them alike. Parallel lines: the factors' effects add up. Scales do not begin at zero."
    )
    return Plot(
        "factorial-lines", "the cells of the factorial", caption, figure, wide=True, section="Ablations", early=True
    )


def _draw_panel(axes: Axes, analysis: Analysis, block: Condition, domain: Domain) -> None:
    members = cells(analysis, block)
    lines = [(", ".join(key), list(of_line)) for key, of_line in groupby(members, key=lambda cell: cell.labels[:-1])]
    for i, (label, of_line) in enumerate(lines):
        shift = _APART * (i - (len(lines) - 1) / 2)
        axes.errorbar(
            [x + shift for x in range(len(of_line))],
            [_mean(cell, domain) for cell in of_line],
            [_half_width(analysis, block, cell, domain) for cell in of_line],
            label=label,
            color=_COLOURS[i % len(_COLOURS)],
            marker=MARKERS[i % len(MARKERS)],
            linestyle=LINES[i % len(LINES)],
            markersize=4,
            linewidth=1.0,
            elinewidth=0.8,
            capsize=1.5,
        )
    labels = _last_labels(members)
    axes.set_xticks(range(len(labels)), labels)
    axes.set_xlim(-0.35, len(labels) - 0.65)
    axes.set_xlabel(factor_titles(analysis)[-1].capitalize())
    scale_axis(axes, analysis.scale(domain))


def _last_labels(members: Sequence[Cell]) -> list[str]:
    return list(dict.fromkeys(cell.labels[-1] for cell in members))


def _mean(cell: Cell, domain: Domain) -> float:
    mean, _ = cell.row.mean_sd(domain)
    return math.nan if mean is None else mean


def _half_width(analysis: Analysis, block: Condition, cell: Cell, domain: Domain) -> float:
    """t √(MS / S) of a cell; NaN, which draws no bar, where the seeds do not tell the noise."""
    noise, seeds = analysis.evidence.seed_noise(analysis.pool(block), domain), len(cell.row.by_seed(domain))
    known = noise is not None and seeds > 0
    return bar_length(
        stats.t_half_width(math.sqrt(noise.mean_square / seeds), noise.freedom) if known and noise else None
    )
