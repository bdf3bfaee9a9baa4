"""What the sections say of a study, and when they say it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mosld_bench.records.overlap import Overlap
from mosld_bench.records.record import Outcome, Point, Record
from mosld_bench.records.store import Store
from mosld_bench.reporting.labels import hardware_label
from mosld_bench.reporting.sections import contamination
from mosld_bench.reporting.sections.cost import budget_audit
from mosld_bench.reporting.sections.methods import deviations, methods
from mosld_bench.reporting.sections.protocol import protocol
from mosld_bench.reporting.sections.provenance import provenance
from mosld_bench.reporting.sections.results import method_of_tests, results
from mosld_bench.spec.recipe import Recipe, load_recipes
from mosld_bench.spec.trial import Fit, TrainSpec
from tests.conftest import REPOSITORY
from tests.reporting.conftest import FullReport
from tests.reporting.reading import (
    analysis_of,
    analysis_with,
    document_of,
    tables_of,
    tables_of_results,
    uneven_analysis,
    words,
)
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


@pytest.mark.parametrize("tuned", [(), ("lora", "mola"), ("lora", "mola", "mosld")])
def test_the_protocol_tells_whose_learning_rates_are_written_by_hand(tuned: tuple[str, ...], tmp_path: Path) -> None:
    study, trials = make_records(tmp_path, ("lora", "mola", "mosld"), learning_rate_scales=dict.fromkeys(tuned, 2.0))
    text = words(protocol(analysis_of(tmp_path, study, trials)))
    sentences = {
        0: "No factor was chosen for this study: each is its recipe's own.",
        2: "The factors of LoRA and MoLA, not those of MoSLD, are written in the study by hand",
        3: "The factors of all methods are written in the study by hand",
    }
    assert [count for count, sentence in sentences.items() if sentence in text] == [len(tuned)]


@pytest.mark.parametrize(
    ("there", "said"), [(None, "a CPU, 2 cores"), (True, "a CPU, 2 cores"), (False, "a CPU without bfloat16, 2 cores")]
)
def test_hardware_is_told_without_bfloat16_where_that_is_noted(there: bool | None, said: str) -> None:
    noted = {} if there is None else {"bfloat16": there}
    assert hardware_label({"cpu": "a CPU", "cores": 2, "memory_bytes": None, "gpu": None, **noted}) == said


@pytest.mark.parametrize("few", [False, True])
def test_the_protocol_tells_when_rows_have_unequal_seeds(few: bool, tmp_path: Path) -> None:
    study = make_study(in_domain=("a",), out_of_domain=(), seeds=(0, 1))
    trials = make_trials(study, [RECIPES["lora"], RECIPES["mola"]])
    planned = [trial for trial in trials if not few or trial.recipe.name == "lora" or trial.seed == 0]
    analysis = analysis_with(tmp_path, study, [make_record(trial, study) for trial in planned])
    lines = {line.cells[0].text: line.cells[-1].text for line in tables_of(protocol(analysis))["protocol"].rows}
    assert lines["Seeds"] == ("0, 1; not every row has all of them: see n" if few else "0, 1")


def test_a_report_says_what_its_means_hide(tmp_path: Path) -> None:
    """A task without a row above chance, a loss that had risen, prompts and sizes."""
    study = make_study(in_domain=("a", "b"), out_of_domain=("c",), seeds=(0, 1), settings=("mixture", "single"))
    records = []
    for trial in make_trials(study, [RECIPES["lora"], RECIPES["mola"]]):
        mola = trial.recipe.name == "mola"
        values = {"a": 0.26 if trial.setting == "single" else 0.25, "b": 0.7 + mola / 9}
        record = make_record(trial, study, values=values)
        assert record.train_info is not None
        assert record.size is not None
        metrics = tuple(m if m.primary else m.model_copy(update={"value": 0.5 - mola / 9}) for m in record.metrics)
        losses = [3.0, 2.0, 2.2 if trial.train_on == ("b",) and mola and trial.seed else 2.1]
        curve = [Point(step=step, seconds=1.0, loss=2.0, validation_loss=loss) for step, loss in enumerate(losses)]
        info = record.train_info.model_copy(update={"curve": tuple(curve)})
        size = record.size.model_copy(update={"residual": 0.000625})
        records.append(record.model_copy(update={"metrics": metrics, "train_info": info, "size": size}))
    tasks: dict[str, dict[str, Any]] = {
        "a": {"metadata": {"title": "A", "scoring": "text"}},
        "b": {"metadata": {"title": "B", "scoring": "letter"}, "num_fewshot": 5},
        "c": {"metadata": {"title": "C", "scoring": "text"}},
    }
    analysis = analysis_with(tmp_path, study, records, tasks)
    text = words(results(analysis))
    assert text.count("No row is above chance on A.") == 1  # in the mixture; alone all rows are
    assert "more than 5 % above its lowest in 1 of 12 trials (B alone: MoLA)." in text
    lines = {line.cells[0].text: line.cells[-1].text for line in tables_of(protocol(analysis))["protocol"].rows}
    assert lines["Solved examples"] == "none (A and C) and 5 (B) in a prompt"
    assert lines["Options"] == "scored by their text (A and C) and their letter (B)"
    assert lines["Size"].endswith("to within 0.07 %")  # and not rounded to 0.06


def test_rows_of_few_seeds_are_told_in_text_and_captions(tmp_path: Path) -> None:
    analysis = uneven_analysis(tmp_path)
    text = words(document_of(analysis))
    assert "means run from 50.0 % (HydraLoRA) to 75.0 % (MoE-LoRA). Beside LoRA: better: MoE-LoRA, MoLA and" in text
    assert "A row with n = 1 is tested with the seed noise of the rows of its block that have more." in text
    assert "a point without a bar is one seed" in text
    assert "‡: with the seed noise of other rows, for want of its own." in text
    assert "All intervals are without the choice of items, which are not at hand." in text
    assert "cannot be tested" not in text


def test_a_study_of_one_seed_claims_no_test(tmp_path: Path) -> None:
    study, trials = make_records(
        tmp_path, ("lora", "mola", "mosld"), seeds=(0,), settings=("mixture", "single"), evaluate={"limit": 400}
    )
    analysis = analysis_of(tmp_path, study, trials)
    text = words(document_of(analysis))
    for sentence in (
        "Nothing is said of methods, for want of seeds.",
        "Every point is one seed, so there are no bars.",
        "in points. There is neither an interval nor a test, for want of seeds and of items.",
        "For want of seeds a difference is one of the models that were trained",
        "Scored on a fixed sample of at most 400 test items a task.",
    ):
        assert sentence in text, sentence
    assert not set("†↑↓≈‡§¶*") & set(words(results(analysis)))


def test_a_study_of_one_seed_has_intervals_of_its_models_where_items_are_at_hand(tmp_path: Path) -> None:
    study, trials = make_records(tmp_path, ("base", "lora", "mola", "mosld"), seeds=(0,), items=True)
    tables = tables_of_results(analysis_of(tmp_path, study, trials))
    for name in ("differences", "differences-to-base", "differences-by-task", "other-metrics"):
        table = tables[name]
        assert "All intervals are of these trained models, on other items; their seeds say nothing of" in table.caption
        assert not {cell.mark for line in table.rows for cell in line.cells} - {""}
        assert "verdict" not in {column.title for column in table.columns}
        assert table.frame is not None
        lines = table.frame.dropna(subset="basis")
        assert set(lines["basis"]) == {"models"}
        assert set(lines["verdict"]) == {"untested"}
        compared = lines["low"].notna()
        assert compared.all() or name == "other-metrics"  # acc_norm is the same for all items
        assert lines["p_equal"].isna().all()


def test_without_the_reference_rows_are_told_beside_the_best(tmp_path: Path) -> None:
    study, trials = make_records(tmp_path, ("lora", "mola", "mosld"), reference="full")
    analysis = analysis_of(tmp_path, study, trials)
    text = words(results(analysis))
    assert "No block holds full beside another row with a common seed, so no differences are given." in text
    assert re.search(r"Beside (LoRA|MoLA|MoSLD): ", text)
    assert "Beside full" not in text
    assert {"differences", "differences-by-task"}.isdisjoint(tables_of_results(analysis))


def test_ablations_are_told_beside_the_method_that_they_change(tmp_path: Path) -> None:
    """Under another reference; the margin is the study's own."""
    study = make_study(in_domain=("a",), out_of_domain=(), reference="mosld", margin=0.5)
    names = {"mosld": (0.70, 0.71, 0.705), "mosl": (0.701, 0.709, 0.705), "mola": (0.65, 0.662, 0.656)}
    trials = make_trials(study, [RECIPES[name] for name in names])
    records = [make_record(t, study, values={"a": names[t.recipe.name][t.seed]}) for t in trials]
    text = words(results(analysis_with(tmp_path, study, records)))
    assert "Beside MoSLD: worse: MoLA; equal within 0.5 points: MoSL." in text
    assert "Beside MoSLD: ↓ worse, ≈ equal within 0.5 points." in text
    assert "Equal: shown to differ by less than 0.5 points (two one-sided tests at 0.05)." in text


