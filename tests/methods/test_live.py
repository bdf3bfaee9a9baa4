"""A method on a model in memory: what it shares with the base, and what it owns."""

from __future__ import annotations

import torch

from mosld_bench.methods import registry
from mosld_bench.methods.live import copy_sharing_weights, unshare_trainable
from mosld_bench.spec.recipe import load_recipes
from tests.conftest import REPOSITORY
from tests.support.models import build, config


def test_copies_share_memory_until_trained() -> None:
    base = build(config())
    lora = load_recipes(REPOSITORY / "methods")["lora"]
    before = {n: p.clone() for n, p in base.named_parameters()}
    adapted = registry.get("peft").attach(copy_sharing_weights(base), lora.params)
    unshare_trainable(adapted, base)
    frozen = [p for p in adapted.parameters() if not p.requires_grad]
    assert {p.data_ptr() for p in frozen} == {p.data_ptr() for p in base.parameters()}
    whole = registry.get("full").attach(copy_sharing_weights(base), {})
    unshare_trainable(whole, base)
    assert not {p.data_ptr() for p in whole.parameters()} & {p.data_ptr() for p in base.parameters()}
    with torch.no_grad():
        for p in whole.parameters():
            p.zero_()
    assert all(torch.equal(p, before[n]) for n, p in base.named_parameters())
    assert not any(p.requires_grad for p in base.parameters())
