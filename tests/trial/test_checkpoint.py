"""A training that is broken off goes on from its checkpoint, and ends with the same weights bit for bit."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from mosld_bench.methods import registry
from mosld_bench.methods.base import Method
from mosld_bench.methods.live import attached_copy, seed_generators
from mosld_bench.records.record import TrainInfo
from mosld_bench.spec.recipe import Recipe, load_recipes
from mosld_bench.spec.trial import TrainSpec
from mosld_bench.trial import checkpoint
from mosld_bench.trial.checkpoint import Checkpoints
from mosld_bench.trial.router_log import RouterLog
from mosld_bench.trial.train import train
from tests.conftest import REPOSITORY
from tests.support.models import build, config
from tests.support.runs import timeless
from tests.trial.test_train import encoded

RECIPES = load_recipes(REPOSITORY / "methods")
STEPS = 6

#: The recipes of `all`, and others that keep something from step to step: rank to give, a bias to move, weights held.
MOVING = [name for name, recipe in RECIPES.items() if recipe.group == "main"]
OTHERS = ["adalora", "flylora", "mosld-update", "r-lora", "pissa"]


class BrokenOffError(Exception):
    """The training ends here, as if its process had died."""


class At(Checkpoints):
    """Leaves a checkpoint after one step alone."""

    def __init__(self, file: Path, step: int, said: list[str], identity: str = "same") -> None:
        super().__init__(file, lambda: identity, every_seconds=0.0, say=said.append)
        self.step = step

    def after(self, step: int, moving: checkpoint.Moving, *, last: bool) -> float:
        return super().after(step, moving, last=last) if step == self.step else 0.0


class Trained(NamedTuple):
    model: nn.Module
    info: TrainInfo
    routers: RouterLog | None
    drawn: Tensor  # what the generators give next

    def weights(self) -> dict[str, Tensor]:
        return dict(self.model.state_dict())


def trained(
    recipe: Recipe,
    checkpoints: Checkpoints | None = None,
    *,
    until: int = STEPS,
    method: Method | None = None,
    **more: Any,
) -> Trained:
    """A small model trained as `recipe` says; raises BrokenOffError in the step behind ``until``."""
    method = method or registry.get(recipe.method)
    base = build(config())
    model = attached_copy(method, base, recipe.params, seed=1).model
    routers = RouterLog.of(model)

    def progress(step: int, steps: int, loss: float) -> None:
        if step > until:
            raise BrokenOffError

    info = train(
        model,
        method,
        examples=encoded(),
        validation=encoded(6, seed=1),
        spec=TrainSpec(steps=STEPS, batch_size=4, learning_rate=1e-2, micro_tokens=64, warmup_steps=2, **more),
        learning_rate=1e-2,
        seed=3,
        pad=0,
        optimizer=recipe.optimizer,
        routers=routers,
        progress=progress,
        checkpoints=checkpoints,
        base=base,
    )
    return Trained(model, info, routers, torch.rand(3))


def broken_off_and_gone_on_with(recipe: Recipe, step: int, folder: Path, **more: Any) -> Trained:
    """The same, ended while the step behind ``step`` is made and begun again in generators that stand elsewhere."""
    file, said = folder / "checkpoint", list[str]()
    with pytest.raises(BrokenOffError):
        trained(recipe, At(file, step, said), until=step, **more)
    seed_generators(99)
    again = At(file, 0, said)
    result = trained(recipe, again, **more)
    assert said == [f"goes on from its checkpoint after step {step}"]
    assert again.from_step == step
    return result


def assert_same(one: Trained, other: Trained) -> None:
    weights = other.weights()
    assert one.weights().keys() == weights.keys()
    assert [name for name, value in one.weights().items() if not torch.equal(value, weights[name])] == []
    assert torch.equal(one.drawn, other.drawn)
    assert timeless(one.info.model_dump(mode="json", exclude={"tokens_per_second"})) == timeless(
        other.info.model_dump(mode="json", exclude={"tokens_per_second"})
    )
    if one.routers is not None:
        assert other.routers is not None
        first, second = one.routers.frame(), other.routers.frame()
        assert first is not None
        assert second is not None
        assert first.equals(second)


@pytest.mark.parametrize("name", [*MOVING, *OTHERS])
def test_a_training_broken_off_at_any_step_ends_as_one_that_was_not(name: str, tmp_path: Path) -> None:
    recipe, step = RECIPES[name], random.Random(name).randrange(1, STEPS)
    if name == "adalora":  # takes rank away from step 2 on, and ends with it before the last
        params = recipe.params | {"tinit": 1, "tfinal": 2, "deltaT": 1}
        recipe = recipe.model_copy(update={"params": params})
    whole = trained(recipe)
    assert_same(whole, broken_off_and_gone_on_with(recipe, step, tmp_path))
    start = attached_copy(registry.get(recipe.method), build(config()), recipe.params, seed=1).model.state_dict()
    assert any(not torch.equal(value, start[key]) for key, value in whole.weights().items())
