"""MixLoRA against its equations, written here a second time as plain loops over tokens and experts in float64."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaMLP

from mosld_bench.errors import BenchError
from mosld_bench.tuners.mixlora import MixLoraConfig, MixLoraLayer
from mosld_bench.tuners.mixture import aux_loss, balance_loss, gate, routing
from tests.support.models import build, config

KINDS = ["llama", "mistral", "qwen2"]


def layer(experts: int = 4, rank: int = 3, alpha: float = 6, mlp_bias: bool = False, **more: Any) -> MixLoraLayer:
    torch.manual_seed(1)
    mlp = LlamaMLP(config(hidden_size=12, intermediate_size=14, mlp_bias=mlp_bias)).requires_grad_(False)
    settings = MixLoraConfig(experts=experts, r=rank, lora_alpha=alpha, **more).coordinates(experts)
    made = MixLoraLayer(mlp, "default", settings, experts=experts, rank=rank, alpha=alpha).double()
    for part in ("gate", "up", "down"):
        nn.init.normal_(getattr(made, f"mixture_{part}_b")["default"])
    return made


def by_the_equations(module: MixLoraLayer, x: Tensor, kept: list[Tensor] | None = None) -> Tensor:
    """Every token through each of its experts, a whole feed-forward block each, summed by its gates.

    ``kept`` holds the factors of dropout in the order of drawing: gate's and up's input, then down's for every pick.
    """
    settings, rank, ffn = module.settings["default"], module.rank["default"], module.base_layer
    scale, outputs = settings.lora_alpha / rank, []

    def adapted(part: str, expert: int, v: Tensor, factor: Tensor | float = 1.0) -> Tensor:
        rows = slice(expert * rank, (expert + 1) * rank)
        a, b = (getattr(module, f"mixture_{part}_{side}")["default"] for side in "ab")
        y: Tensor = getattr(ffn, f"{part}_proj")(v) + scale * (b[:, rows] @ (a[rows] @ (v * factor)))
        return y

    for index, token in enumerate(x.reshape(-1, x.shape[-1])):
        scores = torch.stack([math.e ** (row @ token) for row in module.mixture_router["default"]])
        p = scores / scores.sum()
        picked = sorted(range(len(p)), key=lambda n: -p[n].item())[: settings.top_k]
        y = torch.zeros_like(token)
        for slot, n in enumerate(picked):
            ones = [f.reshape(-1, f.shape[-1])[index] for f in kept] if kept else [1.0] * (2 + len(picked))
            gated = adapted("gate", n, token, ones[0])
            h = gated * torch.sigmoid(gated) * adapted("up", n, token, ones[1])
            y = y + p[n] / sum(p[m] for m in picked) * adapted("down", n, h, ones[2 + slot])
        outputs.append(y)
    return torch.stack(outputs).reshape(x.shape)


@pytest.mark.parametrize("mlp_bias", [False, True])
@pytest.mark.parametrize("top_k", [1, 2, 3, 4])
def test_forward_and_gradients_equal_a_loop_over_experts(top_k: int, mlp_bias: bool) -> None:
    module = layer(top_k=top_k, mlp_bias=mlp_bias)
    x = torch.randn(2, 5, 12, dtype=torch.float64, requires_grad=True)
    target = torch.randn(2, 5, 12, dtype=torch.float64)
    names = [*(getattr(module, name)["default"] for name in module.adapter_layer_names), x]
    ours, theirs = module(x), by_the_equations(module, x)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    mine = torch.autograd.grad(((ours - target) ** 2).sum(), names)
    plain = torch.autograd.grad(((theirs - target) ** 2).sum(), names, allow_unused=True)
    for a, b in zip(mine, plain, strict=True):
        torch.testing.assert_close(a, torch.zeros_like(a) if b is None else b, rtol=1e-10, atol=1e-10)


def test_no_step_waits_for_a_value() -> None:
    """On the meta device there are no values: a step that asked the device for one would fail there."""
    module = layer(dropout=0.4).to("meta").train()
    module(torch.randn(2, 5, 12, dtype=torch.float64, device="meta")).sum().backward()
    assert all(getattr(module, name)["default"].grad is not None for name in module.adapter_layer_names)


def test_dropout_falls_on_the_input_of_each_lora_in_training_only() -> None:
    module = layer(dropout=0.4)
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    torch.testing.assert_close(module.eval()(x), by_the_equations(module, x), rtol=0, atol=1e-10)
    torch.manual_seed(9)
    ours = module.train()(x)
    torch.manual_seed(9)
    widths = [12, 12, 14, 14]
    kept = [nn.functional.dropout(torch.ones(2, 5, width, dtype=torch.float64), 0.4) for width in widths]
    torch.testing.assert_close(ours, by_the_equations(module, x, kept), rtol=0, atol=1e-10)


def mixlora(model: nn.Module, **more: Any) -> Any:
    """A PeftModel."""
    settings = {"r": 2, "experts": 4} | more
    return get_peft_model(model, MixLoraConfig(task_type="CAUSAL_LM", **settings))


def stir(model: Any) -> Any:
    """Give the adapter an effect."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "mixture_up.default" in name or "_b.default" in name:
                parameter.normal_(0, 0.3)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_starts_at_zero_effect_and_only_the_adapter_trains(kind: str) -> None:
    """The key and value heads are half of the query heads: k_proj and v_proj are not square."""
    base = build(config(kind))
    ids = torch.randint(3, 40, (2, 9))
    before = base(ids).logits
    model = mixlora(copy.deepcopy(base))
    torch.testing.assert_close(model(ids).logits, before, rtol=1e-5, atol=1e-5)
    trained = {n.removeprefix("base_model.model.model.layers.").split(".", 1)[1].removesuffix(".default")
               for n, p in model.named_parameters() if p.requires_grad}  # fmt: skip
    attention = {f"self_attn.{x}_proj.mixture_{side}" for x in "qkvo" for side in ("down", "up")}
    assert trained == attention | {f"mlp.{name}" for name in MixLoraLayer.adapter_layer_names}
    assert not torch.allclose(stir(model)(ids).logits, before, atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:Could not find a config file")
def test_save_load_disable_and_refuse_to_merge(kind: str, tmp_path: Path) -> None:
    base = build(config(kind))
    ids = torch.randint(3, 40, (2, 9))
    settings = {"rank_pattern": {r"model\.layers\.1\.mlp": 3}, "alpha_pattern": {r"model\.layers\.1\.mlp": 24.0}}
    model = stir(mixlora(copy.deepcopy(base), **settings)).eval()
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "MIXLORA"
    loaded = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path).eval()
    torch.testing.assert_close(loaded(ids).logits, model(ids).logits, rtol=0, atol=0)
    with loaded.disable_adapter():
        torch.testing.assert_close(loaded(ids).logits, base(ids).logits, rtol=0, atol=0)
    assert not torch.allclose(loaded(ids).logits, base(ids).logits, atol=1e-2)
    ranks = [m.mixture_gate_a["default"].shape[0] for m in loaded.modules() if isinstance(m, MixLoraLayer)]
    scales = [m.scale["default"] for m in loaded.modules() if isinstance(m, MixLoraLayer)]
    assert (ranks, scales) == ([8, 12, 8, 8], [8.0] * 4)
    with pytest.raises(BenchError, match="cannot be merged"):
        loaded.merge_and_unload()


