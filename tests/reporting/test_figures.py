"""The figures: what they draw (points, bars, intervals, ticks, legends), not how their files look."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D

from mosld_bench.records.record import Outcome
from mosld_bench.records.scale import SHARE
from mosld_bench.records.store import Store
from mosld_bench.reporting.analysis import Analysis, analyse
from mosld_bench.reporting.figures import (
    FIGURES,
    difference,
    draw_all,
    relative_time,
    settings,
    size,
    sweep,
    tasks,
    training,
)
from mosld_bench.reporting.figures.panels import legend, offset, wrapped
from mosld_bench.reporting.figures.plot import Plot
from mosld_bench.reporting.figures.style import (
    MARKERS,
    PAGE_INCHES,
    RULE_COLOUR,
    recipe_styles,
    report_style,
    scale_axis,
)
from mosld_bench.reporting.figures.sweep import SWEEPS
from mosld_bench.reporting.figures.training import curve
from mosld_bench.reporting.labels import short_label
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import Domain, ModelSpec, Trial
from tests.reporting.reading import uneven_study
from tests.support.synthetic import (
    RECIPES,
    make_profile,
    make_record,
    make_records,
    make_study,
    make_trials,
    task_configs,
)

Draw = Callable[[Analysis], Plot | str | None]


def analysis_of(root: Path, study: Study, trials: list[Trial]) -> Analysis:
    return analyse(study, trials, Store(root / "results").sources(study, task_configs()))


def write(root: Path, study: Study, trials: Sequence[Trial], **changes: Any) -> None:
    """A record for every trial, with ``changes`` of its fields."""
    for trial in trials:
        Store(root / "results").write(Outcome(make_record(trial, study).model_copy(update=changes)))


def written(root: Path, study: Study, recipes: Sequence[Recipe]) -> Analysis:
    """The analysis of a study whose trials all have a record."""
    trials = make_trials(study, recipes)
    write(root, study, trials)
    return analysis_of(root, study, trials)


def plot_of(draw: Draw, analysis: Analysis) -> Plot:
    with report_style():
        plot = draw(analysis)
    assert isinstance(plot, Plot)
    return plot


def approx(value: Any, nan_ok: bool = False) -> Any:
    """`pytest.approx`, which compares with any type."""
    return pytest.approx(value, nan_ok=nan_ok)


def xs(line: Line2D) -> list[float]:
    return [float(x) for x in np.asarray(line.get_xdata(), dtype=float)]


def ys(line: Line2D) -> list[float]:
    return [float(y) for y in np.asarray(line.get_ydata(), dtype=float)]


def bars(axes: Axes) -> list[ErrorbarContainer]:
    return [container for container in axes.containers if isinstance(container, ErrorbarContainer)]


def points(container: ErrorbarContainer) -> tuple[list[float], list[float]]:
    """x and y of the markers."""
    line = container.lines[0]
    assert line is not None
    return xs(line), ys(line)


def bar_lengths(container: ErrorbarContainer) -> list[float]:
    """Half the length of each bar; NaN where none is drawn."""
    (collection,) = container.lines[2]
    segments = [np.asarray(segment) for segment in collection.get_segments()]
    return [float(np.ptp(segment[:, 1])) / 2 if segment.size else np.nan for segment in segments]


def markers(axes: Axes) -> list[tuple[float, float, str]]:
    """x, y and marker of the lines that are one point."""
    lines = [line for line in axes.lines if len(xs(line)) == 1]
    return [(xs(line)[0], ys(line)[0], str(line.get_marker())) for line in lines]


def labels(axes: Axes, which: str = "x") -> list[str]:
    texts = axes.get_xticklabels() if which == "x" else axes.get_yticklabels()
    return [text.get_text() for text in texts]


def legend_of(figure: Figure) -> Legend:
    (legend,) = figure.legends
    return legend


def legend_titles(figure: Figure) -> list[str]:
    return [text.get_text() for text in legend_of(figure).get_texts()]


def test_every_figure_that_a_study_may_ask_for_is_there() -> None:
    (choices, _) = get_args(Study.model_fields["figures"].annotation)
    assert set(get_args(choices)) == FIGURES.keys()
    (axes, _) = get_args(Study.model_fields["axis"].annotation)
    assert set(get_args(axes)) == SWEEPS.keys()


def test_all_figures_are_drawn_in_the_order_of_the_study_and_leave_no_settings_behind(tmp_path: Path) -> None:
    study, trials = make_records(tmp_path, ("lora", "mosld"), settings=("mixture", "single"), seeds=(0, 1))
    before = dict(matplotlib.rcParams)
    drawn = draw_all(analysis_of(tmp_path, study, trials))
    assert [plot.name for plot in drawn if isinstance(plot, Plot)] == [
        "difference",
        "size",
        "tasks-by-method",
        "settings",
        "training",
        "fronts",
    ]
    assert len(drawn) == 6  # no sweep and no profile was asked for, which needs no sentence
    assert dict(matplotlib.rcParams) == before
    few = study.model_copy(update={"figures": ("training", "size")})
    names = [plot.name for plot in draw_all(analysis_of(tmp_path, few, trials)) if isinstance(plot, Plot)]
    assert names == ["training", "size"]


@pytest.mark.parametrize(
    ("draw", "sentence"),
    [
        (size.draw, "No trained row has all of its in-domain tasks yet, so nothing is drawn against size."),
        (difference.draw, "No block of the study has LoRA beside another row, so no differences are drawn."),
        (settings.draw, "Mixture and single training are not compared: the records hold one of the two settings only."),
        (tasks.draw, "Accuracy by task is not drawn: there is no trained row, or there are more than 24 tasks."),
        (training.draw, "Training curves are not drawn: no record has one."),
        (sweep.draw, "Nothing is drawn along the axis rank: no row on it has all of its in-domain tasks yet."),
        (relative_time.draw, None),
    ],
)
def test_a_figure_that_cannot_be_drawn_gives_a_sentence(draw: Draw, sentence: str | None, tmp_path: Path) -> None:
    study = make_study(in_domain=("a", "b"), out_of_domain=(), seeds=(0,), axis="rank")
    trials = make_trials(study, [RECIPES["base"], RECIPES["lora"]])
    write(tmp_path, study, [trial for trial in trials if trial.setting == "frozen"])
    assert draw(analysis_of(tmp_path, study, trials)) == sentence


@pytest.mark.parametrize("count", [1, 3, 8, 9, 14, 27])
@pytest.mark.parametrize("title", ["M {}", "MoSLD with a router frozen at its start {}", "a title " * 30 + "{}"])
def test_a_legend_is_no_wider_than_its_figure(count: int, title: str) -> None:
    """However many recipes there are and whatever they are called; in no more rows than it takes."""
    recipes = [RECIPES["lora"].model_copy(update={"name": f"m{i}", "title": title.format(i)}) for i in range(count)]
    with report_style():
        figure = Figure(figsize=(PAGE_INCHES, 2), layout="constrained")
        axes = figure.subplots()
        legend(figure, recipes, {recipe.name for recipe in recipes}, True)
        drawn = legend_of(figure)
        figure.draw_without_rendering()
        assert drawn.get_window_extent().width <= figure.bbox.width
        assert axes.get_window_extent().height > figure.dpi  # the panel keeps its room
    assert len(drawn.get_texts()) == count
    if title == "M {}" and count <= 14:
        heights = {round(text.get_window_extent().y0) for text in drawn.get_texts()}
        assert len(heights) == 1 + (count > 8)


def test_figures_of_rows_of_a_study(tmp_path: Path) -> None:
    """A legend's entry looks as the points do, also where a panel shows some of the recipes; all sizes are in sight."""
    study, trials = uneven_study(tmp_path)
    single = study.model_copy(update={"settings": ("single",), "seeds": (0,)})
    few = make_trials(single, [RECIPES["lora"], RECIPES["mosld"]])
    write(tmp_path, study, few)
    analysis = analysis_of(tmp_path, study, [*trials, *few])
    drawn = {plot.name: plot for plot in draw_all(analysis) if isinstance(plot, Plot)}
    for name in ("settings", "size", "tasks-by-method"):
        figure = drawn[name].figure
        shown = {(line.get_marker(), line.get_color()) for axes in figure.axes for line in axes.lines}
        handles = [handle for handle in legend_of(figure).legend_handles if isinstance(handle, Line2D)]
        assert {(handle.get_marker(), handle.get_color()) for handle in handles} <= shown, name
        assert handles
    assert legend_titles(drawn["settings"].figure) == ["LoRA", "MoSLD"]
    sizes = [row.trainable for row in analysis.trained if row.trainable]
    for axes in drawn["size"].figure.axes:
        low, high = axes.get_xlim()
        assert low < min(sizes)
        assert max(sizes) < high
    for column, domain in enumerate(Domain):  # mixture above single: one scale, or a gap of 0.1 points fills a panel
        panels = drawn["size"].figure.axes[column::2]
        assert len({axes.get_ylim() for axes in panels}) == 1 < len(panels)
        means = [row.mean_sd(domain)[0] for row in analysis.trained]
        low, high = panels[0].get_ylim()
        assert all(low < mean < high for mean in means if mean is not None)


