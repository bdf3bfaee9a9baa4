"""The mixture in a model: what PEFT does with it, what it leaves as it was, and the settings that it refuses."""

from __future__ import annotations

import copy
import json
import random
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn

from mosld_bench.errors import BenchError
from mosld_bench.spec.design_space import Coordinates
from mosld_bench.tuners.mixture import MixtureConfig, MixtureLayer, allocate, aux_loss, draw_masks
from mosld_bench.tuners.mixture.routers import observed, routers_of
from tests.support.models import build, config


def mixture(model: nn.Module, **more: Any) -> Any:
    """A PeftModel."""
    settings: dict[str, Any] = {
        "r": 2,
        "experts": [2, 4],
        "share": "down",
        "top_k": 2,
        "target_modules": ["q_proj", "v_proj"],
    } | more
    return get_peft_model(model, MixtureConfig(task_type="CAUSAL_LM", **settings))


def stir(model: Any) -> Any:
    """Give the adapter an effect."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "mixture_up" in name:
                parameter.normal_(0, 0.3)
    return model


def test_starts_at_zero_effect_and_only_the_adapter_trains() -> None:
    base = build(config())
    ids = torch.randint(3, 40, (2, 9))
    before = base(ids).logits
    model = mixture(copy.deepcopy(base))
    torch.testing.assert_close(model(ids).logits, before, rtol=0, atol=0)
    assert {n.split(".")[-2] for n, p in model.named_parameters() if p.requires_grad} == {
        "mixture_down", "mixture_up", "mixture_router"
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore:Could not find a config file")  # older PEFT looks for one to compare vocabularies
def test_save_load_disable_and_refuse_to_merge(tmp_path: Path) -> None:
    base = build(config())
    ids = torch.randint(3, 40, (2, 9))
    sira = {"capacity": 1.25, "dropout": 0.1, "dropout_on": "gates"}
    model = stir(mixture(copy.deepcopy(base), **sira)).eval()
    model.save_pretrained(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "LORA_MIXTURE"
    loaded = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path).eval()
    torch.testing.assert_close(loaded(ids).logits, model(ids).logits, rtol=0, atol=0)
    assert {key: getattr(loaded.peft_config["default"], key) for key in sira} == sira
    with loaded.disable_adapter():
        torch.testing.assert_close(loaded(ids).logits, base(ids).logits, rtol=0, atol=0)
    assert not torch.allclose(loaded(ids).logits, base(ids).logits)
    with pytest.raises(BenchError, match="cannot be merged"):
        loaded.merge_and_unload()


def test_two_adapters_in_one_model(tmp_path: Path) -> None:
    base = build(config())
    ids = torch.randint(3, 40, (1, 7))
    model = stir(mixture(copy.deepcopy(base))).eval()
    first = model(ids).logits
    model.add_adapter("other", MixtureConfig(task_type="CAUSAL_LM", r=3, experts=3, target_modules=["q_proj"]))
    model.set_adapter("other")
    torch.testing.assert_close(model(ids).logits, base(ids).logits, rtol=0, atol=0)
    model.set_adapter("default")
    torch.testing.assert_close(model(ids).logits, first, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_generation_with_a_cache_equals_without(kind: str) -> None:
    targets = ["c_attn"] if kind == "gpt2" else ["q_proj", "v_proj"]
    model = stir(mixture(build(config(kind)), target_modules=targets)).eval()
    ids = torch.randint(3, 40, (2, 6))
    options = {
        "max_new_tokens": 8,
        "do_sample": False,
        "attention_mask": torch.ones_like(ids),
        "pad_token_id": 0,
    }
    assert torch.equal(
        model.generate(input_ids=ids, use_cache=True, **options),
        model.generate(input_ids=ids, use_cache=False, **options),
    )


def gradients(model: Any, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(5)
    model.train()
    draw_masks(model)
    extra = None
    loss = model(input_ids=ids, attention_mask=mask).logits.float().logsumexp(-1).mean()
    extra = aux_loss(model)
    (loss + extra if extra is not None else loss).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:None of the inputs")
@pytest.mark.parametrize(
    "settings",
    [
        {"dropout": 0.3, "dropout_on": "weight"},
        {"dropout": 0.3, "dropout_on": "gates", "capacity": 0.7},
        {"dropout": {"input": 0.2, "update": 0.3}, "dropout_matrix": "up", "balance_reduce": "sum"},
        {"router_input": "noise"},
        {"share": "both", "router_input": "hidden"},
        {
            "share": "none",
            "r": 1,
            "router": "magnitude",
            "renormalize": False,
            "balance_coef": 0.0,
            "balance_step": 0.1,
        },
        {"up_init": "random", "top_k": None, "dropout": 0.3, "dropout_on": "expert_hidden"},
    ],
)
def test_gradient_checkpointing_changes_no_gradient(settings: dict[str, Any]) -> None:
    """Dropout masks are replayed and the balance loss, taken outside the checkpoint, still has its graph."""
    base = build(config())
    ids, mask = torch.randint(3, 40, (2, 9)), torch.tensor([[1] * 9, [1] * 6 + [0] * 3])
    settings = {"balance_coef": 0.5} | settings
    torch.manual_seed(0)
    plain = stir(mixture(copy.deepcopy(base), **settings))
    torch.manual_seed(0)
    saved = stir(mixture(copy.deepcopy(base), **settings))
    saved.gradient_checkpointing_enable({"use_reentrant": False})
    saved.enable_input_require_grads()
    a, b = gradients(plain, ids, mask), gradients(saved, ids, mask)
    assert a.keys() == b.keys()
    assert len(a) == 4 * 2 * {"both": 4, "none": 2}.get(settings.get("share", "down"), 3)
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-6, msg=name)


def test_balance_loss_leaves_padding_out_and_is_taken_once() -> None:
    model = stir(mixture(build(config()), balance_coef=1.0)).train()
    ids = torch.randint(3, 40, (1, 6))
    model(input_ids=ids, attention_mask=torch.ones_like(ids))
    short = aux_loss(model)
    assert short is not None
    assert aux_loss(model) is None
    longer = torch.cat([ids, torch.zeros(1, 5, dtype=torch.long)], 1)
    model(input_ids=longer, attention_mask=torch.tensor([[1] * 6 + [0] * 5]))
    torch.testing.assert_close(aux_loss(model), short)


@pytest.mark.parametrize("excluded", [[], ["layers.1.self_attn.v_proj"]])
def test_balance_losses_of_layers_are_averaged_or_added_up(excluded: list[str]) -> None:
    """The sum is over layers, of the mean over a layer's modules: with all there, the coefficient times the depth."""
    ids = torch.randint(3, 40, (2, 9))
    of_module: dict[str, Tensor] = {}
    losses = {}
    for reduce in ("mean", "sum"):
        settings = {"balance_coef": 0.5, "balance_reduce": reduce, "exclude_modules": excluded}
        model = stir(mixture(build(config()), **settings)).train()
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
        layers = {name: m for name, m in model.named_modules() if isinstance(m, MixtureLayer)}
        of_module = {name: layer.balance for name, layer in layers.items() if layer.balance is not None}
        loss = aux_loss(model)
        assert loss is not None
        losses[reduce] = loss
    assert len(of_module) == 8 - len(excluded)
    torch.testing.assert_close(losses["mean"], 0.5 * sum(of_module.values()) / len(of_module))
    by_layer = [[loss for name, loss in of_module.items() if f"layers.{n}." in name] for n in range(4)]
    torch.testing.assert_close(losses["sum"], 0.5 * sum(sum(layer) / len(layer) for layer in by_layer))
    if not excluded:
        torch.testing.assert_close(losses["sum"], 4 * losses["mean"])


