"""A base model in stages: its layers in runs, each run on a device of its own, and what a method adds beside them.

For models that one device does not hold. The first device has all but the layers as well: embeddings, the last norm,
the head, so that texts go in and logits come out there, as of a model on one device. A layer's inputs come to its
device; so do random numbers, whose stream goes through the devices with the hidden states. Every number is made by the
operations that one device makes it with, but that the norm of all gradients is summed up by device: results do not
depend on how many devices there are, up to its rounding. Methods know nothing of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mosld_bench.errors import ModelError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


def layers_per_device(layers: int, devices: int, rest: float) -> list[int]:
    """How many of ``layers`` each of ``devices`` gets, so that the fullest has as little as can be; in their order.

    ``rest``: what the first one has besides, as a number of layers.
    """
    if devices == 1:
        return [layers]
    first = min(range(layers, -1, -1), key=lambda own: max(rest + own, math.ceil((layers - own) / (devices - 1))))
    each, more = divmod(layers - first, devices - 1)
    return [first, *(each + (place < more) for place in range(devices - 1))]


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The layers of a base model, each of which gets the hidden states of the one before.

    Raises ModelError where it has no list of as many modules as its configuration has layers.
    """
    from torch import nn

    count = getattr(model.config.get_text_config(), "num_hidden_layers", None)  # type: ignore[operator, union-attr]
    found = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == count]
    if not found:
        raise ModelError(
            f"The model {type(model).__name__} cannot lie on several GPUs (resources.gpus_per_trial): it has no list "
            f"of layers that hand their hidden states on. Take a GPU a trial, or another model."
        )
    return list(found[0])


def spread(base: nn.Module, devices: Sequence[torch.device]) -> nn.Module:
    """``base``, which is on the CPU, with its layers on ``devices``, of one kind. Raises ModelError as `layers_of`."""
    layers, home = layers_of(base), devices[0]
    sizes = [_size(layer) for layer in layers]
    counts = layers_per_device(len(layers), len(devices), (_size(base) - sum(sizes)) / max(sizes))
    places = [device for device, count in zip(devices, counts, strict=True) for _ in range(count)]
    for layer, place in zip(layers, places, strict=True):
        layer.to(place)
    inside = {id(tensor) for layer in layers for tensor in _tensors(layer)}
    for tensor in _tensors(base):
        if id(tensor) not in inside:
            tensor.data = tensor.data.to(home)
    for number, (layer, place) in enumerate(zip(layers, places, strict=True)):
        if place != home:
            layer.register_forward_pre_hook(_Arrival(number, place), with_kwargs=True)
    if places[-1] != home:
        layers[-1].register_forward_hook(_Return(home))
    return base


def to_devices_of(model: nn.Module, base: nn.Module) -> nn.Module:
    """``model``, a method on a copy of ``base``, with what is not of ``base`` moved beside what it works on.

    That is the device of the weights of ``base`` in the same module, else of the nearest module around it that has
    some; the first device where these lie on several. A model that has nothing of ``base`` is spread as that is.
    """
    from mosld_bench.compat.torch import memory

    places = {memory(tensor): tensor.device for tensor in _tensors(base)}
    home = next(base.parameters()).device
    if len(set(places.values())) == 1:
        return model.to(home)
    if not any(memory(tensor) in places for tensor in _tensors(model)):  # a whole model that was loaded anew
        return spread(model, list(dict.fromkeys([home, *(_tensors(layer)[0].device for layer in layers_of(base))])))
    seen: set[int] = set()

    def settle(module: nn.Module, around: torch.device) -> None:
        if id(module) in seen:
            return
        seen.add(id(module))
        found = {places[memory(tensor)] for tensor in _tensors(module) if memory(tensor) in places}
        here = around if not found else next(iter(found)) if len(found) == 1 else home
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if memory(tensor) not in places:
                tensor.data = tensor.data.to(here)
        for child in module.children():
            settle(child, here)

    settle(model, home)
    return model


def one_stream(model: nn.Module) -> AbstractContextManager[object]:
    """Around what is drawn outside of a forward of ``model``: the random numbers of one device. For many uses."""
    from mosld_bench.compat.torch import OneStream

    devices = {parameter.device for parameter in model.parameters()}
    return OneStream(next(model.parameters()).device) if len(devices) > 1 else nullcontext()


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _size(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in _tensors(module))


@dataclass(frozen=True)
class _Arrival:
    """Before the forward of the layer ``number`` on ``device``: what it is given comes there.

    Of kept keys and values only those of the layer, which are there already but for those that a method learns.
    """

    number: int
    device: torch.device

    def __call__(self, layer: nn.Module, args: tuple[Any, ...], inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        from torch import Tensor

        from mosld_bench.compat.torch import hand_on_randomness

        hidden = next((value for value in (*args, *inputs.values()) if isinstance(value, Tensor)), None)
        if hidden is not None:
            hand_on_randomness(hidden.device, self.device)
        return tuple(map(self._moved, args)), {name: self._moved(value) for name, value in inputs.items()}

    def _moved(self, value: Any) -> Any:
        from torch import Tensor

        from mosld_bench.compat.transformers import move_kept

        if isinstance(value, Tensor):
            return value.to(self.device)
        if isinstance(value, tuple):
            return tuple(map(self._moved, value))
        move_kept(value, self.number, self.device)
        return value


@dataclass(frozen=True)
class _Return:
    """After the forward of the last layer: what it gives goes back to the first device, ``home``."""

    home: torch.device

    def __call__(self, layer: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        from torch import Tensor

        from mosld_bench.compat.torch import hand_on_randomness

        parts = output if isinstance(output, tuple) else (output,)
        moved = tuple(part.to(self.home) if isinstance(part, Tensor) else part for part in parts)
        hand_on_randomness(next(part.device for part in parts if isinstance(part, Tensor)), self.home)
        return moved if isinstance(output, tuple) else moved[0]
