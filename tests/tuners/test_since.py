"""The forms of methods that came after MoSLD against their equations, written here a second time in plain float64."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from peft import PeftModel, get_peft_model
from torch import Tensor

from mosld_bench.methods import count_trainable, fit_budget, registry
from mosld_bench.methods.live import stored
from mosld_bench.spec.recipe import load_recipes
from mosld_bench.trial.packed_scoring import score_packed, score_plain
from mosld_bench.trial.packing_check import packs
from mosld_bench.tuners.mixture import MixtureConfig, MixtureLayer, move_biases
from tests.conftest import REPOSITORY
from tests.support.models import build, config
from tests.support.requests import story_requests
from tests.tuners.test_controls import SHAPES
from tests.tuners.test_mixture import layer, probabilities

RECIPES = load_recipes(REPOSITORY / "methods")
SINCE = [name for name, recipe in RECIPES.items() if recipe.group == "since"]


def values(module: MixtureLayer, *names: str) -> list[Tensor]:
    """Parameters of the layer, by their names without the prefix."""
    return [getattr(module, f"mixture_{name}")["default"] for name in names]


def agree(module: MixtureLayer, x: Tensor, theirs: Tensor, names: tuple[str, ...], ours: Tensor | None = None) -> None:
    """``theirs`` is the layer's output on ``x``, and so are its gradients by ``names`` and x."""
    ours = module(x) if ours is None else ours
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    target = torch.linspace(-1, 1, ours.numel(), dtype=torch.float64).view_as(ours)
    wanted = [*values(module, *names), x]
    mine, plain = (torch.autograd.grad(((each - target) ** 2).sum(), wanted) for each in (ours, theirs))
    for a, b in zip(mine, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def tokens(*shape: int) -> Tensor:
    torch.manual_seed(4)
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def base_output(module: MixtureLayer, token: Tensor) -> Tensor:
    output: Tensor = module.base_layer.weight @ token + module.base_layer.bias  # type: ignore[operator]
    return output


@pytest.mark.parametrize("top_k", [None, 2])
@pytest.mark.parametrize("reads", ["hidden", "x"])
def test_cores_between_a_shared_a_and_b(top_k: int | None, reads: str) -> None:
    """CoMoL: W0 x + s B (sum_i p_i M_i) A x, with p from a router of A x."""
    module, x = layer(share="both", router_input=reads, top_k=top_k), tokens(2, 5, 10)
    down, up, core, router = values(module, "down", "up", "core", "router")
    assert [tuple(each.shape) for each in (down, up, core, router)] == [
        (3, 10), (7, 3), (12, 3), (4, 3 if reads == "hidden" else 10)
    ]  # fmt: skip
    outputs = []
    for token in x.reshape(-1, 10):
        hidden = down @ token
        p = probabilities(router, hidden if reads == "hidden" else token)
        picked = sorted(range(4), key=lambda n: -p[n].item())[: top_k or 4]
        total = sum(p[n] for n in picked) if top_k else 1.0
        mixed = sum(p[n] / total * core[3 * n : 3 * n + 3] for n in picked)
        outputs.append(base_output(module, token) + 2 * up @ (mixed @ hidden))
    agree(module, x, torch.stack(outputs).view(2, 5, 7), ("down", "up", "core", "router"))


def test_one_core_is_lora_with_a_square_between() -> None:
    module, x = layer(experts=1, share="both"), tokens(4, 10)
    down, up, core = values(module, "down", "up", "core")
    agree(module, x, module.base_layer(x) + 2 * x @ down.T @ core.T @ up.T, ("down", "up", "core"))


@pytest.mark.parametrize("renormalize", [True, False])
def test_the_bias_decides_who_is_picked_and_enters_no_gate(renormalize: bool) -> None:
    """SMoRA: s B (g * A x), rank by rank, with g of the K whose logits and bias are largest."""
    point: dict[str, Any] = {"experts": 6, "rank": 1, "alpha": 16, "top_k": 2, "balance_step": 0.1}
    module, x = layer(**point, renormalize=renormalize), tokens(5, 10)
    down, up, router = values(module, "down", "up", "router")
    bias = torch.tensor([0.0, 3, 0, 0, -3, 0], dtype=torch.float64)
    module.mixture_bias["default"].data = bias
    outputs, moved = [], 0
    for token in x:
        logits, p = router @ token, probabilities(router, token)
        picked = sorted(range(6), key=lambda n: -(logits[n] + bias[n]).item())[:2]
        moved += set(picked) != set(p.topk(2).indices.tolist())
        total = sum(p[n] for n in picked) if renormalize else 1.0
        outputs.append(
            base_output(module, token) + 16 * sum(p[n] / total * up[:, n] * (down[n] @ token) for n in picked)
        )
    assert moved
    agree(module, x, torch.stack(outputs), ("down", "up", "router"))


@pytest.mark.parametrize("biased", [False, True])
def test_gates_by_magnitude_are_ones_for_the_largest_outputs_of_a(biased: bool) -> None:
    """FlyLoRA: W0 x + s B (1[top-K of |A x + d|] * A x), and no gradient for A."""
    point: dict[str, Any] = {
        "experts": 6,
        "rank": 1,
        "alpha": 2,
        "top_k": 2,
        "router": "magnitude",
        "renormalize": False,
    }
    more: dict[str, Any] = {"balance_step": 0.1} if biased else {}
    module, x = layer(**point, frozen=["down"], down_init="sparse", **more), tokens(5, 10)
    down, up = values(module, "down", "up")
    d = torch.tensor([0.0, 0.4, 0, 0, -0.4, 0], dtype=torch.float64) if biased else torch.zeros(6, dtype=torch.float64)
    if biased:
        module.mixture_bias["default"].data = d
    assert "default" not in module.mixture_router
    outputs = []
    for token in x:
        hidden = down @ token
        picked = sorted(range(6), key=lambda n: -abs(hidden[n] + d[n]).item())[:2]
        outputs.append(base_output(module, token) + 2 * sum(up[:, n] * hidden[n] for n in picked))
    agree(module, x, torch.stack(outputs), ("up",))
    assert not down.requires_grad


def test_a_sparse_a_has_a_share_of_top_k_by_experts_in_every_row() -> None:
    """Gaussian with std one over the number of rows, at places of its own in every row."""
    module = layer(experts=32, rank=1, d_in=400, top_k=8, down_init="sparse")
    (down,) = values(module, "down")
    kept = down != 0
    assert kept.sum(dim=1).tolist() == [100] * 32
    assert float(down.detach()[kept].std()) == pytest.approx(1 / 32, rel=0.06)  # 3,200 draws: four standard errors
    assert len({tuple(row.nonzero().flatten().tolist()) for row in kept}) == 32


@pytest.mark.parametrize("point", [{}, {"router": "magnitude", "renormalize": False}])
def test_a_step_moves_the_bias_by_the_sign_of_the_load(point: dict[str, Any]) -> None:
    """By the picks of real tokens in all micro-batches; validation, and what checkpointing runs again, do not count."""
    module = layer(experts=5, rank=1, top_k=2, balance_step=0.25, **point).train()
    load, bias = torch.zeros(5), torch.zeros(5, dtype=torch.float64)
    for step in range(3):
        for part in range(2):
            x = torch.randn(2, 6, 10, dtype=torch.float64)
            mask = torch.tensor([[1] * 6, [1] * (3 + part) + [0] * (3 - part)])
            module.current.mask, module.current.open = mask, True
            scores = x @ (module.mixture_down if point else module.mixture_router)["default"].T + bias
            scores = scores.abs() if point else scores
            for picks in scores.topk(2).indices[mask.bool()].tolist():
                load[picks] += 1
            module(x)
            module.current.open = False
            module(x)  # again
        module.eval()(x)
        module.train()
        bias = bias + 0.25 * torch.sign(load.mean() - load)
        module.move_bias("default")
        torch.testing.assert_close(module.mixture_bias["default"], bias, rtol=0, atol=0)
        load = torch.zeros(5)
        assert step or bias.abs().sum() > 0
    module.move_bias("default")  # without a forward there is nothing to move by
    torch.testing.assert_close(module.mixture_bias["default"], bias, rtol=0, atol=0)


def test_the_bias_makes_picks_even() -> None:
    """What it is for: a router that always picks the same two spreads its tokens after some steps."""
    module = layer(experts=6, rank=1, top_k=2, balance_step=0.02).train()
    x = torch.randn(400, 10, dtype=torch.float64) + 2
    shares = []
    for _ in range(150):
        module(x)
        load = module.load["default"]
        shares.append(float(load.max() / load.sum()))
        module.move_bias("default")
    assert shares[0] > 0.3
    assert shares[-1] < 0.2  # even is 1/6


@pytest.mark.parametrize("experts", [1, 4])
def test_a_random_start_is_taken_off_and_adds_nothing_at_first(experts: int) -> None:
    """R-LoRA: W0 x + s (sum_i p_i B_i A x - mean(B') A' x), with A' and B' as they started."""
    module = layer(experts=experts, share="down", up_init="random")
    torch.manual_seed(2)
    fresh = MixtureLayer(copy.deepcopy(module.base_layer), "default", module.settings["default"],
                         experts=experts, rank=3, alpha=6).double()  # fmt: skip
    x = tokens(2, 5, 10)
    torch.testing.assert_close(fresh(x), fresh.base_layer(x), rtol=0, atol=1e-12)
    first_down, first_up = (each.detach().clone() for each in values(fresh, "down", "up"))
    assert float(first_up.std()) == pytest.approx(3**0.25 / (8 * math.sqrt(7)), rel=0.4)
    names = ("down", "up", *(("router",) if experts > 1 else ()))
    with torch.no_grad():
        for each in values(fresh, *names):
            each.add_(torch.randn_like(each))
    down, up, *rest = values(fresh, *names)
    outputs = []
    for token in x.reshape(-1, 10):
        p = probabilities(rest[0], token) if rest else torch.ones(1, dtype=torch.float64)
        y = base_output(fresh, token)
        for n in range(experts):
            own = slice(3 * n, 3 * n + 3)
            y = y + 2 * (p[n] * up[:, own] @ (down @ token) - first_up[:, own] @ (first_down @ token) / experts)
        outputs.append(y)
    agree(fresh, x, torch.stack(outputs).view(2, 5, 7), names)


@pytest.mark.parametrize("point", [
    {"share": "both", "router_input": "hidden", "top_k": 2},
    {"r": 1, "router": "magnitude", "renormalize": False, "top_k": 2, "balance_step": 0.1},
    {"top_k": 2, "balance_step": 0.1},
])  # fmt: skip
def test_training_in_bfloat16_routes_as_scoring_does(point: dict[str, Any]) -> None:
    """What decides on gates is float32 under autocast, too, so that every token has the gates that scoring gives it."""
    seen: list[Tensor] = []
    module = layer(experts=8, d_in=64, rank=point.get("r", 4), **{k: v for k, v in point.items() if k != "r"}).float()
    module.base_layer.bfloat16()
    route = module._route

    def watched(adapter: str, logits: Tensor) -> Tensor:
        seen.append(route(adapter, logits))
        return seen[-1]

    module._route = watched  # type: ignore[method-assign]
    x = torch.randn(4000, 64, dtype=torch.bfloat16)
    module.eval()(x)
    with torch.autocast("cpu", torch.bfloat16):
        module.train()(x)
    scored, trained = seen
    torch.testing.assert_close(trained, scored, rtol=0, atol=1e-6)
    assert torch.equal(trained > 0, scored > 0)


def test_adapters_left_in_bfloat16_take_the_start_off_too() -> None:
    """As PEFT leaves them with ``autocast_adapter_dtype`` off; the start itself is kept in float32."""
    settings: dict[str, Any] = {"share": "down", "up_init": "random", "target_modules": ["q_proj"]}
    base = build(config()).bfloat16()
    ids = torch.randint(3, 40, (1, 5))
    before = base(ids).logits
    model: Any = get_peft_model(base, MixtureConfig(task_type="CAUSAL_LM", **settings), autocast_adapter_dtype=False)
    torch.testing.assert_close(model(ids).logits, before, rtol=0, atol=0.05)


def test_every_expert_drops_its_own_part_of_what_a_gives() -> None:
    """s sum_i p_i B_i (M_i * A x) / (1 - q)."""
    module, x = layer(share="down", dropout=0.3, dropout_on="expert_hidden").train(), tokens(2, 5, 10)
    down, up, router = values(module, "down", "up", "router")
    torch.manual_seed(6)
    ours = module(x)
    torch.manual_seed(6)
    kept = F.dropout(torch.ones(2, 5, 12, dtype=torch.float64), 0.3).view(-1, 4, 3)
    assert (kept[:, 0] != kept[:, 1]).any()
    outputs = []
    for token, masks in zip(x.reshape(-1, 10), kept, strict=True):
        p = probabilities(router, token)
        update = sum(p[n] * up[:, 3 * n : 3 * n + 3] @ (masks[n] * (down @ token)) for n in range(4))
        outputs.append(base_output(module, token) + 2 * update)
    agree(module, x, torch.stack(outputs).view(2, 5, 7), ("down", "up", "router"), ours)
    assert torch.equal(module.eval()(x), module(x))


def test_a_start_on_a_base_in_bfloat16_is_taken_off_as_it_was_rounded() -> None:
    base = build(config()).bfloat16()
    ids = torch.randint(3, 40, (2, 9))
    before = base(ids).logits
    settings: dict[str, Any] = {"share": "down", "up_init": "random", "target_modules": ["q_proj", "v_proj"]}
    model: Any = get_peft_model(base, MixtureConfig(task_type="CAUSAL_LM", **settings))
    torch.testing.assert_close(model(ids).logits, before, rtol=0, atol=0)
    for module in model.modules():
        if isinstance(module, MixtureLayer):
            torch.testing.assert_close(*values(module, "down", "start_down"), rtol=0, atol=0, check_dtype=False)


def adapted(name: str, **more: Any) -> Any:
    """A model with the recipe ``name`` after changes to all that trains, and to biases."""
    recipe = RECIPES[name]
    torch.manual_seed(0)
    model: Any = registry.get(recipe.method).attach(build(config()), recipe.params | more)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter.requires_grad or "mixture_bias" in parameter_name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("name", SINCE)
def test_packed_scores_are_plain_scores(name: str) -> None:
    model, requests = adapted(name), story_requests(24)
    plain = score_plain(model, requests, pad=0, tokens=100_000)
    packed = score_packed(model, requests, pad=0, tokens=2000, width=60)
    torch.testing.assert_close(torch.tensor(packed), torch.tensor(plain), rtol=0, atol=2e-4)
    alone = [score_plain(model, [request], pad=0, tokens=1)[0] for request in requests]
    torch.testing.assert_close(torch.tensor(alone), torch.tensor(plain), rtol=0, atol=2e-4)
    assert packs(model, max(requests, key=lambda request: len(request.context)), 0)


@pytest.mark.filterwarnings("ignore:Could not find a config file")
@pytest.mark.parametrize("name", SINCE)
def test_what_is_saved_gives_the_model_again(name: str, tmp_path: Path) -> None:
    """Biases and starts are saved with the others, and do not train in what is loaded either."""
    model, ids = adapted(name), torch.randint(3, 40, (2, 9))
    model.save_pretrained(tmp_path)
    torch.manual_seed(7)
    loaded: Any = PeftModel.from_pretrained(build(config()), tmp_path, is_trainable=True).eval()
    torch.testing.assert_close(loaded(ids).logits, model(ids).logits, rtol=0, atol=0)
    trained = [{n: p.shape for n, p in each.named_parameters() if p.requires_grad} for each in (model, loaded)]
    assert trained[0] == trained[1]


@pytest.mark.parametrize(
    ("name", "trained", "active"),
    [  # hidden 32, keys 16, four layers: q from 32 to 32, v from 32 to 16
        ("alora", 4 * (8 * (3 * 64 + 48) + 3 * 64), None),
        ("comol", 4 * (16 * (64 + 48) + 2 * 8 * 16 * 16 + 2 * 8 * 16), None),
        ("smora", 4 * 64 * (64 + 48 + 64), 4 * (8 * (64 + 48) + 64 * 64)),
        ("flylora", 4 * 32 * 48, 4 * 8 * 48),
        ("r-lora", 4 * (8 * (64 + 5 * 48) + 5 * 64), None),
    ],
)
def test_counts_by_hand(name: str, trained: int, active: int | None) -> None:
    model = adapted(name)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == trained
    assert registry.get("mixture").active(model) == (trained if active is None else active)
    kept = {"smora": 8 * 64, "flylora": 8 * 32 + 4 * 32 * 64, "r-lora": 4 * 8 * (64 + 48)}
    assert stored(model) == trained + kept.get(
        name, 0
    )  # what is saved: biases, a frozen A, what a start is taken off by


#: Trainable parameters at a rank or a number of experts, by d_in and d_out of the adapted modules.
FORMULAS: dict[str, Any] = {
    "alora": lambda r, d_in, d_out: r * (3 * d_in + d_out) + 3 * d_in,
    "comol": lambda r, d_in, d_out: r * (d_in + d_out) + 8 * r * r + 8 * r,
    "smora": lambda n, d_in, d_out: n * (2 * d_in + d_out),
    "flylora": lambda n, d_in, d_out: n * d_out,
    "r-lora": lambda r, d_in, d_out: r * (d_in + 5 * d_out) + 5 * d_in,
}


@pytest.mark.parametrize("name", SINCE)
@pytest.mark.parametrize(
    ("model", "budget"), [("embedded", "20k"), ("embedded", "60k"), ("embedded", "150k"), ("llama", "1m")]
)
def test_budgets_are_met_by_the_formula_of_the_method(name: str, model: str, budget: str) -> None:
    """Every module has the size of its own rank, or number of experts."""
    shape, hidden, keys, _ = SHAPES[model]
    fit = fit_budget(RECIPES[name], shape, budget)
    assert fit.residual is not None
    assert abs(fit.residual) <= 0.01
    knob = RECIPES[name].knob or "r"
    own = fit.params.get("experts_pattern" if knob == "experts" else "rank_pattern") or {}
    total = 0
    for number in range(shape.num_hidden_layers):
        for module, d_out in (("q_proj", hidden), ("v_proj", keys)):
            size = own.get(rf"model\.layers\.{number}\.self_attn\.{module}", fit.params[knob])
            assert size in {fit.params[knob], fit.params[knob] + 1}
            total += FORMULAS[name](size, hidden, d_out)
    assert total == fit.trainable == count_trainable(registry.get("mixture"), shape, fit.params)
    if knob == "experts":
        picks, most = RECIPES[name].params["top_k"], RECIPES[name].params["experts"]
        share = fit.params["experts"] * picks / most
        assert fit.params["top_k"] == max(2, math.floor(share + 0.5))
        assert (fit.params["r"], fit.params["lora_alpha"]) == (1, RECIPES[name].params["lora_alpha"])


def test_picks_keep_their_share_of_the_experts() -> None:
    """Halves up; two at least, where there are two, since a single renormalised gate is 1 whatever the router says."""
    method, params = registry.get("mixture"), RECIPES["smora"].params
    picks = {n: method.at(params, n, "experts")["top_k"] for n in (1, 2, 5, 19, 20, 64, 100)}
    assert picks == {1: 1, 2: 2, 5: 2, 19: 2, 20: 3, 64: 8, 100: 13}
    for n in picks:
        method.attach(build(config(layers=1)), method.at(params, n, "experts"))
    assert method.at(RECIPES["moe-lora"].params, 3, "experts") == {**RECIPES["moe-lora"].params, "experts": 3}
    assert method.at({"experts": 4, "top_k": 1, "renormalize": False}, 9, "experts")["top_k"] == 2


def test_own_numbers_of_experts_keep_their_ratio() -> None:
    method = registry.get("mixture")
    params = {
        "r": 1,
        "experts": 8,
        "experts_pattern": {"q_proj": 12},
        "top_k": 2,
        "target_modules": ["q_proj", "v_proj"],
    }
    assert method.at(params, 4, "experts")["experts_pattern"] == {"q_proj": 6}
    model = method.attach(build(config()), params)
    counts = {
        (n.rsplit(".", 1)[1], m.experts["default"]) for n, m in model.named_modules() if isinstance(m, MixtureLayer)
    }
    assert counts == {("q_proj", 12), ("v_proj", 8)}


def test_mixlora_has_one_number_of_experts_for_all_blocks() -> None:
    method, params = registry.get("mixlora"), RECIPES["mixlora"].params
    assert method.sizing_by(params, "experts").pattern is None
    method.attach(build(config()), method.at(params, 5, "experts"))


def test_the_method_moves_biases_after_a_step() -> None:
    model = adapted("smora", experts=8, top_k=2, balance_step=0.5).train()
    ids = torch.randint(3, 40, (2, 9))
    before = {n: p.clone() for n, p in model.named_parameters() if "mixture_bias" in n}
    model(input_ids=ids, attention_mask=torch.ones_like(ids))
    registry.get("mixture").after_step(model, 1, 10)
    after = dict(model.named_parameters())
    for name, bias in before.items():
        assert set((after[name] - bias).abs().round(decimals=4).tolist()) <= {0.0, 0.5}
    assert any(not torch.equal(after[name], bias) for name, bias in before.items())
    move_biases(model)
    assert all(torch.equal(after[name], values) for name, values in model.named_parameters() if "mixture_bias" in name)
