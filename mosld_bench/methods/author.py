"""Whose a method is: its distribution, its file and line; and which line of its author an error is of."""

from __future__ import annotations

import inspect
import linecache
import sys
from collections.abc import Iterator
from pathlib import Path
from traceback import walk_tb
from types import CodeType, TracebackType

from mosld_bench.errors import first_line
from mosld_bench.records.method_code import plugin_code

#: Packages whose methods are known: an error of theirs is a defect of ours, and is shown as it is.
_KNOWN = frozenset({"mosld_bench", "peft", "torch", "abc", "builtins", "typing"})


def is_foreign(cls: type) -> bool:
    """Whether ``cls`` is neither this package's nor PEFT's."""
    return _top(cls) not in _KNOWN


def named(cls: type) -> str:
    """``module:Class`` and in brackets its distribution, if it is of an installed one, and where it stands."""
    name = f"{cls.__module__}:{cls.__qualname__}"
    if not is_foreign(cls):
        return name
    distribution = of_distribution(name).removeprefix(" of the ")
    return f"{name} ({distribution}{'; ' if distribution else ''}{place(cls)})"


def of_distribution(name: str) -> str:
    """The installed distribution of ``name`` (module:Class) as a clause; empty where it is of none."""
    try:
        code = plugin_code(name)
    except (ImportError, ValueError):
        return ""
    version = f" {code['version']}" if code["version"] else ""
    return f" of the distribution {code['distribution']}{version}" if code["distribution"] else ""


def place(cls: type, function: str | None = None) -> str:
    """``FILE, line N`` of ``function`` of ``cls``, if its author wrote that, else of the class."""
    code: CodeType | None = None
    for base in cls.__mro__:
        if function is not None and is_foreign(base) and function in vars(base):
            code = getattr(inspect.unwrap(vars(base)[function]), "__code__", None)
            break
    if code is not None:
        return f"{code.co_filename}, line {code.co_firstlineno}"
    try:
        return f"{inspect.getsourcefile(cls)}, line {inspect.getsourcelines(cls)[1]}"
    except (OSError, TypeError):
        return f"the module {cls.__module__}"


def said(error: BaseException, *, of: type | None = None, folder: Path | None = None) -> str:
    """What ``error`` says, in one line, and the deepest line that is the author's.

    The author's is what lies beside the classes that ``of`` is made of, or in ``folder``; without either, or where no
    line of them is in the traceback, whatever is of no known package.
    """
    what = f"{type(error).__name__}: {first_line(error)}".rstrip(".")
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    roots = [*(_roots(of) if of is not None else ()), *([folder] if folder else ())]
    lines = [line for line in _lines(error.__traceback__) if any(line[0].is_relative_to(root) for root in roots)]
    if not lines:
        return what
    file, number = lines[-1]
    source = linecache.getline(str(file), number).strip()
    return f"{what} ({file}, line {number}{f': {source}' if source else ''})"


def _lines(traceback: TracebackType | None) -> list[tuple[Path, int]]:
    """File and line of every frame, the outermost first; without those that are of no file."""
    frames = ((Path(frame.f_code.co_filename), line) for frame, line in walk_tb(traceback))
    return [(file, line) for file, line in frames if file.is_absolute()]


def _roots(cls: type) -> Iterator[Path]:
    """The folders and files in which the author's classes below ``cls`` lie: a package's, or a module's file."""
    for base in filter(is_foreign, cls.__mro__):
        top = sys.modules.get(_top(base))
        file = getattr(top, "__file__", None) or getattr(sys.modules.get(base.__module__), "__file__", None)
        if file:
            yield Path(file).parent if hasattr(top, "__path__") else Path(file)


def _top(cls: type) -> str:
    return cls.__module__.partition(".")[0]
