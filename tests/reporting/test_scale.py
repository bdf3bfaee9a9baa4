"""Reports of very many records, and of blocks of very many rows: work grows with them, and the page can be opened."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mosld_bench.records.store import Sources
from mosld_bench.reporting import analysis as analysis_module
from mosld_bench.reporting import stats
from mosld_bench.reporting.analysis import Analysis, analyse
from mosld_bench.reporting.compose import compose
from mosld_bench.reporting.explorer import comparisons, training, trials
from mosld_bench.reporting.explorer.data import explorer_data
from mosld_bench.reporting.figures import pareto
from mosld_bench.reporting.labels import MOST_NAMED
from mosld_bench.reporting.sections.summary import answer_lines
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.trial import Domain
from tests.support.growth import calls
from tests.support.synthetic import IN_DOMAIN, OUT_OF_DOMAIN, RECIPES, make_record, make_study, make_trials


def analysis_of(seeds: int, recipes: list[Recipe], *, tasks: int = 2) -> Analysis:
    study = make_study(
        seeds=tuple(range(seeds)), recipes=tuple(recipe.name for recipe in recipes), frozen_base=False,
        in_domain=IN_DOMAIN[:tasks], out_of_domain=OUT_OF_DOMAIN[:1],
    )  # fmt: skip
    planned = make_trials(study, recipes)
    return analyse(study, planned, Sources(records=tuple(make_record(trial, study) for trial in planned)))


def many_rows(count: int, *, seeds: int = 2) -> Analysis:
    """A block of ``count`` rows."""
    lora = RECIPES["lora"]
    others = [lora.model_copy(update={"name": f"lora-{i}", "title": f"LoRA {i}"}) for i in range(1, count)]
    return analysis_of(seeds, [lora, *others])


def test_a_report_and_its_page_take_a_time_that_grows_with_the_records(tmp_path: Path) -> None:
    def made(seeds: int) -> Callable[[], object]:
        planned = make_trials(study := make_study(seeds=tuple(range(seeds)), recipes=("lora", "mosld")), RECIPE_PAIR)
        records = tuple(make_record(trial, study) for trial in planned)

        def report() -> None:
            analysis = analyse(study, planned, Sources(records=records))
            compose(analysis, ())
            explorer_data(analysis, tmp_path)

        return report

    made(2)()  # what is loaded once is loaded
    few, some, many = (calls(made(seeds)) for seeds in (16, 32, 48))
    assert (many - some) / (some - few) < 1.3  # 1 of what is linear, 1.7 of a square


RECIPE_PAIR = [RECIPES["lora"], RECIPES["mosld"]]


def test_what_the_pairs_of_a_block_share_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    analysis, asked = many_rows(20, seeds=3), list[str]()
    (condition, _), *_ = analysis.blocks()
    for name in ("seed_noise", "noisier"):
        really = getattr(stats, name)

        def noted(*words: object, name: str = name, really: Callable[..., object] = really) -> object:
            asked.append(name)
            return really(*words)

        monkeypatch.setattr(stats, name, noted)
    assert len(analysis.pairs(condition)) == 20 * 19
    assert asked.count("noisier") == 20
    assert asked.count("seed_noise") == 1 + 20  # of the block, and of the others beside each row
    assert len(analysis.against_best(condition)) == 19
    assert len(asked) == 41


@pytest.mark.parametrize("shape", [(2, 2), (3, 2), (7, 5), (40, 3)])
def test_the_noise_of_a_complete_table_is_that_of_the_fit(shape: tuple[int, int]) -> None:
    table = np.random.default_rng(shape).normal(0.6, 0.02, shape)
    noise = stats.seed_noise(table)
    gap = np.full((shape[0], 1), np.nan)
    gap[0, 0] = 0.5  # a seed of one row alone has an effect of its own, and tells nothing: the fit is asked
    fitted = stats.seed_noise(np.hstack([table, gap]))
    assert noise is not None
    assert fitted is not None
    assert noise.freedom == fitted.freedom == (shape[0] - 1) * (shape[1] - 1)
    assert noise.mean_square == pytest.approx(fitted.mean_square, rel=1e-9)


def test_a_block_of_very_many_rows_has_its_tests_and_a_page_within_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All pairs are tested on the means; each task beside the reference alone."""
    rows = 13
    monkeypatch.setattr(analysis_module, "MOST_PAIRED", rows - 1)
    analysis = many_rows(rows)
    (condition, _), *_ = analysis.blocks()
    assert len(analysis.pairs(condition, Domain.IN)) == rows * (rows - 1)
    assert len(analysis.against_best(condition, Domain.IN)) == rows - 1
    task = IN_DOMAIN[0]
    assert analysis.pairs(condition, task) == []
    assert len(analysis.against_reference(condition, task)) == rows - 1
    assert analysis.best(condition, task) is not None
    assert not analysis.leads(condition, task)
    whole = explorer_data(analysis, tmp_path)["comparisons"].value
    assert len(set(whole["other"])) == rows, "any row may be the baseline"
    monkeypatch.setattr(comparisons, "_MOST_PAIRS", 700)
    compared = explorer_data(analysis, tmp_path)["comparisons"].value
    baselines = len(set(compared["other"]))
    assert baselines <= 3  # the reference, and the best on each mean
    assert len(compared["row"]) <= baselines * (rows - 1) * 5


