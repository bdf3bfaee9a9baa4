"""Make PEFT know our tuners, at the moment PEFT is imported and not before: `import mosld_bench` must stay cheap."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_TUNERS = ("mosld_bench.tuners.mixture", "mosld_bench.tuners.mixlora")


class _AfterPeft(MetaPathFinder):
    """Finds nothing itself; when peft is looked for, it has our tuners imported right after."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "peft":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_all(module: ModuleType) -> None:
                load(module)
                _import_tuners()

            spec.loader.exec_module = load_all  # type: ignore[method-assign]
        return spec


def register_with_peft() -> None:
    """Register now if PEFT is there already, else as soon as it is."""
    if "peft" in sys.modules:
        _import_tuners()
    elif not any(isinstance(finder, _AfterPeft) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterPeft())


def _import_tuners() -> None:
    for name in _TUNERS:
        importlib.import_module(name)
