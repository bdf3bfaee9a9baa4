"""The tables of the terminal: what they say, and that no number is cut where the terminal is narrow."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from mosld_bench import display
from mosld_bench.inputs.rendering import Example
from mosld_bench.records.overlap import Overlap
from mosld_bench.records.scale import SHARE
from mosld_bench.reporting import MainRow
from mosld_bench.reporting.sections.results.main_table import MainScore
from mosld_bench.scheduling import make_plan
from mosld_bench.scheduling.plan import Plan
from mosld_bench.spec.recipe import load_recipes
from mosld_bench.spec.study import Study
from mosld_bench.spec.task_files import TaskFiles
from mosld_bench.spec.trial import Domain
from mosld_bench.spec.workspace import Workspace
from tests.cli.conftest import Command
from tests.conftest import REPOSITORY, tracked

WIDTHS = (80, 120, 160)
WORKSPACE = Workspace(REPOSITORY, REPOSITORY)


def printed(renderable: RenderableType, width: int) -> str:
    """As on a terminal of that width; no line is longer, and nothing is cut."""
    console = Console(width=width, file=io.StringIO(), record=True, highlight=False, markup=False)
    console.print(renderable)
    text = console.export_text()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    return text


@pytest.fixture(scope="module")
def plans() -> dict[str, Plan]:
    """Plans with every column: prices, parts, several models, several amounts of general data."""
    names = ("embedded", "smollm2", "scaling", "general-data")
    return {name: make_plan(Study.load(WORKSPACE.study_file(name)), WORKSPACE) for name in names}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["embedded", "smollm2", "scaling", "general-data"])
def test_a_plan_has_every_count(name: str, width: int, plans: dict[str, Plan]) -> None:
    plan = plans[name]
    text = printed(display.plan_table(plan, width), width)
    words = set(re.split(r"[\s│]+", text))
    for trial, fit in plan.planned:
        assert {trial.recipe.name, trial.setting, trial.budget, f"{fit.trainable:,}"} <= words
    has_target = any(fit.target is not None for _, fit in plan.planned)
    assert ("residual" in words) == has_target
    assert ("target" in words) == (has_target and width == 160)
    assert ("of all" in text) == (width == 160)
    assert ("GPU-hours" in text) == (name != "embedded")


def test_a_plan_in_sentences(plans: dict[str, Plan]) -> None:
    unknown = replace(plans["embedded"], sizes=dict.fromkeys(plans["embedded"].sizes))
    assert display.plan_sentences(unknown, 8, 80e9) == [
        "No estimate of hours: the tasks give no size (metadata.size) in their definitions.",
        "The largest trial takes about 0.5 GB of a GPU by estimate.",
    ]
    on_cores = display.plan_sentences(plans["embedded"], 8, 80e9, lambda dtype: 50e9)
    assert re.search(r"on this machine: about [\d.]+ hours", on_cores[1])
    assert re.search(r"0.5 GB of a GPU by estimate; without one a worker takes about 0\.\d GB", on_cores[2])
    sentences = display.plan_sentences(plans["smollm2"], 8, 1e9)
    assert re.match(
        r"An estimate, not a measurement, which --probe makes: [\d.]+ GPU-hours, [\d.]+ hours on 8 GPUs", sentences[0]
    )
    assert any(sentence.startswith("Refused: full on HuggingFaceTB/SmolLM2") for sentence in sentences)


def overlap(evaluated: str, train: str, shared: int) -> Overlap:
    example = "question which of these is the one that everybody looks for in the town at night" if shared else ""
    return Overlap(
        train=train, evaluated=evaluated, n=13, train_items=100, items=14_042, shared=shared, exact=2, example=example
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_overlaps_that_there_are(width: int) -> None:
    overlaps = [
        overlap("mmlu_letters", "commonsense_qa_letters", 0),
        overlap("commonsense_qa_letters", "arc_challenge_letters", 1_234),
    ]
    text = printed(display.overlap_table("paper", overlaps, width), width)
    cells = {"commonsense_qa_letters", "arc_challenge_letters", "14,042", "1234", "2", "8.79%"}
    assert cells <= set(re.split(r"[\s│]+", text))
    assert "mmlu_letters" not in text
    assert ("an example" in text) == (width > 80)
    assert display.overlap_sentence(overlaps) == "1 of 2 pairs share nothing."


@pytest.mark.parametrize("width", WIDTHS)
def test_recipes_and_methods(width: int) -> None:
    recipes = load_recipes(WORKSPACE.methods)
    text = printed(display.recipes_table(recipes.values()), width)
    assert set(recipes) <= set(re.split(r"[\s│]+", text))
    assert "Zadouri" in text
    assert re.findall(r"^│ (\S+)", text, re.M) == list(recipes)
    sources = {"lora": "mosld_bench.methods:PeftMethod", "mine": "a_package_with_a_long_name.methods:" + "X" * 80}
    text = printed(display.methods_table(sources), width)
    assert "mosld_bench.methods:PeftMethod" in text
    assert text.count("X") == 80


@pytest.mark.parametrize("width", WIDTHS)
def test_tasks(width: int) -> None:
    files = TaskFiles.scan((WORKSPACE.tasks,))
    listed, unreadable = display.listed_tasks(files)
    assert unreadable == []
    text = printed(display.tasks_table(listed), width)
    rows = {line.split()[1]: line for line in text.splitlines() if re.match(r"│ \w", line)}
    assert list(rows) == sorted(files.paths)
    assert rows["arc_easy"].split()[-2] == "yes"
    assert rows["mmlu"].split()[-2] == "no"


def kept_rows(path: Path) -> list[MainRow]:
    """The rows of a kept report's ``tables/main.csv``."""

    def mean_sd(line: dict[str, str], domain: Domain) -> tuple[float | None, float | None]:
        mean, sd = (line[f"{domain}_{part}"] for part in ("mean", "sd"))
        return float(mean) if mean else None, float(sd) if sd else None

    with path.open(encoding="utf-8", newline="") as file:
        return [
            MainRow(
                recipe=line["recipe"],
                setting=line["setting"],
                budget=line["budget"],
                trainable=int(line["trainable_parameters"]) if line["trainable_parameters"] else None,
                scores=tuple(MainScore(domain.label.lower(), SHARE, *mean_sd(line, domain)) for domain in Domain),
                seeds=int(line["seeds"]),
            )
            for line in csv.DictReader(file)
        ]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("path", tracked("reports/*/tables/main.csv"))
