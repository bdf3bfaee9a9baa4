"""What is compared: the contract of a method, the built-in ones, and the solver that gives each its size."""

from __future__ import annotations

import importlib
from typing import Any

_BUILT_IN = ("BaseMethod", "FullMethod", "PeftMethod", "MixtureMethod", "MixLoraMethod")


def __getattr__(name: str) -> Any:
    """The built-in methods, as the entry points name them; loaded when asked for, since they import torch."""
    if name not in _BUILT_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("mosld_bench.methods.builtin"), name)
