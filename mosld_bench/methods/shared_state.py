"""What all trials of a process share, a base model and torch's settings, and whether it is still as it was.

By the values: the version that torch keeps of a tensor does not move where a library writes through ``.data``. A
look costs two sums over each weight, 0.2 s a GB of a CPU core; on an accelerator, milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mosld_bench.compat.bitsandbytes import readings
from mosld_bench.compat.torch import drop_hooks_of_all, hooks, hooks_of_all


class SharedState:
    """A base model and torch's settings at one moment, to be compared with what they are later."""

    def __init__(self, base: nn.Module, settings: TorchSettings) -> None:
        self.base, self.settings = base, settings
        self._facts = _facts(base)
        classes = {kind for module in base.modules() for kind in type(module).__mro__}
        self._forwards = {kind: vars(kind)["forward"] for kind in classes if "forward" in vars(kind)}

    def changes(self) -> list[str]:
        """What is no longer as it was, each in words; nothing in the ordinary case."""
        now = _facts(self.base)
        changed = [fact for fact in {**self._facts, **now} if self._facts.get(fact) != now.get(fact)]
        kinds: dict[str, list[str]] = {}
        for fact in changed:
            kinds.setdefault(fact.kind, []).append(fact.name)
        found = [
            f"{kind} {names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''} of the shared base model"
            for kind, names in kinds.items()
        ]
        patched = [kind for kind, forward in self._forwards.items() if vars(kind)["forward"] is not forward]
        found += [f"the code of {', '.join(sorted(kind.__name__ for kind in patched))}"] if patched else []
        return found + self.settings.changes()

    def restore(self) -> None:
        """Set torch's settings and the code of modules as they were. The model itself has to be loaded anew."""
        self.settings.restore()
        for kind, forward in self._forwards.items():
            kind.forward = forward  # type: ignore[attr-defined]


class TorchSettings:
    """The settings of torch that move numbers and hold for the whole process, as they are when it is made."""

    def __init__(self) -> None:
        self._values = {name: setting.get() for name, setting in _SETTINGS.items()}
        self._hooks = hooks_of_all()

    def changes(self) -> list[str]:
        """Which settings are others now, each in words."""
        found = [
            f"torch's {name} ({value} became {now})"
            for name, value in self._values.items()
            if (now := _SETTINGS[name].get()) != value
        ]
        return found + (["torch's hooks of all modules"] if hooks_of_all() != self._hooks else [])

    def restore(self) -> None:
        """Set everything as it was."""
        for name, value in self._values.items():
            if _SETTINGS[name].get() != value:
                _SETTINGS[name].set(value)
        drop_hooks_of_all(self._hooks)


class _Setting(NamedTuple):
    get: Callable[[], Any]
    set: Callable[[Any], Any]


def _attribute(owner: Any, name: str) -> _Setting:
    return _Setting(lambda: getattr(owner, name), lambda value: setattr(owner, name, value))


_SETTINGS: Mapping[str, _Setting] = {
    "default dtype": _Setting(torch.get_default_dtype, torch.set_default_dtype),
    "default device": _Setting(torch.get_default_device, lambda device: torch.set_default_device(None)),
    "number of threads": _Setting(torch.get_num_threads, torch.set_num_threads),
    "gradient mode": _Setting(torch.is_grad_enabled, torch.set_grad_enabled),
    "deterministic mode": _Setting(torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    "precision of matrix products": _Setting(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "reduced precision of float16 products": _attribute(
        torch.backends.cuda.matmul, "allow_fp16_reduced_precision_reduction"
    ),
    "reduced precision of bfloat16 products": _attribute(
        torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction"
    ),
    "use of cuDNN": _attribute(torch.backends.cudnn, "enabled"),
    "benchmark mode of cuDNN": _attribute(torch.backends.cudnn, "benchmark"),
    "deterministic mode of cuDNN": _attribute(torch.backends.cudnn, "deterministic"),
    "flash attention": _Setting(torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.enable_flash_sdp),
    "memory-efficient attention": _Setting(
        torch.backends.cuda.mem_efficient_sdp_enabled, torch.backends.cuda.enable_mem_efficient_sdp
    ),
    "plain attention": _Setting(torch.backends.cuda.math_sdp_enabled, torch.backends.cuda.enable_math_sdp),
}


class _Fact(NamedTuple):
    kind: str
    name: str


def _facts(base: nn.Module) -> dict[_Fact, Any]:
    """Everything of ``base`` that its output depends on: part -> a value that another one equals where they agree."""
    facts: dict[_Fact, Any] = {}
    parts = (
        ("the weight", base.named_parameters()),
        ("the buffer", base.named_buffers()),
        ("what rounded weights are read by,", readings(base).items()),
    )
    for kind, named in parts:
        tensors = dict(named)
        for (name, tensor), checksum in zip(tensors.items(), _checksums(tensors.values()), strict=True):
            facts[_Fact(kind, name)] = (tensor.dtype, tensor.shape, tensor.device, tensor.requires_grad, checksum)
    for name, module in base.named_modules():
        own = vars(module).get("forward")  # in place of that of its class
        facts[_Fact("the module", name or type(base).__name__)] = (type(module), own, module.training, hooks(module))
    for attribute in ("config", "generation_config"):
        settings = getattr(base, attribute, None)
        if settings is not None:
            facts[_Fact("the attribute", attribute)] = settings.to_dict()
    return facts


def _checksums(tensors: Iterable[Tensor]) -> list[int]:
    """For each tensor a number of its bits: other values, or the same ones in other places, have another."""
    sums = [_checksum(tensor) for tensor in tensors]
    device = sums[0].device if sums else None
    return torch.stack([value.to(device) for value in sums]).tolist() if sums else []  # waits for the device once


def _checksum(tensor: Tensor) -> Tensor:
    """A scalar in int64: the sum of all bits taken 64 at a time, each times a weight of its row and column.

    Every pair of places has another weight. Sums wrap around, so that nothing is rounded away.
    """
    octets = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    if octets.storage_offset() % 8:
        octets = octets.clone()  # numbers of 64 bits are read from addresses of 64 bits
    whole = octets.numel() // (8 * _ROW) * (8 * _ROW)
    table = octets[:whole].view(torch.int64).view(-1, _ROW)
    rest = octets[whole:].to(torch.int64)
    total = (table.sum(0) * _weights(_ROW, tensor.device)).sum()
    total += (table.sum(1) * _weights(len(table), tensor.device)).sum() * 3
    return total + (rest * _weights(len(rest), tensor.device)).sum()


_ROW = 512  # numbers of 64 bits


@cache
def _weights(count: int, device: torch.device) -> Tensor:
    """(count,) numbers in int64 that look random, the same on every call."""
    numbers = torch.arange(1, count + 1, dtype=torch.int64, device=device) * 0x1E3779B97F4A7C15
    return (numbers ^ (numbers >> 29)) * 0x3F58476D1CE4E5B9
