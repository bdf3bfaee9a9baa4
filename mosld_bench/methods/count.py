"""Parameters of a method on the model of a configuration, counted without weights.

The method's own ``attach`` is called on the meta device, where tensors have shapes and no numbers, so that any plug-in
is counted truly and a model of any size in a second or two.
"""

from __future__ import annotations

import copy
import math
import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mosld_bench.compat.peft import base_name
from mosld_bench.errors import BenchError, ModelError, first_line
from mosld_bench.methods.attaching import attach
from mosld_bench.methods.base import Method
from mosld_bench.methods.matching import some_layers
from mosld_bench.methods.stages import layers_of
from mosld_bench.spec.trial import canonical

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedConfig

CountByModule = dict[str, int]  # adapted module's name in the base model -> its trainable parameters


class Counts:
    """Parameters of methods on the model of one configuration; each setting of a method is built and counted once."""

    def __init__(self, config: PreTrainedConfig) -> None:
        self.config = config
        self._counted: dict[tuple[type[Method], str], tuple[int, CountByModule]] = {}
        self._foreseen: dict[tuple[type[Method], str], CountByModule] = {}

    def trainable(self, method: Method, params: Mapping[str, Any]) -> int:
        """Trainable parameters of ``method`` at ``params``."""
        return sum(self.by_module(method, params).values())

    def total(self, method: Method, params: Mapping[str, Any]) -> int:
        """All parameters of the built model, trainable and frozen."""
        return self._count(method, params)[0]

    def by_module(self, method: Method, params: Mapping[str, Any]) -> CountByModule:
        """Trainable parameters of every adapted module."""
        return self._count(method, params)[1]

    def foreseen(self, method: Method, params: Mapping[str, Any], like: CountByModule) -> CountByModule:
        """What `by_module` is to come to, in part of the time, from what it is at other params of the method: ``like``.

        Layers that have the same counts there are taken to have the same ones here, and one of them is built. Whoever
        goes by it counts in the end. Raises BenchError as `by_module` does.
        """
        key = type(method), canonical(dict(params))
        if key in self._counted:
            return self._counted[key][1]
        if key not in self._foreseen:
            try:
                model, layers = attached_shapes(method, self.config, params, like=like)
            except BenchError:  # a method that needs all layers
                return self.by_module(method, params)
            counted = _by_module(model, layers)
            self._foreseen[key] = {module: counted.get(twin, 0) for module, twin in _twins(like, layers).items()}
        return self._foreseen[key]

    def _count(self, method: Method, params: Mapping[str, Any]) -> tuple[int, CountByModule]:
        """All parameters, and the trainable ones by module."""
        key = type(method), canonical(dict(params))
        if key not in self._counted:
            model, layers = attached_shapes(method, self.config, params)
            self._counted[key] = sum(p.numel() for p in model.parameters()), _by_module(model, layers)
        return self._counted[key]


def _by_module(model: nn.Module, layers: Collection[str]) -> CountByModule:
    """Trainable parameters of ``model`` by adapted module; ``layers``: as in `adapted_module`."""
    modules: CountByModule = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            module = adapted_module(model, name, layers)
            modules[module] = modules.get(module, 0) + parameter.numel()
    return modules


#: A module of one of a model's layers: the list of these, which of them, the module in it.
_IN_LAYER = re.compile(r"(.*?)\.(\d+)\.(.*)")


def _twins(counts: CountByModule, base: Collection[str]) -> dict[str, str]:
    """Each module of ``counts`` -> the same module in the first of the layers that have the same counts.

    ``base``: the modules of the base model. What a method has beside them, numbered or not, is its own twin.
    """

    def place(module: str) -> re.Match[str] | None:
        match = _IN_LAYER.fullmatch(module)
        return match if match and match[1] in base else None

    layers: dict[tuple[str, str], dict[str, int]] = {}  # list and number -> module in the layer -> count
    for module, count in counts.items():
        if match := place(module):
            layers.setdefault((match[1], match[2]), {})[match[3]] = count
    first: dict[tuple[str, frozenset[tuple[str, int]]], str] = {}
    twin = {key: first.setdefault((key[0], frozenset(inner.items())), key[1]) for key, inner in layers.items()}

    def of(module: str) -> str:
        match = place(module)
        return f"{match[1]}.{twin[match[1], match[2]]}.{match[3]}" if match else module

    return {module: of(module) for module in counts}


