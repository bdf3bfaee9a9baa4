"""What is used of bitsandbytes beyond its documentation: how it keeps rounded weights, and what its import does.

It keeps a rounded weight as a parameter of its own class, whose integers are packed: their shape is not the layer's. By
what they are read (the largest number of every block, its own rounding) stands beside them, in no parameter and no
buffer. Nothing here imports bitsandbytes: a model that has such weights has done so.
"""

from __future__ import annotations

import copy
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING, Any

from mosld_bench.compat.importing import around_import

if TYPE_CHECKING:
    from torch import Tensor, nn

_FOUR_BITS, _EIGHT_BITS = "Params4bit", "Int8Params"
_BY_BLOCK = ("absmax", "code", "offset")  # of a quant_state, and of the one in it that reads its absmax
_BY_ROW = "SCB"


def guard_import() -> None:
    """Let nothing of the hub run where bitsandbytes is imported; PEFT does that by itself, wherever it is installed."""
    around_import("bitsandbytes", _without_the_hub)


@contextmanager
def _without_the_hub() -> Iterator[None]:
    """Hide the package `kernels`: on CPUs with AVX512-BF16 bitsandbytes has it fetch compiled code, and loads that.

    What it says where it finds none is no news then.
    """
    logger, absent = logging.getLogger("bitsandbytes"), object()
    level, kernels = logger.level, sys.modules.get("kernels", absent)
    sys.modules["kernels"] = None  # type: ignore[assignment]
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)
        if kernels is absent:
            del sys.modules["kernels"]
        else:
            sys.modules["kernels"] = kernels  # type: ignore[assignment]


def is_rounded(parameter: Any) -> bool:
    """Whether the parameter is a weight that bitsandbytes keeps rounded."""
    return type(parameter).__name__ in {_FOUR_BITS, _EIGHT_BITS}


def numbers_of(parameter: Tensor) -> int:
    """How many numbers a parameter stands for: of a rounded weight those of the layer, however they are packed."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else prod(state.shape)


def rounded_layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Name and module of every layer of ``model`` whose weight is rounded."""
    return ((name, module) for name, module in model.named_modules() if is_rounded(getattr(module, "weight", None)))


def readings(model: nn.Module) -> dict[str, Tensor]:
    """All tensors by which rounded weights are read, by the layer's name and their own; none of another model."""
    found: dict[str, Tensor] = {}
    for name, layer in rounded_layers(model):
        first = getattr(layer.weight, "quant_state", None)
        for state, prefix in ((first, ""), (getattr(first, "state2", None), "state2.")):
            parts = {key: getattr(state, key, None) for key in _BY_BLOCK}
            found |= {f"{name}.{prefix}{key}": part for key, part in parts.items() if part is not None}
        rows = getattr(layer.weight, _BY_ROW, None)
        if rows is not None:
            found[f"{name}.{_BY_ROW}"] = rows
    return found


def beside_weights(model: nn.Module) -> tuple[str, ...]:
    """Beginnings of the names in ``model.state_dict()`` that are neither parameters nor buffers, but `readings`."""
    names = [name for name, _ in rounded_layers(model)]
    return tuple(f"{name}.{part}" for name in names for part in ("weight.", _BY_ROW, "weight_format"))


def shared_with_copy(model: nn.Module) -> dict[int, Any]:
    """For `copy.deepcopy`'s memo: the id of what belongs to rounded weights -> what a copy of ``model`` has for it.

    Weights of its own that share the memory of those of ``model``; what these are read by is the same.
    """
    memo: dict[int, Any] = {}
    for _, layer in rounded_layers(model):
        weight = layer.weight
        memo[id(weight)] = twin = _twin(weight)
        for kept in (getattr(weight, "quant_state", None), getattr(weight, _BY_ROW, None)):
            memo |= {} if kept is None else {id(kept): kept}
        again = getattr(getattr(layer, "state", None), "CB", None)  # of eight bits: the weight once more
        if again is not None:
            memo[id(again)] = twin.data
    return memo


def _twin(weight: Any) -> Any:
    if type(weight).__name__ == _FOUR_BITS:
        twin = copy.copy(weight)  # its own: another parameter on the same memory
        twin.module = None
    else:
        twin = type(weight)(weight.data, requires_grad=False, has_fp16_weights=weight.has_fp16_weights)
        twin.SCB = weight.SCB
    return twin.requires_grad_(False)
