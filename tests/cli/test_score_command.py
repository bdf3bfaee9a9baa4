"""`mosld-bench score` refuses in a sentence, before it loads any weights, and `lm-eval` is lm-eval's own command."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mosld_bench.embedded import MODEL_DIR
from mosld_bench.inputs import models
from mosld_bench.inputs import tasks as tasks_of_lm_eval
from mosld_bench.records.store import Store
from tests.cli.conftest import Command
from tests.support.adapters import write_adapter

pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore:.*is_gradient_checkpointing.*:FutureWarning"
)


def test_wrong_input_is_a_sentence_before_weights_are_loaded(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_adapter(tmp_path / "mine", "lora", base="org/other")
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    (tmp_path / "pickled" / "adapter_model.bin").write_bytes(b"a pickle")

    def loaded(*arguments: Any, **options: Any) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(models, "load_base", loaded)
    none = SimpleNamespace(all_subtasks=(), all_groups=())  # to index lm-eval's own takes longer than all the rest
    monkeypatch.setattr(tasks_of_lm_eval, "_built_in_tasks", lambda: none)
    tasks = ("--tasks", "emb_visit")
    for words, said in (
        (("embedded",), "--tasks is missing"),
        (("embedded", "--name", "parameters"), "--tasks is missing"),
        (("embedded", "--tasks", "emb_visti"), "no task named 'emb_visti'"),
        (("embedded", *tasks, "--limit", "0"), "--limit takes 1 or more"),
        (("embedded", *tasks, "--dtype", "int4"), "no value of --dtype named 'int4'"),
        (("embedded", *tasks, "--name", "../x"), "the name of a study"),
        (("embedded", *tasks, "--adapter", "nowhere"), "There is no folder nowhere"),
        (("embedded", *tasks, "--adapter", "pickled"), "pickles are not read"),
        (("embedded", *tasks, "--adapter", "mine"), "is of the base model 'org/other'"),
        (("embedded", *tasks, "--adapter", str(MODEL_DIR)), "It is a whole model"),
        (("./nowhere", *tasks), "There is no model folder ./nowhere"),
        (("no-such/model", *tasks), "no-such/model"),
        (("embedded", *tasks, "--include-path", "nowhere"), "nowhere"),
    ):
        done = command("score", *words)
        assert (done.code, done.out) == (2, ""), words
        assert said in done.err, words
        assert len(done.err.strip().splitlines()) == 1, words
    assert not (tmp_path / "results").exists()


def test_a_score_is_printed_and_kept(command: Command, tmp_path: Path) -> None:
    """Under the study's own conditions where --name is one."""
    write_adapter(tmp_path / "mine", "mosld")
    done = command("score", "embedded", "--adapter", "mine", "--name", "embedded", "--tasks", "emb_visit",
                   "--limit", "4", "--title", "Mine")  # fmt: skip
    assert done.code == 0, done.err
    (record,) = Store(tmp_path / "results").scored("embedded")
    assert (record.title, record.tasks, record.evaluate.limit, record.dtype) == ("Mine", ("emb_visit",), 4, "float32")
    size = record.parameters
    assert f"trainable params: {size.trainable:,} || all params: {size.total:,} || trainable%: " in done.out
    assert "|  Tasks  |Version|" in done.out
    assert f"results/embedded/{record.scored_id}/scored.json" in done.out
    assert "mosld-bench report embedded" in done.out
    assert str(tmp_path) not in record.model_dump_json()


def test_lm_eval_is_called_with_every_word_as_it_is(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from lm_eval import __main__ as theirs

    given: list[list[str]] = []
    monkeypatch.setattr(theirs, "cli_evaluate", lambda: given.append(sys.argv))
    words = ("--model", "hf", "--model_args", "pretrained=embedded,peft=a/embedded", "--tasks", "x", "--help")
    assert command("lm-eval", *words).code == 0
    assert given == [
        ["lm_eval", "--model", "hf", "--model_args", f"pretrained={MODEL_DIR},peft=a/embedded", *words[4:]]
    ]
