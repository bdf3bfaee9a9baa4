"""The report from records to PDF: what counts, what is shown, what is said."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from pypdf import PdfReader

from mosld_bench.errors import BenchError
from mosld_bench.records.record import Outcome, Point, Record
from mosld_bench.records.store import Store
from mosld_bench.report.analysis import Analysis, gather
from mosld_bench.report.build import SIZES, _body_size, build_report, polished
from mosld_bench.report.figures.plots import draw_all
from mosld_bench.report.figures.style import Plot, percent_axis
from mosld_bench.report.sections.summary import summary
from mosld_bench.report.table import percent, tex_text
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import Condition, ModelSpec, Trial
from tests.support.synthetic import (
    IN_DOMAIN,
    OUT_OF_DOMAIN,
    RECIPES,
    make_record,
    make_records,
    make_study,
    make_trials,
    task_configs,
)

TASKS = task_configs()
COLUMNS = ["recipe", "setting", "budget", "trainable_parameters", "in_domain_mean", "in_domain_sd"]
COLUMNS += ["out_of_domain_mean", "out_of_domain_sd", "seeds"]


def build(root: Path, study: Study, trials: list[Trial], tasks: dict[str, Any] | None = None) -> Path:
    sources = Store(root / "results").sources(study, TASKS if tasks is None else tasks)
    return build_report(study, trials, sources, root / "out")


def text_of(pdf: Path) -> str:
    return "\n".join(page.extract_text() for page in PdfReader(pdf).pages)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def evidence_of(root: Path, study: Study, trials: list[Trial]) -> Analysis:
    return gather(study, trials, Store(root / "results").sources(study, TASKS))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report over eight recipes, both settings, two budgets: 316 trials, the last three of them missing."""
    root = tmp_path_factory.mktemp("full")
    study, trials = make_records(root, settings=("mixture", "single"), budgets=("60000", "120000"), skip=3)
    assert len(trials) > 300
    start = time.perf_counter()
    build(root, study, trials)
    assert time.perf_counter() - start < 60
    return root / "out"


def test_files(full: Path) -> None:
    figures = {path.stem for path in (full / "figures").glob("*.pdf")}
    assert figures == {"size", "tasks-by-method", "difference", "settings", "training"}
    assert {path.stem for path in (full / "figures").glob("*.png")} == figures
    names = {path.stem for path in (full / "tables").glob("*.csv")}
    assert names >= {"main", "differences", "cost", "audit", "methods", "tasks", "exposure"}
    assert {path.name for path in full.iterdir()} == {"report.pdf", "tables", "figures"}


def test_main_csv(full: Path) -> None:
    rows = rows_of(full / "tables" / "main.csv")
    assert list(rows[0]) == [*COLUMNS, *IN_DOMAIN, *OUT_OF_DOMAIN]
    keys = {(row["recipe"], row["setting"], row["budget"]) for row in rows}
    assert ("base", "frozen", "native") in keys
    assert ("full", "single", "native") in keys
    assert len(keys) == len(rows) == 1 + 2 * (7 * 2 + 1)
    lora = next(row for row in rows if row["recipe"] == "lora" and row["setting"] == "mixture")
    assert re.fullmatch(r"0\.\d{4,9}", lora["in_domain_mean"])
    assert float(lora["in_domain_mean"]) == pytest.approx(sum(float(lora[task]) for task in IN_DOMAIN) / 6, abs=2e-6)


def test_missing_is_missing(full: Path) -> None:
    rows = rows_of(full / "tables" / "main.csv")
    gap = next(row for row in rows if (row["recipe"], row["setting"], row["budget"]) == ("mosld", "single", "120000"))
    assert gap["in_domain_mean"] == gap["out_of_domain_mean"] == gap[IN_DOMAIN[-1]] == gap[OUT_OF_DOMAIN[0]] == ""
    assert gap[IN_DOMAIN[0]] != ""
    assert gap["seeds"] == "0"
    text = text_of(full / "report.pdf")
    assert "3 of 316 trials have no record" in re.sub(r"\s+", " ", text)
    assert "DRAFT" not in text