def test_the_method_of_the_tests_is_told_with_the_noise_that_it_found(tmp_path: Path) -> None:
    study = make_study(in_domain=("a",), out_of_domain=())
    names = {"lora": (0.70, 0.71, 0.705), "mosl": (0.701, 0.709, 0.705), "mola": (0.65, 0.662, 0.653)}
    trials = make_trials(study, [RECIPES[name] for name in names])
    records = [make_record(t, study, values={"a": names[t.recipe.name][t.seed]}) for t in trials]
    section = method_of_tests(analysis_with(tmp_path, study, records))
    assert section is not None
    assert section.appendix
    noise = tables_of(section)["noise"]
    assert noise.frame is not None
    (line,) = noise.frame.to_dict("records")
    table = np.array(list(names.values()))
    rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    assert line["freedom"] == 4
    assert line["mean_square"] == pytest.approx(float((rest**2).sum()) / 4)
    assert [cell.text for cell in noise.rows[1].cells[:3]] == ["In-domain", f"{1e4 * line['mean_square']:.3g}", "4"]
    text = words(section)
    assert "Every item stands by itself." in text
    assert "less than 1 point" in text


def test_passages_count_together_where_items_name_them(tmp_path: Path) -> None:
    study = make_study(in_domain=("a", "b"), out_of_domain=())
    store, trials = Store(tmp_path / "results"), make_trials(study, [RECIPES["lora"], RECIPES["mosld"]])
    for trial in trials:
        record = make_record(trial, study)
        items = items_of(record, passages=4)
        store.write(Outcome(record, items.assign(group=items["group"].where(items["task"] == "a", None))))
    text = words(method_of_tests(analysis_of(tmp_path, study, trials, {})))
    assert "Items of one passage count together (passages: 100 of a), every other item by itself." in text