def test_size_draws_the_mean_of_each_row_at_its_size_with_one_standard_deviation(tmp_path: Path) -> None:
    study, trials = uneven_study(tmp_path)
    analysis = analysis_of(tmp_path, study, trials)
    plot = plot_of(size.draw, analysis)
    inside, outside = plot.figure.axes
    assert [axes.get_title() for axes in plot.figure.axes] == ["In-domain, mixture", "Out-of-domain, mixture"]
    rows = {row.recipe.name: row for row in analysis.trained}
    for axes, domain in ((inside, Domain.IN), (outside, Domain.OUT)):
        for recipe, container in zip(analysis.recipes, bars(axes), strict=True):
            (x,), (y,) = points(container)
            mean, sd = rows[recipe.name].mean_sd(domain)
            assert y == approx(mean)
            assert bar_lengths(container) == approx([np.nan if sd is None else sd], nan_ok=True)
            assert 0.3 < x / (rows[recipe.name].trainable or 0) < 3  # spread sideways within the budget
    places = [points(container)[0][0] for container in bars(inside)]
    assert len(set(places)) == len(places)
    assert plot.caption.count("a point without a bar is one seed") == 1


def test_a_line_joins_the_budgets_of_a_method(tmp_path: Path) -> None:
    study, trials = make_records(tmp_path, ("base", "lora", "mosld"), seeds=(0, 1), budgets=("60000", "120000"))
    analysis = analysis_of(tmp_path, study, trials)
    axes = plot_of(size.draw, analysis).figure.axes[0]
    styles = recipe_styles(analysis.recipes)
    for name, container in zip(("lora", "mosld"), bars(axes), strict=True):
        line = container.lines[0]
        assert line is not None
        assert (line.get_marker(), line.get_color()) == (styles[name].marker, styles[name].colour)
        small, large = points(container)[0]
        assert small < 90_000 < large


