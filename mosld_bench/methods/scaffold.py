"""`mosld-bench methods new`: a package with a method of one's own, which passes its own test as it is written."""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Literal, get_args

from mosld_bench.errors import BenchError, UnknownNameError
from mosld_bench.format import shortened

#: A plain torch module, or a tuner of PEFT's.
Kind = Literal["module", "tuner"]

KINDS: tuple[str, ...] = get_args(Kind)

_TEMPLATES = Path(__file__).parent / "templates"
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST = 40  # characters of a name


def write_package(
    name: str, folder: Path, *, kind: str = "module", methods: Collection[str] = (), recipes: Collection[str] = ()
) -> list[Path]:
    """Write the package of the method ``name`` into ``folder``/``name``. Returns its files.

    ``methods`` and ``recipes``: the names that are taken. Raises BenchError for a name that cannot be one or is taken,
    and for a folder that is there already; then nothing is written.
    """
    if kind not in KINDS:
        raise UnknownNameError("kind of method", kind, KINDS)
    package = name.replace("-", "_")
    _check_name(name, package, methods=methods, recipes=recipes)
    if kind == "tuner":
        _check_type(package.upper())
    root = folder / name
    if root.exists():
        raise BenchError(f"{root} is there already. Choose another name, or another folder by --to.")
    values = {
        "name": name,
        "package": package,
        "cls": "".join(part.capitalize() for part in name.split("-")),
        "title": name.replace("-", " ").capitalize(),
        "type": package.upper(),
    }
    files = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        f"{package}/__init__.py": f"{kind}.py",
        f"{package}/recipes/{name}.yaml": "recipe.yaml",
        f"tests/test_{package}.py": f"test_{kind}.py",
    }
    texts = {
        root / path: Template((_TEMPLATES / f"{template}.txt").read_text(encoding="utf-8")).substitute(values)
        for path, template in files.items()
    }
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(texts)


def _check_name(name: str, package: str, *, methods: Collection[str], recipes: Collection[str]) -> None:
    """Raise BenchError where ``name`` cannot name a method, a recipe and, as ``package``, a package of Python."""
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        raise BenchError(
            f"{shortened(name)!r} cannot name a method: it names a package of Python and a recipe too, so it takes "
            f"a-z, 0-9 and single dashes within, a letter first, and at most {_LONGEST} characters, such as "
            f"'half-rank'."
        )
    for taken, what in ((methods, "a method"), (recipes, "a recipe, or a word for several of them")):
        if name in taken:
            raise BenchError(f"The name {name!r} is that of {what} already. Choose another.")
    if keyword.iskeyword(package):
        raise BenchError(f"The name {name!r} is a word of Python's own, so that no package can have it.")
    try:
        found = find_spec(package)
    except (ImportError, ValueError):
        found = None
    if found is not None:
        where = f" ({found.origin})" if found.origin else ""
        raise BenchError(f"The name {name!r} is that of a module of Python already{where}. Choose another.")


def _check_type(peft_type: str) -> None:
    from mosld_bench.compat.peft import config_classes

    if peft_type in config_classes():
        raise BenchError(
            f"PEFT has a method of the type {peft_type} already, which a recipe gets by 'method: peft'. Choose another "
            f"name for one of your own."
        )
