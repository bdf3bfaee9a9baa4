"""A probe: what a short trial shows, carried over to a study, and nothing of it kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mosld_bench import display
from mosld_bench.cost.estimate import TaskSize
from mosld_bench.cost.probe import STEPS, Probe, largest, shortened
from mosld_bench.errors import BenchError
from mosld_bench.scheduling import Options, Plan, make_plan, run_probe
from mosld_bench.spec.study import Study
from mosld_bench.spec.workspace import Workspace
from mosld_bench.trial.session import Progress
from tests.conftest import REPOSITORY

WORKSPACE = Workspace.find(REPOSITORY)


def planned(study: str, **changes: object) -> Plan:
    return make_plan(Study.load(WORKSPACE.study_file(study), changes), WORKSPACE)


class Watch:
    """Notes where the short trial was."""

    def __init__(self) -> None:
        self.seen: list[Progress] = []

    def show(self, progress: Progress) -> None:
        self.seen.append(progress)

    def say(self, line: str) -> None:
        raise AssertionError(line)


def probed(plan: Plan, watch: Watch | None = None) -> Probe:
    return run_probe(plan, (WORKSPACE.tasks,), Options(), watch=lambda *told: None, watcher=watch or Watch())


def test_a_short_trial_of_the_largest_one_tells_of_the_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    plan, watch = planned("embedded", recipes=["lora", "full"], seeds=[0, 1]), Watch()
    before = sorted(path for path in (REPOSITORY / "results").glob("*/*"))
    probe = probed(plan, watch)
    assert sorted(path for path in (REPOSITORY / "results").glob("*/*")) == before
    assert (probe.label, probe.device, probe.steps) == ("full on embedded", "cpu", STEPS)
    assert {progress.phase for progress in watch.seen} == {"loading", "training", "scoring"}
    assert 0 < probe.items < 9 * 300
    assert probe.step_seconds is not None
    assert 0.001 < probe.step_seconds < 10
    assert 2e8 < probe.memory < 20e9
    index = largest(plan.planned, plan.prices)
    assert index is not None
    price = plan.prices[index]
    assert price is not None
    assert price.other_flops is not None
    assert probe.score_rate is not None
    hours = probe.hours(price)
    assert hours is not None
    training = 3600 * hours - price.other_flops / probe.score_rate
    assert training == pytest.approx(200 * probe.step_seconds, rel=0.2)  # a batch of 32 items is like another
    every = [probe.hours(price) for price in plan.prices if price]
    assert max(filter(None, every)) == hours
    assert probe.as_data(plan.prices)["hours"] == pytest.approx(sum(filter(None, every)))
    told = " ".join(display.plan_sentences(plan, 8, 80e9, None, probe))
    assert "TFLOP/s" not in told


def test_the_largest_is_by_hours_and_of_equals_by_memory() -> None:
    plan = planned("embedded", recipes=["lora", "full", "base"], seeds=[0])
    index = largest(plan.planned, plan.prices)
    assert index is not None
    assert plan.planned[index].trial.recipe.name == "full"
    assert largest(plan.planned, [None] * len(plan.planned)) is None


def test_a_short_trial_has_few_steps_and_items_and_all_else_of_the_whole_one() -> None:
    whole = planned("embedded", recipes=["lora"], seeds=[0]).planned[0].trial
    sizes = dict.fromkeys(whole.scored_on, TaskSize(test=300, tokens=10))
    short = shortened(whole, sizes, score_tokens=2048)
    assert short.train is not None
    assert whole.train is not None
    assert short.evaluate.limit == -(-4 * 2048 // (9 * 10))
    assert (short.ends_after, short.train.validation_items, short.evaluate.text) == (STEPS, 0, None)
    assert short.train.model_copy(update={"validation_items": 50}) == whole.train
    assert (short.recipe, short.seed, short.train_on) == (whole.recipe, whole.seed, whole.train_on)


LATE = {
    "adalora": {"peft_type": "ADALORA", "init_r": 3, "target_r": 2, "tinit": 20, "tfinal": 10, "deltaT": 1},
    "adamss": {
        "peft_type": "ADAMSS", "r": 8, "num_subspaces": 4, "subspace_rank": 1, "use_asa": True,
        "asa_target_subspaces": 3, "init_warmup": 1, "final_warmup": 30, "mask_interval": 1,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", LATE)
def test_a_method_s_schedule_that_is_longer_than_a_probe_goes_by_the_whole_trial(name: str, tiny: Path) -> None:
    recipe = {"title": "Late", "method": "peft", "params": LATE[name] | {"target_modules": ["q_proj", "v_proj"]}}
    (tiny / "methods" / "late.yaml").write_text(json.dumps(recipe))
    workspace = Workspace(tiny, tiny)
    study = Study.load(workspace.study_file("tiny"), {"recipes": ["late"], "budgets": ["native"], "train.steps": 40})
    plan = make_plan(study, workspace)
    probe = run_probe(plan, (workspace.tasks,), Options(), watch=lambda *told: None, watcher=Watch())
    assert (probe.label, probe.steps) == ("late on " + study.models[0].label, STEPS)
    assert probe.step_seconds is not None


def test_what_only_counts_has_nothing_to_measure() -> None:
    with pytest.raises(BenchError, match="only counts parameters"):
        probed(planned("parameters", recipes=["lora"]))
