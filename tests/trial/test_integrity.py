"""What must hold before a score counts, on models in memory; `test_alone.py` has whole trials of which it does not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from mosld_bench.errors import IntegrityError
from mosld_bench.methods import registry
from mosld_bench.methods.base import Method
from mosld_bench.methods.live import attached_copy
from mosld_bench.records.provenance import Integrity
from mosld_bench.spec.recipe import load_recipes
from mosld_bench.spec.trial import TrainSpec
from mosld_bench.trial.integrity import check_answered, check_trained
from mosld_bench.trial.train import train
from tests.conftest import REPOSITORY
from tests.support import wrong
from tests.support.models import build, config
from tests.trial.test_train import encoded

RECIPES = load_recipes(REPOSITORY / "methods")
LORA = RECIPES["lora"].params


class Trained(NamedTuple):
    method: Method
    model: nn.Module
    base: nn.Module
    params: dict[str, Any]

    def check(self, folder: Path) -> Integrity:
        folder.mkdir(exist_ok=True)
        return check_trained(*self, encoded(), folder)


def trained(method: Method, params: dict[str, Any], steps: int = 1) -> Trained:
    base = build(config())
    model = attached_copy(method, base, params, seed=0).model
    spec = TrainSpec(steps=steps, batch_size=2)
    train(model, method, examples=encoded(), validation=[], spec=spec, learning_rate=1e-2, seed=0, pad=0)
    return Trained(method, model, base, params)


SOME = ("lora", "mosld", "mixlora", "prefix-tuning", "full", "pissa", "adalora")
OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in RECIPES if name not in {*SOME, "base"}]


@pytest.mark.parametrize("name", [*SOME, *OTHERS])
def test_what_is_saved_of_a_sound_method_is_what_was_trained(name: str, tmp_path: Path) -> None:
    recipe = RECIPES[name]
    params = recipe.params | ({"tinit": 1, "tfinal": 0} if name == "adalora" else {})
    made = trained(registry.get(recipe.method), params, steps=3)
    before = torch.random.get_rng_state()
    found = made.check(tmp_path)
    assert found["reloaded"]
    assert found["logit_gap"] is not None
    assert found["logit_gap"] < (1e-4 if name == "pissa" else 1e-6)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert list(tmp_path.glob("*.safetensors"))


def test_logits_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    made = trained(registry.get("peft"), LORA)

    def spoil(module: nn.Module, words: object, output: Any) -> None:
        output.logits[0, 0, 0] = torch.nan

    made.model.register_forward_hook(spoil)
    with pytest.raises(IntegrityError, match="gives logits that are no numbers"):
        made.check(tmp_path)


def test_where_there_is_no_room_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = trained(registry.get("peft"), LORA)
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    found = made.check(tmp_path)
    assert (found["reloaded"], found["logit_gap"]) == (False, None)
    assert list(tmp_path.iterdir()) == []


def test_a_method_that_does_not_save_what_it_trained_is_named(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"tests\.support\.wrong:SavesNothing .*gives other logits than"):
        trained(wrong.SavesNothing(), LORA).check(tmp_path)


def items(docs: list[int], task: str = "a", answers: int = 2) -> pd.DataFrame:
    rows = [
        {"task": task, "doc": doc, "logliks": np.zeros(answers), "option_lengths": np.ones(2, dtype=np.int32)}
        for doc in docs
    ]
    return pd.DataFrame(rows, columns=["task", "doc", "logliks", "option_lengths"])


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (items([3, 5]), None),
        (items([5, 3]), None),
        (items([3]), r"Of the 2 items of the task 'a' 1 not answered \(the first: 5\)"),
        (items([3, 5, 5]), r"1 answered more than once \(the first: 5\)"),
        (items([3, 5, 6]), r"1 answered and not asked \(the first: 6\)"),
        (items([3, 5], answers=1), r"2 answered in part \(the first: 3\)"),
        (items([3, 5], task="b"), "2 not answered"),
        (items([]), "2 not answered"),
    ],
)
def test_every_item_is_answered_once(found: pd.DataFrame, words: str | None) -> None:
    if words is None:
        check_answered(found, {"a": [3, 5]})
        return
    with pytest.raises(IntegrityError, match=words):
        check_answered(found, {"a": [3, 5]})
