"""Methods by name, and the three ways in which a method gets one.

By the entry point group ``mosld_bench.methods`` of an installed package (the built-in ones too), by
``--plugin module`` whose import calls :func:`register`, or in a recipe as ``method: "module:Class"``.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mosld_bench.errors import BenchError, MethodError, UnknownNameError
from mosld_bench.format import shortened
from mosld_bench.methods import author
from mosld_bench.methods.base import Method
from mosld_bench.records.method_code import MethodCode, plugin_code
from mosld_bench.spec import foreign_code
from mosld_bench.spec.recipe_files import GROUP as GROUP

if TYPE_CHECKING:
    from mosld_bench.spec.recipe import Recipe
    from mosld_bench.spec.trial import TrainSpec

M = TypeVar("M", bound=type[Method])
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_PLACE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_registered: dict[str, type[Method]] = {}


def register(name: str) -> Callable[[M], M]:
    """Class decorator that makes a method known under ``name`` in this process.

    Raises BenchError where another class has the name already, by a registration or an entry point.
    """

    def add(cls: M) -> M:
        known = _registered.get(name)
        for offered in _entry_points().get(name, ()):
            if not _names(offered, cls):
                raise BenchError(
                    f"{cls.__module__}.{cls.__qualname__} wants the name {name!r}, which is that of "
                    f"{'a built-in method' if _is_ours(offered) else 'an installed package'} "
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
def _entry_points() -> dict[str, tuple[EntryPoint, ...]]:
    """Name -> the entry points of every installed package that offers it. A built-in method's name is its own alone."""
    by_name: dict[str, dict[str, EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        by_name.setdefault(entry.name, {}).setdefault(entry.value, entry)
    offered = {name: tuple(entries.values()) for name, entries in by_name.items()}
    return {name: tuple(filter(_is_ours, entries)) or entries for name, entries in offered.items()}


def _is_ours(entry: EntryPoint) -> bool:
    return entry.value.startswith("mosld_bench.")


def _told(entry: EntryPoint) -> str:
    """Where an entry point leads to, and the distribution that it is of."""
    return f"{entry.value}{f', of the distribution {entry.dist.name} {entry.dist.version}' if entry.dist else ''}"


def problems() -> list[str]:
    """What is wrong with the names that installed packages give their methods; a sentence each. Imports nothing."""
    found = []
    for entry in entry_points(group=GROUP):
        owners = _entry_points()[entry.name]
        if not _is_ours(entry) and all(map(_is_ours, owners)):
            found.append(
                f"The name {entry.name!r} is that of a built-in method, so that {_told(entry)} cannot be had by "
                f"it; its author has to choose another."
            )
    twice = {name: entries for name, entries in _entry_points().items() if len(entries) > 1}
    return list(dict.fromkeys(found)) + [_contested(name, entries) for name, entries in twice.items()]


def _contested(name: str, entries: tuple[EntryPoint, ...]) -> str:
    return (
        f"Two installed packages offer a method named {name!r}: {' and '.join(map(_told, entries))}. Uninstall one of "
        f"them, or name the class in the recipe as 'module:Class'."
    )


def _names(entry: EntryPoint, cls: type) -> bool:
    """Whether ``entry`` is of ``cls``, or of what its package has by that name."""
    module, _, attribute = entry.value.partition(":")
    same_package = module.strip().partition(".")[0] == cls.__module__.partition(".")[0]
    return same_package and attribute.partition("[")[0].strip() == cls.__qualname__


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
    if not all(map(_is_ours, _entry_points().get(recipe.method, ()))) or recipe.method not in _entry_points():
        return {"version": int(then["version"]), "plugins": plugins} if then else None
    return {"version": get(recipe.method).version(train), "plugins": plugins}


def names() -> dict[str, str]:
    """Every method in reach: name -> where it comes from ('module:Class'; several where packages contend for it)."""
    registered = {name: f"{cls.__module__}:{cls.__qualname__}" for name, cls in _registered.items()}
    offered = {name: [entry.value for entry in entries] for name, entries in sorted(_entry_points().items())}
    return {name: " and ".join(values) for name, values in offered.items()} | registered


def loaded() -> dict[str, Method]:
    """Name -> method, of those that are built in or registered in this process: no other package is imported."""
    ours = [name for name, entries in _entry_points().items() if all(map(_is_ours, entries))]
    return {name: get(name) for name in [*ours, *_registered]}


def load_plugin(module: str) -> None:
    """Import ``module`` so that its ``register`` calls take effect (``--plugin module``).

    Raises BenchError where it cannot be imported, or changes torch's settings by being imported.
    """
    if len(module) > 200 or not _MODULE.fullmatch(module):
        raise MethodError(
            f"The plug-in {shortened(module)!r} is no name of a module. --plugin takes one that Python can import, "
            f"such as my_methods or package.module."
        )
    try:
        with _settings_kept(f"plug-in {module!r}"):
            importlib.import_module(module)
    except BenchError:
        raise
    except Exception as error:
        raise _not_loaded(f"plug-in {module!r}", module, error, author.of_distribution(module)) from error


def _check_asked_for(place: str) -> None:
    """Raises MethodError for what is no module:Class, and ForeignCodeError where its import would run foreign code.

    Not foreign are this package, an installed plug-in, and what is imported already, as by --plugin or in a notebook.
    """
    module = place.partition(":")[0]
    if len(place) > 200 or not _PLACE.fullmatch(place):
        raise MethodError(f"The method {shortened(place)!r} is neither a name nor a place as module:Class.")
    top = module.partition(".")[0]
    plugins = {entry.value.partition(":")[0].partition(".")[0].strip() for entry in entry_points(group=GROUP)}
    if module not in sys.modules and top not in {*plugins, "mosld_bench"}:
        foreign_code.demand(f"The module {module} (method {place!r} of a recipe)")


def _not_loaded(what: str, target: str, error: Exception, distribution: str) -> MethodError:
    """An import that failed, as a sentence with the line of the author's file; ``target``: module or module:Class."""
    module = target.partition(":")[0]
    top = module.partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and error.name in {top, module}:
        advice = "It must be a module on PYTHONPATH or of an installed package."
    elif distribution:
        advice = "Mend it or uninstall it; only what uses it needs it."
    else:
        advice = "Mend that; only what uses it needs it."
    return MethodError(
        f"The {what}{distribution} cannot be {'loaded' if ':' in target else 'imported'}: "
        f"{author.said(error, folder=_folder(top))}. {advice}"
    )


def _folder(package: str) -> Path | None:
    """The folder or file of a top-level package, if there is one; it is not imported."""
    try:
        found = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent if found.submodule_search_locations is not None else Path(found.origin)


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
    what, distribution = f"method {name!r}", ""
    if cls is None:
        entries = _entry_points().get(name, ())
        if len(entries) > 1:
            raise MethodError(_contested(name, entries))
        if not entries and ":" not in name:
            raise UnknownNameError("method", name, names(), "Another package's method needs --plugin MODULE.")
        target = entries[0].value if entries else name
        if not entries:
            _check_asked_for(name)
        what = what if target == name else f"{what} ({target})"
        ours = target.startswith("mosld_bench.")  # loads no torch, where a report asks for its version
        distribution = "" if ours else author.of_distribution(target)
        try:
            with nullcontext() if ours else _settings_kept(what):
                cls = EntryPoint(name, target, GROUP).load()
        except BenchError:
            raise
        except Exception as error:
            raise _not_loaded(what, target if ":" in target else f"{target}:", error, distribution) from error
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise MethodError(f"The {what}{distribution} is {cls!r}, which is not a subclass of mosld_bench.Method.")
    try:
        return cls()
    except TypeError as error:
        raise MethodError(f"The method {author.named(cls)} cannot be made: {author.said(error, of=cls)}.") from error
