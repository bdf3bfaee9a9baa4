"""Packed scoring by FlexAttention gives the scores of the dense mask; whether it is faster, the benchmark says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention
from transformers.integrations import flex_attention as integration

from mosld_bench.trial.packed_scoring import score_packed
from tests.benchmarks import flex
from tests.support.models import VOCABULARY, build, config


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
@pytest.mark.parametrize("trunk_overhead", [16, 1 << 20])
def test_blocks_give_the_scores_of_the_dense_mask(trunk_overhead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With trunks whose keys are kept, and without; not compiled, so that no compiler is needed."""

    def eager(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, training: bool = False, **more: Any) -> Any:
        return flex_attention(query, key, value, **more)

    monkeypatch.setattr(integration, "compile_friendly_flex_attention", eager)
    monkeypatch.setattr(flex, "STORY", 40)
    monkeypatch.setattr(flex, "QUESTIONS", 3)
    model = build(config(), spread=2.0)
    pending = flex.requests(VOCABULARY)
    dense = score_packed(model, pending, pad=0, tokens=400, width=64, trunk_overhead=trunk_overhead)
    with flex.by_blocks(model):
        blocks = score_packed(model, pending, pad=0, tokens=400, width=64, trunk_overhead=trunk_overhead)
    assert flex.gap(blocks, dense) < 1e-4
    assert [greedy for _, greedy in blocks] == [greedy for _, greedy in dense]
    assert flex.gap(score_packed(model, pending, pad=0, tokens=400, width=64), dense) < 1e-4
