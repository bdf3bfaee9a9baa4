"""What is compared: the contract of a method, the built-in ones, and the solver that gives each its size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mosld_bench._lazy import door

if TYPE_CHECKING:
    from mosld_bench.methods.base import Method
    from mosld_bench.methods.builtin import (
        BaseMethod,
        FullMethod,
        MixLoraMethod,
        MixtureMethod,
        PeftMethod,
        TunerMethod,
    )
    from mosld_bench.methods.contract import check_method
    from mosld_bench.methods.count import Counts, base_size, count_trainable
    from mosld_bench.methods.fit import fit_budget, target_of
    from mosld_bench.methods.registry import get, load_plugin, names, register
    from mosld_bench.methods.saved import load_adapter

# Loaded when asked for: some import torch. The entry points of pyproject.toml name the built-in methods here.
_MODULES = {
    "Method": "base",
    "register": "registry",
    "get": "registry",
    "names": "registry",
    "load_plugin": "registry",
    "fit_budget": "fit",
    "target_of": "fit",
    "Counts": "count",
    "base_size": "count",
    "count_trainable": "count",
    "check_method": "contract",
    "BaseMethod": "builtin",
    "FullMethod": "builtin",
    "PeftMethod": "builtin",
    "MixtureMethod": "builtin",
    "MixLoraMethod": "builtin",
    "TunerMethod": "builtin",
    "load_adapter": "saved",
}
__all__ = [  # noqa: RUF022 - grouped by what they are for
    "Method",
    "register", "get", "names", "load_plugin",
    "fit_budget", "target_of", "Counts", "base_size", "count_trainable",
    "check_method",
    "BaseMethod", "FullMethod", "PeftMethod", "TunerMethod", "MixtureMethod", "MixLoraMethod",
    "load_adapter",
]  # fmt: skip


__getattr__ = door(__name__, _MODULES)
