"""Devices that are none: ``cpu:0``, ``cpu:1`` … compute on the CPU, and refuse to work with tensors of another device.

What torch says on GPUs it says here, so that code for several of them can be tried without one: an operation on tensors
of two devices is an error, but for copies, numbers without dimensions and indices that are on the host. Each device has
a generator of its own. What this cannot show is what belongs to CUDA: memory, time and order of streams.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

HOST = torch.device("cpu")
_COPIES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}
_INDEXED = {torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default, torch.ops.aten.index_put.default}
_states: dict[int, Tensor] = {}  # of the generators of all devices but the first, which has the CPU's


class Placed(Tensor):
    """A tensor on one of the devices; its numbers are in ``held``, a tensor of the CPU."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, held: Tensor, device: torch.device) -> Placed:
        """``held`` on ``device``."""
        made: Placed = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device=device, requires_grad=held.requires_grad,
        )  # fmt: skip
        made.held = held.detach()
        return made

    def __repr__(self, **kwargs: Any) -> str:  # type: ignore[override]
        """For failing tests."""
        return f"Placed({self.held}, {self.device})"

    def untyped_storage(self) -> Any:
        """That of the numbers."""
        return self.held.untyped_storage()

    def data_ptr(self) -> int:
        """That of the numbers."""
        return self.held.data_ptr()

    def tolist(self) -> Any:
        """The numbers, which a copy brings to the host."""
        return self.held.tolist()

    @property
    def data(self) -> Tensor:  # type: ignore[override]
        """Of the same numbers, without a gradient."""
        return Placed(self.held, self.device)

    @data.setter
    def data(self, other: Tensor) -> None:
        _exchange(self, other)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """One operation."""
        return _run(func, args, kwargs or {})


def _exchange(old: Tensor, new: Tensor) -> None:
    """Make ``old`` what ``new`` is, whoever has it."""
    made = new.detach()
    if isinstance(old, nn.Parameter):
        made = nn.Parameter(made, requires_grad=old.requires_grad)
    torch.utils.swap_tensors(old, made)  # type: ignore[no-untyped-call]


def _is_device(value: Any) -> bool:
    return isinstance(value, torch.device) and value.type == "cpu" and value.index is not None


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    leaves, _ = tree_flatten((args, kwargs))
    found = {leaf.device for leaf in leaves if isinstance(leaf, Placed)}
    asked = kwargs.get("device")
    if func not in _COPIES:
        strict = leaves if func not in _INDEXED else leaves[:1]
        hosted = [leaf for leaf in strict if isinstance(leaf, Tensor) and not isinstance(leaf, Placed) and leaf.dim()]
        if len(found) > 1 or (found and hosted):
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but {func} found {sorted(map(str, found))}"
                f"{' and the host' if hosted else ''}"
            )
    place = asked if asked is not None else next(iter(found), HOST)
    if func is torch.ops.aten.copy_.default:
        place = args[0].device
    if func is torch.ops.aten._local_scalar_dense.default:
        place = HOST
    bare = dict(kwargs, device=HOST) if asked is not None and asked.type == "cpu" else kwargs
    held = lambda leaf: leaf.held if isinstance(leaf, Placed) else leaf  # noqa: E731
    with _generator(place if torch.Tag.nondeterministic_seeded in func.tags else HOST):
        result = func(*tree_map(held, args), **tree_map(held, bare))
    return _placed(func, result, args, kwargs, place)


def _placed(func: Any, result: Any, args: Any, kwargs: Any, place: torch.device) -> Any:
    """``result`` on ``place``; what was written in place is the argument that it was written into."""
    written = [
        value
        for index, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
        for value in [args[index] if index < len(args) else kwargs.get(argument.name)]
    ]
    if not _is_device(place) and not any(isinstance(value, Placed) for value in written):
        return result
    leaves, spec = tree_flatten(result)
    if written and len(leaves) == len(written):
        return tree_unflatten(written, spec)
    return tree_map(lambda leaf: Placed(leaf, place) if isinstance(leaf, Tensor) else leaf, result)


@contextmanager
def _generator(device: torch.device) -> Iterator[None]:
    """Draw from the generator of ``device``; the first one's is the CPU's."""
    if not device.index:
        yield
        return
    before = torch.get_rng_state()
    torch.set_rng_state(_states.get(device.index, torch.Generator().manual_seed(0).get_state()))
    try:
        yield
    finally:
        _states[device.index] = torch.get_rng_state()
        torch.set_rng_state(before)


def _hand_on(source: torch.device, target: torch.device) -> None:
    """`compat.torch.hand_on_randomness` for these devices."""
    if source == target:
        return
    state = _states[source.index] if source.index else torch.get_rng_state()
    if target.index:
        _states[target.index] = state
    else:
        torch.set_rng_state(state)


class _Places(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees what is made on a device, or is brought there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Data(TorchFunctionMode):  # type: ignore[no-untyped-call]
    """What does not get there: ``parameter.data = …`` of a parameter on the host, and ``torch.tensor`` of numbers."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func == Tensor.data.__set__ and isinstance(args[1], Placed):  # type: ignore[attr-defined]
            return _exchange(*args)
        if func is torch.tensor and _is_device(torch.device(kwargs.get("device") or HOST)):
            return torch.tensor(*args, **{**kwargs, "device": HOST}).to(kwargs["device"])
        return func(*args, **kwargs)


@contextmanager
def several_devices(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Inside the block there are devices ``cpu:0``, ``cpu:1`` and so on."""
    _states.clear()
    monkeypatch.setattr("mosld_bench.compat.torch.hand_on_randomness", _hand_on)
    with _Data(), _Places():  # type: ignore[no-untyped-call]
        yield
