"""The plan: its order and its prices."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mosld_bench import display
from mosld_bench.run import plan as planning
from mosld_bench.spec.study import Study
from mosld_bench.spec.workspace import Workspace
from tests.conftest import REPOSITORY
from tests.support.models import config

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


def test_the_longest_trials_start_first_and_the_order_is_always_the_same(tiny: Path) -> None:
    """Without prices: what trains nothing last. With them: falling, model by model, and every trial once."""
    study = Study.load(tiny / "reports" / "tiny" / "study.yaml", {"seeds": [0, 1]})
    plan = planning.make(study, Workspace(tiny, tiny))
    ordered = plan.longest_first(plan.jobs)
    assert [trial.recipe.name for trial, _ in ordered] == ["lora"] * 2 + ["mosld"] * 2 + ["base"]
    for task in ("copy", "count", "other"):
        path = tiny / "tasks" / f"{task}.yaml"
        sizes = f"size: {{train: {20 if task == 'copy' else 900}, test: 20, tokens: 9}}"
        path.write_text(path.read_text().replace("kind: toy", f"kind: toy, {sizes}"))
    study = Study.load(
        tiny / "reports" / "tiny" / "study.yaml",
        {"settings": ["single", "mixture"], "train.epochs": 1, "models": [{"name": str(tiny / "model")}]},
    )
    plan = planning.make(study, Workspace(tiny, tiny))
    hours = {trial.id: price.hours or 0 for (trial, _), price in zip(plan.jobs, plan.prices, strict=True) if price}
    ordered = plan.longest_first(plan.jobs)
    found = [hours[trial.id] for trial, _ in ordered]
    assert found == sorted(found, reverse=True) != [hours[trial.id] for trial, _ in plan.jobs]
    assert {trial.id for trial, _ in ordered} == {trial.id for trial, _ in plan.jobs}
    assert plan.longest_first(ordered) == plan.longest_first(plan.jobs)
    assert plan.longest_first(plan.jobs[::3]) == [one for one in ordered if one in plan.jobs[::3]]
    assert plan.hours(plan.jobs[:2]) == {trial.id: hours[trial.id] for trial, _ in plan.jobs[:2]}


def test_a_model_without_a_price_is_planned_and_ordered() -> None:
    """A state-space model has no heads of attention: nothing is known of its memory, and nothing stops."""
    workspace = Workspace.find(REPOSITORY)
    study = Study.load(workspace.study_file("embedded"), {"recipes": ["lora", "full"], "seeds": [0]})
    plan = planning.make(study, workspace)
    other = dataclasses.replace(plan, configs=dict.fromkeys(plan.configs, config("mamba")))
    assert other.prices == [None] * len(plan.jobs)
    assert set(other.hours(plan.jobs).values()) == {0}
    assert {trial.id for trial, _ in other.longest_first(other.jobs)} == {trial.id for trial, _ in plan.jobs}
    assert other.refusals(1) == []
    (said,) = display.plan_sentences(other, 8, 80e9)
    assert said.startswith("No estimate of time and memory")
