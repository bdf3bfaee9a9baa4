"""Over several devices a trial has the numbers that it has on one, and nothing meets on two of them.

The devices are those of `support.devices`, which compute on the CPU. What only GPUs show is tried where there are two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from mosld_bench.methods import registry
from mosld_bench.methods.live import attached_copy, checkpoint_layers
from mosld_bench.methods.saved import own_state
from mosld_bench.methods.stages import spread
from mosld_bench.records.record import TrainInfo
from mosld_bench.spec.recipe import Recipe, load_recipes
from mosld_bench.spec.trial import TrainSpec
from mosld_bench.trial.generation import with_cache
from mosld_bench.trial.integrity import check_trained
from mosld_bench.trial.packed_scoring import Score, score_packed, score_plain
from mosld_bench.trial.router_log import RouterLog
from mosld_bench.trial.train import train
from tests.conftest import REPOSITORY
from tests.support.devices import several_devices
from tests.support.models import build, config
from tests.support.requests import story_requests
from tests.support.runs import timeless
from tests.trial.test_train import encoded

RECIPES = load_recipes(REPOSITORY / "methods")
STEPS = 4


class Done(NamedTuple):
    """All numbers that a small trial comes to."""

    info: TrainInfo
    own: dict[str, Tensor]
    scores: list[Score]
    plain: list[Score]
    answers: Tensor
    routers: Any


def recipe_of(name: str) -> Recipe:
    recipe = RECIPES[name]
    if name != "adalora":
        return recipe
    moved = {"tinit": 1, "tfinal": 1, "deltaT": 1}  # takes rank away from step 2 on, and ends with it before the last
    return recipe.model_copy(update={"params": recipe.params | moved})


def done(recipe: Recipe, devices: Sequence[str], folder: Path, *, kind: str = "llama", **more: Any) -> Done:
    """A model of four layers over ``devices``, trained as ``recipe`` says, saved, loaded again, and scored."""
    method, base = registry.get(recipe.method), build(config(kind))
    if devices:
        base = spread(base, [torch.device(device) for device in devices])
    model = attached_copy(method, base, recipe.params, seed=1).model
    routers = RouterLog.of(model)
    spec = TrainSpec(steps=STEPS, batch_size=4, micro_tokens=64, warmup_steps=2, **more)
    if spec.gradient_checkpointing:
        checkpoint_layers(model, True)
    info = train(
        model, method, examples=encoded(), validation=encoded(6, seed=1), spec=spec, learning_rate=1e-2, seed=3, pad=0,
        optimizer=recipe.optimizer, routers=routers,
    )  # fmt: skip
    if spec.gradient_checkpointing:
        checkpoint_layers(model, False)
    folder.mkdir()
    assert check_trained(method, model, base, recipe.params, encoded(), folder)["reloaded"]
    requests = story_requests(8)
    packed = score_packed(model, requests, pad=0, tokens=256, width=32, trunk_overhead=0)
    plain = score_plain(model, requests, pad=0, tokens=256)
    answers = with_cache(model, [[3, 4, 5, 6, 7], [9, 8]], pad=0, new_tokens=5)
    own = {name: value.detach().cpu() for name, value in own_state(model, base).items()}
    return Done(info, own, packed, plain, answers.cpu(), None if routers is None else routers.frame())


def assert_same(one: Done, other: Done) -> None:
    assert timeless(one.info.model_dump(mode="json", exclude={"tokens_per_second"})) == timeless(
        other.info.model_dump(mode="json", exclude={"tokens_per_second"})
    )
    assert one.own.keys() == other.own.keys()
    assert [name for name, value in one.own.items() if not torch.equal(value, other.own[name])] == []
    assert (one.scores, one.plain, one.answers.tolist()) == (other.scores, other.plain, other.answers.tolist())
    assert (one.routers is None) == (other.routers is None)
    assert one.routers is None or one.routers.equals(other.routers)


SOME = ("lora", "mosld", "mixlora", "prefix-tuning", "adalora", "full")
OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in RECIPES if name not in {*SOME, "base"}]


@pytest.mark.parametrize("name", [*SOME, *OTHERS])
def test_every_method_has_the_same_numbers_on_three_devices(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(name)
    with several_devices(monkeypatch):
        alone = done(recipe, ["cpu:0"], tmp_path / "alone", gradient_clip=None)
        assert_same(alone, done(recipe, ["cpu:0", "cpu:1", "cpu:2"], tmp_path / "several", gradient_clip=None))