def test_a_size_just_below_a_power_of_ten_has_its_tick(tmp_path: Path) -> None:
    study = make_study(budgets=("99960",), seeds=(0,))
    trials = make_trials(study, [RECIPES["lora"], RECIPES["mosld"]])
    for trial in trials:
        record = make_record(trial, study)
        assert record.size is not None
        fit = record.size.model_copy(update={"trainable": 99_960})
        Store(tmp_path / "results").write(Outcome(record.model_copy(update={"size": fit})))
    for axes in plot_of(size.draw, analysis_of(tmp_path, study, trials)).figure.axes:
        assert list(axes.get_xticks()) == [100_000]


def test_the_frozen_base_is_a_rule_where_it_is_in_sight(tmp_path: Path) -> None:
    study = make_study(in_domain=("a",), out_of_domain=("b",), seeds=(0, 1))
    trials = make_trials(study, [RECIPES["base"], RECIPES["lora"]])
    for trial in trials:
        values = {"a": 0.3, "b": 0.51} if trial.setting == "frozen" else {"a": 0.7, "b": 0.5 + trial.seed / 50}
        Store(tmp_path / "results").write(Outcome(make_record(trial, study, values=values)))
    inside, outside = plot_of(size.draw, analysis_of(tmp_path, study, trials)).figure.axes
    rules = [[line for line in axes.lines if line.get_color() == RULE_COLOUR] for axes in (inside, outside)]
    assert rules[0] == []  # far below the rows, whose differences it would hide
    assert [ys(line) for line in rules[1]] == [[0.51, 0.51]]
    assert [text.get_text() for text in outside.texts] == ["frozen base"]