def test_pdf_holds_the_numbers(full: Path) -> None:
    text = text_of(full / "report.pdf")
    for row in rows_of(full / "tables" / "main.csv"):
        for column in ("in_domain_mean", "out_of_domain_mean", *IN_DOMAIN):
            if row[column]:
                value = 100 * float(row[column])  # six digits: a half may be rounded either way
                assert f"{value - 1e-4:.1f}" in text or f"{value + 1e-4:.1f}" in text
        assert f"{int(row['trainable_parameters']):,}" in text
    for title in ("MoE-LoRA", "HydraLoRA", "Full fine-tuning", "Frozen base", "Chance", "Provenance"):
        assert title in text


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
            Store(tmp_path / "results").write(Outcome(make_record(trial, study, values=known)))
    found = {row.setting: row for row in evidence_of(tmp_path, study, trials).rows}
    mixture, single = found["mixture"], found["single"]
    assert mixture.by_seed() == pytest.approx({0: 0.6, 1: 0.7})
    assert mixture.mean_sd() == pytest.approx((0.65, 0.1 / 2**0.5))
    assert mixture.mean_sd("out_of_domain") == pytest.approx((0.35, 0.1 / 2**0.5))
    # Seed 1 lacks the model of task b: no in-domain mean, and no out-of-domain mean over half of the models.
    assert single.by_seed() == pytest.approx({0: 0.7})
    assert single.mean_sd() == (pytest.approx(0.7), None)
    assert single.by_seed("c") == pytest.approx({0: 0.3})
    assert single.by_seed("a") == pytest.approx({0: 0.9, 1: 0.8})


def test_what_counts(tmp_path: Path) -> None:
    study, trials = make_records(tmp_path, recipes=("lora", "mosld"))
    results = tmp_path / "results"
    more = make_study(seeds=(0, 1, 2, 3))
    earlier = make_trials(more, [RECIPES["lora"], RECIPES["mola"]])
    changed = RECIPES["mosld"].model_copy(update={"params": {**RECIPES["mosld"].params, "dropout": 0.5}})
    for trial in [*earlier, *make_trials(study, [changed])]:
        Store(results).write(Outcome(make_record(trial, study)))
    for trial in make_trials(study, [RECIPES["mosl"]], protocol="0ther000"):
        Store(results).write(Outcome(make_record(trial, study)))
    analysis = evidence_of(tmp_path, study, trials)
    seeds = {row.recipe.name: len(row.by_seed()) for row in analysis.rows}
    assert seeds == {"lora": 4, "mosld": 3, "mola": 4}
    assert (analysis.other_protocol, analysis.superseded, analysis.missing) == (3, 3, ())


def test_of_a_block_the_latest_target_counts(tmp_path: Path) -> None:
    """A budget named after a recipe moves with it; rows of the old and the new size are not set side by side."""
    study = make_study(in_domain=("a",), out_of_domain=(), seeds=(0,))
    trials = make_trials(study, [RECIPES["lora"], RECIPES["mola"]])
    for trial, target, day in zip(trials, (50_000, 60_000), (1, 2), strict=True):
        made = make_record(trial, study)
        assert made.size is not None
        size = made.size.model_copy(update={"target": target})
        meta = made.meta_info | {"started": f"2026-01-0{day}T10:00:00+00:00"}
        Store(tmp_path / "results").write(Outcome(made.model_copy(update={"size": size, "meta_info": meta})))
    analysis = evidence_of(tmp_path, study, trials)
    assert {row.recipe.name: len(row.records) for row in analysis.trained} == {"lora": 0, "mola": 1}
    assert [trial.recipe.name for trial in analysis.missing] == ["lora"]


def test_rows_without_a_common_seed_are_not_called_separated(tmp_path: Path) -> None:
    study = make_study(in_domain=("a",), out_of_domain=(), seeds=(0, 1, 2))
    trials = make_trials(study, [RECIPES["lora"], RECIPES["mola"]])
    for trial in trials:
        if (trial.recipe.name == "mola") == (trial.seed == 2):
            Store(tmp_path / "results").write(Outcome(make_record(trial, study)))
    analysis = evidence_of(tmp_path, study, trials)
    block = Condition("mixture", "60000")
    assert analysis.against_best(block) == []
    assert analysis.tied(block) == []
    assert len(analysis.untested(block)) == 1
    assert "separated from all" not in " ".join(summary(analysis))
    assert "No other method" not in " ".join(summary(analysis))


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


