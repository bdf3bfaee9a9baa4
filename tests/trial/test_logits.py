"""Logits at chosen places: the head there and nowhere else, in float32 where scores are compared."""

from __future__ import annotations

import torch

from mosld_bench.trial.logits import logits_at, padded
from tests.support.models import build, config


def test_scores_of_a_bfloat16_model_have_a_float32_head() -> None:
    """Between 8 and 16 bfloat16 logits are a sixteenth apart; those that are compared must not be."""
    model = build(config()).to(torch.bfloat16)
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    ids = torch.arange(3, 13).unsqueeze(0)
    rows, columns = torch.zeros(4, dtype=torch.long), torch.tensor([2, 4, 6, 9])
    plain = logits_at(model, rows, columns, input_ids=ids)
    exact = logits_at(model, rows, columns, exact=True, input_ids=ids)
    assert (plain.dtype, exact.dtype) == (torch.bfloat16, torch.float32)
    assert torch.allclose(exact, plain.float(), rtol=1e-2, atol=1e-1)
    assert torch.unique(exact).numel() > torch.unique(plain).numel()
    hidden = model.model(input_ids=ids).last_hidden_state[0, columns].float()
    assert torch.allclose(exact, hidden @ model.lm_head.weight.float().T, atol=1e-4)


def test_logits_are_those_of_the_whole_batch_at_these_places() -> None:
    model = build(config())
    ids, mask = padded([[3, 4, 5, 6], [7, 8]], 0, "cpu")
    assert (ids.tolist(), mask.tolist()) == ([[3, 4, 5, 6], [7, 8, 0, 0]], [[1, 1, 1, 1], [1, 1, 0, 0]])
    rows, columns = torch.tensor([1, 0, 0]), torch.tensor([1, 3, 0])
    everywhere = model(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(
        logits_at(model, rows, columns, input_ids=ids, attention_mask=mask), everywhere[rows, columns]
    )
