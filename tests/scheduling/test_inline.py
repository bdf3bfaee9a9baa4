"""Trials one after another in this process, and what they leave."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import json
import socket
import time
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from mosld_bench.methods.builtin import PeftMethod
from mosld_bench.records import provenance
from mosld_bench.records.frame import load
from mosld_bench.records.lock import held
from mosld_bench.records.record import Outcome
from mosld_bench.records.store import Store
from mosld_bench.scheduling import InlineExecutor, executor, ray_executor
from mosld_bench.scheduling.executor import Unfit
from mosld_bench.scheduling.ray_executor import RayWorker
from mosld_bench.spec import foreign_code
from mosld_bench.spec.trial import Trial
from mosld_bench.trial.execute import failed
from tests.conftest import items
from tests.support.runs import prepare, run_inline, silent, timeless

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


def test_inline_run_writes_whole_records(tiny: Path) -> None:
    _, planned, config = prepare(tiny)
    outcomes = run_inline(planned, config, tiny / "results")
    assert [outcome.record.error for outcome in outcomes] == [None] * 3
    frame = load(tiny / "results", "tiny")
    assert set(frame["recipe"]) == {"base", "lora", "mosld"}
    assert set(frame["metric"]) == {"acc,none"}
    row = frame[(frame["recipe"] == "mosld") & (frame["task"] == "other")].iloc[0]
    assert row["role"] == "out_of_domain"
    assert row["items"] == 20
    assert row["chance"] == pytest.approx(1 / 3)
    record = next(outcome.record for outcome in outcomes if outcome.record.trial.recipe.name == "mosld")
    assert record.size is not None
    assert record.train_info is not None
    assert record.size.trainable == row["trainable_parameters"]
    assert record.train_info.train_items == {"copy": 18, "count": 18}
    assert record.train_info.validation_items == {"copy": 2, "count": 2}
    assert record.train_info.examples == 16
    assert {"commit", "dirty", "versions", "hardware", "started", "seconds"} <= record.meta_info.keys()
    assert 0 < record.meta_info["loading_seconds"] < record.meta_info["seconds"]
    folder = tiny / "results" / "tiny" / record.trial_id
    assert {file.name for file in folder.iterdir()} == {
        "record.json", "items.parquet", "router.parquet", "adapter"
    }  # fmt: skip
    assert not list(folder.glob(".*"))
    bare = dataclasses.replace(outcomes[-1], adapter=None)
    Store(tiny / "results").write(bare)
    assert not (tiny / "results" / "tiny" / bare.record.trial_id / "adapter").exists()  # it was not of this record


def test_items_and_adapter_beside_the_record_reproduce_its_score(tiny: Path) -> None:
    """The saved adapter, loaded by PEFT, gives the accuracy and the log-likelihoods that were recorded."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from mosld_bench.inputs.encoding import Request
    from mosld_bench.trial.packed_scoring import score_plain

    _, planned, config = prepare(tiny, recipes=["mosld"], frozen_base=False)
    (outcome,) = run_inline(planned, config, tiny / "results")
    folder = tiny / "results" / "tiny" / outcome.record.trial_id
    rows = pd.read_parquet(folder / "items.parquet")
    for metric in outcome.record.metrics:
        assert rows[rows["task"] == metric.task]["correct"].mean() == pytest.approx(metric.value)
    base = AutoModelForCausalLM.from_pretrained(tiny / "model")
    model = PeftModel.from_pretrained(base, folder / "adapter").eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny / "model")
    row = rows[rows["task"] == "copy"].iloc[3]
    item: dict[str, Any] = items(20, "abcdefg")[3]
    context = tokenizer(f"{item['question']}?")["input_ids"]
    requests = [Request(context, tokenizer(f" {option}")["input_ids"]) for option in item["options"]]
    values = [value for value, _ in score_plain(model, requests, pad=0, tokens=512)]
    assert list(row["logliks"]) == pytest.approx(values, abs=1e-4)
    assert row["item"] == "a3"


class Failing(PeftMethod):
    """LoRA, whose first optimiser step fails."""

    def before_step(self, model: torch.nn.Module) -> None:
        raise RuntimeError("out of luck")


def test_a_failing_trial_leaves_its_traceback_and_no_record(tiny: Path) -> None:
    recipe = (tiny / "methods" / "lora.yaml").read_text().replace("method: peft", f'method: "{__name__}:Failing"')
    (tiny / "methods" / "fails.yaml").write_text(recipe)
    _, planned, config = prepare(tiny, recipes=["fails"], frozen_base=False)
    (outcome,) = run_inline(planned, config, tiny / "results")
    folder = tiny / "results" / "tiny" / outcome.record.trial_id
    assert {file.name for file in folder.iterdir()} == {"failure.json"}
    failure = json.loads((folder / "failure.json").read_text())
    assert failure["status"] == "failed"
    assert "Traceback" in failure["error"]
    assert "out of luck" in failure["error"]
    assert load(tiny / "results").empty