def test_a_row_of_one_seed_is_neither_best_nor_tested(tmp_path: Path) -> None:
    study, trials = uneven(tmp_path)
    analysis, block = evidence_of(tmp_path, study, trials), Condition("mixture", "60000")
    assert (best := analysis.best(block)) is not None
    assert best.recipe.name == "mosld"
    assert [row.recipe.name for row in analysis.tied(block)] == ["mola"]
    assert [row.recipe.name for row in analysis.untested(block)] == ["moe-lora", "hydralora"]
    said = " ".join(summary(analysis))
    assert "MoSLD has the highest in-domain mean of those with three seeds, 70.7" in said
    assert (
        "Three seeds do not separate it from MoLA. Not tested, for want of a second seed in common: MoE-LoRA and"
        in said
    )
    assert "Higher on the seeds in common: MoE-LoRA (by 5.0 points, n = 1)." in said
    text = " ".join(text_of(build(tmp_path, study, trials)).split())
    assert "run from 50.0 % (HydraLoRA) to 75.0 % (MoE-LoRA); not separated from MoSLD: 1 of the 2 tested, 2" in text
    assert "a point without a bar is one seed" in text
    assert "Highest in-domain under" not in text  # acc_norm is the same for all
    assert "A marker without a bar has one common seed, and so no interval." in text
    tex = (tmp_path / "out" / "tables" / "main.tex").read_text(encoding="utf-8")
    assert r"\textbf{MoSLD}" in tex
    assert [line.split(" &")[0] for line in tex.splitlines() if r"\dag" in line] == ["MoLA"]


def test_a_report_says_what_its_means_hide(tmp_path: Path) -> None:
    """A task without a row above chance, a metric that turns the order, a loss that had risen, prompts and sizes."""
    study = make_study(in_domain=("a", "b"), out_of_domain=("c",), seeds=(0, 1), settings=("mixture", "single"))
    trials = make_trials(study, [RECIPES["lora"], RECIPES["mola"]])
    for trial in trials:
        mola = trial.recipe.name == "mola"
        made = make_record(trial, study, values={"a": 0.26 if trial.setting == "single" else 0.25, "b": 0.7 + mola / 9})
        assert made.train_info is not None
        assert made.size is not None
        metrics = tuple(m if m.primary else m.model_copy(update={"value": 0.5 - mola / 9}) for m in made.metrics)
        losses = [3.0, 2.0, 2.2 if trial.train_on == ("b",) and mola and trial.seed else 2.1]
        curve = [Point(step=step, seconds=1.0, loss=2.0, validation_loss=loss) for step, loss in enumerate(losses)]
        info = made.train_info.model_copy(update={"curve": tuple(curve)})
        size = made.size.model_copy(update={"residual": 0.000625})
        changed = {"metrics": metrics, "train_info": info, "size": size}
        Store(tmp_path / "results").write(Outcome(made.model_copy(update=changed)))
    scoring = {"a": "text", "b": "letter", "c": "text"}
    tasks = {name: {"metadata": {"title": name.upper(), "scoring": by}} for name, by in scoring.items()}
    tasks["b"]["num_fewshot"] = 5  # type: ignore[assignment]
    text = " ".join(text_of(build(tmp_path, study, trials, tasks)).split())
    assert text.count("No row is above chance on A.") == 1  # in the mixture; alone all rows are
    turned = "LoRA and not MoLA"
    assert f"Highest in-domain under acc_norm, of the rows with the most seeds: {turned} (mixture, 60,000" in text
    assert f"and {turned} (single task, 60,000 parameters)." in text
    assert "Solved examples in a prompt: none (A and C) and 5 (B)." in text
    assert "Options are scored by: their text (A and C) and their letter (B)." in text
    assert "to within 0.07 %." in text  # and not rounded to 0.06
    assert "more than 5 % above its lowest in 1 of 12 trials (B alone: MoLA)." in text


