"""What is used of torch beyond its documentation.

A look at every write into memory, the hooks of all modules, one stream of random numbers over several devices, and what
libraries join across devices.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def memory(tensor: Tensor) -> int:
    """The address of the memory that holds ``tensor`` and every view of it; 0 where it has none of its own."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):  # sparse, or a tensor that another library keeps in its own way
        return 0


@contextmanager
def before_writes(addresses: Collection[int], call: Callable[[int], None]) -> Iterator[None]:
    """Inside the block, ``call`` every address of ``addresses`` before an operation of torch writes there.

    Sees what goes through ``.data`` and views too, since both end in operations of torch; not what another library
    writes through a pointer (``.numpy()``).
    """
    with _Writes(addresses, call):
        yield


class _Writes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, addresses: Collection[int], call: Callable[[int], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.addresses, self.call = addresses, call

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for place, name in _written(func):
            for leaf in tree_leaves(args[place] if place < len(args) else kwargs.get(name)):
                if isinstance(leaf, Tensor) and (address := memory(leaf)) in self.addresses:
                    self.call(address)
        return func(*args, **kwargs)


@cache
def _written(func: Any) -> list[tuple[int, str]]:
    """Place and name of each argument into which an operation writes."""
    arguments = enumerate(func._schema.arguments)
    return [(place, a.name) for place, a in arguments if a.alias_info is not None and a.alias_info.is_write]


def hooks(module: torch.nn.Module) -> list[Any]:
    """What runs around a forward or a backward of ``module`` besides its own code."""
    return [
        hook
        for name in ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
        for hook in vars(module)[name].values()
    ]


def hooks_of_all() -> list[Any]:
    """What runs around a forward or a backward of every module there is (``register_module_forward_hook``)."""
    return [hook for kind in _global_hooks() for hook in kind.values()]


def drop_hooks_of_all(but: Collection[Any]) -> None:
    """Remove the hooks that hold for every module, except for those in ``but``."""
    kept = {id(hook) for hook in but}
    for kind in _global_hooks():
        for handle in [handle for handle, hook in kind.items() if id(hook) not in kept]:
            del kind[handle]


def _global_hooks() -> list[dict[int, Any]]:
    from torch.nn.modules import module

    return [
        module._global_forward_pre_hooks,
        module._global_forward_hooks,
        module._global_backward_pre_hooks,
        module._global_backward_hooks,
    ]


class OneStream(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside the block, draws on any device go on with the random numbers of ``home``, which goes on after them.

    So a model over several devices draws what it draws on one: the generators of GPUs make the same numbers.
    """

    def __init__(self, home: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.home = home

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        tensors = (leaf.device for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
        device = kwargs.get("device") or next(tensors, self.home)
        if device.type != self.home.type:  # numbers that are drawn on the CPU are a stream of their own
            return func(*args, **kwargs)
        hand_on_randomness(self.home, device)
        try:
            return func(*args, **kwargs)
        finally:
            hand_on_randomness(device, self.home)


def hand_on_randomness(source: torch.device, target: torch.device) -> None:
    """Let the generator of ``target`` go on where that of ``source`` is. No wait for a GPU: both states are here."""
    if source != target and source.type == "cuda":
        torch.cuda.set_rng_state(torch.cuda.get_rng_state(source), target)


class AcrossDevices(TorchFunctionMode):  # type: ignore[no-untyped-call]
    """Inside the block, tensors of several devices are joined (``cat``, ``stack``) on the device of the first one."""

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        """See torch.overrides.TorchFunctionMode."""
        if func in (torch.cat, torch.stack) and args:
            parts = list(args[0])
            args = ([part.to(parts[0].device) for part in parts], *args[1:])
        return func(*args, **(kwargs or {}))