def _copied(model: nn.Module, counts: CountByModule | None) -> nn.Module:
    """A copy of ``model``; given ``counts``, of the layers that are alike by them it has the first of each kind."""
    if counts is None:
        return copy.deepcopy(model, _empty_containers(model))
    base = {name for name, _ in model.named_modules()}
    kept = {match.group(1, 2) for twin in _twins(counts, base).values() if (match := _IN_LAYER.fullmatch(twin))}
    return _with_layers(model, {(stack, name) for stack, name in kept if stack in base})


def _with_layers(model: nn.Module, kept: Collection[tuple[str, str]]) -> nn.Module:
    """A copy of ``model`` that has of each list of layers in ``kept`` those of the numbers that stand beside it."""
    left = {
        (stack, name): layer
        for stack in {stack for stack, _ in kept}
        for name, layer in model.get_submodule(stack).named_children()
        if (stack, name) not in kept
    }
    # these take as long as all the rest
    copied = copy.deepcopy(model, _empty_containers(model) | {id(layer): None for layer in left.values()})
    for stack, name in left:
        delattr(copied.get_submodule(stack), name)  # the others keep their numbers, by which a recipe may name them
    return copied


def _empty_containers(model: nn.Module) -> dict[int, Any]:
    """What ``copy.deepcopy`` is to know of ``model`` beforehand: a new one for each empty container of its modules.

    A module has a dozen of them, for hooks that none are registered for, and to copy them takes as long as all else.
    """
    return {
        id(value): kind()
        for module in model.modules()
        for value in vars(module).values()
        if (kind := type(value)) in _CONTAINERS and not value
    }


_CONTAINERS = frozenset({dict, OrderedDict, set})


def count_trainable(method: Method, config: PreTrainedConfig, params: Mapping[str, Any]) -> int:
    """Trainable parameters of ``method`` at ``params`` on the model of ``config``."""
    return Counts(config).trainable(method, params)


def attached_shapes(
    method: Method, config: PreTrainedConfig, params: Mapping[str, Any], *, like: CountByModule | None = None
) -> tuple[nn.Module, frozenset[str]]:
    """The model of ``config`` with ``method`` on it, without the memory for its weights, and the base model's modules.

    On the meta device, where there are no numbers. A method that reads numbers while it attaches (the places of its
    weights, a permutation) is attached once more, to weights that are one zero each, seen in the weights' shapes.
    ``like``: counts of the method, of which the model has one layer of each kind. Raises BenchError for a method
    that cannot work with those either.
    """
    whole = _empty(config)
    model = _attached(method, params, lambda: _copied(whole, like))
    return model, frozenset(name for name, _ in whole.named_modules() if name)


@dataclass(frozen=True)
class AttachedLayers:
    """A model with a method on it that has one of the layers that are alike, and what is where in it."""

    model: nn.Module
    layers: Mapping[int, nn.Module]
    """Number of a layer -> the layer of the base model, which the method may have changed inside."""
    alike: Mapping[int, int]
    """Number of a layer -> how many of the whole model's layers it stands for."""
    base: Collection[nn.Module]
    """The modules of the base model; others are the method's."""


def attached_layers(
    method: Method, config: PreTrainedConfig, params: Mapping[str, Any], counts: CountByModule
) -> AttachedLayers:
    """The model of ``config`` with ``method`` on it, as of `attached_shapes`, but of layers that are alike the first.

    Alike are those that have ``counts`` of trained parameters in the same modules, within a fifth of each other (a rank
    that is spread is one higher in some), and something that trains before them or not; to a method that needs all
    layers none is like another. Raises ModelError for a model without a list of layers, and BenchError as
    `attached_shapes` does.
    """
    whole = _empty(config)
    of_whole = layers_of(whole)
    stack = next(name for name, module in whole.named_modules() if module is of_whole[0]).rpartition(".")[0]
    inside: dict[int, dict[str, int]] = {number: {} for number in range(len(of_whole))}
    for module, count in counts.items():
        if (match := _IN_LAYER.fullmatch(module)) and match[1] == stack:
            inside[int(match[2])][match[3]] = round(4 * math.log2(max(1, count)))
    first: dict[tuple[frozenset[tuple[str, int]], bool], int] = {}
    alike, trains = dict[int, int](), False
    for number, trained in inside.items():
        like = first.setdefault((frozenset(trained.items()), trains), number)
        alike[like] = alike.get(like, 0) + 1
        trains = trains or bool(trained)
    base: list[nn.Module] = []
    layers: dict[int, nn.Module] = {}

    def make() -> nn.Module:
        copied = _with_layers(whole, {(stack, str(number)) for number in alike})
        base[:] = copied.modules()
        layers.update((number, copied.get_submodule(f"{stack}.{number}")) for number in alike)
        return copied

    try:
        with some_layers():
            model = _attached(method, params, make)
    except BenchError:
        if len(alike) == len(inside):
            raise
        alike = dict.fromkeys(inside, 1)
        layers.clear()
        model = _attached(method, params, make)
    return AttachedLayers(model, layers, alike, base)


