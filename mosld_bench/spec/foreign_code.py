"""Foreign code: Python that a file asks for and that nobody installed. It runs only where `--allow-code` asks for it.

Foreign is a ``!function`` of a task file, and the ``module:Class`` of a recipe. Not foreign are the package's own
files, a copy of one of them, what lm-eval brings along, an installed plug-in, and a module that `--plugin` names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from mosld_bench.errors import BenchError
from mosld_bench.spec.plain_file import is_regular

_PACKAGE = Path(__file__).parents[1]


class ForeignCodeError(BenchError):
    """Code that would run without having been asked for."""


class _Permission:
    """Of this process."""

    given = False


def allow() -> None:
    """Let foreign code run in this process from now on."""
    _Permission.given = True


@contextmanager
def allowed(given: bool = True) -> Iterator[None]:
    """Let foreign code run within, where it is ``given``."""
    before = _Permission.given
    _Permission.given = before or given
    try:
        yield
    finally:
        _Permission.given = before


def is_allowed() -> bool:
    """Whether foreign code may run in this process."""
    return _Permission.given


def demand(what: str) -> None:
    """Raises ForeignCodeError where foreign code may not run. ``what``: which code, as the subject of a sentence."""
    if not _Permission.given:
        raise ForeignCodeError(
            f"{what} is code that would run on this machine, and it is neither of this package nor installed. Look at "
            f"it, and give --allow-code if it may run."
        )


def foreign_function(name: str, folder: Path) -> str | None:
    """What ``!function name`` in a task file in ``folder`` names, in words, where that is foreign code; else None."""
    module = name.rpartition(".")[0]
    beside = folder / f"{module.replace('.', '/')}.py"
    if module and is_regular(beside):
        return None if _is_of_package(beside) else f"{beside} (!function {name[:100]})"
    return f"The !function {name[:100]} of the task files in {folder}"


def _is_of_package(file: Path) -> bool:
    """Whether a Python file of a task is one of this package, or a copy of one."""
    try:
        return _digest(file) in _own()
    except (OSError, ValueError):
        return False


@cache
def _own() -> frozenset[str]:
    bundled = _PACKAGE / "_bundled" / "tasks"
    return frozenset(map(_digest, (bundled if bundled.is_dir() else _PACKAGE.parent / "tasks").rglob("*.py")))


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