def test_a_failed_trial_is_told_with_its_error(tmp_path: Path) -> None:
    study, trials = make_records(tmp_path, ("lora", "mola", "mosld"), skip=1)
    error = "Traceback ...\nFloatingPointError: The loss became nan at step 3 of 9."
    write_records(tmp_path, [make_failure(trials[-1], error)])
    assert (
        "Failed: MoSLD, 60,000 parameters, seed 2: FloatingPointError: The loss became nan at step 3 of 9."
        in tables_of_results(analysis_of(tmp_path, study, trials))["main"].notes
    )


def test_missing_trials_are_told_below_the_table_of_results(full: FullReport) -> None:
    tables = tables_of(results(full.analysis))
    notes = [note for table in tables.values() for note in table.notes]
    assert any(note.startswith("3 of 316 trials have no record") for note in notes)


def test_a_recipe_that_leaves_coordinates_open_is_reported_by_their_defaults(tmp_path: Path) -> None:
    """The defaults of the code, so that the table shows what was run."""
    bare = Recipe(name="bare", title="Bare", method="mixture", params={"target_modules": ["q_proj"]})
    study = make_study(in_domain=("a",), out_of_domain=(), seeds=(0,), reference="bare")
    records = [make_record(trial, study) for trial in make_trials(study, [bare, RECIPES["mola"]])]
    table = tables_of(methods(analysis_with(tmp_path, study, records)))["methods"]
    assert table.frame is not None
    row = table.frame.set_index("recipe").loc["bare"]
    assert (row["Experts"], row["Routing"], row["Dropout"]) == ("4", "dense", "–")


@pytest.mark.parametrize(
    ("params", "balance", "dropout"),
    [
        ({"dropout": 0.1, "dropout_on": "weight"}, "–", "0.1 on weight"),
        ({"dropout": {"input": 0.05, "weight": 0.1}}, "–", "0.05 on input, 0.1 on weight"),
        (
            {"dropout": {"input": 0.05, "update": 0.1}, "dropout_matrix": "up"},
            "–",
            "0.05 on input, 0.1 on update of up",
        ),
        ({"balance_coef": 0.01, "balance_reduce": "sum"}, "0.01, layers summed", "–"),
        ({"balance_coef": 1e-6, "balance_form": "counts"}, "1e-06 of counts", "–"),
        ({"top_k": 2, "balance_step": 0.001}, "bias by 0.001", "–"),
        ({"top_k": 2, "balance_coef": 0.01, "balance_step": 0.001}, "0.01, bias by 0.001", "–"),
        ({"share": "down", "dropout": 0.1, "dropout_on": "expert_hidden"}, "–", "0.1 on hidden of each expert"),
    ],
)
def test_coordinates_tell_apart_what_differs(
    params: dict[str, Any], balance: str, dropout: str, tmp_path: Path
) -> None:
    bare = Recipe(name="bare", title="Bare", method="mixture", params={"target_modules": ["q_proj"], **params})
    study = make_study(in_domain=("a",), out_of_domain=(), seeds=(0,), reference="bare")
    records = [make_record(trial, study) for trial in make_trials(study, [bare])]
    table = tables_of(methods(analysis_with(tmp_path, study, records)))["methods"]
    assert table.frame is not None
    row = table.frame.set_index("recipe").loc["bare"]
    assert (row["Balance"], row["Dropout"]) == (balance, dropout)


