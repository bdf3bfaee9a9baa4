"""A method on a copy of the base model: what trains is the copy's own, in float32, and the base stays as it is."""

from __future__ import annotations

from typing import Any

import torch

from mosld_bench.methods import registry
from mosld_bench.methods.live import attached_copy, copy_sharing_weights, own_if_written, unshare_trainable
from tests.support.models import build, config

LORA = {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj", "v_proj"]}


def test_what_trains_is_float32_whatever_the_dtype_of_the_model() -> None:
    base = build(config(layers=2)).to(torch.bfloat16)
    full = attached_copy(registry.get("full"), base, {}, seed=0)
    assert {p.dtype for p in full.unshared} == {torch.float32}
    assert {id(p) for p in full.unshared} == {id(p) for p in full.model.parameters()}
    assert {p.dtype for p in base.parameters()} == {torch.bfloat16}
    lora = attached_copy(registry.get("peft"), base, LORA, seed=0)
    assert lora.unshared == []
    assert {p.dtype for p in lora.model.parameters() if p.requires_grad} == {torch.float32}


def test_a_copy_shares_what_does_not_train_and_its_seed_fixes_the_rest() -> None:
    base = build(config(layers=2))
    first, again, other = (attached_copy(registry.get("peft"), base, LORA, seed=seed).model for seed in (1, 1, 2))
    shared = {p.data_ptr() for p in base.parameters()}
    assert {p.data_ptr() for p in first.parameters() if not p.requires_grad} == shared
    assert not any(p.requires_grad for p in base.parameters())

    def initial(model: torch.nn.Module) -> torch.Tensor:
        return torch.cat([p.flatten() for p in model.parameters() if p.requires_grad])

    assert torch.equal(initial(first), initial(again))
    assert not torch.equal(initial(first), initial(other))


def test_copies_share_memory_until_trained() -> None:
    base = build(config())
    before = {n: p.clone() for n, p in base.named_parameters()}
    adapted = registry.get("peft").attach(copy_sharing_weights(base), LORA)
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


def test_a_part_of_a_base_weight_that_trains_is_the_copy_s_own() -> None:
    """Its memory begins within that of the weight."""

    class Rows(torch.nn.Module):
        def __init__(self, weight: torch.Tensor) -> None:
            super().__init__()
            self.rows = torch.nn.Parameter(weight[5:9])

    base: Any = build(config(layers=1))
    copied: Any = copy_sharing_weights(base)
    model = Rows(copied.lm_head.weight.detach())
    assert unshare_trainable(model, base) == [model.rows]
    kept = base.lm_head.weight.clone()
    with torch.no_grad():
        model.rows.zero_()
    assert torch.equal(base.lm_head.weight, kept)


def test_whoever_writes_into_a_shared_weight_has_it_to_himself_with_all_its_views() -> None:
    base: Any = build(config(layers=1))
    kept = {name: parameter.clone() for name, parameter in base.named_parameters()}
    copied: Any = copy_sharing_weights(base)
    weight = copied.lm_head.weight
    view = weight.detach()[2:]
    with own_if_written(base):
        weight.data *= 2
        weight.data *= 2
    assert torch.equal(weight, kept["lm_head.weight"] * 4)
    assert torch.equal(view, weight[2:])
    assert all(torch.equal(parameter, kept[name]) for name, parameter in base.named_parameters())
    shared = {p.data_ptr() for p in base.parameters()} & {p.data_ptr() for p in copied.parameters()}
    assert len(shared) == len(kept) - 1
