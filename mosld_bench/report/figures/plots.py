"""Figures: each function draws one figure from the analysis, or says in a sentence why there is none.

Agg only, no pyplot, no global state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise, product

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from mosld_bench.format import short_count
from mosld_bench.report import stats
from mosld_bench.report.analysis import Analysis, Comparison, Row
from mosld_bench.report.figures import sweep as axis
from mosld_bench.report.figures.style import (
    COLUMN,
    PAGE,
    Plot,
    bar,
    broken,
    legend,
    looks,
    panel_label,
    percent_axis,
    spread_told,
    style,
)
from mosld_bench.report.sections import profile as profile_section
from mosld_bench.report.sections.results import KINDS
from mosld_bench.report.table import setting_label
from mosld_bench.spec.budget import NATIVE
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.trial import Condition


def draw_all(analysis: Analysis) -> list[Plot | str]:
    """Every figure, or the sentence that stands in its place; of a study that trains nothing, the profile's alone."""
    with style():
        scored = [FIGURES[name](analysis) for name in analysis.study.figures] if analysis.study.trains else []
        return [*scored, profile_section.relative_time(analysis)]


def size(analysis: Analysis) -> Plot | str:
    """Accuracy against trainable parameters: a row of panels for every setting, in- and out-of-domain."""
    amounts = min((row.block.general for row in analysis.trained), default=0)
    scored = [row for row in analysis.trained if row.score is not None and row.trainable]
    rows = [row for row in scored if row.block.general == amounts]
    if not rows:
        return "No trained row has all of its in-domain tasks yet, so nothing is drawn against size."
    kinds = ["in_domain", *(["out_of_domain"] if analysis.study.out_of_domain else [])]
    settings = [setting for setting in analysis.settings if any(row.setting == setting for row in rows)]
    figure = Figure(figsize=(PAGE, 1.85 * len(settings) + 0.55), layout="constrained")
    grid = figure.subplots(len(settings), len(kinds), squeeze=False, sharex=True, sharey="col")
    recipes = analysis.recipes
    dodged = {row.recipe.name for row in rows if row.matched}
    step = _spread(rows) / max(1, len(dodged))
    _size_axis(grid[0][0], rows)
    for i, setting in enumerate(settings):
        for axes, kind in zip(grid[i], kinds, strict=True):
            here = [row for row in rows if row.setting == setting]
            _size_panel(axes, here, kind, recipes, step)
            axes.set_title(f"{KINDS[kind]}, {setting_label(setting)}")
            if i == len(settings) - 1:
                axes.set_xlabel("Trainable parameters")
        grid[i][0].set_ylabel(f"Mean {analysis.measure} (%)")
    for kind, column in zip(kinds, grid.T, strict=True):  # of one scale, which is known when all points are drawn
        frozen = analysis.frozen[0].mean_sd(kind)[0] if len(analysis.frozen) == 1 else None
        low, high = column[0].get_ylim()
        if frozen is not None and low <= frozen <= high:
            for axes in column:
                _frozen_line(axes, frozen)
    legend(figure, recipes, {row.recipe.name for row in rows}, True)
    caption = (
        f"{analysis.measure.capitalize()} against trainable parameters (logarithmic). {spread_told(rows)} Points of "
        "one budget are spread sideways to be told apart; a line joins the budgets of a method. Scales are the "
        "same down a column and do not begin at zero."
    )
    return Plot("size", f"{analysis.measure} against size", caption, figure, wide=True)


def _size_panel(axes: Axes, rows: Sequence[Row], kind: str, recipes: Sequence[Recipe], step: float) -> None:
    """The points of one panel, those of a budget ``step`` decades apart."""
    look = looks(recipes)
    names = [recipe.name for recipe in recipes if any(row.recipe.name == recipe.name for row in rows)]
    dodged = [name for name in names if any(row.matched for row in rows if row.recipe.name == name)]
    models = list(dict.fromkeys(row.block.model for row in rows))
    for name, model in product(names, models):
        here = [row for row in rows if (row.recipe.name, row.block.model) == (name, model)]
        own = sorted(here, key=lambda row: row.trainable or 0)
        points = [(row.trainable or 0, *row.mean_sd(kind)) for row in own]
        known = [(x, mean, bar(sd)) for x, mean, sd in points if mean is not None]
        shift = dodged.index(name) - (len(dodged) - 1) / 2 if name in dodged else 0
        axes.errorbar(
            [x * 10 ** (step * shift) for x, _, _ in known],
            [mean for _, mean, _ in known],
            [sd for _, _, sd in known],
            color=look[name].colour,
            marker=look[name].marker,
            linestyle=look[name].line,
            markersize=4,
            linewidth=0.9,
            elinewidth=0.7,
            capsize=1.5,
        )
    axes.margins(y=0.12)
    percent_axis(axes)


