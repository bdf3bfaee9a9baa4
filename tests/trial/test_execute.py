"""One trial in this process: the same numbers every time, and what its record says."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load

from mosld_bench.inputs import models
from mosld_bench.records import provenance
from mosld_bench.records.record import Parameters, Record
from mosld_bench.spec.trial import ModelSpec
from mosld_bench.trial.execute import execute
from mosld_bench.trial.limits import LimitExceededError
from mosld_bench.trial.session import Session
from tests.support.models import build, config, tokenizer
from tests.support.runs import prepare, timeless

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


def losses(record: Record) -> list[float | None]:
    """The loss at every point of the curve; none of a trial that does not train."""
    return [point.loss for point in record.train_info.curve] if record.train_info else []


def test_same_trial_same_numbers_and_the_base_model_is_loaded_once(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, planned, config = prepare(tiny)
    loaded: list[str] = []
    load_base = models.load_base

    def load(spec: ModelSpec, *rest: Any) -> Any:
        loaded.append(spec.name)
        return load_base(spec, *rest)

    monkeypatch.setattr(models, "load_base", load)
    session = Session(config)
    first = [execute(trial, session, fit).record for trial, fit in planned]
    again = [execute(trial, session, fit).record for trial, fit in reversed(planned)][::-1]
    assert len(loaded) == 1
    for record, repeated in zip(first, again, strict=True):
        assert [metric.value for metric in record.metrics] == [metric.value for metric in repeated.metrics]
        assert losses(record) == losses(repeated)
        assert bool(losses(record)) == bool(record.trial.train_on)


def test_that_there_is_no_room_to_load_it_again_is_noted(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, planned, config = prepare(tiny, recipes=["lora"], frozen_base=False)
    trial, fit = planned[0]
    monkeypatch.setattr("mosld_bench.trial.integrity._fits", lambda *words: False)
    outcome = execute(trial, Session(config), fit)
    assert outcome.record.meta_info["integrity"]["reloaded"] is False
    assert outcome.notes == ("what was trained is not compared with what is loaded of it, for want of room",)


def test_a_model_that_was_not_mended_is_not_lent_again(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, planned, config = prepare(tiny, recipes=["lora"], frozen_base=False)
    trial, fit = planned[0]
    session, mend = Session(config), Session._mend
    loaded = session.model(trial.model, "float32")

    def is_broken_off(*words: Any) -> Any:
        raise LimitExceededError

    monkeypatch.setattr(Session, "_mend", is_broken_off)
    assert execute(trial, session, fit).record.status == "failed"
    monkeypatch.setattr(Session, "_mend", mend)
    assert session.model(trial.model, "float32") is not loaded


def test_what_a_trial_leaves_does_not_grow_with_the_number_of_trials(tiny: Path) -> None:
    """Alone in its study, and as the last of many after which the process keeps models, tasks and token ids."""
    _, alone, config = prepare(tiny, recipes=["mosld"], frozen_base=False)
    _, many, _ = prepare(tiny, recipes=["lora", "mosld", "mola"], settings=["single", "mixture"], seeds=[1, 0])
    trial, fit = alone[0]
    last = next(planned for planned in many if planned.trial.id == trial.id)
    first = execute(trial, Session(config), fit)
    session = Session(config)
    for earlier in many[:8]:
        execute(earlier.trial, session, earlier.fit)
    later = execute(last.trial, session, last.fit)
    assert timeless(later.record.model_dump(mode="json")) == timeless(first.record.model_dump(mode="json"))
    assert first.items is not None
    assert later.items is not None
    assert later.items.equals(first.items)
    assert {name: len(content) for name, content in (later.adapter or {}).items()} == {
        name: len(content) for name, content in (first.adapter or {}).items()
    }


def test_a_task_that_is_held_out_whole_is_refused(tiny: Path) -> None:
    """It would be drawn from for ever."""
    _, planned, config = prepare(tiny, recipes=["lora"], frozen_base=False)
    trial, fit = planned[0]
    assert trial.train is not None
    spec = trial.train.model_copy(update={"validation_fraction": 0.99})
    record = execute(trial.model_copy(update={"train": spec}), Session(config), fit).record
    assert record.status == "failed"
    assert "Of the 20 training items of the task 'copy' all are held out for validation" in (record.error or "")


def test_a_model_of_another_size_than_planned_is_refused(tiny: Path) -> None:
    _, planned, config = prepare(tiny, recipes=["lora"], frozen_base=False)
    trial, fit = planned[0]
    wrong = fit.model_copy(update={"trainable": fit.trainable + 1})
    record = execute(trial, Session(config), wrong).record
    assert record.status == "failed"
    assert f"was fitted to {fit.trainable + 1:,} trainable parameters, but the built model has" in (record.error or "")


def test_a_record_names_the_code_that_its_process_loaded(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = iter([{"commit": "first", "dirty": False}])
    monkeypatch.setattr(provenance, "code_state", cache(lambda: next(states)))
    monkeypatch.setattr("mosld_bench.trial.session.code_state", provenance.code_state)
    Session(prepare(tiny).config)
    assert provenance.meta_info("now", 1.0, "cpu", None)["commit"] == "first"
    monkeypatch.undo()
    monkeypatch.setattr(provenance, "_git", lambda *words: None if words[0] == "status" else "c0ffee")
    assert provenance.code_state.__wrapped__() == {"commit": "c0ffee", "dirty": None}  # no answer is not "clean"


def test_general_data_and_capped_tasks_are_fixed_samples_that_nest(tiny: Path) -> None:
    _, planned, config = prepare(
        tiny,
        recipes=["lora"],
        frozen_base=False,
        in_domain=["copy"],
        general={"task": "count", "items": [3, 7]},
        **{"train.task_items": 10},
    )
    session = Session(config)
    small, large = [execute(trial, session, fit).record for trial, fit in planned]
    assert small.train_info is not None
    assert large.train_info is not None
    assert small.train_info.train_items == {"copy": 9, "count": 3}
    assert large.train_info.train_items == {"copy": 9, "count": 7}
    assert small.train_info.validation_items == {"copy": 1}
    assert {metric.task for metric in small.metrics} == {"copy", "other"}
    ids: list[list[list[int]]] = []
    for trial, _ in planned:
        assert trial.train is not None
        assert trial.general is not None
        tokenizer = session.model(trial.model, "float32").tokenizer
        ids.append([item.ids for item in session.general(trial.general, trial.train, tokenizer)])
    three, seven = ids
    assert (len(three), len(seven)) == (3, 7)
    assert all(item in seven for item in three)


def test_tasks_train_on_as_many_items_as_each_is_given(tiny: Path) -> None:
    _, planned, config = prepare(
        tiny,
        recipes=["lora"],
        frozen_base=False,
        in_domain=["copy", "count"],
        **{"train.task_items": {"copy": 10}, "train.validation_fraction": 0.5},
    )
    (record,) = [execute(trial, Session(config), fit).record for trial, fit in planned]
    assert record.train_info is not None
    assert (record.train_info.train_items["copy"], record.train_info.validation_items["copy"]) == (5, 5)
    assert record.train_info.train_items["count"] > 5


def test_a_tokenizer_without_special_tokens_will_do(tiny: Path) -> None:
    """It has nothing that begins, ends or fills a text: options are scored, and answers end where the task says."""
    words = tokenizer()
    words.eos_token = words.bos_token = words.pad_token = None
    shutil.rmtree(tiny / "model")
    build(config(bos_token_id=None, eos_token_id=None, pad_token_id=None)).save_pretrained(tiny / "model")
    words.save_pretrained(tiny / "model")
    task = (tiny / "tasks/count.yaml").read_text().replace("multiple_choice", "generate_until")
    task = task.replace("metric: acc", "metric: exact_match").replace("doc_to_choice: options\n", "")
    task = task.replace("doc_to_target: answer", "doc_to_target: id")
    (tiny / "tasks/count.yaml").write_text(f'{task}generation_kwargs: {{until: ["\\n"], max_gen_toks: 4}}\n')
    _, planned, setup = prepare(tiny, recipes=["lora"])
    session = Session(setup)
    for trial, fit in planned:
        record = execute(trial, session, fit).record
        assert record.error is None
        assert {metric.task for metric in record.metrics} == {"copy", "count", "other"}


def test_a_record_has_what_a_token_meets_and_what_is_saved(tiny: Path) -> None:
    """Of all that is trained by itself, of a mixture without the experts that were not picked; of the base nothing."""
    _, planned, worker = prepare(tiny, recipes=["full", "lora", "mosld"])
    session = Session(worker)
    outcomes = {trial.recipe.name: execute(trial, session, fit) for trial, fit in planned}
    sizes = {name: outcome.record for name, outcome in outcomes.items()}
    for name, record in sizes.items():
        assert record.size is not None
        assert record.parameters is not None
        saved = outcomes[name].adapter or {}
        if content := saved.get("adapter_model.safetensors"):
            assert record.parameters.stored == sum(tensor.numel() for tensor in load(content).values())
        assert record.parameters.stored == record.size.trainable
        assert (record.parameters.active == record.size.trainable) == (name != "mosld")
        assert 0 <= record.parameters.active <= record.size.trainable
        assert Record.model_validate_json(record.model_dump_json()) == record
    assert sizes["base"].parameters == Parameters(active=0, stored=0)


def test_what_does_not_train_is_stored_too(tiny: Path) -> None:
    """VeRA's projections, which its file has."""
    (tiny / "methods" / "vera.yaml").write_text(
        "title: VeRA\nmethod: peft\n"
        "params: {peft_type: VERA, r: 4, target_modules: [q_proj], projection_prng_key: 0, save_projection: true}\n"
    )
    _, planned, worker = prepare(tiny, recipes=["vera"], budgets=["native"], frozen_base=False)
    outcome = execute(planned[0].trial, Session(worker), planned[0].fit)
    record = outcome.record
    assert record.status == "finished", record.error
    assert record.size is not None
    assert record.parameters is not None
    assert record.parameters.stored > record.size.trainable
    assert outcome.adapter is not None
    saved = load(outcome.adapter["adapter_model.safetensors"])
    assert record.parameters.stored == sum(tensor.numel() for tensor in saved.values())


def test_a_record_of_before_has_no_parameters_and_stays_as_it_is(tiny: Path) -> None:
    _, planned, worker = prepare(tiny, recipes=["lora"], frozen_base=False)
    record = execute(planned[0].trial, Session(worker), planned[0].fit).record
    content = json.loads(record.model_dump_json())
    del content["parameters"]
    before = Record.model_validate(content)
    assert before.parameters is None
    assert json.loads(before.model_dump_json()) == content
    assert before.size == record.size == planned[0].fit