def test_results_have_every_number(path: str, width: int) -> None:
    text = printed(display.results_table(kept_rows(REPOSITORY / path)), width)
    for line in (REPOSITORY / path).read_text().splitlines()[1:]:
        count, mean, sd = line.split(",")[3:6]
        if not mean:  # of a row of which no trial has a record yet
            continue
        score = f"{100 * float(mean):.1f}" + (f" ± {100 * float(sd):.1f}" if sd else "")
        assert re.search(rf"│ +{int(float(count)):,} │ +{re.escape(score)} │", text), line


def test_an_item_is_its_prompt_and_answer() -> None:
    text = display.example_text(Example("Which?", " this"))
    assert text.plain == "Which? this\n"
    assert [text.plain[span.start : span.end] for span in text.spans] == [" this"]


def test_listings(command: Command) -> None:
    code, out, _ = command("methods", "ls")
    assert code == 0
    assert {"mosld", "hydralora", "mixture", "mosld_bench.methods:MixtureMethod"} <= set(out.split())
    code, out, _ = command("tasks", "ls")
    assert code == 0
    assert {"emb_world", "mmlu_letters"} <= set(out.split())
    code, out, _ = command("tasks", "show", "emb_tools", "--items", "1")
    assert code == 0
    assert "question" in out.lower()
    code, out, _ = command("methods", "show", "mosld")
    assert code == 0
    assert "dropout_on: weight" in out
