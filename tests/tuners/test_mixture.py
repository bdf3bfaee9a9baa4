"""The mixture tuner against the papers' equations, written here a second time as plain loops in float64."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from peft import PeftModel, get_peft_model
from torch import Tensor, nn

from mosld_bench.errors import BenchError
from mosld_bench.spec.design_space import Coordinates
from mosld_bench.tuners.mixture import (
    MixtureConfig,
    MixtureLayer,
    allocate,
    aux_loss,
    balance_loss,
    draw_masks,
    gate,
    within_capacity,
)
from tests.support.models import build, config

POINTS = [
    {"share": "none"},
    {"share": "none", "top_k": 2},
    {"share": "none", "top_k": 2, "renormalize": False},
    {"share": "down"},
    {"share": "down", "top_k": 1},
    {"share": "down", "top_k": 2},
    {"share": "up", "top_k": 2},
    {"share": "up"},
]


def layer(
    experts: int = 4, rank: int = 3, alpha: float = 6, d_in: int = 10, d_out: int = 7, **more: object
) -> MixtureLayer:
    torch.manual_seed(1)
    made = MixtureLayer(
        nn.Linear(d_in, d_out), "default", MixtureConfig(experts=experts, r=rank, lora_alpha=alpha, **more),
        experts=experts, rank=rank, alpha=alpha,
    ).double()  # fmt: skip
    nn.init.normal_(made.mixture_up["default"])
    return made


def probabilities(router: Tensor, token: Tensor) -> Tensor:
    scores = torch.stack([math.e ** (row @ token) for row in router])
    return scores / scores.sum()


def by_the_equations(
    one: MixtureLayer, x: Tensor, mask: Tensor | None = None, routed: list[dict[int, Tensor]] | None = None
) -> Tensor:
    """h = W0 x + (alpha / r) sum_k S_k B_k A_k x, token by token and expert by expert (MoSLD, section 3).

    ``routed`` gives the tokens' gates by expert where they are not those of a plain top-K.
    """
    settings, experts, rank = one.settings["default"], one.experts["default"], one.rank["default"]
    down, up = one.mixture_down["default"], one.mixture_up["default"]
    if mask is not None:
        if settings.share == "up":
            up = mask * up / (1 - settings.dropout)
        else:
            down = mask * down / (1 - settings.dropout)
    router = one.mixture_router["default"]
    outputs = []
    for index, token in enumerate(x.reshape(-1, x.shape[-1])):
        p = probabilities(router, token)
        picked = sorted(range(experts), key=lambda n: -p[n].item())[: settings.top_k or experts]
        norm = sum(p[n] for n in picked) if settings.top_k and settings.renormalize else 1.0
        gates = {n: p[n] / norm for n in picked} if routed is None else routed[index]
        h = one.base_layer.weight @ token + one.base_layer.bias
        for n, g in gates.items():
            a = down if settings.share == "down" else down[n * rank : (n + 1) * rank]
            b = up if settings.share == "up" else up[:, n * rank : (n + 1) * rank]
            h = h + (settings.lora_alpha / rank) * g * (b @ (a @ token))
        outputs.append(h)
    return torch.stack(outputs).reshape(*x.shape[:-1], -1)


@pytest.mark.parametrize("point", POINTS, ids=lambda p: "-".join(map(str, p.values())))
def test_forward_and_gradients_equal_a_loop_over_experts(point: dict[str, object]) -> None:
    one = layer(**point)
    x = torch.randn(2, 5, 10, dtype=torch.float64, requires_grad=True)
    target = torch.randn(2, 5, 7, dtype=torch.float64)
    names = [one.mixture_down["default"], one.mixture_up["default"], one.mixture_router["default"], x]
    ours, theirs = one(x), by_the_equations(one, x)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    mine = torch.autograd.grad(((ours - target) ** 2).sum(), names)
    plain = torch.autograd.grad(((theirs - target) ** 2).sum(), names)
    for a, b in zip(mine, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("share", ["none", "down", "up"])
def test_weight_dropout_masks_the_matrix_as_the_paper_does(share: str) -> None:
    one = layer(share=share, top_k=2, dropout=0.4, dropout_on="weight").train()
    draw_masks(one)
    mask = one.weight_mask["default"]
    shared = one.mixture_up["default"] if share == "up" else one.mixture_down["default"]
    assert mask.shape == shared.shape
    assert 0 < mask.double().mean() < 1
    x = torch.randn(3, 10, dtype=torch.float64)
    torch.testing.assert_close(one(x), by_the_equations(one, x, mask.double()), rtol=0, atol=1e-10)
    torch.testing.assert_close(one(x), one(x), rtol=0, atol=0)  # one mask a step, however many micro-batches


def test_weight_dropout_has_the_right_mean_and_is_off_at_inference() -> None:
    one = layer(share="down", dropout=0.1, dropout_on="weight")
    x = torch.randn(4, 10, dtype=torch.float64)
    quiet = one.eval()(x)
    torch.testing.assert_close(quiet, by_the_equations(one, x), rtol=0, atol=1e-10)
    one.train()
    kept, total = 0.0, torch.zeros_like(quiet)
    draws = 4000
    for _ in range(draws):
        draw_masks(one)
        kept += float(one.weight_mask["default"].double().mean())
        total += one(x).detach()
    assert kept / draws == pytest.approx(0.9, abs=0.002)  # 120,000 draws: 0.002 is more than two standard errors
    torch.testing.assert_close(total / draws, quiet, rtol=0.05, atol=0.1)


def test_without_draw_masks_every_forward_draws_anew() -> None:
    one = layer(share="down", dropout=0.5, dropout_on="weight").train()
    x = torch.randn(4, 10, dtype=torch.float64)
    assert not torch.equal(one(x), one(x))


@pytest.mark.parametrize("where", ["input", "hidden"])
def test_other_dropouts_act_in_training_only(where: str) -> None:
    one = layer(share="down", dropout=0.5, dropout_on=where)
    x = torch.randn(4, 10, dtype=torch.float64)
    torch.testing.assert_close(one.eval()(x), by_the_equations(one, x), rtol=0, atol=1e-10)
    one.train()
    assert not torch.equal(one(x), one(x))


def sira_gates(one: MixtureLayer, x: Tensor, real: Tensor, kept: Tensor) -> list[dict[int, Tensor]]:
    """SiRA's gates in training, for x (B, T, d): expert dropout, then top-K, then first come first served."""
    settings, experts = one.settings["default"], one.experts["default"]
    found = []
    for sequence, is_real, keeps in zip(x, real.tolist(), kept.tolist(), strict=True):
        share = Fraction(str(settings.capacity or experts)) * sum(is_real) * settings.top_k / experts
        taken = [0] * experts
        for token, counts, keep in zip(sequence, is_real, keeps, strict=True):
            p = probabilities(one.mixture_router["default"], token)
            left = [n for n in range(experts) if keep[n]]
            picked = sorted(left, key=lambda n: -p[n].item())[: settings.top_k]
            scores = {n: p[n] / (1 - settings.dropout) for n in picked}
            norm = sum(scores.values()) if settings.renormalize and scores else 1.0
            gates = {}
            for n in picked:
                taken[n] += counts
                if taken[n] <= math.ceil(share):
                    gates[n] = scores[n] / norm
            found.append(gates)
    return found


