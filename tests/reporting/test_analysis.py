"""Scores of rows by hand, and which rows of a block are best, tied, separated or not tested."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from mosld_bench.reporting import stats
from mosld_bench.reporting.analysis import Verdict
from mosld_bench.reporting.figures.size import draw
from mosld_bench.reporting.labels import block_label, short_label
from mosld_bench.reporting.rows import RowKey
from mosld_bench.reporting.sections.answers.blocks import varied, where
from mosld_bench.reporting.sections.results.main_table import main_rows, main_tables
from mosld_bench.spec.budget import NATIVE
from mosld_bench.spec.trial import Condition, Domain
from tests.reporting.reading import MIXTURE, analysis_of, analysis_with, records_of_two_metrics, uneven_analysis
from tests.support.synthetic import RECIPES, make_record, make_records, make_study, make_trials, write_records


def test_means_by_hand(tmp_path: Path) -> None:
    study = make_study(in_domain=("a", "b"), out_of_domain=("c",), seeds=(0, 1), settings=("mixture", "single"))
    trials = make_trials(study, [RECIPES["lora"]])
    scores = {  # by setting, trained on and seed: scores of a, b, c
        ("mixture", "a", 0): (0.5, 0.7, 0.3),
        ("mixture", "a", 1): (0.6, 0.8, 0.4),
        ("single", "a", 0): (0.9, None, 0.2),
        ("single", "b", 0): (None, 0.5, 0.4),
        ("single", "a", 1): (0.8, None, 0.6),
    }
    for trial in trials:
        values = scores.get((trial.setting, trial.train_on[0], trial.seed))
        if values:
            known = {task: value for task, value in zip("abc", values, strict=True) if value is not None}
            write_records(tmp_path, [make_record(trial, study, values=known)])
    rows = {row.setting: row for row in analysis_of(tmp_path, study, trials).rows}
    mixture, single = rows["mixture"], rows["single"]
    assert mixture.by_seed() == pytest.approx({0: 0.6, 1: 0.7})
    assert list(mixture.mean_sd()) == pytest.approx([0.65, 0.1 / 2**0.5])
    assert list(mixture.mean_sd(Domain.OUT)) == pytest.approx([0.35, 0.1 / 2**0.5])
    # Seed 1 lacks the model of task b: no in-domain mean, and no out-of-domain mean over half of the models.
    assert single.by_seed() == pytest.approx({0: 0.7})
    mean, sd = single.mean_sd()
    assert mean == pytest.approx(0.7)
    assert sd is None
    assert single.by_seed("c") == pytest.approx({0: 0.3})
    assert single.by_seed("a") == pytest.approx({0: 0.9, 1: 0.8})


def test_a_row_is_known_by_its_recipe_and_condition(tmp_path: Path) -> None:
    study = make_study(in_domain=("a",), out_of_domain=("b",), seeds=(0,), budgets=("60000", "native"))
    records = [make_record(trial, study) for trial in make_trials(study, [RECIPES["full"], RECIPES["lora"]])]
    rows = analysis_with(tmp_path, study, records).rows
    native = MIXTURE._replace(budget=NATIVE)
    assert [row.key for row in rows] == [RowKey("full", native), RowKey("lora", native), RowKey("lora", MIXTURE)]


def test_rows_at_runner_up_rates_are_a_block_of_their_own(tmp_path: Path) -> None:
    """Beside none of the chosen rates: not in its means, its tests, its figures or its name."""
    study = make_study(in_domain=("a",), out_of_domain=(), seeds=(0, 1))
    chosen = make_trials(study, [RECIPES["lora"], RECIPES["mosld"]])
    runner_up = [
        trial.model_copy(
            update={"rate": "runner_up", "recipe": trial.recipe.model_copy(update={"learning_rate_scale": 2.0})}
        )
        for trial in chosen
    ]
    scores = {"chosen": 0.5, "runner_up": 0.75}
    records = [make_record(trial, study, values={"a": scores[trial.rate]}) for trial in [*chosen, *runner_up]]
    analysis = analysis_with(tmp_path, study, records)
    blocks = dict(analysis.blocks())
    beside = MIXTURE._replace(rate="runner_up")
    assert list(blocks) == [MIXTURE, beside]
    assert [row.score for row in blocks[MIXTURE]] == [0.5, 0.5]
    assert [row.score for row in blocks[beside]] == [0.75, 0.75]
    assert {row.recipe.learning_rate_scale for row in blocks[MIXTURE]} == {1.0}
    assert {row.recipe.learning_rate_scale for row in blocks[beside]} == {2.0}
    assert [(recipe.name, recipe.learning_rate_scale) for recipe in analysis.recipes] == [("lora", 1.0), ("mosld", 1.0)]
    assert block_label(beside) == "Mixture, budget 60,000 parameters, runner-up learning rates"
    assert short_label(beside) == f"{short_label(MIXTURE)}, runner-up learning rates"
    assert [where(analysis, block) for block in blocks] == ["chosen learning rates", "runner-up learning rates"]
    assert varied(analysis) == "learning rates"
    assert analysis.unasked == analysis.superseded == 0
    table = main_rows(analysis)
    assert [row.setting for row in table] == ["mixture"] * 2 + ["mixture, runner-up rate"] * 2
    (main, *_) = main_tables(analysis)
    assert main.frame is not None
    assert list(main.frame["rate"]) == ["chosen", "chosen", "runner_up", "runner_up"]
    size = draw(analysis)
    assert not isinstance(size, str)
    assert {row.condition.rate for row in size.rows or ()} == {"chosen"}


def test_a_task_named_as_a_domain_is_a_task(tmp_path: Path) -> None:
    study = make_study(in_domain=("in_domain", "b"), out_of_domain=(), seeds=(0,))
    (trial,) = make_trials(study, [RECIPES["lora"]])
    (row,) = analysis_with(tmp_path, study, [make_record(trial, study, values={"in_domain": 0.2, "b": 0.6})]).rows
    assert row.by_seed("in_domain") == {0: 0.2}
    assert row.by_seed(Domain.IN) == pytest.approx({0: 0.4})


def test_best_and_tied(tmp_path: Path) -> None:
    study = make_study(in_domain=("a",), out_of_domain=())
    scores = {
        "full": (0.9, 0.9, 0.9),
        "lora": (0.60, 0.61, 0.605),
        "mola": (0.69, 0.72, 0.70),
        "mosld": (0.70, 0.71, 0.71),
    }
    trials = make_trials(study, [RECIPES[name] for name in scores])
    records = [make_record(t, study, values={"a": scores[t.recipe.name][t.seed]}) for t in trials]
    analysis = analysis_with(tmp_path, study, records)
    best = analysis.best(MIXTURE)
    assert best is not None
    assert best.recipe.name == "mosld"  # full scores higher, but is not of this size
    separated = {c.row.recipe.name: c.separated for c in analysis.against_best(MIXTURE)}
    assert separated == {"lora": True, "mola": False}
    assert [row.recipe.name for row in analysis.tied(MIXTURE)] == ["mola"]
    assert analysis.untested(MIXTURE) == []


@pytest.mark.parametrize(("score", "best", "tied"), [(0.708, "mosld", ["moe-lora"]), (0.75, "moe-lora", [])])
def test_a_row_of_fewer_seeds_is_the_best_only_where_a_test_tells_so(
    score: float, best: str, tied: list[str], tmp_path: Path
) -> None:
    study = make_study(in_domain=("a",), out_of_domain=())
    scores = {
        "lora": (0.60, 0.62, 0.605),
        "moe-lora": (score,),
        "mola": (0.65, 0.66, 0.66),
        "mosld": (0.70, 0.71, 0.71),
    }
    trials = [t for t in make_trials(study, [RECIPES[n] for n in scores]) if t.seed < len(scores[t.recipe.name])]
    records = [make_record(t, study, values={"a": scores[t.recipe.name][t.seed]}) for t in trials]
    analysis = analysis_with(tmp_path, study, records)
    row = analysis.best(MIXTURE)
    assert row is not None
    assert row.recipe.name == best
    assert [row.recipe.name for row in analysis.tied(MIXTURE)] == tied
    assert analysis.leads(MIXTURE) == (not tied)
    assert analysis.untested(MIXTURE) == []


def test_the_best_on_a_task_is_corrected_for_all_pairs_and_tasks_of_its_domain(tmp_path: Path) -> None:
    study, trials = make_records(
        tmp_path, ("lora", "mola", "mosl", "mosld"), in_domain=("a", "b"), out_of_domain=("c",)
    )
    analysis = analysis_of(tmp_path, study, trials)
    pool = analysis.pool(MIXTURE)
    family = [
        (task, row.key, other.key, analysis.evidence.difference(row, other, task, pool))
        for task in ("a", "b")
        for row, other in combinations(pool, 2)
    ]
    known = {(task, frozenset((row, other))): e.p for task, row, other, e in family if e is not None}
    adjusted = dict(zip(known, stats.holm(list(known.values())), strict=True))
    assert len(adjusted) == 12
    for task in ("a", "b"):
        against = analysis.against_best(MIXTURE, task)
        assert len(against) == 3
        for c in against:
            assert c.adjusted == pytest.approx(adjusted[task, frozenset((c.row.key, c.other.key))])


def test_rows_without_a_common_seed_are_not_tested(tmp_path: Path) -> None:
    study = make_study(in_domain=("a",), out_of_domain=(), seeds=(0, 1, 2))
    trials = make_trials(study, [RECIPES["lora"], RECIPES["mola"]])
    apart = [trial for trial in trials if (trial.recipe.name == "mola") == (trial.seed == 2)]
    write_records(tmp_path, [make_record(trial, study) for trial in apart])
    analysis = analysis_of(tmp_path, study, trials)
    assert analysis.against_best(MIXTURE) == []
    assert analysis.tied(MIXTURE) == []
    assert len(analysis.untested(MIXTURE)) == 1


def test_a_block_that_is_not_there_has_no_best_row(tmp_path: Path) -> None:
    analysis, elsewhere = uneven_analysis(tmp_path), Condition("single", MIXTURE.budget)
    assert analysis.best(elsewhere) is None
    assert analysis.against_best(elsewhere) == []
    assert analysis.tied(elsewhere) == []
    assert analysis.untested(elsewhere) == []


def test_a_change_between_blocks_is_the_difference_of_two_differences(tmp_path: Path) -> None:
    study = make_study(in_domain=("a",), out_of_domain=(), reference="lora", budgets=("r2", "r4", "r8"))
    levels = {"lora": (0.60, 0.61, 0.63), "mola": (0.66, 0.66, 0.70), "mosl": (0.62, 0.60, 0.64)}
    gained = {"r2": 0.0, "r4": 0.01, "r8": 0.05}  # of MoLA alone
    records = []
    for trial in make_trials(study, [RECIPES[name] for name in levels]):
        extra = gained[trial.budget] if trial.recipe.name == "mola" else 0.0
        records.append(make_record(trial, study, values={"a": levels[trial.recipe.name][trial.seed] + extra}))
    analysis = analysis_with(tmp_path, study, records)
    differences = {
        (c.row.recipe.name, condition.budget): c.difference
        for condition, _ in analysis.blocks()
        for c in analysis.against_reference(condition)
    }
    changes = analysis.changes()
    assert [(c.row.recipe.name, c.other.budget, c.row.budget) for c in changes] == [
        (name, *pair) for pair in (("r2", "r4"), ("r2", "r8"), ("r4", "r8")) for name in ("mola", "mosl")
    ]
    for change in changes:
        later, earlier = (differences[change.row.recipe.name, row.budget] for row in (change.row, change.other))
        assert later.error is not None
        assert earlier.error is not None
        assert later.freedom == earlier.freedom
        expected = gained[change.row.budget] - gained[change.other.budget] if change.row.recipe.name == "mola" else 0
        assert change.difference.mean == pytest.approx(expected)
        assert change.difference.error == pytest.approx((later.error**2 + earlier.error**2) ** 0.5)
        assert change.difference.freedom == pytest.approx(2 * (later.freedom or 0))  # Welch, of equal errors
    assert [c.adjusted for c in changes] == stats.holm([c.difference.p for c in changes])


def test_a_change_speaks_of_methods_only_where_both_differences_do(tmp_path: Path) -> None:
    study = make_study(in_domain=("a",), out_of_domain=(), reference="lora", budgets=("r2", "r4"))
    trials = make_trials(study, [RECIPES[name] for name in ("lora", "mola", "mosl")])
    kept = [trial for trial in trials if trial.budget == "r2" or trial.seed == 0]
    analysis = analysis_with(tmp_path, study, [make_record(trial, study) for trial in kept])
    assert {c.verdict for c in analysis.changes()} == {Verdict.UNTESTED}
    assert {c.difference.half_width for c in analysis.changes()} == {None}  # no items, and one seed


def test_more_items_find_smaller_differences(tmp_path: Path) -> None:
    study, trials = make_records(tmp_path, ("lora", "mola", "mosl"), items=True)
    analysis = analysis_of(tmp_path, study, trials)
    noise = analysis.pair_noise(MIXTURE)
    assert noise is not None
    assert analysis.detectable(MIXTURE, share=4.0) == stats.detectable_effect(noise.on(4.0), seeds=3, rows=3)
    once, fourfold = analysis.detectable(MIXTURE), analysis.detectable(MIXTURE, share=4.0)
    assert once is not None
    assert fourfold is not None
    assert fourfold < once


def test_the_test_items_of_a_task_are_those_that_its_definition_states(tmp_path: Path) -> None:
    study, trials = make_records(tmp_path, ("lora",), in_domain=("a", "b"), out_of_domain=(), seeds=(0,))
    tasks: dict[str, dict[str, Any]] = {
        "a": {"metadata": {"size": {"train": 10, "test": 600}}},
        "b": {"metadata": {"title": "B"}},
    }
    analysis = analysis_of(tmp_path, study, trials, tasks)
    assert [analysis.test_items(task) for task in "ab"] == [600, None]


def test_other_metrics_by_hand(tmp_path: Path) -> None:
    study = make_study(in_domain=("a", "b"), out_of_domain=("c",), seeds=(0, 1))
    records = records_of_two_metrics(study)
    analysis = analysis_with(tmp_path, study, records)
    assert analysis.other_metrics() == ["acc_norm,none"]
    (row,) = analysis.trained
    under = analysis.under("acc_norm,none", row)
    assert under.by_seed() == pytest.approx({0: 0.45, 1: 0.65})
    assert list(under.mean_sd()) == pytest.approx([0.55, 0.2 / 2**0.5])