def test_a_failed_trial_is_told_with_its_error(tmp_path: Path) -> None:
    study, trials = make_records(tmp_path, ("lora", "mola", "mosld"), skip=1)
    error = "Traceback ...\nFloatingPointError: The loss became nan at step 3 of 9."
    Store(tmp_path / "results").write(
        Outcome(Record(trial=trials[-1], trial_id=trials[-1].id, status="failed", error=error))
    )
    failures = Store(tmp_path / "results").failures(study.name)
    assert failures == {trials[-1].id: "FloatingPointError: The loss became nan at step 3 of 9."}
    pdf = build(tmp_path, study, trials)
    text = " ".join(text_of(pdf).split())
    assert "the picture is partial; one trial of them failed (MoSLD; why is said under the table of results)" in text
    assert "Failed: MoSLD, 60,000 parameters, seed 2: FloatingPointError: The loss became nan at step 3 of 9." in text
    Store(tmp_path / "results").write(Outcome(make_record(trials[-1], study)))
    assert Store(tmp_path / "results").failures(study.name) == {}
    Store(tmp_path / "results").write(
        Outcome(Record(trial=trials[-1], trial_id=trials[-1].id, status="failed", error=error))
    )
    assert Store(tmp_path / "results").failures(study.name) == failures  # what is there may be of another size


def test_other_metrics_by_hand(tmp_path: Path) -> None:
    study = make_study(in_domain=("a", "b"), out_of_domain=("c",), seeds=(0, 1))
    trials = make_trials(study, [RECIPES["lora"]])
    for trial, norm in zip(trials, (0.4, 0.6), strict=True):
        made = make_record(trial, study, values={"a": 0.5, "b": 0.7, "c": 0.3})
        metrics = [
            m if m.primary else m.model_copy(update={"value": norm + 0.1 * (m.task == "b")}) for m in made.metrics
        ]
        Store(tmp_path / "results").write(Outcome(made.model_copy(update={"metrics": tuple(metrics)})))
    analysis = evidence_of(tmp_path, study, trials)
    assert analysis.other_metrics() == ["acc_norm,none"]
    assert analysis.under("acc_norm,none", analysis.trained[0]).by_seed() == pytest.approx({0: 0.45, 1: 0.65})
    build(tmp_path, study, trials)
    (row,) = rows_of(tmp_path / "out" / "tables" / "other-metrics.csv")
    assert (row["recipe"], row["seeds"]) == ("lora", "2")
    found = [row[f"{kind}_{name}"] for kind in ("in_domain", "out_of_domain") for name in ("acc", "acc_norm")]
    assert [float(value) for value in found] == pytest.approx([0.6, 0.55, 0.3, 0.5])
    assert float(row["in_domain_acc_norm_sd"]) == pytest.approx(0.2 / 2**0.5, abs=1e-6)


def test_a_study_of_one_seed_claims_no_test(tmp_path: Path) -> None:
    study, trials = make_records(
        tmp_path, ("lora", "mola", "mosld"), seeds=(0,), settings=("mixture", "single"), evaluate={"limit": 400}
    )
    text = " ".join(text_of(build(tmp_path, study, trials)).split())
    for sentence in (
        "One seed separates nothing",
        "no two rows have two seeds in common, so nothing is tested.",
        "Every point is one seed, so there are no bars.",
        "There is one common seed only, and so no interval.",
        "points: on one common seed, which gives no interval and no test.",
        "on the one common seed, without intervals",
        "Scored on a fixed sample of at most 400 test items a task.",
    ):
        assert sentence in text, sentence
    assert "†" not in text
    assert re.search(r"The standard error over items is \d\.\d( to \d\.\d)? points for one in-domain mean and", text)


def test_figures_of_rows_of_a_study(tmp_path: Path) -> None:
    """A legend's entry looks as the points do, also where a panel shows some of the recipes; all sizes are in sight."""
    study, trials = uneven(tmp_path)
    single = study.model_copy(update={"settings": ("single",), "seeds": (0,)})
    few = make_trials(single, [RECIPES["lora"], RECIPES["mosld"]])
    for trial in few:
        Store(tmp_path / "results").write(Outcome(make_record(trial, study)))
    analysis = evidence_of(tmp_path, study, [*trials, *few])
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
        means = [row.mean_sd(kind)[0] for row in analysis.trained for kind in [("in_domain", "out_of_domain")[column]]]
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
    drawn = {plot.name: plot for plot in draw_all(evidence_of(tmp_path, study, trials)) if isinstance(plot, Plot)}
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