def test_difference_is_a_forest_of_intervals_over_the_margin(tmp_path: Path) -> None:
    study, trials = make_records(tmp_path, ("lora", "mola", "mosld"), items=True)
    analysis = analysis_of(tmp_path, study, trials)
    plot = plot_of(difference.draw, analysis)
    ((condition, _),) = [block for block in analysis.blocks() if analysis.against_reference(block[0])]
    shown = [axes for axes in plot.figure.axes if axes.get_visible()]
    tasks = [task for domain in analysis.domains for task in analysis.tasks_in(domain)]
    assert [axes.get_title(loc="left") for axes in shown] == [
        "In-domain",
        "Out-of-domain",
        *(wrapped(analysis.title(task), 22) for task in tasks),
    ]
    styles, seen = recipe_styles(analysis.recipes), set()
    for axes, of in zip(shown, [*analysis.domains, *tasks], strict=True):
        comparisons = analysis.against_reference(condition, of)
        titles = [comparison.row.recipe.title for comparison in comparisons]
        assert labels(axes, "y") in (titles, [])  # those on the right share the labels of the first
        assert markers(axes) == [
            (approx(c.difference.mean), y, styles[c.row.recipe.name].marker) for y, c in enumerate(comparisons)
        ]
        lines = [line for line in axes.lines if len(xs(line)) == 2 and line.get_color() != RULE_COLOUR]
        assert [tuple(xs(line)) for line in lines] == [(c.difference.low, c.difference.high) for c in comparisons]
        filled = [line.get_markerfacecolor() != "white" for line in axes.lines if len(xs(line)) == 1]
        assert filled == [comparison.separated for comparison in comparisons]
        seen |= set(filled)
        (band,) = axes.patches
        assert band.get_extents().transformed(axes.transData.inverted()).intervalx == approx([-0.01, 0.01])
        low, high = axes.get_xlim()
        assert all(low < end < high for line in lines for end in xs(line))
    assert seen == {True, False}
    assert "the band is the margin of ±1 point" in plot.caption


def test_an_interval_of_trained_models_is_dotted_and_without_items_there_is_none(tmp_path: Path) -> None:
    study, trials = make_records(tmp_path, ("lora", "mosld"), seeds=(0,), items=True)
    plot = plot_of(difference.draw, analysis_of(tmp_path, study, trials))
    lines = [
        line
        for axes in plot.figure.axes
        for line in axes.lines
        if len(xs(line)) == 2 and line.get_color() != RULE_COLOUR
    ]
    assert lines
    assert {line.get_linestyle() for line in lines} == {":"}
    assert plot.caption.endswith("Dotted: over items alone, of these trained models.")
    study, trials = make_records(tmp_path / "bare", ("lora", "mosld"), seeds=(0,))
    plot = plot_of(difference.draw, analysis_of(tmp_path / "bare", study, trials))
    assert plot.caption.endswith("A marker without a bar has no interval: one seed, and no items at hand.")


def test_blocks_have_their_panels_and_the_first_one_its_tasks(tmp_path: Path) -> None:
    study, trials = make_records(
        tmp_path, ("lora", "mosld"), seeds=(0, 1), settings=("mixture", "single"), budgets=("60000", "120000")
    )
    plot = plot_of(difference.draw, analysis_of(tmp_path, study, trials))
    titles = [axes.get_title(loc="left") for axes in plot.figure.axes if axes.get_visible()]
    blocks = [
        f"{setting}, {size} parameters" for setting in ("Mixture", "Single task") for size in ("60,000", "120,000")
    ]
    assert titles[:8] == [f"{domain}: {block}" for block in blocks for domain in ("In-domain", "Out-of-domain")]
    assert len(titles) == 8 + len(study.tasks)
    assert "By task: mixture, 60,000 parameters." in plot.caption


def test_more_blocks_than_a_page_holds_are_left_out_and_named(tmp_path: Path) -> None:
    budgets = tuple(str(20_000 * i) for i in range(1, 25))
    study, trials = make_records(tmp_path, ("lora", "mosld"), seeds=(0,), budgets=budgets)
    analysis = analysis_of(tmp_path, study, trials)
    (plot,) = [figure for figure in draw_all(analysis) if isinstance(figure, Plot) and figure.name == "difference"]
    assert plot.figure.get_size_inches()[1] < 9
    assert "Not drawn, but in the tables: " in plot.caption


