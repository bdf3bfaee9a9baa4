"""Published numbers beside ours: which row is compared, the interval of the gap, the verdict, and what differs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import t

from mosld_bench.records.overlap import Overlap
from mosld_bench.records.published import RANK, Published
from mosld_bench.records.record import Outcome
from mosld_bench.records.store import Store
from mosld_bench.reporting.analysis import Analysis, analyse
from mosld_bench.reporting.document import Bullets, Paragraph, Section
from mosld_bench.reporting.paper_protocol import protocol_differences
from mosld_bench.reporting.paper_scores import ComparedScore, Verdict, compared_scores
from mosld_bench.reporting.sections.contamination import overlap_section
from mosld_bench.reporting.sections.reproduction import reproduction
from mosld_bench.reporting.table import Table
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import ModelSpec, Trial
from tests.conftest import REPOSITORY
from tests.support.synthetic import RECIPES, items_of, make_record, make_study, make_trials

PAPER = Published.load(REPOSITORY / "results" / "published")
LLAMA = ModelSpec(name="NousResearch/Llama-2-7b-hf")
SIX = ("openbookqa", "commonsense_qa", "race", "mctest", "arc_easy", "arc_challenge")
LORA = {"openbookqa": 0.728, "commonsense_qa": 0.763, "race": 0.7823, "mctest": 0.5567, "arc_easy": 0.7087,
        "arc_challenge": 0.61}  # fmt: skip
AS_PRINTED = {"lora": 0.0, "mosld": 0.0}  # what is added to LoRA's published scores
SPREAD = (-0.01, 0.0, 0.01)  # of the seeds, the same on all tasks


def make_paper_study(**changes: Any) -> Study:
    """A study that redoes Table 1 at the paper's rank and, beside it, at an equal size."""
    values = {"models": [LLAMA], "in_domain": SIX, "out_of_domain": (), "budgets": ("r8", "60000"),
              "published": ("table1_main",)}  # fmt: skip
    return make_study(**{**values, **changes})


def analysed(root: Path, study: Study, trials: list[Trial]) -> Analysis:
    tasks = {task: {"metadata": {"title": task.upper()}} for task in SIX}
    return analyse(study, trials, Store(root).sources(study, tasks, PAPER))


def make_analysis(root: Path, study: Study, shift: dict[str, float]) -> Analysis:
    """Records with LoRA's published scores, moved by ``shift`` of the recipe; far off at the equal size."""
    trials = make_trials(study, [RECIPES["lora"], RECIPES["mosld"]])
    for trial in trials:
        move = shift[trial.recipe.name] if trial.budget != "60000" else 0.2
        values = {task: LORA[task] + SPREAD[trial.seed] + move for task in SIX}
        Store(root).write(Outcome(make_record(trial, study, values=values)))
    return analysed(root, study, trials)


def of_the_mixture(analysis: Analysis) -> dict[tuple[str, str], ComparedScore]:
    """(recipe, task) -> comparison."""
    scores = compared_scores(analysis, PAPER)
    return {(score.recipe, score.task): score for score in scores if score.setting == "mixture"}


def texts(section: Section | None) -> list[str]:
    """The paragraphs and list items of a section."""
    assert section is not None
    paragraphs = ["".join(run.text for run in block.runs) for block in section.blocks if isinstance(block, Paragraph)]
    return paragraphs + [item for block in section.blocks if isinstance(block, Bullets) for item in block.items]


def tables(section: Section | None) -> dict[str, Table]:
    """The tables of a section by name."""
    assert section is not None
    return {block.name: block for block in section.blocks if isinstance(block, Table)}


def cells(table: Table) -> list[tuple[str, ...]]:
    """The printed texts, with their marks."""
    return [tuple(cell.text + cell.mark for cell in row.cells) for row in table.rows]


