"""What code a trial's method was: a version of ours, a digest of the source of others. Goes into every record.

Nothing here imports a plug-in, so that a report can ask without torch whether its code has changed since.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import PackageNotFoundError, distributions, packages_distributions, version
from pathlib import Path
from typing import Annotated, Any, TypedDict
from urllib.parse import unquote, urlparse

from mosld_bench.format import listed

_OURS = "mosld_bench"


class PluginCode(TypedDict):
    """A class that made numbers and is neither this package's nor PEFT's."""

    name: Annotated[str, "its place, module:Class"]
    distribution: Annotated[str | None, "the installed distribution that it is of; null for a module on PYTHONPATH"]
    version: Annotated[str | None, "of the distribution"]
    sha256: Annotated[str | None, "of the source of its module and of all that this imports of its own; null without"]


class MethodCode(TypedDict):
    """The code of a trial's method."""

    version: Annotated[int, "of the method, raised when a change of its code changes the numbers of such trials"]
    plugins: Annotated[list[PluginCode], "what of it is neither this package's nor PEFT's"]


def plugin_code(name: str) -> PluginCode:
    """The code at ``name`` (module:Class) as it is on disk when this process first asks."""
    return _code(name).copy()


@cache
def _code(name: str) -> PluginCode:
    module = name.partition(":")[0]
    sources = dict(_sources(module))
    spec = sources.get(module, (None, ""))[0]
    distribution = _distribution(module, Path(spec.origin) if spec is not None and spec.origin else None)
    digest = hashlib.sha256()
    for found in sorted(sources):
        text = sources[found][1].encode()
        digest.update(f"{found}:{len(text)}\n".encode() + text)
    return {
        "name": name,
        "distribution": distribution,
        "version": _version(distribution),
        "sha256": digest.hexdigest() if sources else None,
    }


def differing_code(then: Mapping[str, Any] | None, now: Mapping[str, Any]) -> str | None:
    """How the code of a method (`MethodCode`) differs, as the end of a sentence; None where it does not.

    Nothing noted means version 1 and, of plug-ins, that nothing is known. They are compared by their digests, and by
    version where one has none.
    """
    version_then = int((then or {}).get("version", 1))
    if version_then != now["version"]:
        return f"version {version_then} of its method, which is at version {now['version']} now"
    if not then or "plugins" not in then:
        return None
    old, new = ({code["name"]: code for code in side["plugins"]} for side in (then, now))
    if old.keys() != new.keys():
        before, after = (listed(list(side)) if side else "this package" for side in (old, new))
        return f"the code of {before}, where that of {after} is now"
    for name, code in old.items():
        both = code["sha256"] and new[name]["sha256"]
        keys = ("sha256",) if both else ("distribution", "version")
        if any(code[key] != new[name][key] for key in keys):
            return f"other code of {name} than is here now"
    return None


def _sources(module: str) -> Iterator[tuple[str, tuple[ModuleSpec, str]]]:
    """``module``, the packages around it, and what these import of its own: name -> where it is, and its text.

    Its own are modules of its top-level package, and modules that no distribution has: helpers beside it.
    """
    seen: set[str] = set()
    waiting = [module]
    others = sys.stdlib_module_names | {_OURS} | _installed().keys()
    while waiting:
        name = waiting.pop()
        top = name.partition(".")[0]
        if name in seen or (top != module.partition(".")[0] and top in others):
            continue
        seen.add(name)
        found = _read(name)
        if found is None:
            continue
        yield name, found
        package = name if found[0].submodule_search_locations is not None else name.rpartition(".")[0]
        waiting += [name.rpartition(".")[0]] if "." in name else []
        waiting += _imported(found[1], package)


def _read(name: str) -> tuple[ModuleSpec, str] | None:
    """Where the module ``name`` is, and its text; None where it is none, or has no source."""
    try:
        spec = _find(name)
        text = spec.loader.get_source(name) if spec is not None and spec.loader is not None else None  # type: ignore[attr-defined]
    except (ImportError, ValueError, AttributeError, SyntaxError, UnicodeDecodeError):
        return None
    return None if spec is None or text is None else (spec, text)


def _find(name: str) -> ModuleSpec | None:
    """Where the module ``name`` is, without an import of the packages around it (`importlib.util.find_spec` does)."""
    top, *parts = name.split(".")
    spec = importlib.util.find_spec(top)
    for depth in range(len(parts)):
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(".".join([top, *parts[: depth + 1]]), spec.submodule_search_locations)
    return spec


def _imported(text: str, package: str) -> list[str]:
    """What the source ``text`` of a module in ``package`` imports, anywhere in it; names that are no modules too."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return []
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            up = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*up, *([node.module] if node.module else [])])
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return names


@cache
def _installed() -> Mapping[str, list[str]]:
    """Top-level package -> the distributions that have it; reads the lists of files of all of them."""
    return packages_distributions()


def _distribution(module: str, file: Path | None) -> str | None:
    """The installed distribution that ``module`` in ``file`` is of; an editable one by the folder that it lies in."""
    named = _installed().get(module.partition(".")[0])
    if named:
        return named[0]
    for found in distributions():
        origin = json.loads(found.read_text("direct_url.json") or "{}")
        folder = Path(unquote(urlparse(origin.get("url", "")).path))
        editable = origin.get("dir_info", {}).get("editable") and found.name.replace("-", "_") != _OURS
        if file is not None and editable and file.is_relative_to(folder):
            return found.name
    return None


def _version(distribution: str | None) -> str | None:
    try:
        return version(distribution) if distribution else None
    except PackageNotFoundError:
        return None