@pytest.mark.parametrize("renormalize", [False, True])
@pytest.mark.parametrize("share", ["none", "down", "up"])
@pytest.mark.parametrize(
    ("dropout", "capacity", "top_k"), [(0.4, None, 2), (0.0, 0.7, 2), (0.4, 0.7, 2), (0.6, 1.0, 4)]
)
def test_sira_equals_a_loop_with_expert_dropout_and_capacity(
    share: str, dropout: float, capacity: float | None, top_k: int, renormalize: bool
) -> None:
    one = layer(share=share, top_k=top_k, renormalize=renormalize, capacity=capacity, dropout=dropout,
                dropout_on="gates" if dropout else "none").train()  # fmt: skip
    x = torch.randn(3, 9, 10, dtype=torch.float64, requires_grad=True)
    real = torch.tensor([[1] * 9, [1] * 5 + [0] * 4, [0] * 3 + [1] * 6])
    one.current.mask = real
    torch.manual_seed(11)
    kept = F.dropout(torch.ones(3, 9, 4, dtype=torch.float64), dropout) > 0
    torch.manual_seed(11)
    ours = one(x)[real.bool()]
    routed = sira_gates(one, x, real, kept)
    theirs = by_the_equations(one, x, routed=routed)[real.bool()]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    names = [one.mixture_down["default"], one.mixture_up["default"], one.mixture_router["default"], x]
    mine = torch.autograd.grad((ours**2).sum(), names)
    plain = torch.autograd.grad((theirs**2).sum(), names)
    for a, b in zip(mine, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_capacity_and_expert_dropout_hold_in_training_only() -> None:
    one = layer(top_k=2, capacity=0.5, dropout=0.5, dropout_on="gates")
    x = torch.randn(2, 8, 10, dtype=torch.float64)
    torch.testing.assert_close(one.eval()(x), by_the_equations(one, x), rtol=0, atol=1e-10)
    assert not torch.equal(one.train()(x), one(x))


def test_routing_waits_for_no_value() -> None:
    """On the meta device there are no values: a step that asked the device for one would fail there."""
    one = layer(top_k=2, capacity=0.5, dropout=0.5, dropout_on="gates", balance_coef=1.0).to("meta").train()
    one.current.mask = torch.ones(2, 8, device="meta")
    one(torch.randn(2, 8, 10, dtype=torch.float64, device="meta")).sum().backward()
    assert one.mixture_router["default"].grad is not None


def test_capacity_keeps_the_first_picks_of_a_sequence() -> None:
    """All tokens want the same two of four experts: ceil(0.9 * T * 2 / 4) of them have it, padding takes no room."""
    gates = torch.tensor([0.6, 0.4, 0.0, 0.0]).repeat(3, 10, 1)
    mask = torch.tensor([[1] * 10, [1] * 7 + [0] * 3, [0] * 3 + [1] * 7])
    kept = within_capacity(gates, 2, 0.9, mask)
    assert ((kept > 0) & mask.bool().unsqueeze(-1)).sum(1).tolist() == [[5, 5, 0, 0], [4, 4, 0, 0], [4, 4, 0, 0]]
    assert (kept[0, :5] == gates[0, :5]).all()  # first come, first served, and not renormalised
    assert (kept[2, 3:7] == gates[2, 3:7]).all()
    torch.testing.assert_close(kept[0], within_capacity(gates[0], 2, 0.9))  # (tokens, N) is one sequence
    routed, _ = gate(torch.randn(1, 12, 4), 2, renormalize=False)
    for length in range(1, 12):  # with room for two picks, what comes later changes nothing
        early = within_capacity(routed[:, :length], 2, 4 / length)
        torch.testing.assert_close(early, within_capacity(routed, 2, 4 / 12)[:, :length])
    assert torch.equal(within_capacity(routed, 2, 2.0), routed)  # N / K: room for all
    ten = torch.tensor([1.0, 0.0]).repeat(50, 1)
    assert within_capacity(ten, 1, 1.1)[:, 0].sum() == 28  # ceil(27.5)
    assert within_capacity(ten, 1, 0.44)[:, 0].sum() == 11  # 0.44 * 50 / 2, whole but for rounding


def test_expert_dropout_of_all_experts_and_the_balance_loss() -> None:
    """No expert left: no update and no infinite gradient. P_i is taken without dropout, f_i from the picks made."""
    logits = torch.randn(200, 3, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(2)
    gates, p = gate(logits, 2, renormalize=True, dropout=0.7)
    assert ((gates > 0).sum(-1) == 0).any()
    torch.testing.assert_close(p, logits.softmax(-1))
    torch.testing.assert_close(gates.sum(-1), (gates > 0).any(-1).double())
    gates.square().sum().backward()
    assert logits.grad.isfinite().all()
    one = layer(top_k=2, capacity=0.25, dropout=0.5, dropout_on="gates", balance_coef=1.0).train()
    x = torch.randn(30, 10, dtype=torch.float64)
    torch.manual_seed(4)
    one(x)
    torch.manual_seed(4)
    gates, p = gate(F.linear(x, one.mixture_router["default"]), 2, False, 0.5)
    torch.testing.assert_close(one.balance, balance_loss(gates, p))  # before the capacity limit


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


def test_gates() -> None:
    logits = torch.randn(50, 6)
    for k in (1, 2, 3, 5):
        gates, p = gate(logits, k, renormalize=True)
        torch.testing.assert_close(gates.sum(-1), torch.ones(50))
        assert ((gates > 0).sum(-1) == k).all()
        torch.testing.assert_close(p, logits.softmax(-1))
        raw, _ = gate(logits, k, renormalize=False)
        torch.testing.assert_close(raw.sum(-1), p.topk(k).values.sum(-1))
    dense, p = gate(logits, None, renormalize=True)
    torch.testing.assert_close(dense, p)


def test_balance_loss_golden_numbers() -> None:
    """Uniform routing scores 1 for every K and N; all tokens on one expert of N score N; padding does not count."""
    for experts in (2, 4, 8):
        p = torch.full((experts, experts), 1 / experts)
        for k in range(1, experts):
            picks = torch.stack(
                [torch.roll(torch.tensor([1.0 / k] * k + [0.0] * (experts - k)), n) for n in range(experts)]
            )
            assert float(balance_loss(picks, p)) == pytest.approx(1)
        one_hot = torch.eye(experts)[torch.zeros(5, dtype=torch.long)]
        assert float(balance_loss(one_hot, one_hot)) == pytest.approx(experts)
    gates = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    p = torch.tensor([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8]])
    # two real tokens, both on expert 0: f = (1, 0), P_0 = 0.8, so 2 * 0.8
    assert float(balance_loss(gates, p, torch.tensor([1, 1, 0]))) == pytest.approx(1.6)


def test_allocation_by_parts_of_the_depth() -> None:
    assert [allocate([2, 4, 6, 8], layer, 32) for layer in range(32)] == [2] * 8 + [4] * 8 + [6] * 8 + [8] * 8
    assert [allocate([2, 4, 6, 8], layer, 30) for layer in range(30)] == [2] * 8 + [4] * 7 + [6] * 8 + [8] * 7
    assert [allocate([2, 4, 6, 8], layer, 4) for layer in range(4)] == [2, 4, 6, 8]
    assert [allocate([8, 2], layer, 5) for layer in range(5)] == [8, 8, 8, 2, 2]
    assert allocate(5, 3, 4) == 5
    with pytest.raises(BenchError, match="4 parts of the depth, but the model has 3 layers"):
        allocate([2, 4, 6, 8], 0, 3)


def mixture(model: nn.Module, **more: object) -> PeftModel:
    settings = {
        "r": 2,
        "experts": [2, 4],
        "share": "down",
        "top_k": 2,
        "target_modules": ["q_proj", "v_proj"],
    } | more
    return get_peft_model(model, MixtureConfig(task_type="CAUSAL_LM", **settings))


def stir(model: nn.Module) -> nn.Module:
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


def gradients(model: nn.Module, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
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
    "settings", [{"dropout": 0.3, "dropout_on": "weight"}, {"dropout": 0.3, "dropout_on": "gates", "capacity": 0.7}]
)
def test_gradient_checkpointing_changes_no_gradient(settings: dict[str, object]) -> None:
    """Dropout masks are replayed and the balance loss, taken outside the checkpoint, still has its graph."""
    base = build(config())
    ids, mask = torch.randint(3, 40, (2, 9)), torch.tensor([[1] * 9, [1] * 6 + [0] * 3])
    settings = settings | {"balance_coef": 0.5}
    torch.manual_seed(0)
    plain = stir(mixture(copy.deepcopy(base), **settings))
    torch.manual_seed(0)
    saved = stir(mixture(copy.deepcopy(base), **settings))
    saved.gradient_checkpointing_enable({"use_reentrant": False})
    saved.enable_input_require_grads()
    a, b = gradients(plain, ids, mask), gradients(saved, ids, mask)
    assert a.keys() == b.keys()
    assert len(a) == 4 * 2 * 3
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


def test_bfloat16_autocast() -> None:
    model = stir(mixture(build(config()))).train()
    ids = torch.randint(3, 40, (1, 6))
    exact = model(input_ids=ids).logits
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(input_ids=ids).logits
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.float(), exact, rtol=0.1, atol=0.3)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"experts": [2, 4], "top_k": 3}, "top_k is 3; allowed is none .* or 1 to 2"),
        ({"share": "left"}, "share is 'left'"),
        ({"dropout": 0.1}, "dropout_on is 'none'"),
        ({"experts": 0}, "experts is 0"),
        ({"dropout": 1.0, "dropout_on": "input"}, "below 1"),
        ({"experts": 1, "dropout": 0.1, "dropout_on": "gates"}, "gates only where every layer has more than one"),
        ({"capacity": 1.25}, "capacity is 1.25; allowed is none, or above 0 with a top_k"),
        ({"capacity": 0, "top_k": 2}, "capacity is 0"),
    ],
)
def test_settings_without_meaning_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(BenchError, match=said):
        MixtureConfig(**settings)


