"""The registry: how a method is found by name, and which mistakes are named."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from mosld_bench import methods
from mosld_bench.errors import BenchError, UnknownNameError
from mosld_bench.methods import Method, registry
from mosld_bench.spec.recipe import load_recipes
from tests.conftest import REPOSITORY

ENTRY_POINTS: dict[str, str] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["entry-points"][
    "mosld_bench.methods"
]


class Loud(Method):
    """A method that leaves the model as it is."""

    def attach(self, model: Any, params: Mapping[str, Any]) -> Any:
        return model


def test_every_recipe_of_the_repository_names_a_method() -> None:
    for recipe in load_recipes(REPOSITORY / "methods").values():
        assert isinstance(registry.get(recipe.method), Method)


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_an_entry_point_of_ours_is_a_method(name: str) -> None:
    assert issubclass(EntryPoint(name, ENTRY_POINTS[name], registry.GROUP).load(), Method)
    assert ENTRY_POINTS[name].startswith("mosld_bench.methods:")


@pytest.mark.parametrize("name", methods.__all__)
def test_public_names_of_the_package(name: str) -> None:
    assert callable(getattr(methods, name))


def test_other_names_are_no_attributes() -> None:
    with pytest.raises(AttributeError, match=r"mosld_bench\.methods' has no attribute 'NoMethod'"):
        methods.NoMethod  # noqa: B018


def test_a_class_by_its_place() -> None:
    assert type(registry.get("mosld_bench.methods.builtin:FullMethod")) is methods.FullMethod


@pytest.mark.usefixtures("code_allowed")
def test_mistakes_are_named() -> None:
    assert set(registry.names()) >= {"base", "full", "peft", "mixture", "mixlora"}
    with pytest.raises(UnknownNameError, match="no method named 'mixtur'\\. Did you mean 'mixture'"):
        registry.get("mixtur")
    with pytest.raises(BenchError, match="cannot be loaded"):
        registry.get("no.such.module:Class")
    with pytest.raises(BenchError, match="not a subclass"):
        registry.get("pathlib:Path")
    with pytest.raises(BenchError, match="cannot be imported"):
        registry.load_plugin("no_such_plugin")


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_a_built_in_name_is_taken(name: str) -> None:
    """By whoever registers it, and by another package's entry point."""
    with pytest.raises(BenchError, match=rf"Loud wants the name '{name}', which is that of a built-in method"):
        registry.register(name)(Loud)
    assert registry.get(name).__class__.__module__ == "mosld_bench.methods.builtin"
    registry.register(name)(type(registry.get(name)))  # the same once more is no conflict
    registry._registered.pop(name)


def test_an_installed_name_is_taken_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mosld_bench.methods]\nquiet = other.methods:Quiet\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry._entry_points.cache_clear()
    try:
        with pytest.raises(BenchError, match=r"name 'quiet', which is that of an installed package \(other\.methods:"):
            registry.register("quiet")(Loud)
        (info / "entry_points.txt").write_text("[mosld_bench.methods]\npeft = other.methods:Quiet\n")
        registry._entry_points.cache_clear()
        assert type(registry.get("peft")) is methods.PeftMethod
        (problem,) = registry.problems()
        assert "other.methods:Quiet, of the distribution other 1.0 cannot be had by it" in problem
    finally:
        registry._entry_points.cache_clear()


def test_a_method_is_found_by_its_class_and_registered_once_under_a_name() -> None:
    assert isinstance(registry.get("tests.methods.test_registry:Loud"), Loud)
    registry.register("loud")(Loud)
    registry.register("loud")(Loud)
    try:
        assert isinstance(registry.get("loud"), Loud)
        with pytest.raises(BenchError, match="Two methods want the name 'loud'"):
            registry.register("loud")(type("Other", (Loud,), {}))
    finally:
        registry._registered.pop("loud")


def test_an_import_that_changes_torch_s_settings_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    (tmp_path / "doubling.py").write_text("import torch\ntorch.set_default_dtype(torch.float64)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BenchError, match=r"plug-in 'doubling' changes torch's default dtype .* when it is imported"):
        registry.load_plugin("doubling")
    assert torch.get_default_dtype() == torch.float32