def test_tasks_draws_every_row_on_every_task_with_chance_and_the_frozen_base(tmp_path: Path) -> None:
    study = make_study(in_domain=("a", "b"), out_of_domain=("c",), seeds=(0, 1))
    trials = make_trials(study, [RECIPES[name] for name in ("base", "full", "lora", "mosld")])
    write(tmp_path, study, trials)
    analysis = analysis_of(tmp_path, study, trials)
    (axes,) = plot_of(tasks.draw, analysis).figure.axes
    assert labels(axes) == ["a", "b", "c"]
    rows = {row.recipe.name: row for row in analysis.trained}
    drawn = iter(bars(axes))
    for i, name in enumerate(("full", "lora", "mosld")):  # full fine-tuning beside the rows of equal size
        for x, task in enumerate("abc"):
            container = next(drawn)
            mean, sd = rows[name].mean_sd(task)
            assert points(container) == ([approx(x + offset(i, 3))], [approx(mean)])
            assert bar_lengths(container) == [approx(sd)]
    assert next(drawn, None) is None
    levels = [line for line in axes.lines if line.get_color() == RULE_COLOUR and len(set(ys(line))) == 1]
    chance = [ys(line)[0] for line in levels if line.get_linestyle() == ":"]
    base = [ys(line)[0] for line in levels if line.get_linestyle() == "-"]
    assert chance == [0.25] * 3
    assert base == approx([analysis.frozen[0].mean_sd(task)[0] for task in "abc"])


def test_settings_draws_mixture_minus_single_on_common_seeds(tmp_path: Path) -> None:
    study = make_study(in_domain=("a", "b"), out_of_domain=(), seeds=(0, 1), settings=("mixture", "single"))
    trials = make_trials(study, [RECIPES["lora"], RECIPES["mosld"]])
    for trial in trials:
        gain = 0.05 * (trial.setting == "mixture") * (1 + (trial.recipe.name == "mosld"))
        values = {"a": 0.5 + gain, "b": 0.6 - gain}
        if trial.setting == "single" and trial.seed == 1:
            values = dict.fromkeys(values, 0.9)
        if (trial.setting, trial.seed) != ("mixture", 1):  # the seed that they do not share must not count
            Store(tmp_path / "results").write(Outcome(make_record(trial, study, values=values)))
    analysis = analysis_of(tmp_path, study, trials)
    plot = plot_of(settings.draw, analysis)
    (axes,) = plot.figure.axes
    styles = recipe_styles(analysis.recipes)
    expected = [
        (x + offset(i, 2), sign * gain, styles[name].marker)
        for i, (name, gain) in enumerate((("lora", 0.05), ("mosld", 0.1)))
        for x, sign in enumerate((1, -1))
    ]
    for drawn, (x, y, marker) in zip(markers(axes), expected, strict=True):
        assert drawn == (approx(x), approx(y), marker)
    assert "mean over the one common seed, without intervals" in plot.caption
    assert "The two differ in exposure as well" in plot.caption


def test_training_draws_the_mean_over_runs_in_their_range(tmp_path: Path) -> None:
    study, trials = make_records(tmp_path, ("lora", "mosld"), seeds=(0, 1))
    analysis = analysis_of(tmp_path, study, trials)
    plot = plot_of(training.draw, analysis)
    left, right = plot.figure.axes
    assert (left.get_ylabel(), right.get_ylabel()) == ("Training loss", "Validation loss")
    assert legend_titles(plot.figure) == ["LoRA", "MoSLD"]
    (block,) = [rows for _, rows in analysis.blocks()]
    for row, line, band in zip(block, right.lines, right.collections, strict=True):
        infos = [record.train_info for record in row.records]
        losses = [{p.step: p.validation_loss for p in info.curve if p.validation_loss} for info in infos if info]
        steps = sorted(losses[0])
        assert xs(line) == steps
        assert ys(line) == approx([(losses[0][s] + losses[1][s]) / 2 for s in steps])
        corners = np.asarray(band.get_paths()[0].vertices)
        assert np.min(corners[:, 1]) == approx(min(min(run.values()) for run in losses))
        assert np.max(corners[:, 1]) == approx(max(max(run.values()) for run in losses))


