"""Scoring on held-out items: those of the validation loss and no other, by lm-eval's own numbers, before any test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mosld_bench.errors import DataError
from mosld_bench.inputs.items import draw, encode, held_out, training_docs
from mosld_bench.records.record import Outcome
from mosld_bench.spec.trial import TrainSpec
from mosld_bench.trial.execute import execute
from mosld_bench.trial.packed_lm import PackedLM
from mosld_bench.trial.session import Session, WorkerConfig
from tests.conftest import TASK, items
from tests.support.models import build, config, tokenizer
from tests.support.runs import prepare

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


@pytest.fixture
def apart(tiny: Path) -> Path:
    """The workspace with 40 training and 10 test items of `copy`, none of which is both."""
    folder = tiny / "tasks"
    for split, letters, count in (("train", "abcdefg", 40), ("test", "uvwxyz", 10)):
        rows = [{**row, "id": f"{split}-{row['id']}"} for row in items(count, letters)]
        (folder / f"copy-{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = TASK.format(name="copy", training="training_split: train")
    text = text.replace("train: copy.jsonl, test: copy.jsonl", "train: copy-train.jsonl, test: copy-test.jsonl")
    (folder / "copy.yaml").write_text(text)
    return tiny


def scored(root: Path, **overrides: Any) -> tuple[Outcome, Session]:
    """A trial of LoRA on `copy`, scored on what is held out."""
    given = {"recipes": ["lora"], "frozen_base": False, "in_domain": ["copy"], "out_of_domain": []}
    prepared = prepare(root, **{**given, "evaluate.split": "validation", **overrides})
    session = Session(prepared.config)
    trial, fit = prepared.planned[0]
    return execute(trial, session, fit), session


def ids_of(outcome: Outcome) -> set[str]:
    assert outcome.items is not None
    return set(outcome.items["item"])


@pytest.mark.parametrize("most", [None, 3])
@pytest.mark.parametrize("drawn", [None, 20])
def test_the_items_scored_are_those_of_the_validation_loss(apart: Path, most: int | None, drawn: int | None) -> None:
    outcome, session = scored(apart, **{"train.validation_items": most, "train.task_items": drawn})
    record = outcome.record
    assert record.error is None
    spec = record.trial.train
    assert spec is not None
    task, words = session.tasks.get("copy"), session.model(record.trial.model, spec.dtype).tokenizer
    indices = held_out(task, drawn, fraction=spec.validation_fraction, seed=spec.split_seed, most=most)
    assert ids_of(outcome) == {training_docs(task)[index]["id"] for index in indices}
    assert len(indices) == min(most or 40, (drawn or 40) // 10)
    assert record.train_info is not None
    assert record.train_info.validation_items == {"copy": len(indices)}
    places = draw(task, drawn, spec.split_seed) or list(range(40))
    texts = encode(task, words, spec, drawn)
    in_the_loss = [item.ids for item in session.examples("copy", spec, words).validation]
    assert sorted(texts[places.index(index)].ids for index in indices) == sorted(in_the_loss)


def test_the_number_is_lm_evals_own_on_these_items(apart: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As lm-eval scores a task whose test split is the file of the held-out items."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    outcome, session = scored(apart)
    (metric,) = outcome.record.metrics
    docs = training_docs(session.tasks.get("copy"))
    chosen = [doc for doc in docs if doc["id"] in ids_of(outcome)]
    folder = apart / "alone"
    folder.mkdir()
    (folder / "alone.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in chosen))
    text = TASK.format(name="alone", training="")
    (folder / "alone.yaml").write_text(text.replace("alone.jsonl", str(folder / "alone.jsonl")))
    lm = PackedLM(build(config()), tokenizer())  # another model: what is compared is what lm-eval makes of answers
    assert outcome.items is not None
    answers = {name: iter(values) for name, values in zip(outcome.items["item"], outcome.items["logliks"], strict=True)}

    def as_recorded(requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        return [(float(next(answers[request.doc["id"]])), False) for request in requests]

    monkeypatch.setattr(lm, "loglikelihood", as_recorded)
    manager = TaskManager(include_path=[str(folder)], include_defaults=False)
    results = simple_evaluate(lm, tasks=["alone"], task_manager=manager, bootstrap_iters=0, verbosity="ERROR")
    assert results is not None
    assert metric.value == results["results"]["alone"]["acc,none"]
    assert (metric.items, metric.metric, metric.primary) == (len(chosen), "acc,none", True)
    assert all(next(rest, None) is None for rest in answers.values())


def test_no_test_item_is_asked_for(apart: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    answer = PackedLM.loglikelihood

    def noting(self: PackedLM, requests: list[Any], disable_tqdm: bool = True) -> Any:
        asked.extend(request.doc["id"] for request in requests)
        return answer(self, requests, disable_tqdm)

    monkeypatch.setattr(PackedLM, "loglikelihood", noting)
    outcome, session = scored(apart)
    assert set(asked) == ids_of(outcome)
    assert all(name.startswith("train-") for name in asked)
    asked.clear()
    again, _ = scored(apart, **{"evaluate.split": "test"})
    assert all(name.startswith("test-") for name in asked)
    assert len(ids_of(again)) == 10
    assert session.scored("copy") is session.tasks.get("copy"), "the task itself still has its test split"
    assert len(session.tasks.get("copy").eval_docs) == 10


def test_a_trial_that_a_search_has_stopped_is_scored_on_nothing(apart: Path) -> None:
    prepared = prepare(apart, recipes=["lora"], frozen_base=False, **{"train.steps": 5})
    trial, fit = prepared.planned[0]
    stopped = trial.model_copy(update={"rivals": ((0.1, 0.2, 0.3), (), ())})
    outcome = execute(stopped, Session(prepared.config), fit)
    record = outcome.record
    assert (record.status, record.metrics, record.eval_info, record.error) == ("stopped", (), None, None)
    assert (outcome.items, outcome.adapter) == (None, None)
    assert record.train_info is not None
    assert (record.train_info.steps, record.train_info.stopped) == (1, True)
    assert record.trial_id == trial.id, "whom it was held against is no part of what it is"
    assert "rivals" not in record.model_dump()["trial"]


@pytest.fixture
def session(apart: Path) -> Session:
    prepared = prepare(apart)
    return Session(WorkerConfig(task_folders=(str(apart / "tasks"),), resources=prepared.study.resources))


def test_a_task_without_held_out_items_is_told(session: Session) -> None:
    with pytest.raises(DataError, match="No training item of the task 'copy' is held out"):
        session.scored("copy", TrainSpec(steps=1, validation_fraction=0.001))
