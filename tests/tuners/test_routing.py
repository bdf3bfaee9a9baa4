"""Gates, capacity and balance loss by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mosld_bench.tuners.mixture import balance_loss, gate, router_logits, within_capacity


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_router_logits_are_the_plain_product_where_nothing_is_cast(dtype: torch.dtype) -> None:
    x, router = torch.randn(30, 16, dtype=dtype), torch.randn(6, 16, dtype=dtype)
    assert torch.equal(router_logits(x, router), F.linear(x, router))


@pytest.mark.parametrize("cast", [torch.bfloat16, torch.float16])
def test_router_logits_are_float32_whatever_autocast_says(cast: torch.dtype) -> None:
    """For inputs and routers of any dtype, and with gradients of the same."""
    x, router = torch.randn(30, 16).to(cast), torch.randn(6, 16)
    plain = F.linear(x.float(), router)
    assert torch.equal(router_logits(x, router), plain)
    assert router_logits(x, router.to(cast)).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert F.linear(x, router).dtype == torch.bfloat16
        assert torch.equal(router_logits(x, router), plain)
        assert torch.equal(router_logits(x.float(), router), plain)


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


def test_expert_dropout_of_all_experts() -> None:
    """No expert left: no update and no infinite gradient. Probabilities are without dropout."""
    logits = torch.randn(200, 3, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(2)
    gates, p = gate(logits, 2, renormalize=True, dropout=0.7)
    assert ((gates > 0).sum(-1) == 0).any()
    torch.testing.assert_close(p, logits.softmax(-1))
    torch.testing.assert_close(gates.sum(-1), (gates > 0).any(-1).double())
    torch.autograd.backward(gates.square().sum())
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
