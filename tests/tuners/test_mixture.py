"""The mixture layer against the papers' equations, written here a second time as plain loops in float64."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mosld_bench.tuners.mixture import (
    MixtureConfig,
    MixtureLayer,
    balance_loss,
    counts_loss,
    draw_masks,
    gate,
    keep_dropped,
    routing,
)

POINTS = [
    {"share": "none"},
    {"share": "none", "top_k": 2},
    {"share": "none", "top_k": 2, "renormalize": False},
    {"share": "down"},
    {"share": "down", "top_k": 1, "renormalize": False},
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
    module: MixtureLayer,
    x: Tensor,
    *,
    routed: list[dict[int, Tensor]] | None = None,
    down_mask: Tensor | None = None,
    up_mask: Tensor | None = None,
    input_kept: Tensor | None = None,
    hidden_kept: Tensor | None = None,
) -> Tensor:
    """h = W0 x + (alpha / r) sum_k S_k B_k A_k x, token by token and expert by expert (MoSLD, section 3).

    ``routed`` gives the tokens' gates by expert where they are not those of a plain top-K. Dropout is given by its
    factors, 0 or 1 / (1 - q): on the weights of A or B, on the experts' x, and on the rows of A x.
    """
    settings, experts, rank = module.settings["default"], module.experts["default"], module.rank["default"]
    down, up = module.mixture_down["default"], module.mixture_up["default"]
    down = down if down_mask is None else down_mask * down
    up = up if up_mask is None else up_mask * up
    router = module.mixture_router["default"]
    outputs = []
    for index, token in enumerate(x.reshape(-1, x.shape[-1])):
        p = probabilities(router, token)
        picked = sorted(range(experts), key=lambda n: -p[n].item())[: settings.top_k or experts]
        norm = sum(p[n] for n in picked) if settings.top_k and settings.renormalize else 1.0
        gates = {n: p[n] / norm for n in picked} if routed is None else routed[index]
        h = module.base_layer.weight @ token + module.base_layer.bias
        read = token if input_kept is None else token * input_kept.reshape(-1, x.shape[-1])[index]
        for n, g in gates.items():
            own = slice(n * rank, (n + 1) * rank)
            rows = slice(None) if settings.share == "down" else own
            hidden = down[rows] @ read
            if hidden_kept is not None:
                hidden = hidden * hidden_kept.reshape(-1, hidden_kept.shape[-1])[index][rows]
            h = h + (settings.lora_alpha / rank) * g * ((up if settings.share == "up" else up[:, own]) @ hidden)
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


@pytest.mark.parametrize(
    ("share", "matrix", "masked"),
    [
        ("none", "shared", "down"), ("down", "shared", "down"), ("up", "shared", "up"),
        ("down", "up", "up"), ("none", "up", "up"), ("up", "down", "down"), ("down", "down", "down"),
    ],
)  # fmt: skip
def test_weight_dropout_masks_the_matrix_as_the_paper_does(share: str, matrix: str, masked: str) -> None:
    """The shared one, or that of ``dropout_matrix``: A shared and B dropped is how Table 2 can be read, too."""
    module = layer(share=share, top_k=2, dropout=0.4, dropout_on="weight", dropout_matrix=matrix).train()
    draw_masks(module)
    mask = module.weight_mask["default"]
    assert mask.shape == getattr(module, f"mixture_{masked}")["default"].shape
    assert 0 < mask.double().mean() < 1
    x = torch.randn(3, 10, dtype=torch.float64)
    factors: dict[str, Any] = {f"{masked}_mask": mask.double() / 0.6}
    plain = by_the_equations(module, x, **factors)
    torch.testing.assert_close(module(x), plain, rtol=0, atol=1e-10)
    torch.testing.assert_close(module(x), module(x), rtol=0, atol=0)  # one mask a step, however many micro-batches


@pytest.mark.parametrize("share", ["none", "down", "up"])
def test_dropout_on_several_places_is_each_of_them(share: str) -> None:
    """Input, weights and hidden under rates of their own; the router reads all of the input."""
    module = layer(share=share, top_k=2, dropout={"input": 0.3, "weight": 0.4, "hidden": 0.2}).train()
    draw_masks(module)
    x = torch.randn(2, 5, 10, dtype=torch.float64)
    torch.manual_seed(6)
    ours = module(x)
    torch.manual_seed(6)
    input_kept = F.dropout(torch.ones_like(x), 0.3)
    rows = module.mixture_down["default"].shape[0]
    hidden_kept = F.dropout(torch.ones(2, 5, rows, dtype=torch.float64), 0.2)
    mask: dict[str, Any] = {f"{'up' if share == 'up' else 'down'}_mask": module.weight_mask["default"].double() / 0.6}
    theirs = by_the_equations(module, x, input_kept=input_kept, hidden_kept=hidden_kept, **mask)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    torch.testing.assert_close(module.eval()(x), by_the_equations(module, x), rtol=0, atol=1e-10)


def test_a_mapping_of_one_place_is_that_place() -> None:
    x = torch.randn(4, 10, dtype=torch.float64)
    outputs = []
    for settings in ({"dropout": {"input": 0.3, "weight": 0}}, {"dropout": 0.3, "dropout_on": "input"}):
        module = layer(share="down", **settings).train()
        torch.manual_seed(2)
        outputs.append(module(x))
    assert torch.equal(*outputs)


def adamw_by_hand(values: Tensor, gradients: list[Tensor], step: int, rate: float, decay: float) -> Tensor:
    """What AdamW (betas 0.9 and 0.999) makes of ``values`` in step ``step``, from the gradients of all steps so far."""
    first, second = torch.zeros_like(values), torch.zeros_like(values)
    for gradient in gradients:
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
    scaled = (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
    return values - rate * decay * values - rate * scaled


@pytest.mark.parametrize(
    ("share", "matrix", "masked"), [("down", "shared", "down"), ("down", "up", "up"), ("up", "shared", "up")]
)
def test_update_dropout_is_adamw_with_a_mask_on_its_steps(share: str, matrix: str, masked: str) -> None:
    """W <- M * W' + (1 - M) * W by the gradient M * dL/dW, over several steps, by hand and by torch."""
    module = layer(share=share, top_k=2, dropout=0.5, dropout_on="update", dropout_matrix=matrix).train()
    plain = layer(share=share, top_k=2, dropout=0.5, dropout_on="update", dropout_matrix=matrix)
    names = ("down", "up", "router")
    ours = {name: getattr(module, f"mixture_{name}")["default"] for name in names}
    theirs = {name: getattr(plain, f"mixture_{name}")["default"] for name in names}
    optimizer = torch.optim.AdamW(ours.values(), lr=0.05, weight_decay=0.1)
    gradients: dict[str, list[Tensor]] = {name: [] for name in names}
    for step in range(1, 5):
        x = torch.randn(6, 10, dtype=torch.float64)
        before = ours[masked].detach().clone()
        draw_masks(module)
        mask = module.weight_mask["default"].clone()
        for half in (x[:3], x[3:]):  # two micro-batches, under one mask
            (module(half) ** 2).sum().backward()
        assert (ours[masked].grad[~mask] == 0).all()
        optimizer.step()
        keep_dropped(module)
        optimizer.zero_grad()
        found = torch.autograd.grad((by_the_equations(plain, x) ** 2).sum(), list(theirs.values()))
        for (name, values), gradient in zip(theirs.items(), found, strict=True):
            keeps = mask.double() if name == masked else torch.ones_like(values)
            gradients[name].append(keeps * gradient)
            made = adamw_by_hand(values.detach(), gradients[name], step, 0.05, 0.1)
            values.data = keeps * made + (1 - keeps) * values.detach()
            torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-10)
        assert torch.equal(ours[masked][~mask], before[~mask])
        assert (ours[masked][mask] != before[mask]).all()