def test_one_expert_is_lora_and_has_no_router() -> None:
    one = MixtureLayer(nn.Linear(10, 7), "default", MixtureConfig(experts=1, r=3), experts=1, rank=3, alpha=6)
    assert "default" not in one.mixture_router
    nn.init.normal_(one.mixture_up["default"])
    x = torch.randn(4, 10)
    lora = one.base_layer(x) + 2 * x @ one.mixture_down["default"].T @ one.mixture_up["default"].T
    torch.testing.assert_close(one(x), lora)


def test_one_vector_is_a_batch_of_one() -> None:
    """Of one dimension, as a linear layer takes it too."""
    layer = MixtureLayer(
        nn.Linear(6, 5), "default", MixtureConfig(r=2, experts=3, top_k=2), experts=3, rank=2, alpha=4.0
    )
    with torch.no_grad():
        layer.mixture_up["default"].normal_()
    x = torch.randn(6)
    torch.testing.assert_close(layer(x), layer(x[None])[0])


def test_defaults_stand_in_one_place() -> None:
    """What a report fills in for a coordinate that a recipe leaves open is what the tuner runs."""
    config = MixtureConfig(target_modules=["q_proj"])
    assert {name: getattr(config, name) for name in asdict(Coordinates())} == asdict(Coordinates())
    assert Coordinates.of({"experts": 3, "target_modules": ["v_proj"]}) == replace(Coordinates(), experts=3)
