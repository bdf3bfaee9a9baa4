"""The public names: each is there whatever was imported before, and is the object that its home defines."""

from __future__ import annotations

import pytest

import mosld_bench
from tests.support.commands import python

EVERYTHING = """
import importlib.util, pkgutil
import mosld_bench
lacking = () if importlib.util.find_spec("bitsandbytes") else ("bitsandbytes_layers",)
for module in pkgutil.walk_packages(mosld_bench.__path__, "mosld_bench."):
    if not module.name.endswith(("__main__", "_build", *lacking)):
        importlib.import_module(module.name)
"""


@pytest.mark.parametrize("first", ["", EVERYTHING], ids=["alone", "after every module"])
def test_every_public_name_by_from_import(first: str) -> None:
    """A module of the same name would take the place of the function as soon as somebody imports it."""
    code = f"""{first}
import types
import mosld_bench
from mosld_bench import {", ".join(mosld_bench.__all__)}
for name in mosld_bench.__all__:
    value = getattr(mosld_bench, name)
    assert not isinstance(value, types.ModuleType), f"{{name}} is a module"
    assert value is locals()[name], name
    assert value.__name__ == name, (name, value)
"""
    done = python("-c", code)
    assert done.returncode == 0, done.stderr


def test_a_star_import_brings_the_public_names() -> None:
    code = f"from mosld_bench import *\nassert set(dir()) >= {set(mosld_bench.__all__)!r}\nassert callable(execute)"
    done = python("-c", code)
    assert done.returncode == 0, done.stderr


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'exekute'"):
        mosld_bench.exekute  # noqa: B018
