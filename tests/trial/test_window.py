"""How many tokens of text a model takes, and that training and scoring keep to it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mosld_bench.errors import ModelError
from mosld_bench.methods import registry
from mosld_bench.methods.live import attached_copy
from mosld_bench.trial.execute import execute
from mosld_bench.trial.session import Session
from mosld_bench.trial.window import window
from tests.conftest import write_task
from tests.support.models import build, config, tokenizer
from tests.support.runs import prepare

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")

PREFIX = {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 16}


def test_positions_less_virtual_tokens() -> None:
    assert window(build(config(layers=1))) == 256
    short = build(config("gpt2", layers=1, n_positions=64))
    assert window(short) == 64
    assert window(attached_copy(registry.get("peft"), short, PREFIX, seed=0).model) == 48
    assert window(build(config("mamba", layers=1))) == 2048
    full = attached_copy(registry.get("peft"), short, PREFIX | {"num_virtual_tokens": 63}, seed=0).model
    with pytest.raises(ModelError, match=r"64 positions, and the method takes 63 of them .* fewer virtual tokens"):
        window(full)


def test_a_model_of_few_positions_trains_and_is_scored_on_long_items(tiny: Path) -> None:
    """With virtual tokens, under a study that allows longer items: cut alike, and counted."""
    shutil.rmtree(tiny / "model")
    build(config("gpt2", layers=1, n_positions=64)).save_pretrained(tiny / "model")
    tokenizer().save_pretrained(tiny / "model")
    lengths = [1 + 4 * (i % 2) for i in range(12)]  # of 28 or 116 tokens
    stories = [f"{'the cat sat on a mat. ' * length}who {i}" for i, length in enumerate(lengths)]
    write_task(tiny / "tasks", "copy", [{"question": text, "options": ["cat", "mat"], "answer": 0} for text in stories])
    overrides = {"in_domain": ["copy"], "out_of_domain": [], "budgets": ["native"], "recipes": ["prefix-tuning"]}
    overrides |= {"train.max_length": 512, "train.validation_fraction": 0}
    _, planned, setup = prepare(tiny, **overrides)
    (record,) = [
        execute(trial, Session(setup), fit).record for trial, fit in planned if trial.recipe.name == "prefix-tuning"
    ]
    assert record.error is None
    assert record.train_info is not None
    assert record.eval_info is not None
    assert record.train_info.train_items == {"copy": 12}
    assert record.train_info.cut_items == record.eval_info.cut_items == {"copy": 6}