def test_two_adapters_in_one_model() -> None:
    base = build(config())
    ids = torch.randint(3, 40, (1, 7))
    model = stir(mixlora(copy.deepcopy(base))).eval()
    first = model(ids).logits
    model.add_adapter("other", MixLoraConfig(task_type="CAUSAL_LM", r=3, experts=3, target_modules=["q_proj"]))
    model.set_adapter("other")
    torch.testing.assert_close(model(ids).logits, base(ids).logits, rtol=1e-5, atol=1e-5)
    model.set_adapter("default")
    torch.testing.assert_close(model(ids).logits, first, rtol=0, atol=0)
    model.base_model.set_adapter(["default", "other"])
    with pytest.raises(BenchError, match="one adapter at a time, but default, other are active"):
        model(ids)


@pytest.mark.parametrize("kind", KINDS)
def test_generation_with_a_cache_equals_without(kind: str) -> None:
    model = stir(mixlora(build(config(kind)))).eval()
    ids = torch.randint(3, 40, (2, 6))
    options = {"max_new_tokens": 8, "do_sample": False, "attention_mask": torch.ones_like(ids), "pad_token_id": 0}
    assert torch.equal(
        model.generate(input_ids=ids, use_cache=True, **options),
        model.generate(input_ids=ids, use_cache=False, **options),
    )


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:None of the inputs")
def test_gradient_checkpointing_changes_no_gradient() -> None:
    base = build(config())
    ids, mask = torch.randint(3, 40, (2, 9)), torch.tensor([[1] * 9, [1] * 6 + [0] * 3])
    gradients = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        model = stir(mixlora(copy.deepcopy(base), dropout=0.3, balance_coef=0.5)).train()
        if checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
        torch.manual_seed(5)
        loss = model(input_ids=ids, attention_mask=mask).logits.float().logsumexp(-1).mean()
        (loss + aux_loss(model)).backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    assert len(gradients[0]) == 4 * (4 * 2 + 7)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-4, atol=1e-6, msg=name)