@pytest.mark.parametrize("tuned", [(), ("lora", "mola"), ("lora", "mola", "mosld")])
def test_the_protocol_tells_whose_learning_rates_were_tuned(tuned: tuple[str, ...], tmp_path: Path) -> None:
    study, trials = make_records(tmp_path, ("lora", "mola", "mosld"), learning_rate_scales=dict.fromkeys(tuned, 2.0))
    said = " ".join(text_of(build(tmp_path, study, trials)).split())
    sentences = {
        0: "No learning rate was tuned for each method and budget",
        2: "The learning rates of LoRA and MoLA, not those of MoSLD, were tuned for this model",
        3: "The learning rates of all methods were tuned for this model",
    }
    assert [count for count, sentence in sentences.items() if sentence in said] == [len(tuned)]


@pytest.mark.parametrize("few", [False, True])
def test_the_protocol_tells_when_rows_have_unequal_seeds(few: bool, tmp_path: Path) -> None:
    study = make_study(in_domain=("a",), out_of_domain=(), seeds=(0, 1))
    trials = make_trials(study, [RECIPES["lora"], RECIPES["mola"]])
    planned = [trial for trial in trials if not few or trial.recipe.name == "lora" or trial.seed == 0]
    for trial in planned:
        Store(tmp_path / "results").write(Outcome(make_record(trial, study)))
    said = " ".join(text_of(build(tmp_path, study, planned)).split())
    assert "Seeds. 0, 1. " in said
    assert ("Not every row has all of them" in said) == few


def test_best_and_tied(tmp_path: Path) -> None:
    study = make_study(in_domain=("a",), out_of_domain=())
    recipes = [RECIPES[name] for name in ("full", "lora", "mola", "mosld")]
    trials = make_trials(study, recipes)
    scores = {"full": (0.9, 0.9, 0.9), "lora": (0.60, 0.61, 0.605), "mola": (0.69, 0.72, 0.70)}
    scores["mosld"] = (0.70, 0.71, 0.71)
    for trial in trials:
        value = scores[trial.recipe.name][trial.seed]
        Store(tmp_path / "results").write(Outcome(make_record(trial, study, values={"a": value})))
    analysis = evidence_of(tmp_path, study, trials)
    best = analysis.best(Condition("mixture", "60000"))
    assert best is not None
    assert best.recipe.name == "mosld"  # full scores higher, but is not of this size
    separated = {c.row.recipe.name: c.separated for c in analysis.against_best(Condition("mixture", "60000"))}
    assert separated == {"lora": True, "mola": False}
    said = " ".join(summary(analysis))
    assert "MoSLD has the highest in-domain mean" in said
    assert "10.2 points above LoRA" in said
    assert "Three seeds do not separate it from MoLA" in said
    build(tmp_path, study, trials)
    tex = (tmp_path / "out" / "tables" / "main.tex").read_text(encoding="utf-8")
    assert r"\textbf{MoSLD}" in tex
    assert re.search(r"MoLA.*\\dag", tex)
    assert not re.search(r"LoRA &.*\\dag", tex)


def test_dirty_is_a_draft(tmp_path: Path) -> None:
    study, trials = make_records(tmp_path, recipes=("base", "lora", "mosld"), seeds=(0,), dirty=True)
    text = text_of(build(tmp_path, study, trials))
    assert text.count("DRAFT") >= len(PdfReader(tmp_path / "out" / "report.pdf").pages)
    assert "uncommitted changes" in text
    assert "One seed separates nothing" in re.sub(r"\s+", " ", text)


@pytest.mark.parametrize("foreign", [False, True])
def test_nothing_to_report(tmp_path: Path, foreign: bool) -> None:
    study = make_study()
    trials = make_trials(study, [RECIPES["lora"]])
    if foreign:
        for trial in make_trials(study, [RECIPES["lora"]], protocol="0ther000"):
            Store(tmp_path / "results").write(Outcome(make_record(trial, study)))
    hint = (
        "; there are 3 of other conditions. Give the options of the run"
        if foreign
        else "; run `mosld-bench run synthetic`"
    )
    with pytest.raises(BenchError, match=f"no finished trial of the study 'synthetic' as it is asked for{hint}"):
        build(tmp_path, study, trials)