def test_the_gap_is_taken_at_the_papers_rank_and_never_at_equal_size(tmp_path: Path) -> None:
    scores = of_the_mixture(make_analysis(tmp_path, make_paper_study(), AS_PRINTED))
    assert len(scores) == 14
    assert scores["lora", "race"].gap == pytest.approx(0, abs=1e-9)
    assert scores["lora", "average"].gap == pytest.approx(sum(LORA.values()) / 6 - 0.6915, abs=1e-9)
    assert scores["mosld", "arc_challenge"].gap == pytest.approx(0.61 - 0.6613, abs=1e-9)
    assert {score.seeds for score in scores.values()} == {3}


def items_of_gap(level: float, tasks: Sequence[str]) -> float:
    """Variance of a mean over tasks by the choice of items, of the paper's test sets and of our 400 items."""
    shares = (1 / PAPER.protocol.tasks[task].scored + 1 / 400 for task in tasks)
    return sum(level * (1 - level) * share for share in shares) / len(tasks) ** 2


def half_width(of_seeds: float, of_items: float) -> float:
    """Half the 95 % interval, the variance of seeds being on two degrees of freedom."""
    total = of_seeds + of_items
    return float(t.ppf(0.975, 2 * (total / of_seeds) ** 2)) * math.sqrt(total)


def test_the_interval_holds_seeds_of_both_sides_and_items_where_the_test_sets_differ(tmp_path: Path) -> None:
    scores = of_the_mixture(make_analysis(tmp_path, make_paper_study(), {"lora": 0.0, "mosld": -0.1}))
    for task in ("mctest", "race"):
        score = scores["lora", task]
        assert score.gap is not None
        half = half_width(0.01**2 * 2 / 3, items_of_gap(score.published, [task]))
        assert (score.low, score.high) == pytest.approx((score.gap - half, score.gap + half), abs=1e-9)
        assert (score.basis, score.seeds) == ("own", 3)
    assert scores["lora", "race"].verdict == "agrees"
    assert scores["mosld", "average"].verdict == "below"


def test_one_seed_borrows_the_spread_of_the_rows_that_have_more(tmp_path: Path) -> None:
    study = make_paper_study()
    trials = [
        t for t in make_trials(study, [RECIPES["lora"], RECIPES["mosld"]]) if t.recipe.name == "lora" or not t.seed
    ]
    for trial in trials:
        values = {task: LORA[task] + SPREAD[trial.seed] for task in SIX}
        Store(tmp_path).write(Outcome(make_record(trial, study, values=values)))
    scores = of_the_mixture(analysed(tmp_path, study, trials))
    mosld = scores["mosld", "average"]
    assert (mosld.seeds, mosld.sd, mosld.basis) == (1, None, "borrowed")
    assert mosld.gap is not None
    half = half_width(0.01**2 * 4 / 3, items_of_gap(mosld.published, SIX))
    assert mosld.low == pytest.approx(mosld.gap - half, abs=1e-9)


def test_items_at_hand_tell_what_their_choice_does(tmp_path: Path) -> None:
    """As they go together by passage, and not as a binomial sample."""
    study, halves = make_paper_study(budgets=("r8",)), []
    for passages in (None, 20):
        root = tmp_path / str(passages)
        trials = make_trials(study, [RECIPES["lora"], RECIPES["mosld"]])
        for trial in trials:
            record = make_record(
                trial, study, values={task: round((LORA[task] + SPREAD[trial.seed]) * 400) / 400 for task in SIX}
            )
            items = items_of(record, passages=passages)
            # The right ones of a passage stand together.
            items = items.assign(
                **{c: items.groupby("task")[c].transform(lambda v: sorted(v)) for c in ("score", "acc,none")}
            )
            Store(root).write(Outcome(record, items))
        mctest = of_the_mixture(analysed(root, study, trials))["lora", "mctest"]
        assert mctest.high is not None
        assert mctest.low is not None
        halves.append((mctest.high - mctest.low) / 2)
    assert halves[1] > 2 * halves[0]


