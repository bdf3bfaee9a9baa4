"""Methods on a model in memory: a copy that costs nothing, the weights that it trains, the tokens before every text."""

from __future__ import annotations

import copy
from collections.abc import Mapping
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
    """The model that a trial trains: ``method`` at ``params`` on a copy of ``base``, on the device of ``base``.

    The copy shares every weight that does not train, so that it costs no more memory than what trains. Initial values
    come from torch's global generator, which is seeded with ``seed`` and goes on from there.
    """
    import torch

    torch.manual_seed(seed)
    model = method.attach(copy_sharing_weights(base), params)
    unshared = unshare_trainable(model, base)
    return AttachedModel(model.to(next(base.parameters()).device), unshared)


def copy_sharing_weights(base: nn.Module) -> nn.Module:
    """A copy of ``base`` with modules of its own and the same weights in memory.

    A method may wrap, replace and train what it likes in the copy: weights that it trains must be made its own first
    (:func:`unshare_trainable`), all others stay shared with ``base`` and cost nothing.
    """
    from torch import nn

    shared = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in base.parameters()}
    return copy.deepcopy(base, dict(shared))


def unshare_trainable(model: nn.Module, base: nn.Module) -> list[nn.Parameter]:
    """Give every trainable parameter of ``model`` that still shares memory with ``base`` its own copy, in float32.

    What trains is float32 whatever the study's dtype, as PEFT holds it for adapters: bfloat16 would round most updates
    of a fine-tuning to nothing. Returns these parameters, to be cast back before scoring.
    """
    import torch

    pristine = {p.data_ptr() for p in base.parameters()}
    owned = [p for p in model.parameters() if p.requires_grad and p.data_ptr() in pristine]
    for parameter in owned:
        parameter.data = parameter.data.to(torch.float32, copy=True)
    return owned


def virtual_tokens(model: nn.Module) -> int:
    """How many tokens that are no text stand before every text."""
    return getattr(getattr(model, "active_peft_config", None), "num_virtual_tokens", None) or 0


def checkpoint_layers(model: Any, on: bool) -> None:
    """Make ``model`` compute each layer's activations again in the backward pass instead of keeping them, or not."""
    from mosld_bench.compat.transformers import old_names_allowed

    with old_names_allowed():
        if on:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
        else:
            model.gradient_checkpointing_disable()
