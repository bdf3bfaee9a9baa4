"""The routers of a model, and a look at what they do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from torch import nn

from mosld_bench.compat.peft import base_name
from mosld_bench.tuners.mixture.model import layer_of
from mosld_bench.tuners.mixture.routing import Observer, RoutedLayer


class Router(NamedTuple):
    """An adapted module with more than one expert."""

    module: str  # its name in the base model
    number: int  # of the layer that it is in; -1 outside of the numbered ones
    experts: int  # of the active adapter
    layer: RoutedLayer


def routers_of(model: nn.Module) -> list[Router]:
    """The routers of ``model``, in the order of its modules; none where every module has one expert."""
    found = []
    for name, layer in model.named_modules():
        if isinstance(layer, RoutedLayer):
            experts = max((layer.experts.get(adapter, 1) for adapter in layer.active_adapters), default=1)  # type: ignore[union-attr]
            if experts > 1:
                number = layer_of(name)
                found.append(Router(base_name(name), -1 if number is None else int(number), experts, layer))
    return found


@contextmanager
def observed(layers: Iterable[RoutedLayer], observer: Observer) -> Iterator[None]:
    """Inside the block, ``observer`` is shown what the routers of ``layers`` do outside of training.

    It is shown that of all layers that share a forward pass with them, in the order in which they run.
    """
    passes = {id(layer.current): layer.current for layer in layers}.values()
    for current in passes:
        current.observer = observer
    try:
        yield
    finally:
        for current in passes:
            current.observer = None
