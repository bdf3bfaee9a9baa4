"""What scoring a model on tasks leaves: their metrics, a row an item, and every random generator as it was."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mosld_bench.inputs.tasks import TaskLoader
from mosld_bench.spec.trial import Domain
from mosld_bench.trial.packed_lm import PackedLM
from mosld_bench.trial.packed_scoring import Score
from mosld_bench.trial.scoring import Evaluation, evaluate
from tests.support.models import build, config, tokenizer


class Fixed(PackedLM):
    """Gives every option the log-likelihood ``value``, but the longest, which has a nat more."""

    value = -3.0

    def loglikelihood(self, requests: list[object], disable_tqdm: bool = True) -> list[Score]:
        return [(self.value + len(request.args[1]) / 10, False) for request in requests]  # type: ignore[attr-defined]


@pytest.fixture
def tasks(tiny: Path) -> dict[str, Any]:
    """An in-domain and an out-of-domain task of 20 items with three options each."""
    loader = TaskLoader([tiny / "tasks"])
    return {name: loader.get(name) for name in ("copy", "other")}


def scored(tasks: dict[str, Any], lm: PackedLM, limit: int | None = None) -> Evaluation:
    return evaluate(lm, tasks, {"copy": Domain.IN, "other": Domain.OUT}, limit=limit, sample_seed=0)


def test_metrics_and_items(tasks: dict[str, Any]) -> None:
    """The second of three options is the longest and the first is right: none is answered."""
    evaluation = scored(tasks, Fixed(build(config()), tokenizer()), limit=7)
    copy, other = evaluation.metrics
    assert (copy.task, copy.role, copy.metric, copy.items) == ("copy", Domain.IN, "acc,none", 7)
    assert (other.task, other.role, other.primary, other.higher_is_better) == ("other", Domain.OUT, True, True)
    assert copy.value == 0
    assert copy.chance == pytest.approx(1 / 3)
    items = evaluation.items
    assert list(items["task"]) == ["copy"] * 7 + ["other"] * 7
    assert set(items["prediction"]) == {"1"}
    assert not items["correct"].any()
    assert items["item"].is_unique
    assert all(len(values) == 3 for values in items["logliks"])


def test_scoring_moves_no_random_generator(tasks: dict[str, Any]) -> None:
    lm = PackedLM(build(config()), tokenizer())
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    expected = random.random(), np.random.random(), torch.rand(())
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    scored(tasks, lm)
    assert (random.random(), np.random.random(), torch.rand(())) == expected


def test_work_is_what_the_model_computed(tasks: dict[str, Any]) -> None:
    packed = scored(tasks, PackedLM(build(config()), tokenizer())).info
    plain = scored(tasks, PackedLM(build(config()), tokenizer(), packed=False)).info
    assert packed.packed
    assert not plain.packed
    assert packed.requests == plain.requests == 2 * 20 * 3
    assert packed.tokens_plain == plain.tokens_plain == plain.tokens_computed > packed.tokens_computed