def test_bfloat16_autocast() -> None:
    model = stir(mixture(build(config()))).train()
    ids = torch.randint(3, 40, (1, 6))
    exact = model(input_ids=ids).logits
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(input_ids=ids).logits
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.float(), exact, rtol=0.1, atol=0.3)


def test_capacity_does_not_depend_on_how_a_batch_is_cut() -> None:
    model = stir(mixture(build(config()), capacity=0.6)).train()
    rows = [torch.randint(3, 40, (length,)) for length in (12, 7, 9)]
    ids, mask = torch.zeros(3, 12, dtype=torch.long), torch.zeros(3, 12, dtype=torch.long)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
    together = model(input_ids=ids, attention_mask=mask).logits
    free = stir(mixture(build(config()))).train()(input_ids=ids, attention_mask=mask).logits
    assert not torch.allclose(together, free, atol=1e-3)  # the limit is felt
    for row, tokens in enumerate(rows):
        apart = model(input_ids=tokens[None], attention_mask=torch.ones_like(tokens[None])).logits[0]
        torch.testing.assert_close(together[row, : len(tokens)], apart, rtol=1e-4, atol=1e-5)


def test_allocation_by_parts_of_the_depth() -> None:
    assert [allocate([2, 4, 6, 8], layer, 32) for layer in range(32)] == [2] * 8 + [4] * 8 + [6] * 8 + [8] * 8
    assert [allocate([2, 4, 6, 8], layer, 30) for layer in range(30)] == [2] * 8 + [4] * 7 + [6] * 8 + [8] * 7
    assert [allocate([2, 4, 6, 8], layer, 4) for layer in range(4)] == [2, 4, 6, 8]
    assert [allocate([8, 2], layer, 5) for layer in range(5)] == [8, 8, 8, 2, 2]
    assert allocate(5, 3, 4) == 5
    with pytest.raises(BenchError, match="4 parts of the depth, but the model has 3 layers"):
        allocate([2, 4, 6, 8], 0, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"experts": [2, 4], "top_k": 3}, "top_k is 3; allowed is none .* or 1 to 2"),
        ({"share": "left"}, "share is 'left'"),
        ({"dropout": 0.1}, "dropout_on is 'none'"),
        ({"experts": 0}, "experts is 0"),
        ({"dropout": 1.0, "dropout_on": "input"}, "below 1"),
        ({"dropout": {"input": 0.1, "weight": 1}}, "below 1"),
        ({"dropout": "much", "dropout_on": "input"}, "dropout is 'much'; allowed is at least 0 and below 1"),
        (
            {"dropout": {"output": 0.1}},
            "share for each of input, weight, update, hidden, expert_hidden or gates",
        ),
        ({"dropout": {"input": 0.1}, "dropout_on": "weight"}, "none where dropout names the places itself"),
        ({"dropout": {"weight": 0.1, "update": 0.1}}, "weight or update, not both"),
        ({"dropout": {"gates": 0.1}, "experts": [1, 2]}, "gates only where every layer has more than one"),
        ({"dropout_matrix": "A"}, "dropout_matrix is 'A'; allowed is shared, down or up"),
        ({"dropout_matrix": "up", "dropout": 0.1, "dropout_on": "input"}, "shared without dropout on weight or update"),
        ({"balance_form": "gshard"}, "balance_form is 'gshard'; allowed is switch or counts"),
        ({"balance_reduce": "max"}, "balance_reduce is 'max'; allowed is mean or sum"),
        ({"top_k": 1}, "a single one is then 1 whatever the router says.* Set renormalize: false, or a balance_coef"),
        ({"top_k": 1, "experts": [1, 3]}, "2 or more where the gates are renormalised"),
        ({"top_k": 1, "balance_coef": 0.1, "balance_form": "counts"}, "2 or more where the gates are renormalised"),
        ({"experts": 1, "dropout": 0.1, "dropout_on": "gates"}, "gates only where every layer has more than one"),
        ({"capacity": 1.25}, "capacity is 1.25; allowed is none, or above 0 with a top_k"),
        ({"capacity": 0, "top_k": 2}, "capacity is 0"),
        ({"router": "random"}, "router is 'random'; allowed is learned, uniform or magnitude"),
        ({"router_input": "text"}, "router_input is 'text'; allowed is x, hidden or noise"),
        ({"frozen": ["up"]}, "frozen is .'up'.; allowed is a list of down and router"),
        ({"frozen": ["down", "down"]}, "each once at most"),
        ({"frozen": "down"}, "a list of down and router"),
        ({"router": "uniform", "top_k": 2}, "top_k is 2; allowed is none where gates are uniform"),
        ({"router": "uniform", "balance_coef": 0.1}, "0 where gates are uniform"),
        ({"router": "uniform", "router_input": "noise"}, "x where gates are uniform"),
        ({"router": "uniform", "frozen": ["router"]}, "down where gates are uniform"),
        ({"frozen": ["router"], "balance_coef": 0.1}, "0 with a frozen router"),
        ({"experts": 1, "frozen": ["router"]}, "down with one expert, which has no router"),
        ({"experts": 1, "router": "uniform"}, "learned with one expert"),
        ({"experts": [1, 1], "router_input": "noise"}, "x with one expert"),
        ({"frozen": ["down"], "dropout": 0.1, "dropout_on": "update"}, "not down, of which dropout leaves out updates"),
        ({"router": "magnitude", "r": 2, "top_k": 1}, "r is 2; allowed is 1 where gates are by magnitude"),
        ({"router": "magnitude", "r": 1, "renormalize": False}, "top_k is None; allowed is a number of experts"),
        ({"router": "magnitude", "r": 1, "top_k": 2}, "renormalize is True; allowed is false"),
        ({"router": "magnitude", "r": 1, "top_k": 2, "share": "up"}, "share is 'up'; allowed is none"),
        ({"router": "magnitude", "r": 1, "top_k": 2, "balance_coef": 0.1}, "0 where gates are magnitude"),
        ({"balance_step": 0.1}, "0 without a top_k: it balances picks"),
        ({"balance_step": -1}, "balance_step is -1; allowed is 0 or more"),
        ({"balance_step": 0.1, "top_k": 2, "dropout": 0.1, "dropout_on": "gates"}, "0 with dropout on gates"),
        ({"down_init": "sparse"}, "gaussian without a top_k"),
        ({"down_init": "zero"}, "down_init is 'zero'; allowed is gaussian or sparse"),
        ({"up_init": "one"}, "up_init is 'one'; allowed is zero or random"),
        ({"up_init": "random"}, "zero unless down is shared"),
        ({"up_init": "random", "share": "down", "top_k": 2}, "zero with a top_k"),
        ({"up_init": "random", "share": "down", "frozen": ["router"]}, "down with up_init random"),
        ({"dropout": 0.1, "dropout_on": "expert_hidden"}, "expert_hidden only where down is shared"),
        ({"experts_pattern": {"q_proj": 0}}, "experts_pattern is .*; allowed is positive integers"),
        ({"experts": 4, "top_k": 3, "experts_pattern": {"q_proj": 2}}, "1 to 2, the fewest experts of a layer"),
    ],
)
def test_settings_without_meaning_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        MixtureConfig(**settings)