def _frozen_line(axes: Axes, score: float) -> None:
    axes.axhline(score, color="#555555", linewidth=0.8, linestyle=(0, (2, 2)))
    axes.annotate(
        "frozen base",
        (0.99, score),
        (0, 2),
        axes.get_yaxis_transform(),
        "offset points",
        ha="right",
        fontsize=7,
    )


def _size_axis(axes: Axes, rows: Sequence[Row]) -> None:
    """The scale that all panels share: wide enough for every row, a tick a size where they are apart."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    sizes = sorted({row.trainable or 1 for row in rows})
    ticks: list[int] = []
    for value in (int(float(f"{size:.1e}")) for size in sizes):
        if not ticks or value / ticks[-1] > max(1.4, (max(sizes) / min(sizes)) ** 0.12):
            ticks.append(value)
    axes.set_xticks(ticks)
    axes.set_xticks([], minor=True)
    room = 10 ** (_spread(rows) / 2 + 0.08)
    axes.set_xlim(min(sizes) / room, max(sizes) * room)


def _spread(rows: Sequence[Row]) -> float:
    """Decades over which the points of one budget may be spread: clear of the next budget's points."""
    sizes = sorted(math.log10(row.trainable or 1) for row in rows if row.matched)
    gaps = [high - low for low, high in pairwise(sizes) if high - low > 0.05]
    return min(0.5, 0.6 * min(gaps, default=1.0))


