"""Trials one after another in this process, and what they leave."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from mosld_bench.methods.builtin import PeftMethod
from mosld_bench.records.store import Store, load
from mosld_bench.run import ray_executor as launch
from tests.conftest import items
from tests.support.runs import prepare, silent

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


def test_inline_run_writes_whole_records(tiny: Path) -> None:
    _, jobs, around = prepare(tiny)
    outcomes = launch.run_inline(jobs, around, tiny / "results", silent(jobs))
    assert [o.record.error for o in outcomes] == [None] * 3
    frame = load(tiny / "results", "tiny")
    assert set(frame["recipe"]) == {"base", "lora", "mosld"}
    assert set(frame["metric"]) == {"acc,none"}
    row = frame[(frame["recipe"] == "mosld") & (frame["task"] == "other")].iloc[0]
    assert row["role"] == "out_of_domain"
    assert row["items"] == 20
    assert row["chance"] == pytest.approx(1 / 3)
    made = {o.record.trial.recipe.name: o.record for o in outcomes}["mosld"]
    assert made.size is not None
    assert made.train_info is not None
    assert made.size.trainable == row["trainable_parameters"]
    assert made.train_info.train_items == {"copy": 18, "count": 18}
    assert made.train_info.validation_items == {"copy": 2, "count": 2}
    assert made.train_info.examples == 16
    assert {"commit", "dirty", "versions", "hardware", "started", "seconds"} <= made.meta_info.keys()
    assert 0 < made.meta_info["loading_seconds"] < made.meta_info["seconds"]
    folder = tiny / "results" / "tiny" / made.trial_id
    assert {p.name for p in folder.iterdir()} == {"record.json", "items.parquet", "adapter"}
    assert not list(folder.glob(".*"))
    bare = dataclasses.replace(outcomes[-1], adapter=None)
    Store(tiny / "results").write(bare)
    assert not (tiny / "results" / "tiny" / bare.record.trial_id / "adapter").exists()  # it was not of this record


def test_items_and_adapter_beside_the_record_reproduce_its_score(tiny: Path) -> None:
    """The saved adapter, loaded by PEFT, gives the accuracy and the log-likelihoods that were recorded."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from mosld_bench.inputs.items import Request
    from mosld_bench.trial.packed_scoring import score_plain

    _, jobs, around = prepare(tiny, recipes=["mosld"], frozen_base=False)
    (outcome,) = launch.run_inline(jobs, around, tiny / "results", silent(jobs))
    folder = tiny / "results" / "tiny" / outcome.record.trial_id
    found = pd.read_parquet(folder / "items.parquet")
    for metric in outcome.record.metrics:
        assert found[found["task"] == metric.task]["correct"].mean() == pytest.approx(metric.value)
    base = AutoModelForCausalLM.from_pretrained(tiny / "model")
    model = PeftModel.from_pretrained(base, folder / "adapter").eval()
    words = AutoTokenizer.from_pretrained(tiny / "model")
    one = found[found["task"] == "copy"].iloc[3]
    doc = items(20, "abcdefg")[3]
    question = words(f"{doc['question']}?")["input_ids"]
    asked = [Request(question, words(f" {option}")["input_ids"]) for option in doc["options"]]
    values = [value for value, _ in score_plain(model, asked, pad=0, tokens=512)]
    assert list(one["logliks"]) == pytest.approx(values, abs=1e-4)
    assert one["item"] == "a3"


class Failing(PeftMethod):
    def before_step(self, model: torch.nn.Module) -> None:
        raise RuntimeError("out of luck")


def test_a_failing_trial_leaves_its_traceback_and_no_record(tiny: Path) -> None:
    lora = (tiny / "methods" / "lora.yaml").read_text()
    (tiny / "methods" / "fails.yaml").write_text(
        lora.replace("method: peft", 'method: "tests.run.test_inline:Failing"')
    )
    _, jobs, around = prepare(tiny, recipes=["fails"], frozen_base=False)
    (outcome,) = launch.run_inline(jobs, around, tiny / "results", silent(jobs))
    folder = tiny / "results" / "tiny" / outcome.record.trial_id
    assert {p.name for p in folder.iterdir()} == {"failure.json"}
    failure = json.loads((folder / "failure.json").read_text())
    assert failure["status"] == "failed"
    assert "Traceback" in failure["error"]
    assert "out of luck" in failure["error"]
    assert load(tiny / "results").empty