def test_nothing_is_loaded_before_the_first_outcome_is_asked_for(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a trial starts only when the outcome before it was taken, so that that one is written first."""
    _, planned, config = prepare(tiny)
    events: list[str] = []

    def execute(trial: Trial, *rest: object) -> Outcome:
        events.append(trial.id)
        return failed(trial, "not run", {})

    monkeypatch.setattr(executor, "Session", lambda config: events.append("session"))
    monkeypatch.setattr(executor, "execute", execute)
    outcomes = InlineExecutor(config).run(planned, silent(planned))
    assert events == []
    assert next(outcomes).record.trial == planned[0].trial
    assert events == ["session", planned[0].trial.id]
    assert [outcome.record.trial for outcome in outcomes] == [trial for trial, _ in planned[1:]]
    assert events == ["session", *(trial.id for trial, _ in planned)]


def test_a_task_of_any_name_is_recorded_and_found_again(tiny: Path) -> None:
    for name, path in (("mine/kinds", "copy"), ("../../out", "count"), ("two words: a", "other")):
        file = tiny / "tasks" / f"{path}.yaml"
        file.write_text(file.read_text().replace(f"task: {path}", f"task: '{name}'"))
    changes = {"in_domain": ["mine/kinds", "../../out"], "out_of_domain": ["two words: a"], "settings": ["single"]}
    _, planned, config = prepare(tiny, recipes=["lora"], **{**changes, "train.steps": 1})
    before = {path for path in tiny.parent.rglob("*") if path.is_file()}
    run_inline(planned, config, tiny / "results")
    written = {path for path in tiny.parent.rglob("*") if path.is_file()} - before
    assert written
    assert all(path.is_relative_to(tiny / "results" / "tiny") for path in written)
    store = Store(tiny / "results")
    assert {record.trial_id for record in store.records("tiny")} == {trial.id for trial, _ in planned}
    assert all(store.finished(member) is not None for member in planned)


def test_a_clock_that_jumps_changes_no_number_and_no_duration(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a machine is set right in mid-run: by an hour ahead, a day back, to the epoch."""
    _, planned, config = prepare(tiny)
    before = run_inline(planned, config, tmp_path / "before")
    jumps, really = itertools.cycle([3_600.0, -86_400.0, -time.time()]), time.time

    class Jumping(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Jumping:
            return cls.fromtimestamp(time.time(), tz)

    monkeypatch.setattr(time, "time", lambda: really() + next(jumps))
    monkeypatch.setattr(time, "time_ns", lambda: int(1e9 * time.time()))
    monkeypatch.setattr(provenance, "datetime", Jumping)
    with held(tmp_path / "after" / "tiny", "a command"):
        after = run_inline(planned, config, tmp_path / "after")
    same = [[timeless(outcome.record.model_dump(mode="json")) for outcome in run] for run in (after, before)]
    assert same[0] == same[1]
    for outcome in after:
        meta = outcome.record.meta_info
        assert datetime.fromisoformat(meta["started"]).year in {1970, datetime.now(UTC).year}
        assert 0 < meta["loading_seconds"] < meta["seconds"] < 600
        if train := outcome.record.train_info:
            assert 0 < train.seconds < meta["seconds"]
            seconds = [point.seconds for point in train.curve]
            assert seconds == sorted(seconds)
            assert 0 < seconds[0] <= seconds[-1] < meta["seconds"]


def test_a_worker_keeps_the_collector_from_what_stays_until_it_takes_another_model(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign_code, "allow", lambda: None)
    _, planned, config = prepare(tiny)
    worker = RayWorker(config, torch.get_num_threads())

    def status(number: int) -> str:
        outcome = worker.run(*planned[number])
        assert isinstance(outcome, Outcome)
        return outcome.record.status

    try:
        assert status(0) == "finished"
        kept = gc.get_freeze_count()
        assert kept > 100_000
        assert status(1) == "finished"
        assert gc.get_freeze_count() <= kept  # what the second trial made is collected as ever
        assert worker._session is not None
        worker._session.model(planned[0].trial.model, "bfloat16")
        assert gc.get_freeze_count() == 0
    finally:
        gc.unfreeze()


def test_a_worker_says_in_a_sentence_why_its_machine_cannot_run_trials(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its trial has not failed by that."""
    monkeypatch.setattr(foreign_code, "allow", lambda: None)
    monkeypatch.setattr(RayWorker, "where", lambda self: "node")
    _, planned, config = prepare(tiny)
    lacking = dataclasses.replace(config, task_folders=(str(tiny / "gone"),))
    machine = f"The machine {socket.gethostname()} cannot run trials"
    unfit = RayWorker(lacking, torch.get_num_threads()).run(*planned[0])
    assert isinstance(unfit, Unfit)
    assert unfit.machine == "node"
    assert unfit.reason.startswith(f"{machine}. {tiny / 'gone'} is not a folder; ")
    assert "Traceback" not in unfit.reason
    for error in (OSError("no room"), SystemExit("no room")):
        monkeypatch.setattr(ray_executor, "Session", lambda config, error=error: exec("raise error", {"error": error}))
        unfit = RayWorker(config, torch.get_num_threads()).run(*planned[0])
        assert isinstance(unfit, Unfit)
        assert unfit.reason == f"{machine} ({type(error).__name__}: no room, in <string>, line 1)."
