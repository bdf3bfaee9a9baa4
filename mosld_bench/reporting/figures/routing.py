"""Figures: how evenly the experts of every layer are used, which task uses which, and the routers over the training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from mosld_bench.reporting import routing_stats as stats
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.figures.panels import legend, panel_label, wrapped
from mosld_bench.reporting.figures.plot import Plot
from mosld_bench.reporting.figures.style import PAGE_INCHES, RULE_COLOUR, RULE_POINTS, recipe_styles
from mosld_bench.reporting.figures.training import draw_course
from mosld_bench.reporting.labels import named
from mosld_bench.reporting.routers import COURSES, Routed, Run, modules_text
from mosld_bench.reporting.sections.routing import TITLE, main_routed
from mosld_bench.reporting.stats import Floats

_ACROSS = 3  # panels side by side
_PANEL_INCHES = 1.15  # height of a heat map with its title and label
_TASK_INCHES = 0.135  # height of a line of a heat map that has a task's title
_MOST_PANELS = 12
_MOST_NUMBERS = 8  # along an axis of a heat map
_LINE_INCHES = 0.16  # of a title
_LEAST_INCHES = 1.5  # of a figure, for the label of its colours
_TASK_CHARACTERS = 22
_TITLE_CHARACTERS = 36
_COLOURS = TwoSlopeNorm(1.0, 0.0, 4.0)  # of a load over the even load: light below 1, dark above


def draw(analysis: Analysis) -> list[Plot]:
    """The figures of the block that the section on routing opens with; none without routers."""
    blocks = analysis.routed()
    if not blocks:
        return []
    condition, rows = main_routed(analysis, blocks)
    figures = (draw_layers(analysis, rows), draw_tasks(analysis, rows), draw_training(analysis, rows))
    label = panel_label(condition)
    return [
        Plot(f"router-{name}", shows, f"{caption} {label}.", figure, wide=True, section=TITLE)
        for name, shows, caption, figure in filter(None, figures)
    ]


class _Drawn(NamedTuple):
    name: str
    shows: str
    caption: str
    figure: Figure


# Experts by layer


def draw_layers(analysis: Analysis, rows: Sequence[Routed]) -> _Drawn:
    """A panel a recipe: the load of experts by layer, those of each module in the order of their load."""
    shown = rows[:_MOST_PANELS]
    figure, grid = _panels([routed.row.recipe.title for routed in shown], _PANEL_INCHES)
    for i, (axes, routed) in enumerate(zip(grid, shown, strict=True)):
        layers, values = by_layer(routed)
        image = _heat(axes, values)
        _numbers(axes, "x", [layer if layer >= 0 else "other" for layer in layers])
        _numbers(axes, "y", range(1, len(values) + 1), most=4)
        axes.set_xlabel("Layer")
        axes.set_ylabel("Expert by load" if i % _ACROSS == 0 else "")
    _colour_bar(figure, image)
    caption = (
        "Load of experts over the even load, by layer. The experts of every module are put in the order of their load, "
        "the busiest first, and then averaged over the modules of a layer and over seeds, in-domain tasks weighted "
        f"equally; gate mass is shown where a token picks all experts. Hatched: no such expert.{_left_out(rows)}"
    )
    return _Drawn("layers", "how evenly experts are used", caption, figure)


def by_layer(routed: Routed) -> tuple[list[int], Floats]:
    """Layers, and the utilisation of the experts in the order of their load: N × layers, NaN beyond those of a layer.

    The mean over seeds and over the modules of a layer that have so many experts.
    """
    values: dict[int, list[Floats]] = {}
    most = max(run.test.picks.shape[-1] for run in routed.runs)
    for run in routed.runs:
        used = stats.utilisation(run.inside.used.mean(axis=0), run.inside.experts)
        ordered = -np.sort(-used, axis=-1)  # NaN stays last
        for module, of_module in zip(run.modules, ordered, strict=True):
            values.setdefault(module.layer, []).append(
                np.pad(of_module, (0, most - len(of_module)), constant_values=math.nan)
            )
    layers = sorted(values)
    columns = []
    for layer in layers:
        stacked = np.stack(values[layer])
        known = ~np.isnan(stacked)
        total, count = np.where(known, stacked, 0.0).sum(axis=0), known.sum(axis=0)
        columns.append(np.divide(total, count, where=count > 0, out=np.full(most, np.nan)))
    return layers, np.stack(columns, axis=-1)


# Experts by task


def draw_tasks(analysis: Analysis, rows: Sequence[Routed]) -> _Drawn | None:
    """A panel a recipe: the load of experts by task, in the module and seed where it tells most of the task.

    None where no router has two in-domain tasks.
    """
    chosen = [(routed, *place) for routed in rows if (place := routed.most_informed)]
    shown = chosen[:_MOST_PANELS]
    if not shown:
        return None
    tasks = [task for task in analysis.task_names if any(task in run.test.tasks for _, run, _ in shown)]
    figure, grid = _panels([_with_bits(*place) for place in shown], 0.65 + _TASK_INCHES * max(len(tasks), 4))
    for i, (axes, (_, run, module)) in enumerate(zip(grid, shown, strict=True)):
        order, values = by_task(run, module, tasks)
        image = _heat(axes, values)
        _numbers(axes, "x", order)
        where = modules_text([run.modules[module]], run.modules)
        axes.set_xlabel(wrapped(f"Expert ({where}, seed {run.record.trial.seed})", 2 * _TITLE_CHARACTERS))
        titles = [_cut(analysis.title(task)) for task in tasks] if i % _ACROSS == 0 else [""] * len(tasks)
        axes.set_yticks(range(len(tasks)), titles)
        axes.tick_params(axis="y", length=0)
        inside = sum(task in analysis.study.in_domain for task in tasks)
        if inside < len(tasks):
            axes.axhline(inside - 0.5, color=RULE_COLOUR, linewidth=1.5 * RULE_POINTS)
    _colour_bar(figure, image)
    caption = (
        "Load of experts over the even load, by task, in the module and seed in which it tells most of the task; "
        "beside the name, the mutual information of expert and task and the most that it could be. Experts stand in "
        "the order of the in-domain tasks that use them most"
        + ("; out-of-domain tasks are below the rule." if analysis.study.out_of_domain else ".")
        + _left_out([routed for routed, _, _ in chosen])
    )
    return _Drawn("tasks", "which task uses which expert", caption, figure)


def _with_bits(routed: Routed, run: Run, module: int) -> str:
    """'MoSLD: 0.02 of 1.58 bits'."""
    information, most = (run.numbers[name][module] for name in ("information", "most_information"))
    return f"{routed.row.recipe.title}: {information:.2f} of {most:.2f} bits"


def by_task(run: Run, module: int, tasks: Sequence[str]) -> tuple[list[int], Floats]:
    """The experts of a module in the order of the in-domain tasks that use them most, and tasks × experts utilisation.

    NaN for a task that the run has not.
    """
    experts = int(run.test.experts[module])
    shares = run.test.shares(run.inside.dense)[:, module, :experts]
    inside = run.inside.used[:, module, :experts]
    order = np.lexsort((-inside.max(axis=0), inside.argmax(axis=0)))
    rows = [shares[run.test.tasks.index(t)] if t in run.test.tasks else np.full(experts, np.nan) for t in tasks]
    return [int(expert) for expert in order], experts * np.stack(rows)[:, order]


# Over the training


def draw_training(analysis: Analysis, rows: Sequence[Routed]) -> _Drawn | None:
    """Entropy before the top-K, and information as a share of the most; None where no run was looked at twice."""
    figure = Figure(figsize=(PAGE_INCHES, 1.95), layout="constrained")
    styles, shown = recipe_styles(analysis.recipes), set()
    labels = ("Entropy over log N", "MI over its maximum")
    for axes, label, name in zip(figure.subplots(1, 2, sharex=True), labels, COURSES, strict=True):
        for routed in rows:
            points = routed.course(name)
            if len(points) < 2:
                continue
            shown.add(routed.row.recipe.name)
            draw_course(axes, points, styles[routed.row.recipe.name])
        axes.set_ylim(-0.03, 1.03)
        axes.set_ylabel(label)
        axes.set_xlabel("Optimiser step")
    if not shown:
        return None
    legend(figure, analysis.recipes, shown, True)
    caption = (
        "Routers over the training, on the held-out items of every validation: entropy of the router's probabilities, "
        "and mutual information of expert and task. Mean over modules and seeds, and the range between seeds."
    )
    return _Drawn("training", "how routers change over the training", caption, figure)


# Heat maps


def _panels(titles: Sequence[str], height: float) -> tuple[Figure, list[Axes]]:
    """A panel a title, each of ``height`` inches and what further lines of titles take."""
    texts = [wrapped(title, _TITLE_CHARACTERS) for title in titles]
    lines = math.ceil(len(texts) / _ACROSS)
    broken = sum(max(text.count("\n") for text in texts[i : i + _ACROSS]) for i in range(0, len(texts), _ACROSS))
    total = max(height * lines + _LINE_INCHES * broken + 0.1, _LEAST_INCHES)
    figure = Figure(figsize=(PAGE_INCHES, total), layout="constrained")
    grid = list(figure.subplots(lines, _ACROSS, squeeze=False).flat)
    for axes in grid[len(texts) :]:
        axes.set_visible(False)
    for axes, text in zip(grid, texts, strict=False):
        axes.set_title(text, loc="left")
    return figure, grid[: len(texts)]


def _heat(axes: Axes, values: Floats) -> AxesImage:
    """Cells of ``values``, those that are NaN hatched."""
    axes.grid(False)
    axes.patch.set(hatch="//////", edgecolor="#b0b0b0", linewidth=0)
    return axes.imshow(values, cmap="Blues", norm=_COLOURS, aspect="auto", interpolation="nearest")


def _colour_bar(figure: Figure, image: AxesImage) -> None:
    bar = figure.colorbar(image, ax=list(figure.axes), extend="max", aspect=25, pad=0.01, fraction=0.03)
    bar.set_ticks([0, 1, 2, 4])
    bar.set_label("Load over even load")


def _numbers(axes: Axes, which: Literal["x", "y"], labels: Sequence[Any], most: int = _MOST_NUMBERS) -> None:
    """Label cells along an axis; of more than ``most``, every second, third, ..."""
    places = range(0, len(labels), math.ceil(len(labels) / most))
    set_ticks = axes.set_xticks if which == "x" else axes.set_yticks
    set_ticks(list(places), [str(labels[place]) for place in places])


def _cut(title: str) -> str:
    """A title without its middle where it is long: titles that begin alike often differ at the end."""
    half = _TASK_CHARACTERS // 2
    return title if len(title) <= _TASK_CHARACTERS else f"{title[: half - 1].rstrip()}…{title[-half:].lstrip()}"


def _left_out(rows: Sequence[Routed]) -> str:
    titles = [routed.row.recipe.title for routed in rows[_MOST_PANELS:]]
    return f" Not drawn: {named(titles)}." if titles else ""
