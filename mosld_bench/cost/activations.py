"""What a training keeps of a forward for its backward: what autograd would keep, seen without weights.

A formula of layers knows neither which modules a method works on nor what it does there: one for adapters on queries
and values tells half of what they keep on all linear layers, and a third of MixLoRA's. So the model runs with the
method on it, on tensors of torch's fake mode, which have a shape, a dtype and no numbers, and hooks of autograd see all
that is kept. Layers that are alike run once. What does not grow with the tokens (autocast's copies of weights) is told
apart; weights themselves are not counted, nor what lies outside of the layers.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mosld_bench import collector
from mosld_bench.methods import registry
from mosld_bench.methods.base import Method
from mosld_bench.methods.count import AttachedLayers, CountByModule, Counts, attached_layers, replace_tensors
from mosld_bench.methods.live import virtual_tokens

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedConfig

    from mosld_bench.spec.recipe import Recipe
    from mosld_bench.spec.trial import Fit

#: Tokens of the text that is run: as many as texts have, and of a number that no size of a model is a multiple of, so
#: that what grows with the tokens is known by its size.
_TOKENS = 127


@dataclass(frozen=True)
class Activations:
    """What the layers of a model keep for the backward, in bytes."""

    total: float
    """Of a token, by all layers."""
    largest: float
    """Of a token, by the layer that keeps the most."""
    constant: int
    """By all layers, whatever the tokens: copies of weights in another dtype."""


def activations_of(
    recipe: Recipe, fit: Fit, config: PreTrainedConfig, dtype: str, counts: Counts | None = None
) -> Activations | None:
    """As `activations`, with ``recipe`` as ``fit`` sizes it. ``counts``: of ``config``, what was counted before."""
    method = registry.get(recipe.method)
    modules = (counts or Counts(config)).by_module(method, fit.params)
    return activations(method, config, fit.params, modules, dtype)


@collector.seldom()
def activations(
    method: Method, config: PreTrainedConfig, params: Mapping[str, Any], modules: CountByModule, dtype: str
) -> Activations | None:
    """What the layers of the model of ``config`` keep with ``method`` at ``params``, computing in ``dtype``.

    ``modules``: the method's trained parameters by module, of `Counts.by_module`. None where nothing trains in or
    before a layer, and where the model or the method does not run without numbers.
    """
    import torch

    if not modules:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of settings for layers that are left out
            attached = attached_layers(method, config, params, modules)
            kept = _kept(method, attached, getattr(torch, dtype))
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception:  # whatever a model, or a method of anybody's, asks of tensors that have no numbers
        return None
    total, constant = (sum(kept[layer][part] * alike for layer, alike in attached.alike.items()) for part in (0, 1))
    if not total:
        return None
    return Activations(total / _TOKENS, max(growing for growing, _ in kept.values()) / _TOKENS, constant)


def _kept(method: Method, attached: AttachedLayers, dtype: torch.dtype) -> Mapping[int, Sequence[int]]:
    """Layer -> bytes that it keeps of a text of `_TOKENS` tokens, and bytes that it keeps of any."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from mosld_bench.inputs import Encoded
    from mosld_bench.trial import answer_loss

    model = attached.model
    with FakeTensorMode(allow_non_fake_inputs=True):
        _make_fake(model, set(attached.base), dtype)
        model.train()
        method.before_step(model)
        watch = _Watch(model, attached.layers, {_TOKENS, _TOKENS + virtual_tokens(model)})
        with watch, torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            answer_loss(model, [Encoded("", [0] * _TOKENS, 1)], 0)
    return watch.kept


def _make_fake(model: nn.Module, base: Collection[nn.Module], dtype: torch.dtype) -> None:
    """Put tensors of the fake mode that is on in the place of those of ``model``.

    As in a training what trains is in float32, and the rest of the ``base`` in ``dtype``; what else is the method's is
    in float32 as well. Buffers and whole numbers are as they were.
    """
    import torch
    from torch import nn

    def fake(module: nn.Module, tensor: Tensor) -> Tensor:
        own = tensor.dtype
        if isinstance(tensor, nn.Parameter) and tensor.is_floating_point():
            own = dtype if module in base and not tensor.requires_grad else torch.float32
        return torch.empty(tensor.shape, dtype=own, device="cpu")

    replace_tensors(model, fake)


class _Watch:
    """Inside the block, what autograd keeps while each of ``layers`` of ``model`` runs.

    ``kept``: number of the layer -> bytes that grow with the tokens, and others. ``lengths``: how many tokens a layer
    sees; the size of what grows with them is a multiple of one of these.
    """

    def __init__(self, model: nn.Module, layers: Mapping[int, nn.Module], lengths: Collection[int]) -> None:
        import torch

        self._lengths = lengths
        self.kept = {number: [0, 0] for number in layers}
        self._seen: dict[int, Tensor] = {}  # the tensors live as long, so that no other one has their place
        self._weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        self._layer: int | None = None
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor)
        for number, layer in layers.items():
            layer.register_forward_pre_hook(lambda *_, number=number: self._enter(number))
            layer.register_forward_hook(lambda *_: self._enter(None))

    def __enter__(self) -> None:
        self._hooks.__enter__()

    def __exit__(self, *exception: Any) -> None:
        self._hooks.__exit__(*exception)

    def _enter(self, number: int | None) -> None:
        self._layer = number

    def _keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        place = storage._cdata
        if self._layer is not None and place not in self._weights and place not in self._seen:
            self._seen[place] = tensor
            numbers = storage.nbytes() // tensor.element_size()
            self.kept[self._layer][all(numbers % length for length in self._lengths)] += storage.nbytes()
        return tensor
