"""One trial in this process: the same numbers every time, and what its record says."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from mosld_bench.inputs import models
from mosld_bench.records import provenance
from mosld_bench.trial.execute import execute
from mosld_bench.trial.session import Session
from tests.support.runs import prepare

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


def test_same_trial_same_numbers_and_the_base_model_is_loaded_once(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, jobs, around = prepare(tiny)
    loads: list[str] = []
    load_base = models.load_base
    monkeypatch.setattr(models, "load_base", lambda spec, *rest: (loads.append(spec.name), load_base(spec, *rest))[1])
    session = Session(around)
    first = [execute(trial, session, fit).record for trial, fit in jobs]
    again = [execute(trial, session, fit).record for trial, fit in reversed(jobs)][::-1]
    assert len(loads) == 1
    for a, b in zip(first, again, strict=True):
        assert [m.value for m in a.metrics] == [m.value for m in b.metrics]
        assert a.train_info is None or [p.loss for p in a.train_info.curve] == [p.loss for p in b.train_info.curve]


def timeless(value: object) -> object:
    """A record's content with its times and its memory, which are never the same, set to zero."""
    if isinstance(value, dict):
        return {
            key: 0 if key in {"started", "peak_memory_bytes"} or "second" in key else timeless(one)
            for key, one in value.items()
        }
    return [timeless(one) for one in value] if isinstance(value, list) else value


def test_what_a_trial_leaves_does_not_grow_with_the_number_of_trials(tiny: Path) -> None:
    """Alone in its study, and as the last of many after which the process keeps models, tasks and token ids."""
    _, alone, around = prepare(tiny, recipes=["mosld"], frozen_base=False)
    _, many, _ = prepare(tiny, recipes=["lora", "mosld", "mola"], settings=["single", "mixture"], seeds=[1, 0])
    trial, fit = alone[0]
    last = next(job for job in many if job[0].id == trial.id)
    first = execute(trial, Session(around), fit)
    session = Session(around)
    for job_before in many[:8]:
        execute(job_before[0], session, job_before[1])
    later = execute(last[0], session, last[1])
    assert timeless(later.record.model_dump(mode="json")) == timeless(first.record.model_dump(mode="json"))
    assert later.items is not None
    assert later.items.equals(first.items)
    assert {name: len(content) for name, content in (later.adapter or {}).items()} == {
        name: len(content) for name, content in (first.adapter or {}).items()
    }


def test_a_task_that_is_held_out_whole_is_refused(tiny: Path) -> None:
    """It would be drawn from for ever."""
    _, jobs, around = prepare(tiny, recipes=["lora"], frozen_base=False)
    trial, fit = jobs[0]
    assert trial.train is not None
    spec = trial.train.model_copy(update={"validation_fraction": 0.99})
    made = execute(trial.model_copy(update={"train": spec}), Session(around), fit).record
    assert made.status == "failed"
    assert "Of the 20 training items of the task 'copy' all are held out for validation" in (made.error or "")


def test_a_record_names_the_code_that_its_process_loaded(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = iter([{"commit": "first", "dirty": False}])
    monkeypatch.setattr(provenance, "code_state", cache(lambda: next(states)))
    monkeypatch.setattr("mosld_bench.trial.session.code_state", provenance.code_state)
    Session(prepare(tiny)[2])
    assert provenance.meta_info("now", 1.0, "cpu", None)["commit"] == "first"
    monkeypatch.undo()
    monkeypatch.setattr(provenance, "_git", lambda *words: None if words[0] == "status" else "c0ffee")
    assert provenance.code_state.__wrapped__() == {"commit": "c0ffee", "dirty": None}  # no answer is not "clean"


def test_general_data_and_capped_tasks_are_fixed_samples_that_nest(tiny: Path) -> None:
    _, jobs, around = prepare(
        tiny,
        recipes=["lora"],
        frozen_base=False,
        in_domain=["copy"],
        general={"task": "count", "items": [3, 7]},
        **{"train.task_items": 10},
    )
    session = Session(around)
    small, large = [execute(trial, session, fit).record for trial, fit in jobs]
    assert small.train_info is not None
    assert large.train_info is not None
    assert small.train_info.train_items == {"copy": 9, "count": 3}
    assert large.train_info.train_items == {"copy": 9, "count": 7}
    assert small.train_info.validation_items == {"copy": 1}
    assert {metric.task for metric in small.metrics} == {"copy", "other"}
    spec = jobs[0][0].train
    tokenizer = session.model(jobs[0][0].model, "float32")[1]
    three, seven = (session.general(trial.general, spec, tokenizer) for trial, _ in jobs)
    assert [item.ids for item in three if item.ids not in [other.ids for other in seven]] == []