def test_names_survive(tmp_path: Path) -> None:
    odd = r"A_b #1 $x$ & *bold* @see <tag> 50% \n ~^{}"
    recipe = Recipe(
        name="odd",
        title=odd,
        method="mixture",
        about=odd,
        params={"r": 8, "share": odd, "target_modules": [odd]},
        deviations=(odd,),
    )
    study = make_study(
        in_domain=("task_a#", "t$b"),
        out_of_domain=("*c*",),
        question=odd,
        about=odd,
        settings=("mixture", "single"),
    )
    trials = make_trials(study, [recipe, RECIPES["lora"]])
    for trial in trials:
        Store(tmp_path / "results").write(Outcome(make_record(trial, study)))
    tasks = {"t$b": {"metadata": {"title": "B & <b>", "kind": "q_a"}}, "*c*": {"metadata": None}}
    text = re.sub(r"\s+", "", text_of(build(tmp_path, study, trials, tasks)))
    for part in (odd, "task_a#", "B&<b>", "*c*"):
        assert part.replace(" ", "") in text
    tex = (tmp_path / "out" / "tables" / "main.tex").read_text(encoding="utf-8")
    assert r"task\_a\#" in tex
    assert r"A\_b \#1 \$x\$ \& *bold*" in tex


def test_latex_is_well_formed(full: Path) -> None:
    for path in (full / "tables").glob("*.tex"):
        lines = path.read_text(encoding="utf-8").splitlines()
        body = "\n".join(lines[1:])
        assert lines[0].startswith("%")
        assert body.count(r"\begin{tabular}") == body.count(r"\end{tabular}") == 1
        bare = re.sub(r"\\[{}%&#_$]", "", body)
        assert bare.count("{") == bare.count("}")
        assert "%" not in bare
        assert "_" not in bare
        assert body.isascii() or not set(body) & set("±†–−≥")
        columns = len(re.sub(r"p\{[^}]*\}", "p", re.search(r"tabular\}\{(.*)\}$", lines[1])[1]))  # type: ignore[index]
        for line in lines[2:]:
            if line.endswith(r"\\"):
                spanned = [int(n) for n in re.findall(r"\\multicolumn\{(\d+)\}", line)]
                cells = len(re.findall(r"(?<!\\)&", line)) + 1
                assert cells + sum(spanned) - len(spanned) == columns, (path.name, line)