def test_a_curve_is_of_the_steps_that_all_runs_have(tmp_path: Path) -> None:
    study = make_study(in_domain=("a",), out_of_domain=(), seeds=(0, 1))
    trials = make_trials(study, [RECIPES["lora"]])
    for trial in trials:
        record = make_record(trial, study)
        assert record.train_info is not None
        kept = [point for point in record.train_info.curve if not (trial.seed and point.step > 100)]
        info = record.train_info.model_copy(update={"curve": tuple(kept)})
        Store(tmp_path / "results").write(Outcome(record.model_copy(update={"train_info": info})))
    (row,) = analysis_of(tmp_path, study, trials).trained
    assert [point.step for point in curve(row, "validation_loss")] == [40, 80]
    assert max(point.step for point in curve(row, "loss")) == 100
    assert all(point.low <= point.mean <= point.high for point in curve(row, "loss"))
    assert curve(replace(row, records=()), "loss") == []


def variants(key: str, values: Mapping[str, Any]) -> list[Recipe]:
    """MoSLD with another value of one parameter, by name."""
    mosld = RECIPES["mosld"]
    return [
        mosld.model_copy(update={"name": name, "title": name.upper(), "params": {**mosld.params, key: value}})
        for name, value in values.items()
    ]


def test_a_sweep_over_dropout_joins_rows_that_differ_in_nothing_else(tmp_path: Path) -> None:
    several = {"input": 0.05, "weight": 0.1}  # has no one ratio to stand at
    ratios = variants("dropout", {"high": 0.3, "low": 0.0, "middle": 0.1, "several": several})
    study = make_study(in_domain=("a",), out_of_domain=("b",), axis="dropout", reference="low", seeds=(0, 1))
    other = RECIPES["mola"].model_copy(update={"params": {**RECIPES["mola"].params, "dropout": 0.1}})
    analysis = written(tmp_path, study, [*ratios, other, RECIPES["lora"]])
    plot = plot_of(sweep.draw, analysis)
    rows = {row.recipe.name: row for row in analysis.trained}
    for axes, domain in zip(plot.figure.axes, Domain, strict=True):
        assert labels(axes) == ["0.0", "0.1", "0.3"]
        joined, alone = bars(axes)
        expected = [rows[name].mean_sd(domain)[0] for name in ("low", "middle", "high")]
        assert points(joined) == ([0, 1, 2], approx(expected))
        assert points(alone) == ([1], [approx(rows["mola"].mean_sd(domain)[0])])
    assert legend_titles(plot.figure) == ["LOW", "MoLA"]  # the reference gives its curve the name; LoRA has no ratio


def test_a_sweep_over_ranks_leaves_out_rows_of_equal_size(tmp_path: Path) -> None:
    study = make_study(in_domain=("a",), out_of_domain=(), axis="rank", seeds=(0, 1), budgets=("r8", "r2", "60000"))
    (axes,) = plot_of(sweep.draw, written(tmp_path, study, [RECIPES["lora"], RECIPES["mosld"]])).figure.axes
    assert labels(axes) == ["2", "8"]
    assert [points(container)[0] for container in bars(axes)] == [[0, 1], [0, 1]]


def test_a_sweep_over_models_goes_by_their_size(tmp_path: Path) -> None:
    models = [ModelSpec(name="x/large"), ModelSpec(name="x/small")]
    study = make_study(in_domain=("a",), out_of_domain=(), axis="model", seeds=(0, 1), models=models)
    trials = make_trials(study, [RECIPES["lora"]])
    for trial in trials:
        record = make_record(trial, study)
        assert record.size is not None
        larger = record.size.total + 10**6 * (trial.model.name == "x/large")
        fit = record.size.model_copy(update={"total": larger})
        Store(tmp_path / "results").write(Outcome(record.model_copy(update={"size": fit})))
    (axes,) = plot_of(sweep.draw, analysis_of(tmp_path, study, trials)).figure.axes
    assert labels(axes) == ["small", "large"]
    assert [points(container)[0] for container in bars(axes)] == [[0, 1]]


def test_a_sweep_over_general_data_labels_its_amounts(tmp_path: Path) -> None:
    general = {"task": "talk", "items": [1000, 0]}
    study = make_study(in_domain=("a",), out_of_domain=(), axis="general", seeds=(0, 1), general=general)
    (axes,) = plot_of(sweep.draw, written(tmp_path, study, [RECIPES["lora"]])).figure.axes
    assert labels(axes) == ["0", "1,000"]
    assert [points(container)[0] for container in bars(axes)] == [[0, 1]]


