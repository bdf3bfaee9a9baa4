"""Something done around the import of another library, whenever, and by whomever, it is really executed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

Around = Callable[[], AbstractContextManager[None]]


def around_import(name: str, around: Around) -> None:
    """Have the module ``name`` executed inside ``around()`` from now on; asked twice, once."""
    if not any(isinstance(finder, _Finder) and finder.name == name for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder(name, around))


class _Finder(MetaPathFinder):
    """Finds the module ``name`` as the other finders do.

    That a library is only looked for, as transformers does to know whether it is there, must not spend the hook.
    """

    def __init__(self, name: str, around: Around) -> None:
        self.name, self._around = name, around

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self.name:
            return None
        finders = [finder.find_spec for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec")]
        spec = next((spec for find in finders if (spec := find(name, path, target)) is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _AroundExecution(spec.loader, self._around)
        return spec


class _AroundExecution(Loader):
    """The ``loader`` of a module, for one execution of it; then the module has its own again."""

    def __init__(self, loader: Loader, around: Around) -> None:
        self._loader, self._around = loader, around

    def __getattr__(self, name: str) -> Any:
        if name in {"_loader", "_around"}:  # of a copy that is not made yet
            raise AttributeError(name)
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        with self._around():
            self._loader.exec_module(module)