def test_a_printed_average_that_is_a_slip_is_taken_from_its_scores(tmp_path: Path) -> None:
    """Table 3 prints 53.93 for MoSLD's mixture, where the scores beside it give 54.93."""
    four = ("openbookqa", "mctest", "arc_challenge", "gsm8k")
    study = make_paper_study(in_domain=four, published=("table3_uncommon",))
    trials = make_trials(study, [RECIPES["lora"], RECIPES["mosld"]])
    for trial in trials:
        Store(tmp_path).write(Outcome(make_record(trial, study)))
    analysis = analysed(tmp_path, study, trials)
    scores = of_the_mixture(analysis)
    assert scores["mosld", "average"].published == pytest.approx(0.5493, abs=6e-5)
    assert scores["lora", "average"].published == pytest.approx(0.5247, abs=1e-9)
    differences = {difference.field: difference for difference in protocol_differences(analysis, PAPER.protocol)}
    assert "in_domain" not in differences  # these four are Table 3's own
    assert {"optimizer", "prompt", "MCTEST, train / test"} <= differences.keys()
    frame = tables(reproduction(analysis))["protocol-differences"].frame
    assert frame is not None
    assert list(frame["field"]) == list(differences)


def test_verdicts_without_a_test(tmp_path: Path) -> None:
    one_seed = of_the_mixture(make_analysis(tmp_path / "a", make_paper_study(seeds=(0,)), AS_PRINTED))
    assert {score.verdict for score in one_seed.values()} == {Verdict.UNTESTED}
    other = make_paper_study(models=[ModelSpec(name="embedded")])
    scores = of_the_mixture(make_analysis(tmp_path / "b", other, AS_PRINTED))
    assert {score.verdict for score in scores.values()} == {"other model"}
    study = make_paper_study()
    trials = make_trials(study, [RECIPES["lora"], RECIPES["mosld"]])
    Store(tmp_path / "c").write(Outcome(make_record(trials[0], study)))
    scores = of_the_mixture(analysed(tmp_path / "c", study, trials))
    assert scores["mosld", "race"].verdict == "no record"
    assert scores["mosld", "race"].ours is None


def test_ranks_and_models_find_their_rows(tmp_path: Path) -> None:
    by_rank = make_paper_study(budgets=("r8", "r2"), published=("table6_rank",))
    scores = compared_scores(make_analysis(tmp_path, by_rank, AS_PRINTED), PAPER)
    assert {(score.recipe, score.rank) for score in scores} == {("mosld", 2), ("mosld", RANK)}
    assert len(scores) == 12


def test_a_study_of_one_of_the_papers_models_leaves_out_the_others(tmp_path: Path) -> None:
    larger = [ModelSpec(name=PAPER.protocol.models["llama2-13b"])]
    study = make_paper_study(models=larger, published=("table7_scaling", "table1_main"))
    scores = compared_scores(make_analysis(tmp_path, study, AS_PRINTED), PAPER)
    assert {(score.table, score.model) for score in scores} == {("table7_scaling", "llama2-13b")}
    assert {score.task for score in scores} == {*SIX, "average"}


def test_larger_models_are_compared_task_by_task_under_headings_of_their_own(tmp_path: Path) -> None:
    """And where Table 7 and Table 4 disagree, with the one that gives the printed average."""
    models = [ModelSpec(name=PAPER.protocol.models[name]) for name in ("llama2-13b", "llama-33b")]
    study = make_paper_study(
        models=models, published=("table7_scaling",), budgets=("r8",), settings=("single", "mixture")
    )
    analysis = make_analysis(tmp_path, study, AS_PRINTED)
    scores = {(s.model, s.recipe, s.setting, s.task): s.published for s in compared_scores(analysis, PAPER)}
    assert len(scores) == 2 * 2 * 2 * 7  # models, recipes, settings; six tasks and their average
    assert scores["llama2-13b", "lora", "mixture", "race"] == pytest.approx(0.7783)
    assert scores["llama-33b", "mosld", "single", "commonsense_qa"] == pytest.approx(0.8149)
    assert scores["llama-33b", "mosld", "single", "average"] == pytest.approx(0.7805)
    section = reproduction(analysis)
    headings = ["Mixture, llama2-13b", "Mixture, llama-33b"]
    for name in ("reproduction", "reproduction-tasks"):
        lines = [line[0] for line in cells(tables(section)[name])]
        assert [line for line in lines if line.startswith("Mixture")] == headings, name
        assert lines.count("LoRA") == 2 * 2, name
    assert any("only 81.49 gives the printed average" in text for text in texts(section))


