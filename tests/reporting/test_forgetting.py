"""What training made the model forget: its numbers, its interval, and where the report tells it."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer
from scipy import stats as distributions

from mosld_bench.records.record import Record, TextLoss
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.figures import size
from mosld_bench.reporting.figures.plot import Plot
from mosld_bench.reporting.forgetting import forgetting, nats, text_title
from mosld_bench.reporting.rows import Row
from mosld_bench.reporting.sections.answers.forgotten import forgotten
from mosld_bench.reporting.sections.answers.questions import answers
from mosld_bench.reporting.sections.cost import cost_table
from mosld_bench.reporting.sections.protocol import protocol
from mosld_bench.reporting.stats import Basis
from mosld_bench.spec.trial import EvaluateSpec
from tests.reporting.reading import MIXTURE, analysis_of, analysis_with, words
from tests.support.synthetic import RECIPES, make_record, make_records, make_study, make_trials, task_configs

RECIPE_NAMES = ("base", "full", "lora", "mola", "mosld")
TASKS = task_configs() | {"prose": {"task": "prose", "metadata": {"title": "Plain prose"}}}


def analysed(root: Path, recipes: tuple[str, ...] = RECIPE_NAMES, **changes: Any) -> Analysis:
    fields = {"evaluate": EvaluateSpec(text="prose"), "seeds": (0, 1, 2), **changes}
    return analysis_of(root, *make_records(root, recipes, **fields), TASKS)


def row_of(analysis: Analysis, name: str, setting: str = "mixture") -> Row:
    return next(row for row in analysis.rows if row.recipe.name == name and row.setting in {setting, "frozen"})


def losses(row: Row) -> list[TextLoss]:
    found = [record.eval_info.text for record in row.records if record.eval_info]
    assert all(found)
    return [loss for loss in found if loss]


def plain_interval(of_seeds: list[TextLoss], before: TextLoss) -> tuple[float, float]:
    """Mean and half-width by loops: s²/S, and what documents add to it, each counted by its distance from the ratio."""
    tokens, count, seeds = before.document_tokens, before.documents, len(of_seeds)
    total = math.fsum(tokens)
    ratios, values = [], []
    for loss in of_seeds:
        more = [after - first for after, first in zip(loss.document_nats, before.document_nats, strict=True)]
        ratio = math.fsum(more) / total
        ratios.append(ratio)
        values.append([ratio + (m - ratio * t) * count / total for m, t in zip(more, tokens, strict=True)])
    mean = math.fsum(ratios) / seeds
    of_seed = math.fsum((ratio - mean) ** 2 for ratio in ratios) / (seeds - 1) / seeds
    means = [math.fsum(column) / seeds for column in zip(*values, strict=True)]
    factor = count / (count - 1) / count**2
    variance = factor * math.fsum((value - mean) ** 2 for value in means)
    rest = [
        (values[s][d] - ratios[s] - means[d] + mean) ** 2 for s in range(seeds) for d in range(count)
    ]  # fmt: skip
    excess = max(0.0, variance - factor * math.fsum(rest) / (seeds * (seeds - 1)))
    whole = of_seed + excess
    freedom = whole**2 / (of_seed**2 / (seeds - 1) + excess**2 / (count - 1))
    return mean, float(distributions.t.ppf(0.975, freedom)) * math.sqrt(whole)


@pytest.mark.parametrize("name", ["full", "lora", "mosld"])
def test_mean_and_interval_are_those_of_plain_loops(name: str, tmp_path: Path) -> None:
    analysis = analysed(tmp_path)
    row, (before,) = row_of(analysis, name), losses(row_of(analysis, "base"))
    (found,) = forgetting(analysis, [row])
    mean, half = plain_interval(losses(row), before)
    assert found.more.mean == pytest.approx(mean, rel=1e-12)
    assert found.more.half_width == pytest.approx(half, rel=1e-9)
    assert (found.more.seeds, found.more.basis, found.more.of_items) == (3, Basis.OWN, True)
    assert found.before == before.nats_per_token
    each = [loss.nats_per_token for loss in losses(row) if loss.nats_per_token is not None]
    assert found.after == pytest.approx(sum(each) / 3)
    assert list(found.by_seed) == [0, 1, 2]


def test_long_documents_that_are_forgotten_alike_are_no_noise(tmp_path: Path) -> None:
    """A document counts by how far it is from the loss a token of all, not by its length."""
    study = make_study(recipes=("base", "lora"), evaluate=EvaluateSpec(text="prose"), seeds=(0,))
    base, trained = (make_record(trial, study) for trial in make_trials(study, [RECIPES["base"], RECIPES["lora"]]))
    before = text_of(base)
    after = before.model_copy(
        update={
            "nats_per_token": (before.nats_per_token or 0) + 0.5,
            "document_nats": tuple(
                nats + 0.5 * tokens for nats, tokens in zip(before.document_nats, before.document_tokens, strict=True)
            ),
        }
    )
    analysis = analysis_with(tmp_path, study, [base, with_text(trained, after)], TASKS)
    (found,) = forgetting(analysis, analysis.trained)
    assert found.more.mean == pytest.approx(0.5)
    assert found.more.half_width == pytest.approx(0, abs=1e-9)
    assert found.more.basis is Basis.MODELS


def text_of(record: Record) -> TextLoss:
    assert record.eval_info
    assert record.eval_info.text
    return record.eval_info.text


def with_text(record: Record, text: TextLoss | None) -> Record:
    assert record.eval_info
    return record.model_copy(update={"eval_info": record.eval_info.model_copy(update={"text": text})})


def test_a_single_seed_borrows_and_without_documents_the_seeds_remain(tmp_path: Path) -> None:
    study = make_study(recipes=("base", "lora", "mola"), evaluate=EvaluateSpec(text="prose"), seeds=(0, 1, 2))
    records = [make_record(t, study) for t in make_trials(study, [RECIPES[n] for n in ("base", "lora", "mola")])]
    bare = [
        with_text(r, text_of(r).model_copy(update={"document_nats": (), "document_tokens": ()}))
        for r in records
        if (r.trial.recipe.name, r.trial.seed) != ("mola", 1) and (r.trial.recipe.name, r.trial.seed) != ("mola", 2)
    ]
    analysis = analysis_with(tmp_path, study, bare, TASKS)
    lora, mola = forgetting(analysis, [row_of(analysis, "lora"), row_of(analysis, "mola")])
    assert (lora.more.basis, lora.more.of_items, lora.more.freedom) == (Basis.OWN, False, 2)
    assert (mola.more.basis, mola.more.seeds) == (Basis.BORROWED, 1)
    values = list(lora.by_seed.values())
    mean = sum(values) / 3
    assert mola.more.error == pytest.approx(math.sqrt(sum((value - mean) ** 2 for value in values) / 2))


def test_of_single_tasks_the_mean_over_all_models_counts(tmp_path: Path) -> None:
    analysis = analysed(tmp_path, ("base", "lora"), settings=("single",), seeds=(0,), in_domain=("everyday", "science"))
    row, (before,) = row_of(analysis, "lora", "single"), losses(row_of(analysis, "base"))
    first, second = (loss.nats_per_token or 0 for loss in losses(row))
    (found,) = forgetting(analysis, [row])
    assert found.more.mean == pytest.approx((first + second) / 2 - (before.nats_per_token or 0))


@pytest.mark.parametrize("lacking", ["base", "lora"])
def test_without_a_loss_nothing_is_told(lacking: str, tmp_path: Path) -> None:
    study = make_study(recipes=("base", "lora"), evaluate=EvaluateSpec(text="prose"), seeds=(0, 1))
    records = [make_record(t, study) for t in make_trials(study, [RECIPES["base"], RECIPES["lora"]])]
    nothing = TextLoss(task="prose", documents=3, tokens=9, nats_per_token=None)
    analysis = analysis_with(
        tmp_path, study, [with_text(r, nothing) if r.trial.recipe.name == lacking else r for r in records], TASKS
    )
    assert forgetting(analysis, analysis.trained) == []
    assert "forgetting" not in numbers_of(analysis)


def numbers_of(analysis: Analysis) -> Any:
    frame = cost_table(analysis).frame
    assert frame is not None
    return frame


def test_the_table_of_costs_has_it_only_where_it_was_measured(tmp_path: Path) -> None:
    analysis, without = analysed(tmp_path / "with"), analysed(tmp_path / "without", evaluate=EvaluateSpec())
    table, frame, plain = cost_table(analysis), numbers_of(analysis), numbers_of(without)
    assert table.columns[-1].title == "Forgets"
    assert "Plain prose" in table.caption
    added = [name for name in frame if name not in plain]
    assert added == [
        "text", "text_loss", "forgetting", "forgetting_low", "forgetting_high", "forgetting_basis", "forgetting_seeds",
    ]  # fmt: skip
    of = frame.set_index("recipe")
    assert of.loc["full", "forgetting"] > of.loc["lora", "forgetting"] > of.loc["mosld", "forgetting"] > 0
    assert math.isnan(of.loc["base", "forgetting"])
    assert of.loc["base", "text_loss"] < of.loc["mosld", "text_loss"]
    (found,) = forgetting(analysis, [row_of(analysis, "lora")])
    assert list(of.loc["lora", ["forgetting_low", "forgetting_high"]]) == [found.more.low, found.more.high]
    (line,) = (line for line in table.rows if line.cells[0].text == "LoRA")
    assert line.cells[-1].text == nats(found.more.mean)
    assert line.cells[-1].sd == f"± {found.more.half_width:.3f}"
    assert [column.title for column in cost_table(without).columns] == [c.title for c in table.columns[:-1]]
    assert all(len(line.cells) in {1, len(table.columns)} for line in table.rows)


def test_the_answer_names_each_row_or_the_least_and_the_most(tmp_path: Path) -> None:
    analysis = analysed(tmp_path)
    (sentence,) = forgotten(analysis, MIXTURE)
    assert re_order(sentence, ["with MoSLD", "with LoRA", "with MoLA", "with Full fine-tuning"]) or re_order(
        sentence, ["with MoSLD", "with MoLA", "with LoRA", "with Full fine-tuning"]
    )
    assert sentence.count("95 %") == sentence.count(" nats with") == 1
    assert "Plain prose" in sentence
    assert any(answer.question == "Forgetting." for answer in answers(analysis))
    many = analysed(tmp_path / "many", ("base", "full", "lora", "moe-lora", "mola", "mosld"), seeds=(0,))
    first, second = forgotten(many, MIXTURE)
    assert "training from +" in first
    assert first.count(" with ") == 3
    assert "one seed says nothing of methods" in second


def re_order(text: str, parts: list[str]) -> bool:
    places = [text.find(part) for part in parts]
    return -1 not in places and all(first < second for first, second in pairwise(places))


def test_a_study_without_a_text_has_no_answer(tmp_path: Path) -> None:
    analysis = analysed(tmp_path, evaluate=EvaluateSpec())
    assert list(forgotten(analysis, MIXTURE)) == []
    assert all(answer.question != "Forgetting." for answer in answers(analysis))
    assert "Held-out text" not in words(protocol(analysis))


def test_the_protocol_tells_what_the_text_is(tmp_path: Path) -> None:
    analysis = analysed(tmp_path)
    tokens = losses(row_of(analysis, "base"))[0].tokens
    assert f"Plain prose, 40 documents, {tokens:,} tokens that are predicted" in words(protocol(analysis))
    assert text_title(analysis) == "Plain prose"


def test_the_figure_of_sizes_has_a_column_of_it(tmp_path: Path) -> None:
    plot = size.draw(analysed(tmp_path / "with"))
    assert isinstance(plot, Plot)
    titles = [axes.get_title() for axes in plot.figure.axes]
    assert titles == ["In-domain, mixture", "Out-of-domain, mixture", "Forgetting (nats a token), mixture"]
    bars = [bar for bar in plot.figure.axes[-1].containers if isinstance(bar, ErrorbarContainer)]
    heights = [float(np.asarray(bar.lines[0].get_ydata())[0]) for bar in bars if bar.lines[0] is not None]
    analysis = analysed(tmp_path / "again")
    drawn = [one.more.mean for one in forgetting(analysis, analysis.trained)]
    assert sorted(heights) == pytest.approx(sorted(drawn))
    bare = size.draw(analysed(tmp_path / "without", evaluate=EvaluateSpec()))
    assert isinstance(bare, Plot)
    assert len(bare.figure.axes) == 2


def test_nats_have_a_sign_and_no_signed_zero() -> None:
    assert [nats(value) for value in (0.1234, -0.1234, 0.0001, -0.0001)] == ["+0.123", "−0.123", "0.000", "0.000"]