def test_no_sentence_names_more_rows_than_anybody_reads() -> None:
    """Of a block of many rows, of every verdict some; they are all in a table."""
    lora = RECIPES["lora"]
    recipes = [lora, *(lora.model_copy(update={"name": f"lora-{i}", "title": f"LoRA {i}"}) for i in range(60))]
    study = make_study(
        seeds=(0, 1, 2), recipes=tuple(recipe.name for recipe in recipes), frozen_base=False,
        in_domain=IN_DOMAIN[:2], out_of_domain=OUT_OF_DOMAIN[:1],
    )  # fmt: skip
    planned = make_trials(study, recipes)
    records = []
    for place, trial in enumerate(planned):
        level = 0.7 + (0.05, -0.05, 0.0, 0.009)[recipes.index(trial.recipe) % 4] + 0.002 * (place % 7 - 3)
        records.append(make_record(trial, study, values=dict.fromkeys(study.tasks, level)))
    said = "\n".join(answer_lines(analyse(study, planned, Sources(records=tuple(records)))))
    assert said.count(" more are worse") == 2, said
    for sentence in re.split(r"(?<=[.;:])\s", said):
        assert len(re.findall(r"LoRA \d+", sentence)) <= MOST_NAMED + 2, sentence  # and the ends of a range


def test_the_page_of_very_many_trials_has_fewer_points_of_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    analysis = analysis_of(3, RECIPE_PAIR)
    whole = explorer_data(analysis, tmp_path)
    assert all(len(run["steps"]) == 40 and run["steps"][-1] == 200 for run in whole["training"]["runs"])
    assert all(len(record["metrics"]) == 6 for record in whole["records"])
    monkeypatch.setattr(training, "_MOST_POINTS", 6 * 15)
    monkeypatch.setattr(trials, "_MOST_METRICS", 6 * 6 - 1)
    less = explorer_data(analysis, tmp_path)
    for run, all_of_it in zip(less["training"]["runs"], whole["training"]["runs"], strict=True):
        assert {len(run[key]) for key in ("steps", "loss", "smoothed")} == {15}
        assert (run["steps"][0], run["steps"][-1]) == (5, 200)
        points = dict(zip(all_of_it["steps"], all_of_it["loss"], strict=True))
        assert run["loss"] == [points[step] for step in run["steps"]]
    assert less["training"]["means"] == whole["training"]["means"]
    assert [record["metrics"] for record in less["records"]] == [[]] * 6
    assert less["rows"] == whole["rows"]


def test_so_many_points_that_their_intervals_would_cover_them_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    analysis = many_rows(5, seeds=3)
    few = pareto.draw(analysis)
    monkeypatch.setattr(pareto, "_MOST_INTERVALS", 4)
    many = pareto.draw(analysis)
    assert few is not None
    assert many is not None
    assert ("intervals" in few.caption, "95 % intervals" in many.caption) == (True, False)
    ends = [
        [np.size(line.get_xdata()) for line in plot.figure.axes[0].lines if line.get_marker() in {"None", ""}]
        for plot in (few, many)
    ]
    assert len(ends[0]) == len(ends[1]) + 5