def test_a_weight_that_the_forward_mask_drops_moves_all_the_same() -> None:
    """What sets the two readings of MoSLD's dropout apart: AdamW's momentum and decay know no mask."""
    module = layer(share="down", dropout=0.5, dropout_on="weight").train()
    weight = module.mixture_down["default"]
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.05)
    for _ in range(2):
        before = weight.detach().clone()
        draw_masks(module)
        module(torch.randn(6, 10, dtype=torch.float64)).square().sum().backward()
        optimizer.step()
        keep_dropped(module)
        optimizer.zero_grad()
    dropped = ~module.weight_mask["default"]
    assert (weight[dropped] != before[dropped]).all()


def test_update_dropout_leaves_the_forward_as_it_is() -> None:
    module = layer(share="down", top_k=2, dropout=0.5, dropout_on="update")
    x = torch.randn(4, 10, dtype=torch.float64)
    whole = module.eval()(x)
    assert torch.equal(module.train()(x), whole)
    draw_masks(module)
    assert torch.equal(module(x), whole)


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


@pytest.mark.parametrize("place", ["input", "hidden", "weight"])
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
            scores = {n: p[n] / (1 - settings.dropouts.get("gates", 0.0)) for n in picked}
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


#: Routed layers of any kind take picks by float32 logits; dense ones mix by them.
ROUTED: list[dict[str, Any]] = [
    {"share": "none", "top_k": 2},
    {"share": "down", "top_k": 2, "dropout": 0.1, "dropout_on": "input"},
    {"share": "up", "top_k": 2, "dropout": 0.1, "dropout_on": "weight"},
    {"share": "down"},
]


