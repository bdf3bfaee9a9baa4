"""Figure: the course of training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mosld_bench.records.record import Record
from mosld_bench.reporting import stats
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.figures.panels import first_blocks, legend, panel_label
from mosld_bench.reporting.figures.plot import Plot
from mosld_bench.reporting.figures.style import PAGE_INCHES, RecipeStyle, recipe_styles
from mosld_bench.reporting.rows import Row

_ABSENT = "Training curves are not drawn: no record has one."
_MARKERS_A_CURVE = 6  # about; more would hide the line

Loss = Literal["loss", "validation_loss"]


class CurvePoint(NamedTuple):
    """Losses of a row's runs at one optimiser step, in nats a token."""

    step: int
    mean: float
    low: float
    high: float


def draw(analysis: Analysis) -> Plot | str:
    """Training loss (running mean) and validation loss by step: mean over runs and their range."""
    panels = first_blocks(analysis)
    if not panels:
        return _ABSENT
    condition, rows = panels[0]
    figure = Figure(figsize=(PAGE_INCHES, 2.15), layout="constrained")
    training, validation = figure.subplots(1, 2, sharex=True)
    styles, shown = recipe_styles(analysis.recipes), set()
    losses: tuple[tuple[Axes, Loss, str], ...] = (
        (training, "loss", "Training loss"),
        (validation, "validation_loss", "Validation loss"),
    )
    for axes, loss, label in losses:
        for row in rows:
            if points := curve(row, loss):
                shown.add(row.recipe.name)
                place = list(styles).index(row.recipe.name)
                every = max(1, len(points) // _MARKERS_A_CURVE)
                draw_course(axes, points, styles[row.recipe.name], marks=(place * every // len(styles), every))
        axes.set_ylabel(label)
        axes.set_xlabel("Optimiser step")
    if not shown:
        return _ABSENT
    legend(figure, analysis.recipes, shown, True)
    caption = (
        f"Loss of the answer, nats a token ({panel_label(condition)}; full "
        "fine-tuning where there is one). Mean over runs and the range between them; the training loss "
        "is a running mean."
    )
    drawn = [row for row in rows if row.recipe.name in shown]
    return Plot("training", "the course of training", caption, figure, wide=True, rows=drawn)


class _CoursePoint(Protocol):
    """A mean and its range at a step."""

    @property
    def step(self) -> int: ...
    @property
    def mean(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


def draw_course(
    axes: Axes, points: Sequence[_CoursePoint], style: RecipeStyle, *, marks: tuple[int, int] = (0, 1)
) -> None:
    """The range as a band, the mean as a line. ``marks``: the first point that has a marker, and the step to the next.

    Curves whose markers begin at different steps are told apart where they run together.
    """
    steps = [point.step for point in points]
    lows, highs = [point.low for point in points], [point.high for point in points]
    axes.fill_between(steps, lows, highs, color=style.colour, alpha=0.12, linewidth=0)
    axes.plot(
        steps,
        [point.mean for point in points],
        color=style.colour,
        linestyle=style.line,
        linewidth=0.9,
        marker=style.marker,
        markersize=3.2,
        markevery=marks,
    )


def curve(row: Row, loss: Loss) -> list[CurvePoint]:
    """The loss over the row's runs, at the steps that all of them have; the training loss smoothed first."""
    curves = [losses for record in row.records if (losses := losses_of(record, loss))]
    if not curves:
        return []
    common = sorted(set.intersection(*(set(losses) for losses in curves)))
    by_step = [(step, [losses[step] for losses in curves]) for step in common]
    return [CurvePoint(step, sum(values) / len(values), min(values), max(values)) for step, values in by_step]


def losses_of(record: Record, loss: Loss, *, smooth: bool = True) -> dict[int, float]:
    """Step -> loss of one run, nats a token; the training loss is a running mean where it is to be ``smooth``."""
    points = record.train_info.curve if record.train_info else ()
    known = {point.step: value for point in points if (value := getattr(point, loss)) is not None}
    values = list(known.values())
    if loss == "loss" and smooth:
        values = stats.smooth(values, max(3, len(values) // 10))
    return dict(zip(known, values, strict=True))
