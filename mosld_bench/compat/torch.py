"""What is used of torch beyond its documentation.

A look at every write into memory, the hooks of all modules, one stream of random numbers over several devices, what
libraries join across devices, and products in bfloat16 on processors without instructions for them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
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


def bfloat16_products(dtype: str | torch.dtype, device: str) -> AbstractContextManager[object]:
    """Where ``device`` is a processor that has none for ``dtype`` bfloat16: inside the block products are in float32.

    See `Float32Products`; elsewhere nothing changes.
    """
    wanted = str(dtype).removeprefix("torch.") == "bfloat16" and device == "cpu" and not has_bfloat16()
    return Float32Products() if wanted else nullcontext()  # type: ignore[no-untyped-call]


def has_bfloat16() -> bool:
    """Whether oneDNN multiplies matrices in bfloat16 on this processor; else torch does so in loops of its own."""
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)  # a torch without oneDNN has none
    return bool(supported and supported())


class Float32Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside the block, products of bfloat16 matrices on the CPU are taken in float32 and rounded once.

    So do processors with instructions for them, up to the order of the sums. Without, torch's own loops take some 20
    times as long for a training step (``tests/benchmarks/speed.py bfloat16``).
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in _PRODUCTS or not _is_slow(func, args):
            return func(*args, **kwargs)
        wide = [_cast(value, torch.bfloat16, torch.float32) for value in args]
        results = func(*wide, **{name: _cast(value, torch.bfloat16, torch.float32) for name, value in kwargs.items()})
        if isinstance(results, Tensor):
            return results.to(torch.bfloat16)
        return tuple(_cast(result, torch.float32, torch.bfloat16) for result in results)


def _cast(value: Any, source: torch.dtype, target: torch.dtype) -> Any:
    return value.to(target) if isinstance(value, Tensor) and value.dtype == source else value


#: Operation -> the place of the second matrix among its arguments, or None. Of attention the forward pass is not slow.
_PRODUCTS: dict[Any, int | None] = {
    torch.ops.aten.mm.default: 1,
    torch.ops.aten.bmm.default: 1,
    torch.ops.aten.addmm.default: 2,
    torch.ops.aten.baddbmm.default: 2,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default: None,
}

#: Of so few rows times a matrix whose columns lie in memory, as of a token times a layer's weights, torch's loops are
#: the faster way: to convert the weights takes longer.
_FEW_ROWS = 4


def _is_slow(func: Any, args: Sequence[Any]) -> bool:
    place = _PRODUCTS[func]
    if args[0].dtype != torch.bfloat16 or args[0].device.type != "cpu":
        return False
    if place is None:
        return True
    return bool(args[place - 1].shape[-2] > _FEW_ROWS or args[place].stride(-2) != 1)