@pytest.mark.parametrize("point", ROUTED, ids=lambda p: "-".join(map(str, p.values())))
def test_training_in_bfloat16_routes_as_scoring_does(point: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Adapters are float32; training runs under autocast, scoring does not. Every token has the same gates in both."""
    seen: list[Tensor] = []

    def watched(logits: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
        seen.append(gate(logits, *args)[0])
        return gate(logits, *args)

    monkeypatch.setattr(routing, "gate", watched)
    module = layer(experts=8, d_in=64, **point).float()
    module.base_layer.bfloat16()
    x = torch.randn(4000, 64, dtype=torch.bfloat16)
    module.eval()(x)
    with torch.autocast("cpu", torch.bfloat16):
        module.train()(x)
    scored, trained = seen
    assert trained.dtype == torch.float32
    torch.testing.assert_close(trained, scored, rtol=0, atol=1e-6)
    assert torch.equal(trained > 0, scored > 0)
    rough, _ = gate(F.linear(x, module.mixture_router["default"].bfloat16()), point.get("top_k"), True)
    assert point.get("top_k") is None or (rough > 0).ne(scored > 0).any()  # what bfloat16 would have picked


@pytest.mark.parametrize("drops_input", [False, True])
def test_adapters_in_bfloat16_route_in_float32(drops_input: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As PEFT leaves them with ``autocast_adapter_dtype`` off: with and without dropout the router is the same."""
    seen: list[Tensor] = []

    def watched(logits: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
        seen.append(logits)
        return gate(logits, *args)

    monkeypatch.setattr(routing, "gate", watched)
    dropout: dict[str, Any] = {"dropout": 0.2, "dropout_on": "input"} if drops_input else {}
    module = layer(share="down", top_k=2, **dropout).bfloat16()
    x = torch.randn(50, 10, dtype=torch.bfloat16)
    assert module.eval()(x).dtype == module.train()(x).dtype == torch.bfloat16
    scored, trained = seen
    assert scored.dtype == torch.float32
    assert torch.equal(scored, trained)


@pytest.mark.parametrize("drops_input", [False, True])
def test_training_in_float32_is_one_product_of_down_and_router_to_the_bit(drops_input: bool) -> None:
    """As it was before routers had a product of their own under autocast: kept numbers are of this formula."""
    dropout: dict[str, Any] = {"dropout": 0.2, "dropout_on": "input"} if drops_input else {}
    module = layer(share="down", top_k=2, **dropout).float().train()
    down, up, router = (getattr(module, f"mixture_{name}")["default"] for name in ("down", "up", "router"))
    x = torch.randn(2, 9, 10, requires_grad=True)
    torch.manual_seed(3)
    ours = module(x)
    torch.manual_seed(3)
    y = module.base_layer(x)
    if drops_input:
        hidden, logits = F.linear(F.dropout(x, 0.2), down), F.linear(x, router)
    else:
        both = F.linear(x, torch.cat([down, router]))
        hidden, logits = both[..., :3], both[..., 3:]
    gates = gate(logits, 2, True)[0] * 2.0
    mixed = (gates.unsqueeze(-1) * hidden.unsqueeze(-2)).flatten(-2)
    theirs = torch.addmm(y.flatten(0, -2), mixed.flatten(0, -2), up.t()).view_as(ours)
    assert torch.equal(ours, theirs)
    wanted = (down, up, router, x)
    mine = torch.autograd.grad(ours.square().sum(), wanted)
    plain = torch.autograd.grad(theirs.square().sum(), wanted)
    assert all(torch.equal(a, b) for a, b in zip(mine, plain, strict=True))


@pytest.mark.parametrize("masked", [False, True])
def test_the_loss_of_counts_is_eq_4_by_loops(masked: bool) -> None:
    """sum_k c_k s_k over experts, with a softmax over a token's picks of gates that sum to one already."""
    module = layer(top_k=2, balance_coef=1.0, balance_form="counts").train()
    x = torch.randn(2, 6, 10, dtype=torch.float64)
    real = torch.tensor([[1] * 6, [1] * 4 + [0] * 2]) if masked else None
    module.current.mask = real
    module(x)
    counts, sums = [0] * 4, [torch.zeros((), dtype=torch.float64)] * 4
    for token, is_real in zip(x.reshape(-1, 10), [1] * 12 if real is None else real.flatten().tolist(), strict=True):
        p = probabilities(module.mixture_router["default"], token)
        picked = sorted(range(4), key=lambda n: -p[n].item())[:2]
        powers = {n: math.e ** (p[n] / sum(p[m] for m in picked)) for n in picked}
        for n in picked:
            counts[n] += is_real
            sums[n] = sums[n] + is_real * powers[n] / sum(powers.values())
    by_hand = torch.stack([count * total for count, total in zip(counts, sums, strict=True)]).sum()
    assert module.balance is not None
    torch.testing.assert_close(module.balance, by_hand, rtol=0, atol=1e-10)
    router = module.mixture_router["default"]
    mine, plain = (torch.autograd.grad(loss, router)[0] for loss in (module.balance, by_hand))
    torch.testing.assert_close(mine, plain, rtol=0, atol=1e-10)


def test_the_loss_of_counts_grows_with_the_square_of_the_tokens() -> None:
    picks = torch.stack([torch.roll(torch.tensor([0.5, 0.5, 0.0, 0.0]), n) for n in range(4)])
    for times in (1, 10):
        assert float(counts_loss(picks.repeat(times, 1))) == pytest.approx((4 * times) ** 2 * 2 / 4)
    assert float(counts_loss(torch.zeros(3, 4))) == 0  # every expert of every token dropped
