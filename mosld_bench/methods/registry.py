"""Methods by name, and the three ways in which a method gets one.

By the entry point group ``mosld_bench.methods`` of an installed package (the built-in ones too), by
``--plugin module`` whose import calls :func:`register`, or in a recipe as ``method: "module:Class"``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, TypeVar

from mosld_bench.errors import BenchError, UnknownNameError
from mosld_bench.methods.base import Method
from mosld_bench.records.method_code import MethodCode, plugin_code

if TYPE_CHECKING:
    from mosld_bench.spec.recipe import Recipe
    from mosld_bench.spec.trial import TrainSpec

#: The entry point group of methods, ours and those of other packages.
GROUP = "mosld_bench.methods"

M = TypeVar("M", bound=type[Method])
_registered: dict[str, type[Method]] = {}


def register(name: str) -> Callable[[M], M]:
    """Class decorator that makes a method known under ``name`` in this process.

    Raises BenchError where another class has the name already, by a registration or an entry point.
    """

    def add(cls: M) -> M:
        known = _registered.get(name)
        offered = _entry_points().get(name)
        if offered is not None and not _names(offered, cls):
            raise BenchError(
                f"{cls.__module__}.{cls.__qualname__} wants the name {name!r}, which is that of "
                f"{'a built-in method' if offered.value.startswith('mosld_bench.') else 'an installed package'} "
                f"({offered.value}). Register it under another name."
            )
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise BenchError(
                f"Two methods want the name {name!r}: {known.__module__}.{known.__qualname__} and "
                f"{cls.__module__}.{cls.__qualname__}. Register one of them under another name."
            )
        _registered[name] = cls
        return cls

    return add


@cache
def _entry_points() -> dict[str, EntryPoint]:
    """Name -> entry point, of every installed package. Raises BenchError where two offer one name."""
    by_name: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        if entry.name in by_name and by_name[entry.name].value != entry.value:
            raise BenchError(
                f"Two installed packages offer a method named {entry.name!r}: {by_name[entry.name].value} and "
                f"{entry.value}. Uninstall one of them, or name the class in the recipe as 'module:Class'."
            )
        by_name[entry.name] = entry
    return by_name


def _names(entry: EntryPoint, cls: type) -> bool:
    """Whether ``entry`` is of ``cls``, or of what its package has by that name."""
    same_package = entry.module.partition(".")[0] == cls.__module__.partition(".")[0]
    return same_package and entry.attr == cls.__qualname__


def code_of(recipe: Recipe, params: Mapping[str, Any], train: TrainSpec | None) -> MethodCode:
    """The code of the method of ``recipe`` at ``params``, for a record of a trial that trains as ``train`` says.

    Raises as `get` does.
    """
    method = get(recipe.method)
    classes = [base for base in type(method).__mro__ if issubclass(base, Method) and base is not Method]
    known = {"mosld_bench", "peft"}
    foreign = [cls for cls in (*classes, *method.parts(params)) if cls.__module__.partition(".")[0] not in known]
    names = dict.fromkeys(f"{cls.__module__}:{cls.__qualname__}" for cls in foreign)
    return {"version": method.version(train), "plugins": list(map(plugin_code, names))}


def code_now(recipe: Recipe, train: TrainSpec | None, then: Mapping[str, Any] | None) -> MethodCode | None:
    """What `code_of` a record would say now that said ``then``; no plug-in is imported. None where that is not known.

    A plug-in that is not here is not known, nor is a version that only its import could tell.
    """
    plugins = [plugin_code(code["name"]) for code in (then or {}).get("plugins", [])]
    if any(code["sha256"] is None for code in plugins):
        return None
    entry = _entry_points().get(recipe.method)
    if entry is None or not entry.value.startswith("mosld_bench."):
        return {"version": int(then["version"]), "plugins": plugins} if then else None
    return {"version": get(recipe.method).version(train), "plugins": plugins}


def names() -> dict[str, str]:
    """Every method in reach: name -> where it comes from ('module:Class')."""
    registered = {name: f"{cls.__module__}:{cls.__qualname__}" for name, cls in _registered.items()}
    return {name: entry.value for name, entry in sorted(_entry_points().items())} | registered


def load_plugin(module: str) -> None:
    """Import ``module`` so that its ``register`` calls take effect (``--plugin module``).

    Raises BenchError where it cannot be imported, or changes torch's settings by being imported.
    """
    try:
        with _settings_kept(f"plug-in {module!r}"):
            importlib.import_module(module)
    except BenchError:
        raise
    except Exception as error:
        raise BenchError(
            f"The plug-in {module!r} cannot be imported: {type(error).__name__}: {error}. It must be a module on "
            f"PYTHONPATH or of an installed package."
        ) from error


@contextmanager
def _settings_kept(importer: str) -> Iterator[None]:
    """Raise BenchError where the import inside the block changes settings of torch that hold for all methods."""
    from mosld_bench.methods.shared_state import TorchSettings

    settings = TorchSettings()
    yield
    if changes := settings.changes():
        settings.restore()
        raise BenchError(
            f"The {importer} changes {', '.join(changes)} when it is imported, and with it the numbers of every other "
            f"method of the process. Set that inside the method's own forward, and back."
        )


def get(name: str) -> Method:
    """The method called ``name``, or at ``module:Class``.

    Raises UnknownNameError for a name that nobody offers, and BenchError for a class that cannot be loaded or is no
    Method.
    """
    cls: Any = _registered.get(name)
    if cls is None:
        entries = _entry_points()
        if name in entries:
            target = entries[name].value
        elif ":" in name:
            target = name
        else:
            raise UnknownNameError("method", name, names(), "Another package's method needs --plugin MODULE.")
        try:
            ours = target.startswith("mosld_bench.")  # loads no torch, where a report asks for its version
            with nullcontext() if ours else _settings_kept(f"method {name!r} ({target})"):
                cls = EntryPoint(name, target, GROUP).load()
        except BenchError:
            raise
        except Exception as error:
            raise BenchError(
                f"The method {name!r} ({target}) cannot be loaded: {type(error).__name__}: {error}."
            ) from error
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise BenchError(f"The method {name!r} is {cls!r}, which is not a subclass of mosld_bench.Method.")
    return cls()
