"""The packages `inputs` and `trial` as other packages see them: names that are there, and light to import."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from types import ModuleType

import pytest

from mosld_bench import inputs, trial

DOORS = pytest.mark.parametrize("package", [inputs, trial], ids=lambda package: str(package.__name__))


@DOORS
def test_every_name_is_the_object_of_its_module(package: ModuleType) -> None:
    for name, module in package._MODULES.items():
        defined = getattr(importlib.import_module(f"{package.__name__}.{module}"), name)
        assert getattr(package, name) is defined
        assert defined.__module__ == f"{package.__name__}.{module}", name


@DOORS
def test_no_name_is_a_module_too(package: ModuleType) -> None:
    """The module would take the name's place as soon as somebody imports it."""
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    assert modules.isdisjoint(package._MODULES)


@DOORS
def test_type_checkers_see_the_same_names(package: ModuleType) -> None:
    imports = [node for node in ast.walk(ast.parse(inspect.getsource(package))) if isinstance(node, ast.ImportFrom)]
    inside = [node for node in imports if str(node.module).startswith(package.__name__)]
    seen = {alias.name: str(node.module).rsplit(".", 1)[-1] for node in inside for alias in node.names}
    assert seen == package._MODULES


def test_the_packages_are_light_to_import() -> None:
    code = "import sys, mosld_bench.inputs, mosld_bench.trial; print({'torch', 'lm_eval', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@DOORS
def test_an_unknown_name_is_an_attribute_error(package: ModuleType) -> None:
    with pytest.raises(AttributeError, match="no attribute 'evaluat'"):
        package.evaluat  # noqa: B018
