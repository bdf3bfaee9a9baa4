"""Published numbers beside ours: which row is compared, the interval of the gap, the verdict, and what differs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from scipy.stats import t

from mosld_bench.records import published
from mosld_bench.records.overlap import Overlap
from mosld_bench.records.record import Outcome
from mosld_bench.records.store import Store
from mosld_bench.report.analysis import Analysis, analyse
from mosld_bench.report.sections.contamination import overlap_section
from mosld_bench.report.sections.reproduction import Reproduced, reproduced, reproduction
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import ModelSpec
from tests.conftest import REPOSITORY
from tests.support.synthetic import RECIPES, make_record, make_study, make_trials

PAPER = published.load(REPOSITORY / "results" / "published")
SIX = ("openbookqa", "commonsense_qa", "race", "mctest", "arc_easy", "arc_challenge")
LORA = {"openbookqa": 0.728, "commonsense_qa": 0.763, "race": 0.7823, "mctest": 0.5567, "arc_easy": 0.7087,
        "arc_challenge": 0.61}  # fmt: skip
SPREAD = (-0.01, 0.0, 0.01)  # of the seeds, the same on all tasks


def study(**changes: object) -> Study:
    return make_study(
        **{
            "models": [ModelSpec(name="NousResearch/Llama-2-7b-hf")],
            "in_domain": SIX,
            "out_of_domain": (),
            "budgets": ("r8", "60000"),
            "published": ("table1_main",),
            **changes,
        }
    )


def analysis(root: Path, one: Study, shift: dict[str, float]) -> Analysis:
    """Records with LoRA's published scores, moved by ``shift`` of the recipe; far off at the equal size."""
    trials = make_trials(one, [RECIPES["lora"], RECIPES["mosld"]])
    for trial in trials:
        move = shift[trial.recipe.name] if trial.budget == "r8" else 0.2
        values = {task: LORA[task] + SPREAD[trial.seed] + move for task in SIX}
        Store(root).write(Outcome(make_record(trial, one, values=values)))
    tasks = {task: {"metadata": {"title": task.upper()}} for task in SIX}
    return analyse(one, trials, Store(root).sources(one, tasks, PAPER))


def found(one: Analysis) -> dict[tuple[str, str], Reproduced]:
    rows = reproduced(one, PAPER.protocol)
    return {(row.recipe, row.task): row for row in rows if row.setting == "mixture"}


def test_the_gap_is_taken_at_the_papers_rank_and_never_at_equal_size(tmp_path: Path) -> None:
    rows = found(analysis(tmp_path, study(), {"lora": 0.0, "mosld": 0.0}))
    assert len(rows) == 14
    assert rows["lora", "race"].gap == pytest.approx(0, abs=1e-9)
    assert rows["lora", "average"].gap == pytest.approx(sum(LORA.values()) / 6 - 0.6915, abs=1e-9)
    assert rows["mosld", "arc_challenge"].gap == pytest.approx(0.61 - 0.6613, abs=1e-9)
    assert {row.seeds for row in rows.values()} == {3}


def test_the_interval_holds_seeds_of_both_sides_and_items_where_the_test_sets_differ(tmp_path: Path) -> None:
    rows = found(analysis(tmp_path, study(), {"lora": 0.0, "mosld": -0.1}))
    row = rows["lora", "mctest"]
    level = 0.5567  # 147 items in the paper, 400 here
    items = 1.96 * math.sqrt(level * (1 - level) * (1 / 147 + 1 / 400))
    half = math.hypot(t.ppf(0.975, 2) * 0.01 * math.sqrt(2 / 3), items)
    assert (row.low, row.high) == pytest.approx((-half, half), abs=1e-9)
    assert rows["lora", "race"].verdict == "agrees"
    assert rows["mosld", "average"].verdict == "below"


def test_a_printed_average_that_is_a_slip_is_taken_from_its_scores(tmp_path: Path) -> None:
    """Table 3 prints 53.93 for MoSLD's mixture, where the scores beside it give 54.93."""
    four = ("openbookqa", "mctest", "arc_challenge", "gsm8k")
    one = study(in_domain=four, published=("table3_uncommon",))
    trials = make_trials(one, [RECIPES["lora"], RECIPES["mosld"]])
    for trial in trials:
        Store(tmp_path).write(Outcome(make_record(trial, one)))
    made = analyse(one, trials, Store(tmp_path).sources(one, {}, PAPER))
    assert found(made)["mosld", "average"].published == pytest.approx(0.5493, abs=6e-5)
    assert found(made)["lora", "average"].published == pytest.approx(0.5247, abs=1e-9)
    section = reproduction(made)
    assert section is not None
    differing = next(block for block in section.blocks if getattr(block, "name", "") == "protocol-differences")
    fields = set(differing.frame["field"])
    assert "in_domain" not in fields  # these four are Table 3's own
    assert {"optimizer", "prompt", "MCTEST, train / test"} - fields == {"MCTEST, train / test"}


def test_verdicts_without_a_test(tmp_path: Path) -> None:
    one_seed = found(analysis(tmp_path / "a", study(seeds=(0,)), {"lora": 0.0, "mosld": 0.0}))
    assert {row.verdict for row in one_seed.values()} == {"untested"}
    other = study(models=[ModelSpec(name="embedded")])
    assert {row.verdict for row in found(analysis(tmp_path / "b", other, {"lora": 0, "mosld": 0})).values()} == {
        "other model"
    }
    one = study()
    trials = make_trials(one, [RECIPES["lora"], RECIPES["mosld"]])
    Store(tmp_path / "c").write(Outcome(make_record(trials[0], one)))
    rows = found(analyse(one, trials, Store(tmp_path / "c").sources(one, {}, PAPER)))
    assert rows["mosld", "race"].verdict == "no record"
    assert rows["mosld", "race"].ours is None


def test_ranks_and_models_find_their_rows(tmp_path: Path) -> None:
    by_rank = study(budgets=("r8", "r2"), published=("table6_rank",))
    rows = list(reproduced(analysis(tmp_path, by_rank, {"lora": 0, "mosld": 0}), PAPER.protocol))
    assert {(row.recipe, row.rank) for row in rows} == {("mosld", 2), ("mosld", 8)}
    assert len(rows) == 12


def test_the_section_tells_differences_and_slips_and_is_absent_without_a_published_table(tmp_path: Path) -> None:
    made = analysis(tmp_path, study(), {"lora": 0.0, "mosld": 0.0})
    section = reproduction(made)
    assert section is not None
    text = str(section.blocks)
    for part in (
        "Of 14 printed scores",
        "train.batch_size",
        "not given",
        "MoSLD, balance coef",
        "Table 1 prints 41.70 as the single average of prefix-tuning",
    ):
        assert part in text or part.removeprefix("train.") in text, part
    assert reproduction(analysis(tmp_path / "none", study(published=()), {"lora": 0, "mosld": 0})) is None


def test_overlap_section(tmp_path: Path) -> None:
    made = analysis(tmp_path, study(), {"lora": 0.0, "mosld": 0.0})
    assert overlap_section(made) is None
    pairs = [
        Overlap(train="race", evaluated=task, n=13, train_items=90, items=200, shared=7 * (task == "mctest"),
                        exact=0, example="a b c")
        for task in SIX
    ]  # fmt: skip
    section = overlap_section(replace(made, overlaps=tuple(pairs)))
    assert section is not None
    assert "MCTEST with RACE (3.5 %)" in str(section.blocks)
    clean = overlap_section(replace(made, overlaps=tuple(pairs[:2])))
    assert clean is not None
    assert "No test item is shared" in str(clean.blocks)
