"""Models that fail: on a device without memory, or at inputs that they do not take."""

from __future__ import annotations

import torch
from torch import nn

from tests.support.models import build, config

#: What torch and Python raise where memory is short, on a GPU and on a CPU.
OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError(),
]


def raising(error: BaseException, calls: int = 1) -> nn.Module:
    """A model whose first ``calls`` forwards raise ``error``."""
    model: nn.Module = build(config())
    remaining = [calls]

    def fail(*args: object, **kwargs: object) -> None:
        remaining[0] -= 1
        if remaining[0] >= 0:
            raise error

    model.register_forward_pre_hook(fail, with_kwargs=True)
    return model