def drawn_point(draw: random.Random) -> dict[str, Any]:
    """A point of the design space, of allowed values taken each by itself."""
    places = ["none", "input", "weight", "update", "hidden", "expert_hidden", "gates"]
    several = dict.fromkeys(draw.sample(places[1:], 2), 0.3)
    place = draw.choice(places)
    one = {"dropout": 0.3 if place != "none" else 0.0, "dropout_on": place}
    dropout: dict[str, Any] = draw.choice([{"dropout": several}, one])
    return dropout | {
        "experts": draw.choice([1, 2, 3, 4, [1, 3], [2, 4], [2, 2, 3, 4]]),
        "share": draw.choice(["none", "down", "up", "both"]),
        "top_k": draw.choice([None, 1, 1, 2, 2, 3]),
        "renormalize": draw.choice([True, False]),
        "capacity": draw.choice([None, 0.3, 1.25]),
        "balance_coef": draw.choice([0.0, 0.1]),
        "balance_form": draw.choice(["switch", "counts"]),
        "balance_reduce": draw.choice(["mean", "sum"]),
        "dropout_matrix": draw.choice(["shared", "shared", "down", "up"]),
        "r": draw.choice([4, 4, 4, 1]),
        "router": draw.choice(["learned", "learned", "learned", "learned", "uniform", "magnitude"]),
        "router_input": draw.choice(["x", "x", "x", "hidden", "noise"]),
        "balance_step": draw.choice([0.0, 0.0, 0.1]),
        "down_init": draw.choice(["gaussian", "gaussian", "sparse"]),
        "up_init": draw.choice(["zero", "zero", "zero", "random"]),
        "frozen": draw.choice([[], [], [], ["down"], ["router"], ["down", "router"]]),
    }