def test_bfloat16_autocast_and_a_base_in_bfloat16() -> None:
    model = stir(mixlora(build(config()))).train()
    ids = torch.randint(3, 40, (1, 6))
    exact = model(input_ids=ids).logits
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(input_ids=ids).logits
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.float(), exact, rtol=0.1, atol=0.4)
    half = stir(mixlora(build(config()).bfloat16())).train()(input_ids=ids).logits
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, rtol=0.1, atol=0.4)


def test_training_in_bfloat16_routes_as_scoring_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adapters are float32; training runs under autocast, scoring does not. Every token has the same gates in both."""
    seen: list[Tensor] = []

    def watched(logits: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
        seen.append(gate(logits, *args)[0])
        return gate(logits, *args)

    monkeypatch.setattr(routing, "gate", watched)
    module = layer(experts=8, dropout=0.1).float()
    module.base_layer.bfloat16()
    x = torch.randn(4000, 12, dtype=torch.bfloat16)
    module.eval()(x)
    with torch.autocast("cpu", torch.bfloat16):
        module.train()(x)
    scored, trained = seen
    torch.testing.assert_close(trained, scored, rtol=0, atol=1e-6)
    assert torch.equal(trained > 0, scored > 0)
    rough, _ = gate(F.linear(x, module.mixture_router["default"].bfloat16()), 2, True)
    assert (rough > 0).ne(scored > 0).any()  # what bfloat16 would have picked


def test_balance_loss_is_the_routers_mean_leaves_padding_out_and_is_taken_once() -> None:
    module = layer(balance_coef=0.5).train()
    x = torch.randn(7, 12, dtype=torch.float64)
    module(x)
    gates, p = gate(x @ module.mixture_router["default"].T, 2, True)
    torch.testing.assert_close(aux_loss(module), 0.5 * balance_loss(gates, p))
    model = stir(mixlora(build(config()))).train()
    ids = torch.randint(3, 40, (1, 6))
    model(input_ids=ids, attention_mask=torch.ones_like(ids))
    short = aux_loss(model)
    assert short is not None
    assert aux_loss(model) is None
    longer = torch.cat([ids, torch.zeros(1, 5, dtype=torch.long)], 1)
    model(input_ids=longer, attention_mask=torch.tensor([[1] * 6 + [0] * 5]))
    torch.testing.assert_close(aux_loss(model), short)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"experts": 1}, "experts is 1; allowed is an integer of 2 or more"),
        ({"top_k": 5}, "top_k is 5; allowed is none .* or 1 to 4"),
        ({"top_k": None}, "top_k is None; allowed is 1 to 4"),
        ({"top_k": 1, "balance_coef": 0}, "a single gate is 1 whatever the router says.* Set a balance_coef above 0"),
        ({"r": 0}, "r is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"ffn_modules": []}, "ffn_modules is \\[\\]; allowed is a list"),
        ({"ffn_modules": ["ffn"]}, "No module of the model is named ffn, so that MixLoRA has no experts"),
        ({"ffn_modules": ["self_attn"]}, "has no gate_proj and no up_proj and no down_proj and no act_fn"),
        ({"target_modules": ["q_proj", "up_proj"]}, r"match 'model\.layers\.0\.mlp\.up_proj', inside 'mlp'"),
    ],
)
def test_settings_without_meaning_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        mixlora(build(config()), **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"top_k": 1},
        {"top_k": 2, "balance_coef": 0.0},
        {"top_k": 4, "balance_coef": 0.0},
        {"experts": 2, "dropout": 0.3},
    ],
)
def test_all_that_is_counted_gets_a_gradient(settings: dict[str, Any]) -> None:
    """A single gate is 1 whatever the router says, which then learns by the balance loss (0.01 if nothing is said)."""
    model = stir(mixlora(build(config()), **settings)).train()
    ids = torch.randint(3, 40, (4, 24))
    loss, extra = model(input_ids=ids).logits.logsumexp(-1).mean(), aux_loss(model)
    (loss if extra is None else loss + extra).backward()
    trained = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert not [name for name, gradient in trained.items() if gradient is None or not gradient.abs().sum() > 0]


def test_excluded_blocks_stay_as_they_are() -> None:
    model = mixlora(build(config()), exclude_modules=["layers.0.mlp", "layers.1.self_attn.q_proj"])
    adapted = [n for n, m in model.named_modules() if hasattr(m, "base_layer")]
    assert len(adapted) == 4 * 5 - 2
    assert not [n for n in adapted if n.endswith(("layers.0.mlp", "layers.1.self_attn.q_proj"))]