@pytest.mark.parametrize(
    ("name", "routing", "other"),
    [
        ("mosld-uniform", "uniform", "–"),
        ("mosld-frozen-router", "top 2*", "router frozen"),
        ("mosld-frozen-a", "top 2*", "down frozen"),
        ("mosld-noise-router", "top 2*", "router reads noise"),
        ("comol", "dense", "router reads hidden"),
        ("flylora", "top 8 by magnitude", "down frozen, down starts sparse"),
        ("r-lora", "dense", "up starts random"),
    ],
)
def test_what_few_recipes_set_is_told_where_one_does(name: str, routing: str, other: str, tmp_path: Path) -> None:
    study = make_study(in_domain=("a",), out_of_domain=(), seeds=(0,), reference="mosld")
    recipes = load_recipes(REPOSITORY / "methods")
    trials = make_trials(study, [recipes["mosld"], recipes[name]])
    records = [make_record(trial, study) for trial in trials]
    table = tables_of(methods(analysis_with(tmp_path, study, records)))["methods"]
    assert table.frame is not None
    rows = table.frame.set_index("recipe")
    assert rows.loc[name, "Routing"] == routing
    assert ("Other" in rows.columns) is (other != "–")
    assert other == "–" or list(rows["Other"]) == ["–", other]


def test_every_recipe_is_told_with_what_it_trains_and_its_deviations_are_listed(tmp_path: Path) -> None:
    """Its text, modules and what sets its size, its factor and the number of deviations; what two share, once."""
    shared = "Both depart from the paper in this."
    mosl = RECIPES["mosl"].model_copy(update={"deviations": (shared,)})
    mosld = RECIPES["mosld"].model_copy(update={"deviations": (shared, "It alone departs in that.")})
    study = make_study(in_domain=("a",), out_of_domain=(), seeds=(0,))
    recipes = [RECIPES["base"], RECIPES["full"], RECIPES["prefix-tuning"], mosl, mosld]
    analysis = analysis_with(tmp_path, study, [make_record(trial, study) for trial in make_trials(study, recipes)])
    table = tables_of(methods(analysis))["recipes"]
    assert [[cell.text for cell in line.cells] for line in table.rows] == [
        ["Full fine-tuning"],
        ["Every weight of the base model is trained.", "0.1", "–"],
        ["Prefix-tuning [arXiv 2101.00190]"],
        [
            "Trained keys and values are put before those of the input, in every layer. Sized by num virtual tokens.",
            "2",
            "–",
        ],
        ["MoSL [arXiv 2412.08946]"],
        ["MoLA with one down-projection shared by the experts. In q_proj, v_proj. Sized by r.", "1", "1"],
        ["MoSLD [arXiv 2412.08946]"],
        [
            "MoSL with dropout on the weights of the shared down-projection. In q_proj, v_proj. Sized by r.",
            "1",
            "2",
        ],
    ]
    table = tables_of(deviations(analysis))["deviations"]
    assert [[cell.text for cell in line.cells] for line in table.rows] == [
        ["MoSL and MoSLD"],
        ["1", shared],
        ["MoSLD"],
        ["2", "It alone departs in that."],
    ]
    assert table.frame is not None
    assert table.frame.to_dict("list") == {
        "recipe": ["mosl", "mosld", "mosld"],
        "deviation": [shared, shared, "It alone departs in that."],
    }
    bare = analysis_with(tmp_path / "bare", study, [make_record(t, study) for t in make_trials(study, recipes[:2])])
    assert deviations(bare) is None


