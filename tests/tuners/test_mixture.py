"""The mixture layer against the papers' equations, written here a second time as plain loops in float64."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mosld_bench.tuners.mixture import MixtureConfig, MixtureLayer, balance_loss, draw_masks, gate

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
    experts: int = 4, rank: int = 3, alpha: float = 6, d_in: int = 10, d_out: int = 7, **more: Any
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
    module: MixtureLayer, x: Tensor, mask: Tensor | None = None, routed: list[dict[int, Tensor]] | None = None
) -> Tensor:
    """h = W0 x + (alpha / r) sum_k S_k B_k A_k x, token by token and expert by expert (MoSLD, section 3).

    ``routed`` gives the tokens' gates by expert where they are not those of a plain top-K.
    """
    settings, experts, rank = module.settings["default"], module.experts["default"], module.rank["default"]
    down, up = module.mixture_down["default"], module.mixture_up["default"]
    if mask is not None:
        if settings.share == "up":
            up = mask * up / (1 - settings.dropout)
        else:
            down = mask * down / (1 - settings.dropout)
    router = module.mixture_router["default"]
    outputs = []
    for index, token in enumerate(x.reshape(-1, x.shape[-1])):
        p = probabilities(router, token)
        picked = sorted(range(experts), key=lambda n: -p[n].item())[: settings.top_k or experts]
        norm = sum(p[n] for n in picked) if settings.top_k and settings.renormalize else 1.0
        gates = {n: p[n] / norm for n in picked} if routed is None else routed[index]
        h = module.base_layer.weight @ token + module.base_layer.bias
        for n, g in gates.items():
            a = down if settings.share == "down" else down[n * rank : (n + 1) * rank]
            b = up if settings.share == "up" else up[:, n * rank : (n + 1) * rank]
            h = h + (settings.lora_alpha / rank) * g * (b @ (a @ token))
        outputs.append(h)
    return torch.stack(outputs).reshape(*x.shape[:-1], -1)


@pytest.mark.parametrize("point", POINTS, ids=lambda p: "-".join(map(str, p.values())))
def test_forward_and_gradients_equal_a_loop_over_experts(point: dict[str, Any]) -> None:
    module = layer(**point)
    x = torch.randn(2, 5, 10, dtype=torch.float64, requires_grad=True)
    target = torch.randn(2, 5, 7, dtype=torch.float64)
    names = [module.mixture_down["default"], module.mixture_up["default"], module.mixture_router["default"], x]
    ours, theirs = module(x), by_the_equations(module, x)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    mine = torch.autograd.grad(((ours - target) ** 2).sum(), names)
    plain = torch.autograd.grad(((theirs - target) ** 2).sum(), names)
    for a, b in zip(mine, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("share", ["none", "down", "up"])
def test_weight_dropout_masks_the_matrix_as_the_paper_does(share: str) -> None:
    module = layer(share=share, top_k=2, dropout=0.4, dropout_on="weight").train()
    draw_masks(module)
    mask = module.weight_mask["default"]
    shared = module.mixture_up["default"] if share == "up" else module.mixture_down["default"]
    assert mask.shape == shared.shape
    assert 0 < mask.double().mean() < 1
    x = torch.randn(3, 10, dtype=torch.float64)
    torch.testing.assert_close(module(x), by_the_equations(module, x, mask.double()), rtol=0, atol=1e-10)
    torch.testing.assert_close(module(x), module(x), rtol=0, atol=0)  # one mask a step, however many micro-batches


def test_weight_dropout_has_the_right_mean_and_is_off_at_inference() -> None:
    module = layer(share="down", dropout=0.1, dropout_on="weight")
    x = torch.randn(4, 10, dtype=torch.float64)
    quiet = module.eval()(x)
    torch.testing.assert_close(quiet, by_the_equations(module, x), rtol=0, atol=1e-10)
    module.train()
    kept, total = 0.0, torch.zeros_like(quiet)
    draws = 4000
    for _ in range(draws):
        draw_masks(module)
        kept += float(module.weight_mask["default"].double().mean())
        total += module(x).detach()
    assert kept / draws == pytest.approx(0.9, abs=0.002)  # 120,000 draws: 0.002 is more than two standard errors
    torch.testing.assert_close(total / draws, quiet, rtol=0.05, atol=0.1)


def test_without_draw_masks_every_forward_draws_anew() -> None:
    module = layer(share="down", dropout=0.5, dropout_on="weight").train()
    x = torch.randn(4, 10, dtype=torch.float64)
    assert not torch.equal(module(x), module(x))


@pytest.mark.parametrize("place", ["input", "hidden"])
def test_other_dropouts_act_in_training_only(place: str) -> None:
    module = layer(share="down", dropout=0.5, dropout_on=place)
    x = torch.randn(4, 10, dtype=torch.float64)
    torch.testing.assert_close(module.eval()(x), by_the_equations(module, x), rtol=0, atol=1e-10)
    module.train()
    assert not torch.equal(module(x), module(x))


def sira_gates(module: MixtureLayer, x: Tensor, real: Tensor, kept: Tensor) -> list[dict[int, Tensor]]:
    """SiRA's gates in training, for x (B, T, d): expert dropout, then top-K, then first come first served."""
    settings, experts = module.settings["default"], module.experts["default"]
    gates_of_tokens = []
    for sequence, is_real, keeps in zip(x, real.tolist(), kept.tolist(), strict=True):
        share = Fraction(str(settings.capacity or experts)) * sum(is_real) * settings.top_k / experts
        taken = [0] * experts
        for token, counts, keep in zip(sequence, is_real, keeps, strict=True):
            p = probabilities(module.mixture_router["default"], token)
            left = [n for n in range(experts) if keep[n]]
            picked = sorted(left, key=lambda n: -p[n].item())[: settings.top_k]
            scores = {n: p[n] / (1 - settings.dropout) for n in picked}
            norm = sum(scores.values()) if settings.renormalize and scores else 1.0
            gates = {}
            for n in picked:
                taken[n] += counts
                if taken[n] <= math.ceil(share):
                    gates[n] = scores[n] / norm
            gates_of_tokens.append(gates)
    return gates_of_tokens


