"""What a GPU computes by one way it has to compute by another: packed or not, gone on with or not, loaded again or not.

Each test computes on the CPU as well, by which it is known to work.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mosld_bench.methods import registry
from mosld_bench.methods.live import attached_copy, seed_generators
from mosld_bench.methods.saved import own_state
from mosld_bench.spec.recipe import load_recipes
from mosld_bench.spec.trial import TrainSpec
from mosld_bench.trial.checkpoint import Checkpoints
from mosld_bench.trial.integrity import check_trained
from mosld_bench.trial.packed_scoring import score_packed, score_plain
from mosld_bench.trial.train import train
from tests.support.models import build, config
from tests.support.repository import REPOSITORY
from tests.support.requests import story_requests
from tests.trial.test_checkpoint import At, BrokenOffError
from tests.trial.test_train import encoded

RECIPES = load_recipes(REPOSITORY / "methods")
STEPS = 6


@pytest.mark.parametrize(("dtype", "gap"), [(torch.float32, 1e-4), (torch.bfloat16, 0.5)])
@pytest.mark.parametrize("name", ["base", "mosld"])
def test_packed_scores_are_those_of_one_request_by_itself(
    name: str, dtype: torch.dtype, gap: float, device: str
) -> None:
    """Trees and trunks alike; in bfloat16 by what it rounds away of a sum of logarithms."""
    recipe, requests = RECIPES[name], story_requests(24)
    torch.manual_seed(0)
    model = registry.get(recipe.method).attach(build(config()), recipe.params)
    for parameter in filter(lambda it: it.requires_grad, model.parameters()):
        torch.nn.init.normal_(parameter, std=0.1)
    model = model.to(device, dtype).eval()
    alone = [score_plain(model, [request], pad=0, tokens=512)[0][0] for request in requests]
    score = partial(score_packed, model, requests, pad=0, tokens=512, width=32)
    for packed in (score(), score(trunk_overhead=0)):
        assert [value for value, _ in packed] == pytest.approx(alone, abs=gap)


class Trained:
    """A small model that is trained on a device, whole, or until the step behind ``until``."""

    def __init__(self, name: str, device: str, checkpoints: Checkpoints | None = None, until: int = STEPS) -> None:
        recipe = RECIPES[name]
        self.method, self.params, self.base = registry.get(recipe.method), recipe.params, build(config()).to(device)
        self.model = attached_copy(self.method, self.base, recipe.params, seed=1).model

        def progress(step: int, steps: int, loss: float) -> None:
            if step > until:
                raise BrokenOffError

        spec = TrainSpec(steps=STEPS, batch_size=4, learning_rate=1e-2, micro_tokens=64, warmup_steps=2)
        train(
            self.model, self.method, examples=encoded(), validation=[], spec=spec, learning_rate=1e-2, seed=3, pad=0,
            progress=progress, checkpoints=checkpoints, base=self.base,
        )  # fmt: skip
        self.drawn = torch.rand(3, device=device)

    @property
    def own(self) -> dict[str, Tensor]:
        return own_state(self.model, self.base)


@pytest.mark.parametrize("name", ["lora", "mosld", "mixlora"])
def test_a_training_that_goes_on_ends_with_the_same_weights(name: str, device: str, tmp_path: Path) -> None:
    """Dropout of weights and of inputs is that of the generator of the device; a GPU may sum in another order."""
    file = tmp_path / "checkpoint"
    whole = Trained(name, device)
    with pytest.raises(BrokenOffError):
        Trained(name, device, At(file, 3, []), until=3)
    seed_generators(99)
    again = At(file, 0, [])
    other = Trained(name, device, again)
    assert again.from_step == 3
    assert torch.equal(whole.drawn, other.drawn)
    assert whole.own.keys() == other.own.keys()
    for key, value in whole.own.items():
        assert value.device.type == device
        torch.testing.assert_close(other.own[key], value, rtol=0, atol=0 if device == "cpu" else 1e-4, msg=key)


@pytest.mark.parametrize("name", ["lora", "mosld", "mixlora", "prefix-tuning", "full"])
def test_what_is_saved_and_loaded_again_is_what_was_trained(name: str, device: str, tmp_path: Path) -> None:
    made = Trained(name, device)
    found = check_trained(made.method, made.model, made.base, made.params, encoded(), tmp_path)
    assert found["reloaded"]
    assert found["logit_gap"] is not None
    assert found["logit_gap"] < 1e-5