def test_the_protocol_is_told_point_by_point(tmp_path: Path) -> None:
    train = TrainSpec(
        steps=1200, batch_size=32, learning_rate=5e-3, warmup_steps=40, warmup_limit=0.1, schedule="cosine",
        weight_decay=0.01, gradient_clip=None, max_length=96, micro_tokens=4096, task_items=300,
        validation_fraction=0.2,
    )  # fmt: skip
    study, trials = make_records(tmp_path, ("full", "lora", "mosld"), seeds=(3, 4), train=train)
    rows = tables_of(protocol(analysis_of(tmp_path, study, trials)))["protocol"].rows
    points = [(line.cells[0].text, line.cells[-1].text) for line in rows]
    for point in (
        ("Model", "embedded (revision 0123456789ab)"),
        ("Length", "1,200 steps"),
        ("Batch", "32 examples"),
        ("Optimiser", "AdamW"),
        ("Peak rate", "0.005, times the recipe's factor"),
        ("Schedule", "cosine after 40 warm-up steps (at most 10 % of all)"),
        ("Weight decay", "0.01"),
        ("Gradients", "not clipped"),
        ("Example", "at most 96 tokens"),
        ("Micro-batch", "at most 4,096 tokens"),
        ("Precision", "float32"),
        ("Held out", "20 % of each training split, never trained on, for the validation loss"),
        ("Training items", "at most 300 of each split, a fixed sample"),
        ("Seeds", "3, 4"),
        ("Scoring", "the primary metric of each task, as lm-eval defines it, on all items of the task"),
        ("Size", "not matched, and left out of all comparisons: Full fine-tuning"),
    ):
        assert point in points
    headings = [line.cells[0].text for line in rows if len(line.cells) == 1]
    assert headings == ["Equal for all rows of a block", "Not equal"]
    assert all(text for _, text in points)


def test_of_a_study_without_training_the_protocol_has_its_model_alone(tmp_path: Path) -> None:
    study = make_study(train=None, in_domain=(), out_of_domain=(), budgets=("r8",), frozen_base=False)
    size = Fit(target=None, trainable=20, total=200, residual=None, params={})
    trials = make_trials(study, [RECIPES["lora"]])
    records = [Record(trial=trial, trial_id=trial.id, status="finished", size=size) for trial in trials]
    analysis = analysis_with(tmp_path, study, records)
    rows = tables_of(protocol(analysis))["protocol"].rows
    assert [[cell.text for cell in line.cells] for line in rows] == [["Model", "embedded (revision 0123456789ab)"]]
    assert budget_audit(analysis) is None, "its sizes stand in the main part"


def test_provenance_ends_with_the_commands_that_make_it_again(tmp_path: Path) -> None:
    study, trials = make_records(tmp_path, ("lora",))
    section = provenance(analysis_of(tmp_path, study, trials))
    assert section.blocks[-1].data()["lines"] == [
        "git checkout 8c1f0de5a7b9",
        "mosld-bench run synthetic",
        "mosld-bench report synthetic",
    ]


def test_the_protocol_counts_items_that_were_cut(tmp_path: Path) -> None:
    study = make_study(in_domain=("a", "b"), out_of_domain=("c",))
    records = []
    for trial in make_trials(study, [RECIPES["lora"], RECIPES["prefix-tuning"]]):
        record = make_record(trial, study)
        assert record.train_info is not None
        assert record.eval_info is not None
        more = 5 * (trial.recipe.name == "prefix-tuning")
        trained = record.train_info.model_copy(update={"cut_items": {"a": 1200 + more}})
        scored = record.eval_info.model_copy(update={"cut_items": {"a": 1 + more, "c": 2}})
        records.append(record.model_copy(update={"train_info": trained, "eval_info": scored}))
    text = words(protocol(analysis_with(tmp_path / "cut", study, records)))
    assert "of the items trained on 1,205 of a, and of the items scored 6 of a and 2 of c are longer than" in text
    whole = [make_record(trial, study) for trial in make_trials(study, [RECIPES["lora"]])]
    assert "lose the beginning" not in words(protocol(analysis_with(tmp_path / "whole", study, whole)))


@pytest.mark.parametrize(
    ("shared", "items", "shown"),
    [(40, 40, "100"), (199, 200, "100"), (13, 100, "13"), (1, 40, "2.5"), (3, 1172, "0.26")],
)
def test_a_share_of_shared_items_is_a_plain_number(shared: int, items: int, shown: str) -> None:
    pair = Overlap(train="a", evaluated="b", n=13, train_items=9, items=items, shared=shared, exact=0)
    assert contamination._percent_shared(pair) == shown