def test_same_records_same_files(tmp_path: Path) -> None:
    study, trials = make_records(tmp_path, recipes=("base", "lora", "mosld"), seeds=(0, 1))
    build(tmp_path, study, trials)
    out = tmp_path / "out"
    first = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    (out / "figures" / "stale.pdf").write_bytes(b"")
    build(tmp_path, study, trials[::1])
    assert first == {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_many_tasks_and_recipes(tmp_path: Path) -> None:
    names = tuple(f"task_{i:02d}" for i in range(26))
    extra = [RECIPES["mosld"].model_copy(update={"name": f"mosld-{i}", "title": f"MoSLD {i}"}) for i in range(15)]
    study = make_study(in_domain=names[:20], out_of_domain=names[20:], seeds=(0, 1), budgets=("60000", "native"))
    study = study.model_copy(update={"budgets": ("60000", "120000")})
    trials = make_trials(study, [RECIPES["lora"], *extra])
    for trial in trials:
        Store(tmp_path / "results").write(Outcome(make_record(trial, study)))
    pdf = build(tmp_path, study, trials, {})
    assert "task_25" in text_of(pdf)
    assert (tmp_path / "out" / "tables" / "main.csv").read_text(encoding="utf-8").count("\n") == 33


def test_rows_of_several_models_are_told_apart_in_every_table(tmp_path: Path) -> None:
    names = tuple(f"task_{i:02d}" for i in range(11))
    models = [ModelSpec(name="embedded"), ModelSpec(name="other")]
    study = make_study(in_domain=names[:10], out_of_domain=names[10:], seeds=(0,)).model_copy(update={"models": models})
    trials = make_trials(study, [RECIPES["lora"]])
    for trial in trials:
        Store(tmp_path / "results").write(Outcome(make_record(trial, study)))
    build(tmp_path, study, trials, {})
    for name in ("main", "tasks-1"):
        assert [row["model"] for row in rows_of(tmp_path / "out" / "tables" / f"{name}.csv")] == ["embedded", "other"]


def test_printed_numbers() -> None:
    assert [percent(value, True) for value in (0.685, -0.0123, -0.0004, None)] == [
        "+68.5",
        "−1.2",
        "0.0",
        "–",
    ]
    assert tex_text(r"50% of_a\b & −1 ± 2†") == r"50\% of\_a\textbackslash{}b \& $-$1 $\pm$ 2\dag{}"


def test_length_of_the_report() -> None:
    """Smaller type only where it saves a nearly empty last page."""
    assert _body_size(lambda size: (3, 0.9)) == SIZES[0]
    assert _body_size(lambda size: (4, 0.1) if size in SIZES[:2] else (3, 0.9)) == SIZES[2]
    asked: list[str] = []
    assert _body_size(lambda size: (asked.append(size), (4, 0.1))[1]) == SIZES[0]
    assert asked == [SIZES[0], SIZES[-1]]  # a long report takes seconds to set: it is not tried in every size


def test_imports_stay_light() -> None:
    code = (
        "import sys, mosld_bench.report\n"
        "heavy = {'torch', 'ray', 'transformers', 'peft', 'lm_eval', 'datasets'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_what_may_be_copied_is_not_polished() -> None:
    """A quote that is bent breaks a command; prose around it has its apostrophes and its numbers polished."""
    command = "mosld-bench run --set 'about=it''s 5 %' && echo 'a ± b'"
    document = {
        "title": "It's 5 %",
        "sections": [
            {"kind": "text", "runs": [{"text": "the base's 3 ± 1", "style": ""}, {"text": command, "style": "mono"}]},
            {"kind": "code", "lines": [command, command]},
            {"kind": "table", "rows": [{"cells": [{"text": "LoRA's", "sd": "± 1", "bold": False}]}]},
        ],
    }
    done = polished(document)
    assert done["title"] == "It’s 5\u00a0%"
    text, code, table = done["sections"]
    assert [run["text"] for run in text["runs"]] == ["the base’s 3\u00a0±\u00a01", command]
    assert code["lines"] == [command, command]
    assert table["rows"][0]["cells"][0]["text"] == "LoRA’s"


@given(st.text(alphabet="ab' %±\"\\$`|", max_size=40))
def test_any_command_can_be_pasted(command: str) -> None:
    code = {"kind": "code", "lines": [command]}
    assert polished([code, {"text": command, "style": "mono"}]) == [code, {"text": command, "style": "mono"}]


def test_a_recipe_that_leaves_coordinates_open_is_reported_by_their_defaults(tmp_path: Path) -> None:
    """The defaults of the code, so that the table, and the axis over experts, show what was run."""
    bare = Recipe(name="bare", title="Bare", method="mixture", params={"target_modules": ["q_proj"]})
    wide = bare.model_copy(update={"name": "wide", "title": "Wide", "params": {**bare.params, "experts": [2, 4, 6, 8]}})
    study = make_study(in_domain=("a",), out_of_domain=(), seeds=(0,), axis="experts", reference="bare")
    trials = make_trials(study, [bare, wide])
    for trial in trials:
        Store(tmp_path / "results").write(Outcome(make_record(trial, study)))
    analysis = evidence_of(tmp_path, study, trials)
    (figure,) = [plot.figure for plot in draw_all(analysis) if isinstance(plot, Plot) and plot.name == "axis"]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["2-4-6-8", "4"]
    build(tmp_path, study, trials)
    rows = {row["recipe"]: row for row in rows_of(tmp_path / "out" / "tables" / "methods.csv")}
    assert (rows["bare"]["Experts"], rows["bare"]["Routing"], rows["bare"]["Dropout"]) == ("4", "dense", "–")
