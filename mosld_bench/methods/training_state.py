"""What a training moves, as tensors and plain data: taken between two steps, and put back into a model attached anew.

A training that goes on from it ends with the same weights, bit for bit on a CPU, as one that was never broken off.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mosld_bench.methods.saved import own_state

if TYPE_CHECKING:
    from mosld_bench.methods.base import Method

_MODEL, _OPTIMIZER, _METHOD, _RANDOM = "model/", "optimizer/", "method/", "random/"


class MismatchError(Exception):
    """What was kept is of another training than the one that is to go on."""


class TrainingState(NamedTuple):
    """Tensors by name, on the CPU and in memory of their own, and what JSON holds beside them."""

    tensors: dict[str, Tensor]
    notes: dict[str, Any]


def taken(model: nn.Module, base: nn.Module, method: Method, optimizer: torch.optim.Optimizer) -> TrainingState | None:
    """The state between two steps of ``model``, which is ``method`` attached to a copy of ``base``.

    Every parameter and buffer that is not the base's, the optimiser's state, what the method keeps elsewhere, and the
    generators of torch, NumPy and Python. None where the method does not say what it keeps.
    """
    kept = method.training_state(model)
    if kept is None:
        return None
    numbers: dict[str, Any] = {}
    tensors = {_MODEL + name: value for name, value in _own(model, base).items()}
    tensors |= {_METHOD + name: value for name, value in kept.items()}
    for index, parameter in enumerate(_trained(optimizer)):
        for name, value in optimizer.state.get(parameter, {}).items():
            key = f"{index}/{name}"
            if isinstance(value, Tensor):
                tensors[_OPTIMIZER + key] = value
            else:
                numbers[key] = value
    drawn = _random_state(next(model.parameters()).device)
    tensors |= {_RANDOM + name: value for name, value in drawn.tensors.items()}
    copies = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
    return TrainingState(copies, {"optimizer": numbers, "random": drawn.notes})


def put_back(
    state: TrainingState, model: nn.Module, base: nn.Module, method: Method, optimizer: torch.optim.Optimizer
) -> None:
    """Set ``model``, attached anew, the ``optimizer`` of it, ``method`` and the generators to ``state``, in place.

    Raises MismatchError, before anything is changed, where the model has other parameters or buffers.
    """
    own, kept = _own(model, base), dict(below(_MODEL, state.tensors))
    if own.keys() != kept.keys() or any(
        (own[name].shape, own[name].dtype) != (value.shape, value.dtype) for name, value in kept.items()
    ):
        raise MismatchError("the model has other parameters or buffers")
    parameters, steps = _trained(optimizer), dict[int, dict[str, Any]]()
    for key, value in (*below(_OPTIMIZER, state.tensors), *state.notes["optimizer"].items()):
        index, _, name = key.partition("/")
        steps.setdefault(int(index), {})[name] = value
    if any(index >= len(parameters) for index in steps):
        raise MismatchError("the optimiser has fewer parameters")
    with torch.no_grad():
        for name, value in kept.items():
            own[name].copy_(value)
    for index, values in steps.items():
        parameter = parameters[index]
        for name, value in values.items():
            # A count of steps stays on the CPU, where torch keeps it.
            on_device = isinstance(value, Tensor) and value.dim() > 0
            optimizer.state[parameter][name] = value.to(parameter.device) if on_device else value
    device = next(model.parameters()).device
    method.restore_training_state(model, {name: value.to(device) for name, value in below(_METHOD, state.tensors)})
    _set_random_state(TrainingState(dict(below(_RANDOM, state.tensors)), state.notes["random"]), device)


def _own(model: nn.Module, base: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer of ``model`` that is not the base's, those that are never saved among them."""
    own = own_state(model, base)
    known, buffers = {id(value) for value in model.state_dict(keep_vars=True).values()}, dict(base.named_buffers())
    for name, value in model.named_buffers():
        there = buffers.get(name)
        if id(value) not in known and (there is None or there.shape != value.shape or not torch.equal(there, value)):
            own[name] = value
    return own


def _trained(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def below(prefix: str, named: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The entries whose names begin with ``prefix``, without it."""
    return ((name.removeprefix(prefix), value) for name, value in named.items() if name.startswith(prefix))


def _random_state(device: torch.device) -> TrainingState:
    """The global generators, and that of a GPU where the model is on one."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, kept = np.random.get_state(legacy=True)
    tensors = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor(words, dtype=torch.int64),
        "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64)),
    }
    if device.type == "cuda":
        tensors["cuda"] = torch.cuda.get_rng_state(device)
    notes = {"python": [version, gauss], "numpy": [str(name), int(position), int(has_gauss), float(kept)]}
    return TrainingState(tensors, notes)


def _set_random_state(state: TrainingState, device: torch.device) -> None:
    tensors, (version, gauss), (name, *rest) = state.tensors, state.notes["python"], state.notes["numpy"]
    random.setstate((version, tuple(tensors["python"].tolist()), gauss))
    np.random.set_state((name, tensors["numpy"].numpy().astype(np.uint32), *rest))
    torch.set_rng_state(tensors["torch"])
    if device.type == "cuda" and "cuda" in tensors:
        torch.cuda.set_rng_state(tensors["cuda"], device)
