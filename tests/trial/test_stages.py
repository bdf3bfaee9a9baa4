"""Over several devices a trial has the numbers that it has on one, and nothing meets on two of them.

The devices are those of `support.devices`, which compute on the CPU. What only GPUs show is tried where there are two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load
from torch import Tensor, nn

from mosld_bench.methods import registry
from mosld_bench.methods.base import Method
from mosld_bench.methods.live import attached_copy, checkpoint_layers
from mosld_bench.methods.saved import own_state
from mosld_bench.methods.stages import spread
from mosld_bench.records.record import Outcome, TrainInfo
from mosld_bench.spec.recipe import Recipe, load_recipes
from mosld_bench.spec.trial import TrainSpec
from mosld_bench.trial.checkpoint import Checkpoints
from mosld_bench.trial.execute import execute
from mosld_bench.trial.generation import with_cache
from mosld_bench.trial.integrity import check_trained
from mosld_bench.trial.packed_scoring import Score, score_packed, score_plain
from mosld_bench.trial.router_log import RouterLog
from mosld_bench.trial.session import Session, WorkerConfig
from mosld_bench.trial.train import train
from tests.conftest import REPOSITORY
from tests.support.devices import several_devices
from tests.support.models import build, config
from tests.support.requests import story_requests
from tests.support.runs import prepare, timeless
from tests.trial.test_checkpoint import At, BrokenOffError
from tests.trial.test_execute import losses
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


class Beside(Method):
    """Of a plug-in: random numbers beside every ``q_proj``, drawn on its device, and a mask for each step."""

    def attach(self, model: nn.Module, params: Mapping[str, Any]) -> nn.Module:
        for module in list(model.modules()):
            if isinstance(inner := getattr(module, "q_proj", None), nn.Linear):
                module.q_proj = Masked(inner)
        return model

    def before_step(self, model: nn.Module) -> None:
        for module in model.modules():
            if isinstance(module, Masked):
                module.mask = torch.rand_like(module.beside.weight) > 0.5


class Masked(nn.Module):
    """W0 x + (M * B) x."""

    mask: Tensor | float = 1.0

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.inner = inner
        self.beside = nn.Linear(inner.in_features, inner.out_features, bias=False, device=inner.weight.device)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x)
        return y + nn.functional.linear(x, self.beside.weight * self.mask)


def recipe_of(name: str) -> Recipe:
    recipe = RECIPES[name]
    if name != "adalora":
        return recipe
    moved = {"tinit": 1, "tfinal": 1, "deltaT": 1}  # takes rank away from step 2 on, and ends with it before the last
    return recipe.model_copy(update={"params": recipe.params | moved})


def done(recipe: Recipe, devices: Sequence[str], folder: Path, **more: Any) -> Done:
    """A model of four layers over ``devices``, trained as ``recipe`` says, saved, loaded again, and scored."""
    method, base = registry.get(recipe.method), build(config())
    spread(base, [torch.device(device) for device in devices])
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


SOME = ("lora", "mixlora")
OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in RECIPES if name not in {*SOME, "base"}]


@pytest.mark.parametrize("name", [*SOME, *OTHERS])
def test_every_method_has_the_same_numbers_on_three_devices(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, without the norm of all gradients, which is summed up by device."""
    recipe = recipe_of(name)
    with several_devices(monkeypatch):
        alone = done(recipe, ["cpu:0"], tmp_path / "alone", gradient_clip=None)
        assert_same(alone, done(recipe, ["cpu:0", "cpu:1", "cpu:2"], tmp_path / "several", gradient_clip=None))


def test_a_plain_module_draws_on_its_devices_what_it_draws_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its start, and what it draws between two steps."""
    found = []
    with several_devices(monkeypatch):
        for devices in (1, 3):
            base = spread(build(config()), [torch.device(f"cpu:{place}") for place in range(devices)])
            model = attached_copy(Beside(), base, {}, seed=1).model
            spec = TrainSpec(steps=2, batch_size=2, gradient_clip=None)
            train(model, Beside(), examples=encoded(), validation=[], spec=spec, learning_rate=1e-2, seed=3, pad=0)
            found.append({name: value.detach().cpu() for name, value in own_state(model, base).items()})
            assert {str(value.device) for value in own_state(model, base).values()} == {
                f"cpu:{n}" for n in range(devices)
            }
    assert found[0].keys() == found[1].keys()
    assert [name for name, value in found[0].items() if not torch.equal(value, found[1][name])] == []


@pytest.mark.parametrize("name", ["mosld", pytest.param("adalora", marks=pytest.mark.slow)])
def test_a_training_goes_on_from_the_checkpoint_of_other_devices(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a method keeps from step to step comes to the devices of its layers."""
    recipe, file = recipe_of(name), tmp_path / "checkpoint"
    method = registry.get(recipe.method)

    def trained(devices: int, checkpoints: Checkpoints | None = None, until: int = STEPS) -> dict[str, Tensor]:
        base = spread(build(config()), [torch.device(f"cpu:{place}") for place in range(devices)])
        model = attached_copy(method, base, recipe.params, seed=1).model

        def progress(step: int, steps: int, loss: float) -> None:
            if step > until:
                raise BrokenOffError

        spec = TrainSpec(steps=STEPS, batch_size=4, micro_tokens=64, gradient_clip=None)
        train(
            model, method, examples=encoded(), validation=[], spec=spec, learning_rate=1e-2, seed=3, pad=0,
            progress=progress, checkpoints=checkpoints, base=base,
        )  # fmt: skip
        return {name: value.detach().cpu() for name, value in own_state(model, base).items()}

    with several_devices(monkeypatch):
        whole = trained(1)
        with pytest.raises(BrokenOffError):
            trained(1, At(file, 2, []), until=2)
        again = At(file, 0, [])
        gone_on = trained(3, again)
    assert again.from_step == 2
    assert [key for key, value in whole.items() if not torch.equal(value, gone_on[key])] == []


