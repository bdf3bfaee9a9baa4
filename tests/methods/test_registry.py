"""Methods by name: what pyproject.toml names is there, and what cannot be had is refused with the remedy."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from typing import Any

import pytest
from torch import nn

from mosld_bench import methods
from mosld_bench.errors import BenchError, UnknownNameError
from mosld_bench.methods import Method, registry
from tests.conftest import REPOSITORY

ENTRY_POINTS: dict[str, str] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["entry-points"][
    "mosld_bench.methods"
]


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


def test_what_is_no_method_is_refused() -> None:
    with pytest.raises(BenchError, match=r"is not a subclass of mosld_bench\.Method"):
        registry.get("collections:OrderedDict")
    with pytest.raises(BenchError, match="cannot be loaded: ModuleNotFoundError"):
        registry.get("no_such_module:Method")
    with pytest.raises(UnknownNameError, match="Did you mean 'mixlora'"):
        registry.get("mixlra")


def test_two_classes_cannot_have_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})

    class First(Method):
        def attach(self, model: nn.Module, params: Mapping[str, Any]) -> nn.Module:
            return model

    class Second(First):
        pass

    assert registry.register("mine")(First) is First
    assert registry.register("mine")(First) is First  # a module that is imported again
    assert registry.names()["mine"].endswith(":test_two_classes_cannot_have_one_name.<locals>.First")
    assert type(registry.get("mine")) is First
    with pytest.raises(BenchError, match="Two methods want the name 'mine'"):
        registry.register("mine")(Second)