def test_every_point_is_refused_or_gives_all_that_it_counts_a_gradient() -> None:
    """Every parameter that is counted as trained learns: a router without a task loss is refused, too."""
    draw = random.Random(8)
    base = build(config(layers=4))
    ids = torch.randint(3, 40, (4, 24))
    refused, single = [], 0
    for _ in range(500):
        point = drawn_point(draw)
        try:
            model = stir(mixture(copy.deepcopy(base), **point))
        except BenchError as error:
            refused.append(str(error))
            continue
        single += point["top_k"] == 1 and point["experts"] != 1
        found = gradients(model, ids, torch.ones_like(ids))
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        assert {name for name, gradient in found.items() if gradient.abs().sum() > 0} == trained, point
    assert 100 < len(refused) < 450
    assert any("whatever the router says" in message for message in refused)
    assert single > 3, "routing to one expert is tried as well as refused"


def test_defaults_stand_in_one_place() -> None:
    """What a report fills in for a coordinate that a recipe leaves open is what the tuner runs."""
    config = MixtureConfig(target_modules=["q_proj"])
    assert {name: getattr(config, name) for name in asdict(Coordinates())} == asdict(Coordinates())
    assert Coordinates.of({"experts": 3, "target_modules": ["v_proj"]}) == replace(Coordinates(), experts=3)


def test_routers_are_shown_outside_of_training_and_change_nothing() -> None:
    """Each once a forward, under its name in the base model; one expert has no router."""
    model, ids = (
        stir(mixture(build(config()), experts=[1, 3], top_k=1, renormalize=False)),
        torch.randint(3, 40, (2, 9)),
    )
    routers = routers_of(model)
    names = [f"model.layers.{layer}.self_attn.{matrix}" for layer in (2, 3) for matrix in ("q_proj", "v_proj")]
    assert [router.module for router in routers] == names
    assert [(router.number, router.experts) for router in routers] == [(2, 3), (2, 3), (3, 3), (3, 3)]
    for training in (True, False):
        model.train(training)
        shown: list[Any] = []
        with observed((router.layer for router in routers), lambda *what, shown=shown: shown.append(what)):
            seen = model(input_ids=ids).logits
        assert [layer for layer, _, _ in shown] == ([] if training else [router.layer for router in routers])
        assert all(gates.shape == probabilities.shape == (2, 9, 3) for _, gates, probabilities in shown)
        count = len(shown)
        assert torch.equal(model(input_ids=ids).logits, seen)
        assert len(shown) == count
