"""Methods on a model in memory: a copy that costs nothing, the weights that it trains, the tokens before every text."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import nn

    from mosld_bench.methods.base import Method


class AttachedModel(NamedTuple):
    """A model with a method attached, and those of its parameters that are copies of the base model's (full tuning).

    These are float32 and are cast back to the dtype of the base model before it is scored.
    """

    model: nn.Module
    unshared: list[nn.Parameter]


def attached_copy(method: Method, base: nn.Module, params: Mapping[str, Any], *, seed: int) -> AttachedModel:
    """The model that a trial trains: ``method`` at ``params`` on a copy of ``base``, on the devices of ``base``.

    The copy shares every weight that does not train and is not written by ``attach``, so that it costs no more memory
    than these. Initial values come from the global generators, which are seeded with ``seed`` and go on from there.
    """
    from mosld_bench.compat.peft import remember_start
    from mosld_bench.methods.attaching import attach
    from mosld_bench.methods.stages import one_stream, to_devices_of

    seed_generators(seed)
    with own_if_written(base), one_stream(base):
        model = attach(method, copy_sharing_weights(base), params)
    model = to_devices_of(model, base)
    unshared = unshare_trainable(model, base)
    remember_start(model)
    return AttachedModel(model, unshared)


def seed_generators(seed: int) -> None:
    """Seed every global generator that a method may draw from: torch's, NumPy's and Python's."""
    import random

    import numpy as np
    import torch

    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def copy_sharing_weights(base: nn.Module) -> nn.Module:
    """A copy of ``base`` with modules of its own and the same weights in memory.

    A method may wrap, replace and train what it likes in the copy: weights that it trains must be made its own first
    (:func:`unshare_trainable`), and what it writes while it attaches becomes its own inside :func:`own_if_written`. All
    others stay shared with ``base`` and cost nothing.
    """
    from torch import nn

    from mosld_bench.compat.bitsandbytes import is_rounded, shared_with_copy

    plain = (p for p in base.parameters() if not is_rounded(p))
    shared: dict[int, Any] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in plain}
    return copy.deepcopy(base, shared | shared_with_copy(base))


@contextmanager
def own_if_written(base: nn.Module) -> Iterator[None]:
    """Inside the block, whoever writes into a weight that it shares with ``base`` has that weight to itself from then.

    Some initial values are taken out of the base weights, in place: OLoRA's and PiSSA's. ``base`` moves away before the
    first write, into new memory with the same values; the old memory and all views of it are left to the writer. So
    only what is written costs memory. Writes that torch does not see (``.numpy()``) are not stopped:
    :class:`mosld_bench.methods.shared_state.SharedState` finds them.
    """
    from mosld_bench.compat.torch import before_writes, memory

    weights = defaultdict(list)
    for tensor in (*base.parameters(), *base.buffers()):
        weights[memory(tensor)].append(tensor)
    weights.pop(0, None)

    def move_out(address: int) -> None:
        for tensor in weights.pop(address):
            tensor.data = tensor.data.clone()

    with before_writes(weights, move_out):
        yield


def unshare_trainable(model: nn.Module, base: nn.Module) -> list[nn.Parameter]:
    """Give every trainable parameter of ``model`` that still shares memory with ``base`` its own copy, in float32.

    What trains is float32 whatever the study's dtype, as PEFT holds it for adapters: bfloat16 would round most updates
    of a fine-tuning to nothing. Returns these parameters, to be cast back before scoring.
    """
    import torch

    from mosld_bench.compat.torch import memory

    pristine = {memory(p) for p in base.parameters()}  # of which a trained parameter may be a part
    owned = [p for p in model.parameters() if p.requires_grad and memory(p) in pristine]
    for parameter in owned:
        parameter.data = parameter.data.to(torch.float32, copy=True)
    return owned


def virtual_tokens(model: nn.Module) -> int:
    """How many tokens that are no text stand before every text."""
    return getattr(getattr(model, "active_peft_config", None), "num_virtual_tokens", None) or 0


def stored(model: nn.Module, base: nn.Module | None = None) -> int:
    """Numbers that are saved of ``model``: of a frozen one none, of PEFT's the adapter, else what is not ``base``'s.

    What of an adapter does not train is among them, such as VeRA's projections. Without ``base``, which only a plain
    module needs, all of the model is.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        return 0
    if not hasattr(model, "peft_config"):
        from mosld_bench.methods.saved import own_state

        own = model.parameters() if base is None else own_state(model, base).values()
        return sum(value.numel() for value in own)
    from mosld_bench.compat.peft import saved_numbers

    return saved_numbers(model)


def checkpoint_layers(model: Any, on: bool) -> None:
    """Make ``model`` compute each layer's activations again in the backward pass instead of keeping them, or not."""
    from mosld_bench.compat.transformers import old_names_allowed

    with old_names_allowed():
        if on:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
        else:
            model.gradient_checkpointing_disable()