def test_a_sweep_over_training_items_draws_the_losses_too(tmp_path: Path) -> None:
    study = make_study(in_domain=("a",), out_of_domain=(), axis="items", seeds=(0, 1), task_items=(64, 16))
    analysis = written(tmp_path, study, [RECIPES["lora"]])
    scores, training, validation = plot_of(sweep.draw, analysis).figure.axes
    rows = sorted(analysis.trained, key=lambda row: row.condition.items)
    assert [row.condition.items for row in rows] == [16, 64]
    for axes in (training, validation):
        assert labels(axes) == ["16", "64"]
    assert points(bars(scores)[0]) == ([0, 1], approx([row.mean_sd(Domain.IN)[0] for row in rows]))
    infos = [[record.train_info for record in row.records if record.train_info] for row in rows]
    ends = [[info.final_validation_loss or 0.0 for info in of_row] for of_row in infos]
    assert points(bars(validation)[0]) == ([0, 1], approx([sum(losses) / len(losses) for losses in ends]))
    last = [
        [point.loss or 0.0 for info in of_row for point in info.curve[-max(1, len(info.curve) // 10) :]]
        for of_row in infos
    ]
    assert points(bars(training)[0]) == ([0, 1], approx([sum(losses) / len(losses) for losses in last]))


def test_a_row_without_an_out_of_domain_mean_has_its_in_domain_point(tmp_path: Path) -> None:
    study = make_study(in_domain=("a",), out_of_domain=("b",), axis="rank", seeds=(0,), budgets=("r8",))
    trials = make_trials(study, [RECIPES["lora"]])
    for trial in trials:
        record = make_record(trial, study)
        inside = tuple(metric for metric in record.metrics if metric.task == "a")
        Store(tmp_path / "results").write(Outcome(record.model_copy(update={"metrics": inside})))
    inside_axes, outside_axes = plot_of(sweep.draw, analysis_of(tmp_path, study, trials)).figure.axes
    assert [points(container)[0] for container in bars(inside_axes)] == [[0]]
    assert [points(container)[0] for container in bars(outside_axes)] == [[]]


def test_the_axis_over_experts_shows_the_default_of_a_recipe_that_leaves_them_open(tmp_path: Path) -> None:
    bare = Recipe(name="bare", title="Bare", method="mixture", params={"target_modules": ["q_proj"]})
    wide = bare.model_copy(update={"name": "wide", "title": "Wide", "params": {**bare.params, "experts": [2, 4, 6, 8]}})
    study = make_study(in_domain=("a",), out_of_domain=(), seeds=(0,), axis="experts", reference="bare")
    figure = plot_of(sweep.draw, written(tmp_path, study, [bare, wide])).figure
    assert labels(figure.axes[0]) == ["2-4-6-8", "4"]


def test_relative_time_draws_median_and_range_of_the_quotients(tmp_path: Path) -> None:
    study, trials = make_records(tmp_path, ("base", "lora", "mosld"), seeds=(0,))
    analysis = replace(analysis_of(tmp_path, study, trials), profile=make_profile())
    plot = plot_of(relative_time.draw, analysis)
    prompt, decode, train = plot.figure.axes
    assert labels(prompt, "y") == ["LoRA", "EXTRA"]
    lora, mosld = recipe_styles(analysis.recipes).values()
    (marker,) = {marker for _, y, marker in markers(prompt) if y == 1}
    assert marker not in {lora.marker, mosld.marker}  # the profile alone has this recipe
    assert markers(prompt) == markers(decode) == [(1.5, 0, lora.marker), (2.0, 1, marker)]
    assert markers(train) == [(1.5, 1, marker)]  # the reference is what training is divided by
    ranges = [tuple(xs(line)) for line in prompt.lines if len(xs(line)) == 2][:2]
    assert ranges == [(1.0, 2.0), (1.5, 3.0)]
    assert train.get_xlabel() == "× LoRA"
    assert "median over three rounds" in plot.caption
    assert plot.section == "Cost at inference and in training"
    assert [drawn.name for drawn in draw_all(analysis) if isinstance(drawn, Plot)][-1] == "relative-time"


def test_relative_time_leaves_out_recipes_that_were_changed_since(tmp_path: Path) -> None:
    study, trials = make_records(tmp_path, ("base", "lora", "mosld"), seeds=(0,))
    old = RECIPES["lora"].model_copy(update={"params": {**RECIPES["lora"].params, "r": 4}})
    base, lora, extra = make_profile().entries
    profile = make_profile(entries=(base, lora.model_copy(update={"recipe": old}), extra))
    analysis = replace(analysis_of(tmp_path, study, trials), profile=profile)
    assert labels(plot_of(relative_time.draw, analysis).figure.axes[0], "y") == ["EXTRA"]
    alone = profile.model_copy(update={"entries": profile.entries[:2]})
    assert relative_time.draw(replace(analysis, profile=alone)) is None


@pytest.mark.parametrize("span", [(0.4, 0.43), (0.358, 0.3605), (0.1, 0.9), (0.30001, 0.30002)])
def test_ticks_are_told_apart(span: tuple[float, float]) -> None:
    axes = Figure().subplots()
    axes.set_ylim(*span)
    scale_axis(axes, SHARE)
    ticks = labels(axes, "y")
    assert len(set(ticks)) == len(ticks) > 1
    values = [100 * value for value in axes.get_yticks()]
    assert [float(tick.replace("−", "-")) for tick in ticks] == pytest.approx(values, abs=1e-9)


def test_a_style_is_of_one_recipe_and_none_of_the_frozen_base() -> None:
    recipes = [RECIPES["base"], *(RECIPES["lora"].model_copy(update={"name": f"lora-{i}"}) for i in range(50))]
    styles = recipe_styles(recipes)
    assert list(styles) == [recipe.name for recipe in recipes[1:]]
    assert len(set(styles.values())) == 50
    assert [style.marker for style in styles.values()][: len(MARKERS)] == list(MARKERS)


def test_titles_are_wrapped_at_words() -> None:
    assert wrapped("Everyday questions", 14) == "Everyday\nquestions"
    assert wrapped("ARC easy", 14) == "ARC easy"
    assert wrapped("x" * 40, 14) == "x" * 27 + "…"


def test_rows_of_a_task_stand_beside_each_other() -> None:
    assert [offset(i, 3) for i in range(3)] == approx([-0.1, 0, 0.1])
    assert max(offset(i, 30) for i in range(30)) < 0.5  # within its task


def test_a_plot_writes_the_same_bytes_again(tmp_path: Path) -> None:
    study, trials = make_records(tmp_path, ("lora", "mosld"), seeds=(0,))
    analysis = analysis_of(tmp_path, study, trials)
    files = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        folder.mkdir()
        plot = plot_of(size.draw, analysis)
        plot.write(folder)
        plot.write_svg(folder / "size.svg", "Some Serif")
        files.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert files[0] == files[1]
    assert set(files[0]) == {"size.pdf", "size.png", "size.svg"}
    assert b"Some Serif" in files[0]["size.svg"]
    assert b"STIX" not in files[0]["size.svg"]


def test_a_figure_says_which_rows_it_leaves_out(tmp_path: Path) -> None:
    """Property: of every figure, the rows drawn and the rows named in its caption are all recorded rows."""
    study = make_study(budgets=("30000", "60000", "r8"), settings=("mixture", "single"), axis="rank")
    analysis = written(tmp_path, study, [RECIPES[name] for name in ("base", "full", "lora", "mosld", "mola")])
    for plot in draw_all(analysis):
        assert isinstance(plot, Plot)
        assert plot.rows is not None
        drawn = {row.key for row in plot.rows}
        left = [row for row in analysis.trained if row.key not in drawn]
        named = plot.caption.partition("Not drawn, but in the tables: ")[2]
        assert bool(named) == bool(left), plot.name
        for row in left:
            assert short_label(row.condition) in named or named.endswith("more."), (plot.name, row.key)
    drawn_alone = draw_all(written(tmp_path / "one", make_study(), [RECIPES["lora"], RECIPES["mosld"]]))
    by_size = next(plot for plot in drawn_alone if isinstance(plot, Plot) and plot.name == "size")
    assert "Not drawn" not in by_size.caption


def test_one_row_beside_the_reference_has_room_whatever_the_titles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layout without room is a warning of matplotlib, and with it a figure that overlaps."""
    monkeypatch.setattr(Analysis, "title", lambda self, task: f"Questions of many kinds on the subject of {task}")
    study, trials = make_records(tmp_path, ("lora", "mosld"), seeds=(0, 1))
    plot = plot_of(difference.draw, analysis_of(tmp_path, study, trials))
    plot.write(tmp_path)
    boxes = [axes.get_window_extent() for axes in plot.figure.axes]
    assert min(box.height for box in boxes) > 0.15 * plot.figure.dpi
