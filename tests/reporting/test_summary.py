"""How a report opens: it answers each question of its study by the tests, and says no more and no less than these."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mosld_bench.records.record import Outcome, Record
from mosld_bench.records.store import Store
from mosld_bench.reporting import answer_lines
from mosld_bench.reporting.analysis import Analysis, Comparison, Verdict
from mosld_bench.reporting.compose import compose
from mosld_bench.reporting.document import Answer
from mosld_bench.reporting.evidence import PROBABILITY
from mosld_bench.reporting.sections.answers.blocks import where
from mosld_bench.reporting.sections.summary import summary
from mosld_bench.reporting.verdicts import numbers
from mosld_bench.spec.budget import Budget
from mosld_bench.spec.trial import Condition, Domain, Fit
from tests.reporting.answering import analysis_from, answered, claims, opening
from tests.reporting.reading import MIXTURE, TASKS, analysis_of, words
from tests.support.synthetic import (
    RECIPES,
    items_of,
    make_failure,
    make_record,
    make_records,
    make_study,
    make_trials,
    write_records,
)

#: Five methods of three seeds: MoLA far above LoRA, MoSLD far below, MoSL beside it, HydraLoRA too close to tell.
FIVE: dict[str, Sequence[float]] = {
    "base": (0.3,),
    "lora": (0.70, 0.71, 0.705),
    "mola": (0.75, 0.76, 0.7575),
    "mosl": (0.6975, 0.71, 0.7075),
    "mosld": (0.60, 0.61, 0.6075),
    "hydralora": (0.71, 0.7125, 0.715),
}
FIRST = {name: seeds[:1] for name, seeds in FIVE.items()}
TITLES = {name: RECIPES[name].title for name in FIVE}


def beside(analysis: Analysis, recipe: str, of: Domain | str = Domain.IN, metric: str | None = None) -> Comparison:
    """A row of the main block beside the reference."""
    return next(c for c in analysis.against_reference(MIXTURE, of, metric) if c.row.recipe.name == recipe)


# Questions of one block


def test_methods_are_told_by_verdict_with_their_differences_and_intervals(tmp_path: Path) -> None:
    analysis = analysis_from(tmp_path, FIVE)
    text = answered(analysis)["In-domain."]
    verdicts = {name: beside(analysis, name).verdict for name in ("mola", "mosl", "mosld", "hydralora")}
    assert list(verdicts.values()) == [Verdict.BETTER, Verdict.EQUAL, Verdict.WORSE, Verdict.OPEN]
    first, *others = (numbers(beside(analysis, name), full=name == "mola") for name in verdicts)
    assert text.startswith(
        f"MoLA ({first}) is better than LoRA. MoSL ({others[0]}) is equal within 1 point. MoSLD ({others[1]}) is "
        f"worse. HydraLoRA ({others[2]}) is neither told apart nor shown equal. MoLA is better than every other row "
        "(Holm over all pairs)."
    )
    outside = answered(analysis)["Out-of-domain."]
    assert f"MoLA ({numbers(beside(analysis, 'mola', Domain.OUT))}) is better than LoRA." in outside


def test_the_margin_of_the_study_is_that_of_its_sentences(tmp_path: Path) -> None:
    text = opening(analysis_from(tmp_path, {"lora": FIVE["lora"], "mosl": FIVE["mosl"]}, margin=2.5))
    assert "is equal to LoRA within 2.5 points" in text
    assert "1 point" not in text


def test_tasks_that_tell_methods_are_named_with_the_size_of_the_family(tmp_path: Path) -> None:
    alike, lower = FIVE["lora"], {"a": FIVE["mosld"], "b": FIVE["lora"], "c": FIVE["lora"]}
    one = analysis_from(tmp_path / "one", FIVE | {"mola": alike, "mosld": lower})
    c = next(c for c in one.by_task(MIXTURE, Domain.IN) if (c.row.recipe.name, c.of) == ("mosld", "a"))
    assert answered(one)["By task."] == (
        "One of the two in-domain tasks tells methods from LoRA (Holm over 8 tests): MoSLD is worse on a "
        f"({numbers(c)})."
    )
    none = analysis_from(tmp_path / "none", {"lora": alike, "mosl": FIVE["mosl"], "hydralora": (0.705, 0.7, 0.71)})
    assert answered(none)["By task."] == "No in-domain task tells a method from LoRA (Holm over 4 tests)."
    many = analysis_from(tmp_path / "many", FIVE | {"moe-lora": FIVE["mola"]})
    assert (
        answered(many)["By task."]
        == "Both in-domain tasks tell methods from LoRA (Holm over 10 tests): a 3 of 5 and b 3 of 5."
    )


def test_the_gain_over_the_frozen_base_is_told_and_who_has_none(tmp_path: Path) -> None:
    scores = {"base": (0.6075,)} | {name: seeds for name, seeds in FIVE.items() if name != "base"}
    analysis = analysis_from(tmp_path, scores)
    gains = {c.row.recipe.name: c for c in analysis.against_base(MIXTURE)}
    assert {name for name, c in gains.items() if c.verdict is not Verdict.BETTER} == {"mosld"}
    text = answered(analysis)["Gain over the frozen base."]
    assert "In-domain LoRA, MoLA, MoSL and HydraLoRA gain on its 60.8 %: +9.7 points (LoRA) to" in text
    assert f"MoSLD ({numbers(gains['mosld'], full=False)}) is neither told apart nor shown equal." in text


def test_ablations_are_told_by_themselves(tmp_path: Path) -> None:
    recipes = [
        RECIPES["mosld"].model_copy(update={"name": f"cut-{i}", "title": f"Cut {i}", "group": "ablation"})
        for i in (1, 2)
    ]
    scores = {"lora": FIVE["lora"], "mola": FIVE["mola"], "cut-1": FIVE["mosl"], "cut-2": FIVE["mosld"]}
    analysis = analysis_from(tmp_path, scores, recipes=recipes)
    told = answered(analysis)
    assert "Cut" not in told["In-domain."]
    assert told["Ablations."].startswith(
        f"In-domain Cut 1 ({numbers(beside(analysis, 'cut-1'))}) is equal to LoRA within 1 point; Cut 2 "
        f"({numbers(beside(analysis, 'cut-2'), full=False)}) is worse."
    )
    assert "Out of domain Cut 1" in told["Ablations."]


def test_other_measures_are_told_where_they_give_another_verdict(tmp_path: Path) -> None:
    analysis = analysis_from(tmp_path, FIVE)
    other = {name: beside(analysis, name, metric=PROBABILITY) for name in ("mola", "mosl", "mosld", "hydralora")}
    assert [name for name, c in other.items() if c.verdict is not beside(analysis, name).verdict] == ["hydralora"]
    assert answered(analysis)["Other measures."] == (
        f"By the probability of the right option HydraLoRA ({numbers(other['hydralora'])}) is equal to LoRA within 1 "
        "point. All other verdicts are those of accuracy."
    )
    fewer = {name: seeds for name, seeds in FIVE.items() if name in {"lora", "mola"}}
    assert answered(analysis_from(tmp_path / "agreeing", fewer))["Other measures."] == (
        "By the probability of the right option every verdict is that of accuracy."
    )
    assert answered(analysis_from(tmp_path / "norm", fewer, acc_norm=True))["Other measures."] == (
        "By acc_norm MoLA (0.0 points, 95 % 0.0 to 0.0) is equal to LoRA within 1 point. By the probability of the "
        "right option every verdict is that of accuracy."
    )


@pytest.mark.parametrize("sized", [True, False])
def test_what_the_study_can_find_and_what_seeds_and_items_would_buy(tmp_path: Path, sized: bool) -> None:
    tasks = {
        t: {"metadata": {"title": t, **({"size": {"test": 400 * (1 + (t == "b"))}} if sized else {})}} for t in "abc"
    }
    scores = {"lora": (0.70, 0.73, 0.705), "mola": (0.72, 0.71, 0.7175), "mosl": (0.69, 0.71, 0.7375)}
    analysis = analysis_from(tmp_path, scores, tasks=tasks)

    def found(of: Domain = Domain.IN, seeds: int | None = None, share: float = 1.0) -> str:
        effect = analysis.detectable(MIXTURE, of, seeds, share)
        assert effect is not None
        return f"{100 * effect:.1f}"

    share = 2 / (1 + 1 / 2)  # the mean over tasks errs by the sum of 1 / items
    text = answered(analysis)["What the study can find."]
    assert text.startswith(
        f"With three seeds, differences of {found()} points in-domain and {found(Domain.OUT)} out of domain are found "
        f"with a chance of 80 % (each tested by itself). In-domain, five seeds would find {found(seeds=5)}"
    )
    buys = f", ten {found(seeds=10)} and all 1,200 test items in place of 800 would find {found(share=share)}."
    assert (buys in text) is sized
    assert float(found(share=share)) < float(found())
    seeds = re.search(r"Half a point takes (\d+) seeds\.$", text)
    assert seeds
    most, fewer = (analysis.detectable(MIXTURE, seeds=int(seeds[1]) - less) for less in (0, 1))
    assert most is not None
    assert fewer is not None
    assert most <= 0.005 < fewer


# Several blocks


def test_verdicts_and_differences_that_change_from_block_to_block_are_named(tmp_path: Path) -> None:
    scores = {"lora": FIVE["lora"], "mola": FIVE["mola"], "mosl": FIVE["mosl"]}
    study = make_study(in_domain=("a", "b"), out_of_domain=("c",), reference="lora", budgets=("r2", "r8"))
    records = []
    for trial in make_trials(study, [RECIPES[name] for name in scores]):
        name = "mosl" if (trial.recipe.name, trial.budget) == ("mola", "r8") else trial.recipe.name
        values = dict.fromkeys("abc", scores[name][trial.seed])
        records.append(make_record(trial, study, values=values))
    write_records(tmp_path, records, items=True)
    analysis = analysis_of(tmp_path, study, [record.trial for record in records])
    told = answered(analysis)
    change = next(c for c in analysis.changes() if c.row.recipe.name == "mola")
    assert change.difference.mean == pytest.approx(scores["mosl"][0] - scores["mola"][0], abs=0.003)
    assert told["Across ranks."] == (
        "Verdicts differ for MoLA (better: rank 2; equal: rank 8). The difference to LoRA changes for MoLA from rank 2 "
        f"to rank 8 ({numbers(change)})."
    )
    assert "In-domain (rank 2)." in told


def test_blocks_that_agree_are_said_to(tmp_path: Path) -> None:
    scores = {name: FIVE[name] for name in ("lora", "mola", "mosl")}
    told = answered(analysis_from(tmp_path, scores, budgets=("r2", "r8", "60000")))
    assert told["Across sizes and ranks."].startswith(
        "Every method has the same verdict over all three blocks. Every difference to LoRA is shown to change by less "
        "than 1 point; the largest change is that of MoLA"
    )


@pytest.mark.parametrize("name", Condition._fields)
def test_blocks_are_called_by_whatever_they_differ_in(tmp_path: Path, name: str) -> None:
    other: tuple[Any, str, str] = {
        "setting": ("single", "single task", "settings"),
        "budget": (Budget.parse("120000"), "120,000 parameters", "sizes"),
        "model": ("HuggingFaceTB/SmolLM2-135M", "SmolLM2-135M", "models"),
        "general": (500, "500 general items", "amounts of general data"),
        "items": (64, "64 items a task", "amounts of training items"),
        "rate": ("runner_up", "runner-up learning rates", "learning rates"),
    }[name]
    analysis = analysis_from(tmp_path, {key: FIVE[key] for key in ("lora", "mola", "mosl")})
    change: dict[str, Any] = {name: other[0]}
    beside = [replace(row, condition=row.condition._replace(**change)) for row in analysis.rows]
    both = replace(analysis, rows=(*analysis.rows, *beside))
    assert where(both, beside[0].condition) == other[1]
    assert f"Across {other[2]}." in answered(both)
    assert where(analysis, MIXTURE) == ""


def test_of_several_sizes_with_one_seed_each_models_are_spoken_of(tmp_path: Path) -> None:
    told = answered(analysis_from(tmp_path, FIRST, budgets=("60000", "120000")))
    assert told["Across sizes."] == (
        "Over both sizes the trained models differ on these items from LoRA's by +5.0 points (MoLA), −0.2 points "
        "(MoSL), −10.0 points (MoSLD) and +1.0 points (HydraLoRA); whether that changes is not tested."
    )


def test_the_mixture_is_compared_with_training_task_by_task(tmp_path: Path) -> None:
    study = make_study(in_domain=("a", "b"), out_of_domain=("c",), settings=("mixture", "single"), reference="lora")
    records = []
    for trial in make_trials(study, [RECIPES["lora"], RECIPES["mola"]]):
        level = FIVE[trial.recipe.name][trial.seed] + (0.05 + 0.0025 * trial.seed) * (trial.setting == "single")
        records.append(make_record(trial, study, values=dict.fromkeys(trial.scored_on, level)))
    write_records(tmp_path, records, items=True)
    analysis = analysis_of(tmp_path, study, [record.trial for record in records])
    lora, mola = analysis.between_settings()
    assert {lora.verdict, mola.verdict} == {Verdict.WORSE}
    assert answered(analysis)["Mixture against single tasks."].startswith(
        f"In-domain LoRA ({numbers(lora)}) and MoLA ({numbers(mola, full=False)}) are worse than training task by task."
    )


# What is not as it should be


def test_of_one_seed_nothing_is_said_of_methods(tmp_path: Path) -> None:
    analysis = analysis_from(tmp_path, FIRST)
    text, told = opening(analysis), answered(analysis)
    assert told["In-domain."].startswith("The trained models differ on these items from LoRA's by +5.0 points (MoLA,")
    assert text.count("With one seed nothing is said of methods.") == 1
    assert not re.search("better|worse|equal|told apart|tells", text)
    assert told["What the study can find."] == (
        "One seed does not tell the noise between seeds, so what the study would find is not known: two seeds of three "
        "methods, or three of two, would tell."
    )


def test_a_row_of_one_seed_borrows_its_noise_and_says_so_once(tmp_path: Path) -> None:
    analysis = analysis_from(tmp_path, FIVE | {"mosld": (0.6,)})
    assert opening(analysis).count("MoSLD has one seed, its noise borrowed from the others.") == 1
    assert f"MoSLD ({numbers(beside(analysis, 'mosld'), full=False)}) is worse." in answered(analysis)["In-domain."]


def test_without_items_the_intervals_say_that_they_leave_them_out(tmp_path: Path) -> None:
    text = opening(analysis_from(tmp_path, FIVE, items=False))
    assert (
        text.count("No items are at hand that give these scores, so the intervals leave out the choice of items.") == 1
    )
    assert "Other measures" not in text
    bare = opening(analysis_from(tmp_path / "one", FIRST, items=False))
    assert "by +5.0 points (MoLA), −0.2 (MoSL), −10.0 (MoSLD) and +1.0 (HydraLoRA). Their items are not at hand" in bare


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_twin_of_the_reference_is_never_better(tmp_path: Path, seeds: int) -> None:
    """Another name for the same recipe gives the same answers, item by item."""
    twin = RECIPES["lora"].model_copy(update={"name": "twin", "title": "Twin"})
    study = make_study(in_domain=("a", "b"), out_of_domain=("c",), reference="lora", seeds=tuple(range(seeds)))
    store, trials = Store(tmp_path / "results"), make_trials(study, [RECIPES["lora"], twin])
    for trial, original in zip(trials, trials[:seeds] * 2, strict=True):
        record = make_record(trial, study, values=dict.fromkeys("abc", FIVE["lora"][trial.seed]))
        first = make_record(original, study, values=dict.fromkeys("abc", FIVE["lora"][trial.seed]))
        store.write(Outcome(record, items_of(first)))
    text = answered(analysis_of(tmp_path, study, trials))["In-domain."]
    assert (
        text
        == {
            1: "Twin has the score of LoRA on every item.",
            3: "Twin (0.0 points, 95 % 0.0 to 0.0) is equal to LoRA within 1 point.",
        }[seeds]
    )


def test_a_twin_among_others_is_equal_or_tied(tmp_path: Path) -> None:
    twin = RECIPES["lora"].model_copy(update={"name": "twin", "title": "Twin"})
    analysis = analysis_from(tmp_path, FIVE | {"twin": FIVE["lora"]}, recipes=[twin])
    said = claims(answered(analysis)["In-domain."], [*TITLES.values(), "Twin"], "LoRA")
    assert said["Twin"] == [Verdict.EQUAL]


def test_without_its_reference_rows_are_compared_with_the_best(tmp_path: Path) -> None:
    scores = {name: seeds for name, seeds in FIVE.items() if name != "lora"}
    analysis = analysis_from(tmp_path, scores)
    text = answered(analysis)["In-domain."]
    assert text.startswith(
        "lora, the reference, is not among these rows, so that rows are compared with the best of them, and tests "
        "corrected over all pairs since it was picked by looking. MoLA has the highest mean, 75.6 %."
    )
    for c in analysis.against_best(MIXTURE):
        assert claims(text, [c.row.recipe.title], "MoLA")[c.row.recipe.title] == [c.verdict]


def test_a_row_leads_only_where_every_other_is_told_to_be_worse(tmp_path: Path) -> None:
    led = analysis_from(tmp_path / "led", FIVE)
    assert {c.verdict for c in led.against_best(MIXTURE)} == {Verdict.WORSE}
    assert "MoLA is better than every other row (Holm over all pairs)." in answered(led)["In-domain."]
    close = FIVE | {"moe-lora": (0.7525,)}
    analysis = analysis_from(tmp_path / "close", close)
    verdicts = {c.row.recipe.name: c.verdict for c in analysis.against_best(MIXTURE)}
    assert verdicts["moe-lora"] in {Verdict.OPEN, Verdict.EQUAL}
    assert "every other row" not in opening(analysis)
    without = {name: seeds for name, seeds in close.items() if name != "lora"}
    text = answered(analysis_from(tmp_path / "without", without))["In-domain."]
    assert "MoLA has the highest mean of the rows with the most seeds, 75.6 %." in text


def test_a_reference_that_cannot_be_compared_is_said_to_be_none(tmp_path: Path) -> None:
    study = make_study(in_domain=("a",), out_of_domain=(), reference="lora")
    trials = make_trials(study, [RECIPES[name] for name in ("lora", "mola", "mosl")])
    write_records(tmp_path, [make_record(trial, study) for trial in trials if trial.recipe.name != "lora"])
    assert "LoRA, the reference, has no score yet" in opening(analysis_of(tmp_path, study, trials))
    apart = [t for t in trials if (t.recipe.name == "lora") == (t.seed == 2)]
    write_records(tmp_path / "apart", [make_record(trial, study) for trial in apart])
    text = opening(analysis_of(tmp_path / "apart", study, trials))
    assert "LoRA, the reference, has no seed in common with another row" in text


def test_a_row_without_a_common_seed_is_named(tmp_path: Path) -> None:
    study = make_study(in_domain=("a",), out_of_domain=(), reference="lora")
    trials = make_trials(study, [RECIPES[name] for name in ("lora", "mola", "mosl")])
    left = {("lora", 2), ("mosl", 0), ("mosl", 1)}
    write_records(tmp_path, [make_record(t, study) for t in trials if (t.recipe.name, t.seed) not in left])
    text = answered(analysis_of(tmp_path, study, trials))["In-domain."]
    assert "MoSL has no seed in common with LoRA." in text
    assert "MoLA (" in text or "(MoLA" in text


def test_where_nothing_can_be_compared_the_reason_is_given(tmp_path: Path) -> None:
    native = analysis_from(tmp_path / "native", FIVE, budgets=("native",))
    assert answered(native)["Comparison."] == (
        "No rows are of equal size or equal rank, so none is compared with another; in-domain means run from 60.6 % "
        "(MoSLD) to 75.6 % (MoLA)."
    )
    assert "In-domain all five methods gain on its 30.0 %" in answered(native)["Gain over the frozen base."]
    study = make_study(in_domain=("a",), out_of_domain=(), reference="lora")
    trials = make_trials(study, [RECIPES[name] for name in ("lora", "mola")])
    write_records(tmp_path / "alone", [make_record(trials[0], study, values={"a": 0.7})])
    text = opening(analysis_of(tmp_path / "alone", study, trials))
    assert "LoRA alone has a score, 70.0 % in-domain, so there is nothing to compare it with." in text
    assert "5 of 6 planned trials have no record, so the picture is partial." in text
    several = [trials[0], trials[4]]
    write_records(tmp_path / "apart", [make_record(t, study, values={"a": 0.7 + t.seed / 10}) for t in several])
    assert answered(analysis_of(tmp_path / "apart", study, trials))["Comparison."] == (
        "No two rows of equal size or equal rank have a seed in common, so none is compared with another; in-domain "
        "means run from 70.0 % (LoRA) to 80.0 % (MoLA)."
    )


def test_a_study_that_counts_parameters_says_what_it_counted(tmp_path: Path) -> None:
    counting = make_study(train=None, in_domain=(), out_of_domain=(), budgets=("r8",), frozen_base=False)
    records = []
    for trial, size in zip(make_trials(counting, [RECIPES["lora"], RECIPES["mola"]]), (20_000, 60_000), strict=True):
        fit = Fit(target=None, trainable=size, total=10 * size, residual=None, params={})
        records.append(Record(trial=trial, trial_id=trial.id, status="finished", size=fit))
    write_records(tmp_path, records)
    (answer,) = summary(analysis_of(tmp_path, counting, [record.trial for record in records]))
    assert isinstance(answer, Answer)
    assert answer.runs[0].text == (
        "Adapters have from 20,000 trainable parameters (LoRA) to 60,000 (MoLA), so that equal rank is far from equal "
        "size. Two methods on embedded; nothing is trained."
    )


# The study's scale


def test_the_size_of_the_study_and_its_gaps_follow_the_answers(tmp_path: Path) -> None:
    study, trials = make_records(tmp_path, ("lora", "mola", "mosld"), skip=1)
    scale, gaps = summary(analysis_of(tmp_path, study, trials))[-2:]
    assert scale == (
        "Three methods on six in-domain tasks (2,400 items) and three out-of-domain tasks (1,200 items), starting from "
        "embedded: nine trials with two to three seeds a row."
    )
    assert gaps == "1 of 9 planned trials have no record, so the picture is partial."
    write_records(tmp_path, [make_failure(trials[-1], "FloatingPointError: nan")])
    last = summary(analysis_of(tmp_path, study, trials))[-1]
    assert isinstance(last, str)
    assert last.endswith(
        "the picture is partial; one trial of them failed (MoSLD; why is said under the table of results)."
    )


def test_the_document_and_the_terminal_have_the_same_answers(tmp_path: Path) -> None:
    analysis = analysis_from(tmp_path, FIVE)
    lines = answer_lines(analysis)
    assert lines == [f"{question} {text}" for question, text in answered(analysis).items()]
    document = compose(analysis, [])
    assert [answer.question for answer in document.answers] == list(answered(analysis))
    assert all(text in words(document) for text in answered(analysis).values())


# No sentence says more than its test


def random_scores(draw: random.Random) -> dict[str, Sequence[float]]:
    """Methods with up to four seeds, some close together and some apart, some with more noise."""
    names = draw.sample(["prefix-tuning", "moe-lora", "mola", "hydralora", "mosl", "mosld"], draw.randint(1, 6))
    most = draw.choice((1, 2, 3, 4))
    scores: dict[str, Sequence[float]] = {"base": (draw.choice((0.3, 0.6, 0.7)),)}
    for name in ("lora", *names):
        level, noise = draw.choice((0.7, 0.7, 0.7025, 0.71, 0.6, 0.78)), draw.choice((0.0025, 0.005, 0.02))
        seeds = most if name == "lora" or draw.random() < 0.7 else 1
        scores[name] = [round(400 * (level + draw.gauss(0, noise))) / 400 for _ in range(seeds)]
    return scores


@pytest.mark.parametrize("seed", range(6))
def test_no_sentence_gives_a_pair_another_verdict_than_its_test(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    analysis = analysis_from(tmp_path, random_scores(draw), items=seed % 3 > 0, seeds=(0, 1, 2, 3), tasks=TASKS)
    told = answered(analysis)
    families = {
        "In-domain.": analysis.against_reference(MIXTURE, Domain.IN),
        "Out-of-domain.": analysis.against_reference(MIXTURE, Domain.OUT),
    }
    for question, comparisons in families.items():
        said = claims(told[question], [c.row.recipe.title for c in comparisons], "LoRA")
        for c in comparisons:
            expected = [[c.verdict]] if c.verdict is not Verdict.UNTESTED else [[], [Verdict.UNTESTED]]
            assert said[c.row.recipe.title] in expected, told[question]
        for c in comparisons:
            quoted = re.search(rf"(?<![\w-]){c.row.recipe.title} \(([^()]*)\)", told[question])
            if quoted and c.verdict is not Verdict.UNTESTED:
                assert quoted[1] in {numbers(c), numbers(c, full=False)}
    tasks = {(c.row.recipe.title, str(c.of)): c for c in analysis.by_task(MIXTURE, Domain.IN)}
    for part in told.get("By task.", "").split(": ")[-1].split("; "):
        for title, word, places in re.findall(r"(\S+) is (better|worse) (.*)", part):
            for task in re.findall(r"on ([abc]) ", places):
                assert tasks[title, task].verdict.value == word
    of_base = {c.row.recipe.title: c for c in analysis.against_base(MIXTURE)}
    inside = told["Gain over the frozen base."].split(" Out of domain ")[0]
    for title, verdicts in claims(inside, of_base, "its").items():
        assert set(verdicts) <= {of_base[title].verdict}, inside
