"""The plan: its order and its prices."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mosld_bench import display
from mosld_bench.errors import BudgetError, RoundingError
from mosld_bench.scheduling import Plan, make_plan
from mosld_bench.spec.study import Study
from mosld_bench.spec.workspace import Workspace
from tests.conftest import REPOSITORY
from tests.support.models import config

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


def test_the_longest_trials_start_first_and_the_order_is_always_the_same(tiny: Path) -> None:
    """Without prices: what trains nothing last. With them: falling, model by model, and every trial once."""
    study = Study.load(tiny / "reports" / "tiny" / "study.yaml", {"seeds": [0, 1]})
    plan = make_plan(study, Workspace(tiny, tiny))
    ordered = plan.longest_first(plan.planned)
    assert [trial.recipe.name for trial, _ in ordered] == ["lora"] * 2 + ["mosld"] * 2 + ["base"]
    for task in ("copy", "count", "other"):
        path = tiny / "tasks" / f"{task}.yaml"
        sizes = f"size: {{train: {20 if task == 'copy' else 900}, test: 20, tokens: 9}}"
        path.write_text(path.read_text().replace("kind: toy", f"kind: toy, {sizes}"))
    study = Study.load(
        tiny / "reports" / "tiny" / "study.yaml",
        {"settings": ["single", "mixture"], "train.epochs": 1, "models": [{"name": str(tiny / "model")}]},
    )
    plan = make_plan(study, Workspace(tiny, tiny))
    hours = {trial.id: price.hours or 0 for (trial, _), price in zip(plan.planned, plan.prices, strict=True) if price}
    ordered = plan.longest_first(plan.planned)
    falling = [hours[trial.id] for trial, _ in ordered]
    assert falling == sorted(falling, reverse=True) != [hours[trial.id] for trial, _ in plan.planned]
    assert {trial.id for trial, _ in ordered} == {trial.id for trial, _ in plan.planned}
    assert plan.longest_first(ordered) == plan.longest_first(plan.planned)
    assert plan.longest_first(plan.planned[::3]) == [member for member in ordered if member in plan.planned[::3]]
    assert plan.hours(plan.planned[:2]) == {trial.id: hours[trial.id] for trial, _ in plan.planned[:2]}


def test_a_model_without_a_price_is_planned_and_ordered() -> None:
    """A state-space model has no heads of attention: nothing is known of its memory, and nothing stops."""
    workspace = Workspace.find(REPOSITORY)
    study = Study.load(workspace.study_file("embedded"), {"recipes": ["lora", "full"], "seeds": [0]})
    plan = make_plan(study, workspace)
    other = dataclasses.replace(plan, configs=dict.fromkeys(plan.configs, config("mamba")))
    assert other.prices == [None] * len(plan.planned)
    assert set(other.hours(plan.planned).values()) == {0}
    assert {trial.id for trial, _ in other.longest_first(other.planned)} == {trial.id for trial, _ in plan.planned}
    assert other.refusals(1) == []
    (sentence,) = display.plan_sentences(other, 8, 80e9)
    assert sentence.startswith("No estimate of time and memory")


def test_what_a_word_takes_along_and_no_budget_sizes_is_left_out_and_by_name_refused() -> None:
    workspace = Workspace(REPOSITORY, REPOSITORY)

    def plan(*recipes: str) -> Plan:
        asked = {"recipes": list(recipes), "seeds": [0, 1]}
        return make_plan(Study.load(workspace.study_file("embedded"), asked), workspace)

    found = plan("lora", "controls")
    assert {trial.recipe.name for trial, _ in found.left_out} == {"mola-all-linear"}
    assert [trial.seed for trial, _ in found.left_out] == [0, 1]
    assert {"lora", "mosld-uniform"} <= {trial.recipe.name for trial in found.trials}
    assert "mola-all-linear" not in {trial.recipe.name for trial in found.trials}
    (sentence,) = [line for line in display.plan_sentences(found, 1, 80e9) if line.startswith("Left out")]
    assert "cannot meet the budget 60k" in sentence
    for asked in (("mola-all-linear",), ("controls", "mola-all-linear")):
        with pytest.raises(BudgetError, match="'mola-all-linear' cannot meet the budget 60k"):
            plan(*asked)


def test_what_cannot_be_on_a_rounded_model_is_left_out_of_a_word_and_by_name_refused(tiny: Path) -> None:
    file, workspace = tiny / "reports" / "tiny" / "study.yaml", Workspace(tiny, tiny)
    keys = {"recipes": ["all"], "budgets": ["native"], "model.load": "nf4", "frozen_base": False}
    plan = make_plan(Study.load(file, keys), workspace)
    assert {trial.recipe.name for trial, _ in plan.left_out} == {"full"}
    assert "cannot be trained" in plan.left_out[0][1]
    assert {"lora", "prefix-tuning", "moe-lora", "mola", "mixlora", "mosld"} <= {t.recipe.name for t in plan.trials}
    by_name = Study.load(file, keys | {"recipes": ["all", "full", "pissa"]})
    with pytest.raises(RoundingError, match=r"(?s)'full' cannot be trained .*\n.*'pissa' cannot be trained"):
        make_plan(by_name, workspace)