def test_a_whole_trial_on_two_devices_has_the_record_of_one(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a worker runs it: loaded, trained with clipping, saved and loaded again, and scored."""
    _, planned, config = prepare(tiny, recipes=["mosld"], settings=["mixture"], frozen_base=False)

    def outcome() -> Outcome:
        return execute(planned[0].trial, Session(config), planned[0].fit)

    alone = outcome()
    monkeypatch.setattr(WorkerConfig, "devices", ("cpu:0", "cpu:1"))
    with several_devices(monkeypatch):
        several = outcome()
    assert (alone.record.status, several.record.status) == ("finished", "finished"), several.record.error
    assert "gpus" not in alone.record.meta_info["hardware"]
    assert several.record.meta_info["hardware"]["gpus"] == 2
    assert several.record.meta_info["integrity"]["reloaded"]
    assert losses(alone.record)
    assert losses(alone.record) == pytest.approx(losses(several.record), rel=1e-6)
    assert alone.adapter is not None
    assert several.adapter is not None
    weights = [load(one["adapter_model.safetensors"]) for one in (alone.adapter, several.adapter)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.allclose(value, weights[1][name], rtol=0, atol=1e-5) for name, value in weights[0].items())
    assert alone.items is not None
    assert several.items is not None
    for column in ("task", "doc"):
        assert alone.items[column].tolist() == several.items[column].tolist()
    for one, other in zip(alone.items["logliks"], several.items["logliks"], strict=True):
        assert list(one) == pytest.approx(list(other), abs=1e-4)


def test_the_devices_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or all of this would show nothing."""
    with several_devices(monkeypatch):
        one, other, host = torch.ones(2, device="cpu:0"), torch.ones(2, device="cpu:1"), torch.ones(2)
        for left, right in ((one, other), (one, host), (host, other)):
            with pytest.raises(RuntimeError, match="to be on the same device"):
                left + right
        assert (one + other.to("cpu:0") + 1).tolist() == [3, 3]
        model = build(config())
        model.model.layers[1].to("cpu:1")
        model.lm_head.to("cpu:0")
        with pytest.raises(RuntimeError, match="to be on the same device"):
            model(input_ids=torch.tensor([[3, 4]]))


KINDS = ["llama", "qwen2", "mistral", "gpt2", "gpt_neo", "mamba"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_gives_the_same_logits_and_answers(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random numbers of training among them: one stream goes through all devices."""
    dropout = {"gpt2": "attn_pdrop", "gpt_neo": "attention_dropout", "mamba": None}.get(kind, "attention_dropout")
    more: dict[str, Any] = {dropout: 0.3} if dropout else {}
    found = []
    with several_devices(monkeypatch):
        for count in (1, 2):
            model = spread(build(config(kind, **more)), [torch.device(f"cpu:{place}") for place in range(count)])
            assert {str(parameter.device) for parameter in model.parameters()} == {f"cpu:{n}" for n in range(count)}
            ids = torch.tensor([[5, 6, 7, 8, 9, 10]], device="cpu:0")
            torch.manual_seed(0)
            trained = [model.train()(input_ids=ids).logits.tolist() for _ in range(2)]
            answers = with_cache(model.eval(), [[3, 4, 5, 6, 7], [9, 8]], pad=0, new_tokens=5).tolist()
            found.append((trained, answers, torch.rand(2, device="cpu:0").tolist()))
    assert found[0] == found[1]
    assert not dropout or found[0][0][0] != found[0][0][1]


def test_without_one_stream_the_devices_draw_other_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the test above has something to find."""
    found = []
    with several_devices(monkeypatch):
        monkeypatch.setattr("mosld_bench.compat.torch.hand_on_randomness", lambda source, target: None)
        for count in (1, 2):
            model = spread(build(config(attention_dropout=0.3)), [torch.device(f"cpu:{n}") for n in range(count)])
            torch.manual_seed(0)
            found.append(model.train()(input_ids=torch.tensor([[5, 6, 7, 8]], device="cpu:0")).logits.tolist())
    assert found[0] != found[1]


@pytest.mark.gpu
@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("name", ["lora", "sira", "mosld", "mixlora"])
def test_two_gpus_have_the_numbers_of_one(name: str, checkpointed: bool, tmp_path: Path) -> None:
    """With real generators, which gradient checkpointing sets back, and streams that nobody waits for."""
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    more: dict[str, Any] = {"gradient_clip": None, "gradient_checkpointing": checkpointed}
    alone = done(recipe_of(name), ["cuda:0"], tmp_path / "alone", **more)
    several = done(recipe_of(name), ["cuda:0", "cuda:1"], tmp_path / "several", **more)
    assert alone.info.final_validation_loss == pytest.approx(several.info.final_validation_loss, rel=1e-5)
    assert all(torch.allclose(value, several.own[key], atol=1e-5) for key, value in alone.own.items())