def difference(analysis: Analysis) -> Plot | str:
    """Every row minus the reference in its block, with its interval: one panel a block."""
    found = [(block, analysis.against_reference(block)) for block, _ in analysis.blocks()]
    drawn = [(block, comparisons) for block, comparisons in found if comparisons]
    if not drawn:
        return f"No block of the study has {analysis.reference} beside another row, so no differences are drawn."
    if len(drawn) > 2:  # the table has them all
        drawn = [(block, comparisons) for block, comparisons in drawn if block.setting == drawn[-1][0].setting]
    lines = max(len(comparisons) for _, comparisons in drawn) + 1.2
    columns = min(len(drawn), 2)
    rows = min(math.ceil(len(drawn) / columns), max(1, int(5 / (0.185 * lines))))
    drawn = drawn[: rows * columns]
    figure = Figure(
        figsize=(PAGE if columns > 1 or lines > 8 else COLUMN, 0.185 * lines * rows + 0.45),
        layout="constrained",
    )
    grid = list(figure.subplots(rows, columns, squeeze=False, sharex=True).flat)
    for axes in grid[len(drawn) :]:
        axes.set_visible(False)
    look = looks(analysis.recipes)
    for axes, (block, comparisons) in zip(grid, drawn, strict=False):
        for y, comparison in enumerate(comparisons):
            delta, own = comparison.difference, look[comparison.row.recipe.name]
            if delta.low is not None and delta.high is not None:
                axes.plot([delta.low, delta.high], [y, y], color=own.colour, linewidth=1.2)
            axes.plot(delta.mean, y, marker=own.marker, color=own.colour, markersize=4.5)
        axes.axvline(0, color="#555555", linewidth=0.8)
        axes.set_yticks(range(len(comparisons)), [c.row.recipe.title for c in comparisons])
        axes.set_ylim(len(comparisons) - 0.4, -0.6)
        axes.grid(False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", labelbottom=True)
        axes.set_title(panel_label(block), loc="left")
        percent_axis(axes, "x")
    figure.supxlabel(f"In-domain mean minus that of {analysis.reference} (points)", fontsize=8)
    caption = (
        f"Difference to {analysis.reference} in the same setting and at the same budget: mean over paired seeds and "
        f"95 % t interval, not corrected for the number of rows.{_without_interval(drawn)}"
    )
    return Plot(
        "difference", f"the differences to {analysis.reference}", caption, figure, wide=columns > 1 or lines > 8
    )


def _without_interval(drawn: Sequence[tuple[Condition, Sequence[Comparison]]]) -> str:
    bare = [comparison.difference.low is None for _, comparisons in drawn for comparison in comparisons]
    if all(bare):
        return " There is one common seed only, and so no interval."
    return " A marker without a bar has one common seed, and so no interval." if any(bare) else ""


def tasks(analysis: Analysis) -> Plot | str:
    """Accuracy by task, a panel a setting, at the first size-matched budget."""
    panels = _first_blocks(analysis)
    names = list(analysis.task_names)
    if not panels or len(names) > 24:
        return "Accuracy by task is not drawn: there is no trained row, or there are more than 24 tasks."
    figure = Figure(figsize=(PAGE, 1.45 * len(panels) + 0.95), layout="constrained")
    grid = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
    look = looks(analysis.recipes)
    for axes, (block, rows) in zip(grid, panels, strict=True):
        for i, row in enumerate(rows):
            shift = _aside(i, len(rows))
            for x, task in enumerate(names):
                mean, sd = row.mean_sd(task)
                if mean is not None:
                    own = look[row.recipe.name]
                    axes.errorbar(
                        x + shift,
                        mean,
                        bar(sd),
                        color=own.colour,
                        marker=own.marker,
                        markersize=3.4,
                        elinewidth=0.7,
                        linestyle="none",
                    )
        for x, task in enumerate(names):
            metric, base = analysis.metric(task), analysis.frozen_of(block)
            if metric and metric.chance is not None:
                axes.plot([x - 0.4, x + 0.4], [metric.chance] * 2, color="#555555", linewidth=0.8, linestyle=":")
            level = base.mean_sd(task)[0] if base else None
            if level is not None:
                axes.plot([x - 0.4, x + 0.4], [level] * 2, color="#555555", linewidth=0.8)
        for x in range(len(names) - 1):
            axes.axvline(
                x + 0.5,
                color="#e4e4e4" if x + 1 != len(analysis.study.in_domain) else "#555555",
                linewidth=0.6,
            )
        axes.grid(False, axis="x")
        axes.set_xlim(-0.5, len(names) - 0.5)
        labels = [broken(analysis.title(task), 14 if len(names) <= 10 else 60) for task in names]
        axes.set_xticks(range(len(names)), labels)
        if len(names) > 10:
            axes.tick_params(axis="x", labelrotation=90)
        axes.tick_params(axis="x", length=0)
        axes.set_ylabel(f"{analysis.measure.capitalize()} (%)")
        axes.set_title(panel_label(block), loc="left")
        percent_axis(axes)
    shown = {row.recipe.name for _, rows in panels for row in rows}
    legend(figure, analysis.recipes, shown, False)
    caption = (
        f"{analysis.measure.capitalize()} by task"
        + ("; in-domain tasks left of the dark line. " if analysis.study.out_of_domain else ". ")
        + spread_told([row for _, rows in panels for row in rows])
        + " Solid rule: frozen base; dotted: chance."
    )
    return Plot("tasks-by-method", f"{analysis.measure} by task", caption, figure, wide=True)


def _aside(place: int, places: int) -> float:
    """How far from the middle of its task a row is drawn: at most 0.1 of a task's width to the next row."""
    return min(0.1, 0.8 / places) * (place - (places - 1) / 2)


def _first_blocks(analysis: Analysis) -> list[tuple[Condition, list[Row]]]:
    """For every setting its first block (size-matched, if one is), with the unmatched `full` beside it."""
    chosen: dict[str, tuple[Condition, list[Row]]] = {}
    for block, rows in analysis.blocks():
        alike = [row for row in analysis.trained if row.block == block._replace(budget=NATIVE) and row not in rows]
        full = [row for row in alike if row.recipe.method == "full"]
        with_records = [row for row in full + rows if row.records]
        if with_records:
            chosen.setdefault(block.setting, (block, with_records))
    return list(chosen.values())


def settings(analysis: Analysis) -> Plot | str:
    """Mixture minus single by task, paired by seed."""
    tasks_shown, measure = list(analysis.study.in_domain), analysis.measure
    pairs = [
        (row, other)
        for row in analysis.trained
        for other in analysis.trained
        if (row.setting, other.block) == ("mixture", row.block._replace(setting="single"))
        and row.recipe.name == other.recipe.name
        and row.records
        and other.records
    ]
    if not pairs:
        return "Mixture and single training are not compared: the records hold one of the two settings only."
    blocks = [block for block, _ in analysis.blocks() if any(row.block == block for row, _ in pairs)]
    shown = blocks[0], blocks[0]._replace(budget=NATIVE)
    pairs = [pair for pair in pairs if pair[0].block in shown]
    figure = Figure(figsize=(PAGE, 2.15), layout="constrained")
    axes = figure.subplots()
    look = looks(analysis.recipes)
    for i, (row, other) in enumerate(pairs):
        own, shift = look[row.recipe.name], _aside(i, len(pairs))
        for x, task in enumerate(tasks_shown):
            delta = stats.paired(row.by_seed(task), other.by_seed(task))
            if delta is not None:
                axes.vlines(x + shift, 0, delta.mean, color=own.colour, linewidth=0.8)
                axes.plot(x + shift, delta.mean, marker=own.marker, color=own.colour, markersize=3.6)
    axes.axhline(0, color="#555555", linewidth=0.8)
    axes.grid(False, axis="x")
    axes.set_xticks(range(len(tasks_shown)), [broken(analysis.title(task), 14) for task in tasks_shown])
    if len(tasks_shown) > 9:
        axes.tick_params(axis="x", labelrotation=90)
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("Mixture minus single (points)")
    percent_axis(axes)
    legend(figure, analysis.recipes, {row.recipe.name for row, _ in pairs}, False)
    spec = analysis.study.train
    fixed = spec is not None and spec.steps is not None
    differs = f"The two differ in {'exposure' if fixed else 'the number of steps'} as well; see Exposure."
    caption = (
        f"{measure.capitalize()} after training on the mixture minus {measure} after training on the task alone, where "
        f"every task has an adapter of that size to itself ({shown[0].budget.label}; rows of fixed size as "
        f"they are); {_common(pairs)}. {differs}"
    )
    return Plot("settings", "the mixture against single tasks", caption, figure, wide=True)


def _common(pairs: Sequence[tuple[Row, Row]]) -> str:
    """'mean over 1 to 3 common seeds, without intervals'."""
    seeds = sorted({len(row.by_seed().keys() & other.by_seed().keys()) for row, other in pairs})
    if seeds[-1] <= 1:
        return "on the one common seed, without intervals"
    low, high = seeds[0], seeds[-1]
    return f"mean over {high if low == high else f'{low} to {high}'} common seeds, without intervals"


def training(analysis: Analysis) -> Plot | str:
    """Training loss (running mean) and validation loss by step: mean over runs and their range."""
    panels = _first_blocks(analysis)
    if not panels:
        return "Training curves are not drawn: no record has one."
    block, rows = panels[0]
    figure = Figure(figsize=(PAGE, 2.15), layout="constrained")
    grid = figure.subplots(1, 2, sharex=True)
    look, shown = looks(analysis.recipes), set()
    for axes, what in zip(grid, ("loss", "validation_loss"), strict=True):
        for row in rows:
            curve = _curve(row, what)
            if not curve:
                continue
            shown.add(row.recipe.name)
            own, steps = look[row.recipe.name], [step for step, _, _, _ in curve]
            axes.fill_between(
                steps,
                [low for _, _, low, _ in curve],
                [high for _, _, _, high in curve],
                color=own.colour,
                alpha=0.12,
                linewidth=0,
            )
            every = max(1, len(steps) // 6)
            offset = list(look).index(row.recipe.name) * every // max(1, len(look))
            axes.plot(
                steps,
                [mean for _, mean, _, _ in curve],
                color=own.colour,
                linestyle=own.line,
                linewidth=0.9,
                marker=own.marker,
                markersize=3.2,
                markevery=(offset, every),
            )
        axes.set_ylabel({"loss": "Training loss", "validation_loss": "Validation loss"}[what])
        axes.set_xlabel("Optimiser step")
    if not shown:
        return "Training curves are not drawn: no record has one."
    legend(figure, analysis.recipes, shown, True)
    caption = (
        f"Loss of the answer, nats a token ({panel_label(block)}; full "
        "fine-tuning where there is one). Mean over runs and the range between them; the training loss "
        "is a running mean."
    )
    return Plot("training", "the course of training", caption, figure, wide=True)


def _curve(row: Row, what: str) -> list[tuple[int, float, float, float]]:
    """(step, mean, lowest, highest) over the row's runs, at the steps that all of them have."""
    curves: list[dict[int, float]] = []
    for record in row.records:
        points = record.train_info.curve if record.train_info else ()
        known = [(point.step, getattr(point, what)) for point in points if getattr(point, what) is not None]
        values = [value for _, value in known]
        if what == "loss":
            values = stats.smooth(values, max(3, len(values) // 10))
        if known:
            curves.append(dict(zip([step for step, _ in known], values, strict=True)))
    if not curves:
        return []
    common = sorted(set.intersection(*(set(curve) for curve in curves)))
    columns = [(step, [curve[step] for curve in curves]) for step in common]
    return [(step, sum(values) / len(values), min(values), max(values)) for step, values in columns]


FIGURES: dict[str, Callable[[Analysis], Plot | str]] = {
    "axis": axis.along,
    "size": size,
    "tasks": tasks,
    "difference": difference,
    "settings": settings,
    "training": training,
}
