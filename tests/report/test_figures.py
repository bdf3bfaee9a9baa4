"""The figures: what they draw (points, intervals, ticks, legends), not how their files look."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from mosld_bench.records.record import Outcome
from mosld_bench.records.store import Store
from mosld_bench.report.analysis import Analysis, analyse
from mosld_bench.report.figures import draw_all
from mosld_bench.report.figures.plot import Plot
from mosld_bench.report.figures.style import percent_axis
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import Domain, Trial
from tests.support.synthetic import RECIPES, make_record, make_study, make_trials, task_configs


def analysis_of(root: Path, study: Study, trials: list[Trial]) -> Analysis:
    return analyse(study, trials, Store(root / "results").sources(study, task_configs()))


def uneven(root: Path) -> tuple[Study, list[Trial]]:
    """LoRA, MoLA and MoSLD with three seeds, two others with one, of which MoE-LoRA happens to be the highest."""
    study = make_study(in_domain=("a", "b"), out_of_domain=("c",))
    recipes = [RECIPES[name] for name in ("full", "lora", "moe-lora", "mola", "hydralora", "mosld")]
    scores = {"lora": (0.60, 0.61, 0.605), "mola": (0.69, 0.72, 0.70), "mosld": (0.70, 0.71, 0.71)}
    scores |= {"moe-lora": (0.75,), "hydralora": (0.5,), "full": (0.8,)}
    trials = [t for t in make_trials(study, recipes) if t.seed < len(scores[t.recipe.name])]
    for trial in trials:
        value = scores[trial.recipe.name][trial.seed]
        Store(root / "results").write(Outcome(make_record(trial, study, values=dict.fromkeys("abc", value))))
    return study, trials


def test_figures_of_rows_of_a_study(tmp_path: Path) -> None:
    """A legend's entry looks as the points do, also where a panel shows some of the recipes; all sizes are in sight."""
    study, trials = uneven(tmp_path)
    single = study.model_copy(update={"settings": ("single",), "seeds": (0,)})
    few = make_trials(single, [RECIPES["lora"], RECIPES["mosld"]])
    for trial in few:
        Store(tmp_path / "results").write(Outcome(make_record(trial, study)))
    analysis = analysis_of(tmp_path, study, [*trials, *few])
    drawn = {plot.name: plot for plot in draw_all(analysis) if isinstance(plot, Plot)}
    for name in ("settings", "size", "tasks-by-method"):
        figure = drawn[name].figure
        points = {(line.get_marker(), line.get_color()) for axes in figure.axes for line in axes.lines}
        (legend,) = figure.legends
        entries = {(h.get_marker(), h.get_color()) for h in legend.legend_handles}  # type: ignore[union-attr]
        assert entries <= points, name
    (legend,) = drawn["settings"].figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["LoRA", "MoSLD"]
    sizes = [row.trainable for row in analysis.trained if row.trainable]
    for axes in drawn["size"].figure.axes:
        low, high = axes.get_xlim()
        assert low < min(sizes)
        assert max(sizes) < high
    for column in (0, 1):  # mixture above single: one scale, or a gap of 0.1 points fills a panel
        panels = drawn["size"].figure.axes[column::2]
        assert len({axes.get_ylim() for axes in panels}) == 1 < len(panels)
        means = [row.mean_sd(kind)[0] for row in analysis.trained for kind in [tuple(Domain)[column]]]
        low, high = panels[0].get_ylim()
        assert all(low < mean < high for mean in means if mean is not None)


def test_a_size_just_below_a_power_of_ten_has_its_tick(tmp_path: Path) -> None:
    study = make_study(budgets=("99960",), seeds=(0,))
    trials = make_trials(study, [RECIPES["lora"], RECIPES["mosld"]])
    for trial in trials:
        made = make_record(trial, study)
        assert made.size is not None
        size = made.size.model_copy(update={"trainable": 99_960})
        Store(tmp_path / "results").write(Outcome(made.model_copy(update={"size": size})))
    drawn = {plot.name: plot for plot in draw_all(analysis_of(tmp_path, study, trials)) if isinstance(plot, Plot)}
    for axes in drawn["size"].figure.axes:
        assert list(axes.get_xticks()) == [100_000]


@pytest.mark.parametrize("span", [(0.4, 0.43), (0.358, 0.3605), (0.1, 0.9), (0.30001, 0.30002)])
def test_ticks_are_told_apart(span: tuple[float, float]) -> None:
    axes = Figure().subplots()
    axes.set_ylim(*span)
    percent_axis(axes)
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert len(set(labels)) == len(labels) > 1
    values = [100 * value for value in axes.get_yticks()]
    assert [float(label.replace("−", "-")) for label in labels] == pytest.approx(values, abs=1e-9)


def test_the_axis_over_experts_shows_the_default_of_a_recipe_that_leaves_them_open(tmp_path: Path) -> None:
    bare = Recipe(name="bare", title="Bare", method="mixture", params={"target_modules": ["q_proj"]})
    wide = bare.model_copy(update={"name": "wide", "title": "Wide", "params": {**bare.params, "experts": [2, 4, 6, 8]}})
    study = make_study(in_domain=("a",), out_of_domain=(), seeds=(0,), axis="experts", reference="bare")
    trials = make_trials(study, [bare, wide])
    for trial in trials:
        Store(tmp_path / "results").write(Outcome(make_record(trial, study)))
    analysis = analysis_of(tmp_path, study, trials)
    (figure,) = [plot.figure for plot in draw_all(analysis) if isinstance(plot, Plot) and plot.name == "axis"]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["2-4-6-8", "4"]