def _attached(method: Method, params: Mapping[str, Any], make: Callable[[], nn.Module]) -> nn.Module:
    """What ``make`` makes on the meta device with ``method`` on it; see `attached_shapes`."""
    import torch

    with torch.device("meta"):
        try:
            return attach(method, make(), params)
        except RuntimeError:  # what torch raises, with NotImplementedError below it, where a value is asked for
            base = make()
    try:
        return attach(method, _zeros_in_the_shapes_of(base), params)
    except BenchError:
        raise
    except Exception as error:
        raise BenchError(
            f"The parameters cannot be counted without the base model's weights, which attach reads: "
            f"{type(error).__name__}: {error}"
        ) from error


def _zeros_in_the_shapes_of(model: nn.Module) -> nn.Module:
    """``model``, which is on the meta device, on the CPU with zeros that take the memory of one number a tensor."""
    import torch

    def zeros(module: nn.Module, tensor: Tensor) -> Tensor:
        return torch.zeros(1, dtype=tensor.dtype, device="cpu").expand(tensor.shape)

    return replace_tensors(model, zeros)


def replace_tensors(model: nn.Module, make: Callable[[nn.Module, Tensor], Tensor]) -> nn.Module:
    """``model`` with ``make(module, tensor)`` in the place of each parameter and buffer; what trains does so as before.

    A tied weight is one parameter before and after.
    """
    from torch import nn

    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in made:
                made[id(parameter)] = nn.Parameter(make(module, parameter), requires_grad=parameter.requires_grad)
            setattr(module, name, made[id(parameter)])
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, make(module, buffer))
    return model


#: The last configuration, and its model.
_built: list[tuple[PreTrainedConfig, nn.Module]] = []


def _empty(config: PreTrainedConfig) -> nn.Module:
    """The frozen model of ``config`` on the meta device, to be copied; it is built once for one configuration."""
    import torch

    if not (_built and _built[0][0] is config):
        with torch.device("meta"):
            _built[:] = [(config, empty_model(config).requires_grad_(False))]
    return _built[0][1]


def empty_model(config: PreTrainedConfig) -> nn.Module:
    """The model of ``config`` with random weights; without weights when called on the meta device.

    Raises ModelError for a configuration that no model can be built of.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from mosld_bench.compat.transformers import old_names_allowed

    try:
        with old_names_allowed():
            model: nn.Module = AutoModelForCausalLM.from_config(config)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # what a configuration says may contradict itself in any way
        raise ModelError(
            f"No model can be built as its configuration says ({type(error).__name__}: {first_line(error)[:200]})."
        ) from error
    return model


def check_layers(config: PreTrainedConfig) -> None:
    """Raise ModelError where the model of ``config`` cannot lie on several devices: see `stages.layers_of`."""
    import torch

    with torch.device("meta"):
        layers_of(empty_model(config))


def base_size(config: PreTrainedConfig) -> int:
    """Parameters of the base model of ``config``, tied ones once."""
    return sum(parameter.numel() for parameter in _empty(config).parameters())


def adapted_module(model: nn.Module, parameter: str, layers: Collection[str] = ()) -> str:
    """The base model's name of the module that an adapter's parameter belongs to (q_proj, not its lora_A).

    ``layers``: the names of the base model's modules. In a plain module's parameter the longest of them counts.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    parts = parameter.split(".")
    module = model
    for depth, part in enumerate(parts):
        if isinstance(module, BaseTunerLayer):
            parts = parts[:depth]
            break
        module = getattr(module, part)
    else:
        if not hasattr(model, "peft_config"):
            depths = (depth for depth in range(len(parts) - 1, 0, -1) if ".".join(parts[:depth]) in layers)
            parts = parts[: next(depths, len(parts))]
    return base_name(".".join(parts))