@pytest.mark.parametrize("renormalize", [False, True])
@pytest.mark.parametrize("share", ["none", "down", "up"])
@pytest.mark.parametrize(
    ("dropout", "capacity", "top_k"), [(0.4, None, 2), (0.0, 0.7, 2), (0.4, 0.7, 2), (0.6, 1.0, 4)]
)
def test_sira_equals_a_loop_with_expert_dropout_and_capacity(
    share: str, dropout: float, capacity: float | None, top_k: int, renormalize: bool
) -> None:
    module = layer(share=share, top_k=top_k, renormalize=renormalize, capacity=capacity, dropout=dropout,
                dropout_on="gates" if dropout else "none").train()  # fmt: skip
    x = torch.randn(3, 9, 10, dtype=torch.float64, requires_grad=True)
    real = torch.tensor([[1] * 9, [1] * 5 + [0] * 4, [0] * 3 + [1] * 6])
    module.current.mask = real
    torch.manual_seed(11)
    kept = F.dropout(torch.ones(3, 9, 4, dtype=torch.float64), dropout) > 0
    torch.manual_seed(11)
    ours = module(x)[real.bool()]
    routed = sira_gates(module, x, real, kept)
    theirs = by_the_equations(module, x, routed=routed)[real.bool()]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    names = [module.mixture_down["default"], module.mixture_up["default"], module.mixture_router["default"], x]
    mine = torch.autograd.grad((ours**2).sum(), names)
    plain = torch.autograd.grad((theirs**2).sum(), names)
    for a, b in zip(mine, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_capacity_and_expert_dropout_hold_in_training_only() -> None:
    module = layer(top_k=2, capacity=0.5, dropout=0.5, dropout_on="gates")
    x = torch.randn(2, 8, 10, dtype=torch.float64)
    torch.testing.assert_close(module.eval()(x), by_the_equations(module, x), rtol=0, atol=1e-10)
    assert not torch.equal(module.train()(x), module(x))


def test_routing_waits_for_no_value() -> None:
    """On the meta device there are no values: a step that asked the device for one would fail there."""
    module = layer(top_k=2, capacity=0.5, dropout=0.5, dropout_on="gates", balance_coef=1.0).to("meta").train()
    module.current.mask = torch.ones(2, 8, device="meta")
    module(torch.randn(2, 8, 10, dtype=torch.float64, device="meta")).sum().backward()
    assert module.mixture_router["default"].grad is not None


def test_the_balance_loss_is_of_the_picks_made_before_the_capacity_limit() -> None:
    """P_i is taken without dropout, f_i from the picks made."""
    module = layer(top_k=2, capacity=0.25, dropout=0.5, dropout_on="gates", balance_coef=1.0).train()
    x = torch.randn(30, 10, dtype=torch.float64)
    torch.manual_seed(4)
    module(x)
    torch.manual_seed(4)
    gates, p = gate(F.linear(x, module.mixture_router["default"]), 2, False, 0.5)
    torch.testing.assert_close(module.balance, balance_loss(gates, p))  # before the capacity limit


def test_one_expert_is_lora_and_has_no_router() -> None:
    module = MixtureLayer(nn.Linear(10, 7), "default", MixtureConfig(experts=1, r=3), experts=1, rank=3, alpha=6)
    assert "default" not in module.mixture_router
    nn.init.normal_(module.mixture_up["default"])
    x = torch.randn(4, 10)
    lora = module.base_layer(x) + 2 * x @ module.mixture_down["default"].T @ module.mixture_up["default"].T
    torch.testing.assert_close(module(x), lora)


def test_one_vector_is_a_batch_of_one() -> None:
    """Of one dimension, as a linear layer takes it too."""
    layer = MixtureLayer(
        nn.Linear(6, 5), "default", MixtureConfig(r=2, experts=3, top_k=2), experts=3, rank=2, alpha=4.0
    )
    with torch.no_grad():
        layer.mixture_up["default"].normal_()
    x = torch.randn(6)
    torch.testing.assert_close(layer(x), layer(x[None])[0])
