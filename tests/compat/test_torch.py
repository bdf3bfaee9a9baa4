"""What compat/torch.py assumes of torch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as modules

from mosld_bench.compat.torch import AcrossDevices, before_writes, drop_hooks_of_all, hooks, hooks_of_all, memory
from tests.compat.assumption import assumed
from tests.support.devices import several_devices

#: Ways to write into a tensor.
WRITES: dict[str, Callable[[Tensor], object]] = {
    "in place": lambda tensor: tensor.add_(1),
    "through .data": lambda tensor: tensor.data.sub_(1),
    "an operator": lambda tensor: tensor.data.__isub__(1),
    "a view": lambda tensor: tensor[1:, 2].zero_(),
    "an index": lambda tensor: tensor.__setitem__((0, 0), 5.0),
    "indices": lambda tensor: tensor.index_copy_(0, torch.tensor([1]), torch.ones(1, 4)),
    "out": lambda tensor: torch.mul(tensor, 2, out=tensor),
    "many at once": lambda tensor: torch._foreach_add_([tensor], 1.0),
    "a copy": lambda tensor: tensor.copy_(torch.ones(4, 4)),
    "an initial value": lambda tensor: nn.init.normal_(tensor),
}

#: What reads, or puts other memory in the place of this.
READS: dict[str, Callable[[Tensor], object]] = {
    "a product": lambda tensor: tensor @ tensor,
    "a conversion": lambda tensor: tensor.to(torch.float32).to(torch.bfloat16),
    "a decomposition": lambda tensor: torch.linalg.qr(tensor.data),
    "other memory": lambda tensor: setattr(tensor, "data", torch.zeros(4, 4)),
    "a copy": lambda tensor: tensor.clone().zero_(),
}


@pytest.mark.parametrize("way", WRITES)
def test_a_write_is_seen_before_it_happens(way: str) -> None:
    with assumed("torch", f"a write ({way}) is an operation whose schema says that it writes"):
        tensor = nn.Parameter(torch.eye(4), requires_grad=False)
        found: list[tuple[int, bool]] = []
        with before_writes([memory(tensor)], lambda at: found.append((at, torch.equal(tensor, torch.eye(4))))):
            WRITES[way](tensor)
        assert (memory(tensor), True) in found
        assert not torch.equal(tensor, torch.eye(4))


@pytest.mark.parametrize("way", READS)
def test_what_does_not_write_is_not_taken_for_a_write(way: str) -> None:
    with assumed("torch", f"{way} is no operation that writes"):
        tensor = nn.Parameter(torch.eye(4), requires_grad=False)
        found: list[int] = []
        with before_writes([memory(tensor)], found.append):
            READS[way](tensor)
        assert found == []


def test_views_are_in_the_memory_of_what_they_look_at() -> None:
    with assumed("torch", "a view has its tensor's untyped_storage, and a sparse tensor none"):
        tensor = torch.eye(4)
        assert memory(tensor[1:, 2:]) == memory(tensor.T) == memory(tensor.detach()) == memory(tensor)
        assert memory(tensor.clone()) != memory(tensor)
        assert memory(tensor.to_sparse()) == 0


def test_hooks_of_one_module_and_of_all() -> None:
    with assumed("torch", "hooks are the values of dictionaries by the names that compat/torch.py has"):
        layer, kept = nn.Linear(1, 1), hooks_of_all()
        assert hooks(layer) == []
        for count, register in enumerate(
            (layer.register_forward_hook, layer.register_forward_pre_hook, layer.register_full_backward_hook,
             layer.register_full_backward_pre_hook), 1,
        ):  # fmt: skip
            register(lambda *arguments: None)  # type: ignore[operator]
            assert len(hooks(layer)) == count
        for count, register_for_all in enumerate(
            (modules.register_module_forward_hook, modules.register_module_forward_pre_hook,
             modules.register_module_full_backward_hook, modules.register_module_full_backward_pre_hook), 1,
        ):  # fmt: skip
            register_for_all(lambda *arguments: None)  # type: ignore[operator]
            assert len(hooks_of_all()) == len(kept) + count
        drop_hooks_of_all(but=kept)
        assert hooks_of_all() == kept
        nn.Linear(1, 1)(torch.ones(1))


def test_what_a_library_joins_across_devices_is_on_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    with several_devices(monkeypatch):
        parts = [torch.full((1,), float(place), device=f"cpu:{place}") for place in range(3)]
        for join in (torch.cat, torch.stack):
            with pytest.raises(RuntimeError, match="same device"):
                join(parts)
            with AcrossDevices():
                joined = join(parts)
            assert str(joined.device) == "cpu:0"
            assert joined.flatten().tolist() == [0, 1, 2]
