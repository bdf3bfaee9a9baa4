"""Reports over metrics of every kind: best, bold, differences and sentences against a plain computation."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import pandas as pd
import pytest

from mosld_bench.errors import BadFileError
from mosld_bench.records.record import Metric, Record, Unscored
from mosld_bench.reporting import main_rows, write_report
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.figures import draw_all
from mosld_bench.reporting.figures.plot import Plot
from mosld_bench.reporting.sections.results import results, scoring_notes
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import Domain, Trial
from tests.reporting.answering import answered, claims, opening
from tests.reporting.reading import MIXTURE, analysis_with, document_of, pages_of, read_csv, tables_of_results, words
from tests.support.synthetic import RECIPES, make_record, make_study, make_trials


class Kind(NamedTuple):
    """A metric as lm-eval has it, between which values it is drawn, and what is a unit of its scale."""

    name: str
    higher: bool
    low: float
    high: float
    alike: str


KINDS = [
    Kind("acc,none", True, 0, 1, "share"),
    Kind("exact_match,strict-match", True, 0, 1, "share"),
    Kind("perplexity,none", False, 1, 2000, "perplexity"),
    Kind("word_perplexity,none", False, 1, 90, "word_perplexity"),
    Kind("bits_per_byte,none", False, 0.3, 3, "bits_per_byte"),
    Kind("brier_score,none", False, 0, 2, "brier_score"),
    Kind("mcc,none", True, -1, 1, "mcc"),
    Kind("chrf,none", True, 0, 100, "hundred"),
    Kind("bleu,none", True, 0, 100, "hundred"),
    Kind("ter,none", False, 0, 140, "hundred, lower"),
    Kind("unheard_of,none", True, -5, 5, "unheard_of"),
    Kind("unheard_of_loss,none", False, -5, 5, "unheard_of_loss"),
]
BY_NAME = {kind.name: kind for kind in KINDS}

#: Recipe, seed and task -> its score.
Values = dict[tuple[str, int, str], float]


def record_of(trial: Trial, study: Study, kinds: Mapping[str, Kind], values: Mapping[str, float]) -> Record:
    """A record with these scores by task, each under the metric of its kind."""
    record = make_record(trial, study)
    metrics = tuple(
        Metric(
            task=task,
            role=Domain.IN if task in study.in_domain else Domain.OUT,
            metric=kinds[task].name,
            value=value,
            stderr=None,
            items=40,
            chance=None,
            primary=True,
            higher_is_better=kinds[task].higher,
        )
        for task, value in values.items()
    )
    return record.model_copy(update={"metrics": metrics})


def drawn(root: Path, draw: random.Random, kinds: Mapping[str, Kind], inside: int) -> tuple[Analysis, Values]:
    """The analysis of a study on tasks of these kinds, the first ``inside`` of them in-domain; scores by chance."""
    tasks = tuple(kinds)
    study = make_study(in_domain=tasks[:inside], out_of_domain=tasks[inside:], reference="lora")
    trials = make_trials(study, [RECIPES[name] for name in ("lora", "mola", "mosl", "mosld")])
    values: Values = {}
    records = []
    for trial in trials:
        scores = {task: draw.uniform(kind.low, kind.high) for task, kind in kinds.items()}
        values |= {(trial.recipe.name, trial.seed, task): score for task, score in scores.items()}
        records.append(record_of(trial, study, kinds, scores))
    return analysis_with(root, study, records, {}), values


@pytest.mark.parametrize("seed", range(12))
def test_means_marks_and_differences_by_a_plain_computation(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    chosen = [draw.choice(KINDS)] * 3 if seed % 3 == 0 else draw.sample(KINDS, 3)
    kinds = dict(zip("abc", chosen, strict=True))
    analysis, values = drawn(tmp_path, draw, kinds, inside=2)
    recipes = ("lora", "mola", "mosl", "mosld")
    titles = {RECIPES[name].title: name for name in recipes}

    def scores(recipe: str, of: str) -> list[float]:
        """By seed, of a task or the mean over several."""
        return [fmean(values[recipe, s, task] for task in of) for s in analysis.study.seeds]

    def best(of: str) -> str:
        level = {name: fmean(scores(name, of)) for name in recipes}
        return (max if kinds[of[0]].higher else min)(recipes, key=level.__getitem__)

    for domain, of in ((Domain.IN, "ab"), (Domain.OUT, "c")):
        like = len({kinds[task].alike for task in of}) == 1
        assert analysis.unlike(domain) is not like
        for row in analysis.rows:
            mean = fmean(scores(row.recipe.name, of)) if like else None
            assert row.mean_sd(domain)[0] == (None if mean is None else pytest.approx(mean))
    like = kinds["a"].alike == kinds["b"].alike
    tables = tables_of_results(analysis)
    main = tables["main"]
    heads = [f"{column.title} {column.group}".strip() for column in main.columns]
    lines = [line for line in main.rows if len(line.cells) == len(heads) and line.cells[0].text in titles]
    places = {"Mean In-domain": "ab"} if like else {"a In-domain": "a", "b In-domain": "b"}
    for head, of in places.items():
        column = {titles[line.cells[0].text]: line.cells[heads.index(head)] for line in lines}
        bold = [name for name, cell in column.items() if cell.bold]
        marked = {name for name, cell in column.items() if "†" in cell.mark}
        assert bold in ([], [best(of)])
        assert best(of) in {*bold, *marked}, "it leads, or is tied"
        assert not bold or not marked
    assert all(not line.cells[heads.index("c Out-of-domain")].mark for line in lines), "only its mean is marked"
    if like:
        first = analysis.best(MIXTURE)
        assert first is not None
        assert first.recipe.name == best("ab")
        worst = (min if kinds["a"].higher else max)(recipes, key=lambda name: fmean(scores(name, "ab")))
        text = words(results(analysis))
        ends = re.search(r"in-domain means run from \S+(?: %)? \(([^)]+)\) to \S+(?: %)? \(([^)]+)\)", text)
        assert ends is not None
        assert [titles[end] for end in ends.groups()] == [worst, best("ab")]
    else:
        assert analysis.best(MIXTURE) is None
        assert analysis.against_reference(MIXTURE) == []
    for task in "abc":
        place = next(i for i, head in enumerate(heads) if head.startswith(f"{task} "))
        for line in lines:
            value = fmean(scores(titles[line.cells[0].text], task))
            printed = float(line.cells[place].text.replace("−", "-").replace(",", ""))
            assert printed == pytest.approx(100 * value if kinds[task].alike == "share" else value, abs=0.051)
    means, tasks = tables["differences"].frame, tables["differences-by-task"].frame
    assert means is not None
    assert tasks is not None
    assert set(means["of"]) == ({Domain.IN.value, Domain.OUT.value} if like else {Domain.OUT.value})
    assert set(tasks["of"]) == {"a", "b", "c"}
    for delta in (*means.to_dict("records"), *tasks.to_dict("records")):
        of = {"in_domain": "ab", "out_of_domain": "c"}.get(delta["of"], delta["of"])
        deltas = [a - b for a, b in zip(scores(delta["recipe"], of), scores("lora", of), strict=True)]
        assert delta["difference"] == pytest.approx(fmean(deltas))
        higher = delta.get("higher_is_better", True)
        assert higher is kinds[of[0]].higher
        assert (delta["low"] + delta["high"]) / 2 == pytest.approx(fmean(deltas))
        assert not delta["of_items"]
        if delta["p_holm"] < 0.05:
            assert delta["verdict"] == ("better" if (delta["difference"] > 0) is higher else "worse")
        else:
            assert delta["verdict"] in {"equal", "open"}


MIXED = dict(
    zip(
        ("accuracy_task", "perplexity_task", "brier_task", "mcc_task", "chrf_task"),
        (BY_NAME[f"{name},none"] for name in ("acc", "perplexity", "brier_score", "mcc", "chrf")),
        strict=True,
    )
)


def test_a_report_over_five_kinds_of_metrics(tmp_path: Path) -> None:
    analysis, _ = drawn(tmp_path, random.Random(5), MIXED, inside=5)
    text = answered(analysis)["In-domain."]
    assert "unlike scales (acc, perplexity, brier_score, mcc and chrf), so no mean is taken" in text
    for c in analysis.by_task(MIXTURE, Domain.IN):
        lower = "" if c.scale.higher_is_better else " (lower is better)"
        (part,) = re.findall(rf"On {c.of}{re.escape(lower)} (.*?)\.(?: |$)", text)
        assert claims(part, [c.row.recipe.title], "LoRA")[c.row.recipe.title] == [c.verdict], part
    assert "highest in-domain" not in words(document_of(analysis))
    pdf = write_report(analysis, tmp_path / "out")
    pages = " ".join(pages_of(pdf))
    assert "No in-domain mean is taken" in pages
    assert "Nothing is drawn against size" in pages
    assert set(pd.read_csv(tmp_path / "out" / "tables" / "differences-by-task.csv")["of"]) == set(MIXED)
    assert not (tmp_path / "out" / "tables" / "differences.csv").exists(), "no domain has a mean"
    assert "Scores by task are not drawn" in pages
    tasks = {line["task"]: line for line in read_csv(tmp_path / "out" / "tables" / "tasks.csv")}
    assert {task: (line["scale"], line["higher_is_better"]) for task, line in tasks.items()} == {
        "accuracy_task": ("share", "True"),
        "perplexity_task": ("number", "False"),
        "brier_task": ("number", "False"),
        "mcc_task": ("correlation", "True"),
        "chrf_task": ("hundred", "True"),
    }
    (note,) = scoring_notes(analysis)
    assert note.startswith("No in-domain mean is taken, and nothing that is made of one")
    titles = [score.title for score in main_rows(analysis)[0].scores]
    assert titles[:2] == ["accuracy_task\nacc", "perplexity_task\nperplexity\nlower is better"]


def test_where_lower_is_better_every_figure_and_sentence_says_so(tmp_path: Path) -> None:
    kind = BY_NAME["perplexity,none"]
    study = make_study(in_domain=("a", "b"), out_of_domain=("c",), reference="lora", settings=("mixture", "single"))
    level = {"lora": 20.0, "mola": 12.0, "mosld": 9.0}
    records = []
    for trial in make_trials(study, [RECIPES[name] for name in level]):
        noise = 0.01 * (trial.recipe.name == "lora") * trial.seed
        values = dict.fromkeys(trial.scored_on, level[trial.recipe.name] + trial.seed / 10 + noise)
        records.append(record_of(trial, study, dict.fromkeys("abc", kind), values))
    analysis = analysis_with(tmp_path, study, records, {})
    text = words(document_of(analysis))
    assert "In-domain (mixture, lower is better)." in answered(analysis)
    assert (
        "in-domain means run from 20.11 (LoRA) to 9.100 (MoSLD), lower being better. Beside LoRA: better: MoLA" in text
    )
    assert "lower is better, so that a negative difference is" in text
    main = tables_of_results(analysis)["main"]
    leading = [line.cells[0].text for line in main.rows if line.cells[0].bold]
    assert leading == ["MoSLD", "MoSLD"], "in each setting"
    assert "↑ better." in main.caption
    assert "highest" not in text
    assert "(%)" not in text
    assert not re.search(r"\d points|in points|\(points\)", text)
    figures = {name: plot.figure for name, plot in figures_of(analysis).items()}
    size, difference = figures["size"].axes[0].get_ylabel(), figures["difference"].get_supxlabel()
    assert size == "Mean score (lower is better)"
    assert difference == "Minus LoRA; left is better"


def figures_of(analysis: Analysis) -> dict[str, Plot]:
    """Name -> drawn figure."""
    return {figure.name: figure for figure in draw_all(analysis) if isinstance(figure, Plot)}


def test_a_metric_that_came_to_no_number_is_a_gap_that_is_told(tmp_path: Path) -> None:
    kinds = {"a": BY_NAME["acc,none"], "b": BY_NAME["exact_match,strict-match"]}
    study = make_study(in_domain=("a", "b"), out_of_domain=(), reference="lora")
    records = []
    for trial in make_trials(study, [RECIPES["lora"], RECIPES["mosld"]]):
        record = record_of(trial, study, kinds, {"a": 0.5, "b": 0.25})
        if (trial.recipe.name, trial.seed) == ("mosld", 2):
            absent = Unscored(
                task="b", role=Domain.IN, metric="exact_match,strict-match", primary=True, higher_is_better=True,
                reason="it comes to inf",
            )  # fmt: skip
            assert record.eval_info is not None
            info = record.eval_info.model_copy(update={"unscored": (absent,)})
            record = record.model_copy(update={"metrics": record.metrics[:1], "eval_info": info})
        records.append(record)
    analysis = analysis_with(tmp_path, study, records, {})
    rows = {row.recipe.name: row for row in analysis.trained}
    assert (rows["lora"].n, rows["mosld"].n) == (3, 2)
    assert rows["mosld"].by_seed("a") == {0: 0.5, 1: 0.5, 2: 0.5}
    assert rows["mosld"].by_seed("b") == {0: 0.25, 1: 0.25}
    note = "No score on b: exact_match,strict-match came to no number in MoSLD (seed 2) (it comes to inf); their other"
    assert note in words(document_of(analysis))
    assert note in opening(analysis)


def test_ties_between_options_are_counted_and_told(tmp_path: Path) -> None:
    study = make_study(in_domain=("a", "b"), out_of_domain=(), reference="lora")
    records = []
    for trial in make_trials(study, [RECIPES["lora"]]):
        record = make_record(trial, study)
        tied = {"a": 40 - trial.seed, "b": 0}
        metrics = [m.model_copy(update={"tied": tied[m.task] if m.primary else None}) for m in record.metrics]
        records.append(record.model_copy(update={"metrics": tuple(metrics)}))
    analysis = analysis_with(tmp_path, study, records, {})
    assert analysis.tied_items() == {"a": (38, 40, 400)}
    assert scoring_notes(analysis) == [
        "38 to 40 of 400 items of a tie between options that score highest; lm-eval counts the first of them."
    ]


def test_a_scale_that_does_not_exist_is_told(tmp_path: Path) -> None:
    study = make_study(in_domain=("a",), out_of_domain=())
    records = [make_record(trial, study) for trial in make_trials(study, [RECIPES["lora"]])]
    with pytest.raises(BadFileError, match=r"metadata\.scale"):
        analysis_with(tmp_path, study, records, {"a": {"metadata": {"scale": "miles"}}})