def test_the_tables_show_averages_with_verdicts_and_mark_the_gaps_of_tasks(tmp_path: Path) -> None:
    section = reproduction(make_analysis(tmp_path, make_paper_study(), {"lora": 0.0, "mosld": -0.2}))
    averages, by_task = tables(section)["reproduction"], tables(section)["reproduction-tasks"]
    assert [line[0] for line in cells(averages)] == ["Mixture", "LoRA", "MoSLD"]
    (lora, mosld) = cells(averages)[1:]
    assert (lora[1], lora[2], lora[3], lora[-1]) == ("69.15", "69.1", "0.0", "agrees")
    assert mosld[-1] == "below"
    assert [column.title for column in by_task.columns] == ["Method", *(task.upper() for task in SIX)]
    assert cells(by_task)[1][1:] == ("0.0",) * 6
    assert all(text.startswith("−") and text.endswith("*") for text in cells(by_task)[2][1:])


def test_a_table_without_averages_shows_its_scores(tmp_path: Path) -> None:
    by_rank = make_paper_study(budgets=("r8", "r2"), published=("table6_rank",))
    section = reproduction(make_analysis(tmp_path, by_rank, AS_PRINTED))
    assert "reproduction-tasks" not in tables(section)
    lines = [line[0] for line in cells(tables(section)["reproduction"])]
    assert [line for line in lines if line.startswith("Mixture")] == ["Mixture, rank 2", "Mixture, rank 8"]
    assert len(lines) == 14
    assert "MoSLD, RACE" in lines


def test_the_section_tells_differences_and_slips_and_is_absent_without_a_published_table(tmp_path: Path) -> None:
    analysis = make_analysis(tmp_path, make_paper_study(), AS_PRINTED)
    section = reproduction(analysis)
    assert any("Of 14 printed scores" in text for text in texts(section))
    assert any("Table 1 prints 41.70 as the single average of prefix-tuning" in text for text in texts(section))
    differences = {line[0]: line[1:] for line in cells(tables(section)["protocol-differences"])}
    assert {"batch_size", "MoSLD, balance coef"} <= differences.keys()
    assert differences["optimizer"][0] == "not given"
    assert reproduction(make_analysis(tmp_path / "none", make_paper_study(published=()), AS_PRINTED)) is None


def test_overlap_section(tmp_path: Path) -> None:
    analysis = make_analysis(tmp_path, make_paper_study(), AS_PRINTED)
    assert overlap_section(analysis) is None
    overlaps = [
        Overlap(train="race", evaluated=task, n=13, train_items=90, items=200, shared=7 * (task == "mctest"),
                exact=0, example="a b c")
        for task in SIX
    ]  # fmt: skip
    section = overlap_section(replace(analysis, overlaps=tuple(overlaps)))
    assert any("MCTEST with RACE (3.5 %)" in text for text in texts(section))
    shares = {line[0]: line[2] for line in cells(tables(section)["overlap"])}
    assert shares == {task.upper(): "3.5" if task == "mctest" else "0" for task in SIX}
    clean = overlap_section(replace(analysis, overlaps=tuple(overlaps[:2])))
    assert any("No test item is shared" in text for text in texts(clean))
