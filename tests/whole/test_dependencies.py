"""The ranges of pyproject.toml: their lower ends are in .ci/floor.txt, and the tests run inside them."""

from __future__ import annotations

import tomllib
from importlib.metadata import version
from importlib.util import find_spec

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.conftest import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OPTIONAL = PROJECT["optional-dependencies"]["gguf"] + PROJECT["optional-dependencies"]["quantised"]
RANGES = [Requirement(text) for text in PROJECT["dependencies"] + OPTIONAL]
FLOOR = dict(
    line.split("==")
    for line in (REPOSITORY / ".ci" / "floor.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
)


def _bound(requirement: Requirement, operator: str) -> Version:
    (bound,) = (part.version for part in requirement.specifier if part.operator == operator)
    return Version(bound)


def test_the_floor_names_every_dependency_and_no_other() -> None:
    assert set(FLOOR) == {requirement.name for requirement in RANGES}


@pytest.mark.parametrize("requirement", RANGES, ids=lambda requirement: str(requirement.name))
def test_a_range_has_both_ends_and_holds_what_is_tested(requirement: Requirement) -> None:
    lower, floor = _bound(requirement, ">="), Version(FLOOR[requirement.name])
    assert (lower.major, lower.minor) == (floor.major, floor.minor), "the floor is of the oldest series that is allowed"
    assert lower <= floor < _bound(requirement, "<")
    if requirement.name == "bitsandbytes" and find_spec(requirement.name) is None:
        pytest.skip("bitsandbytes is of the extra quantised")
    assert requirement.specifier.contains(version(requirement.name)), "the tests run outside of the range"


@pytest.mark.parametrize(
    ("name", "digits"), [("transformers", 2), ("peft", 2), ("typst", 2), ("bitsandbytes", 2), ("lm-eval", 3)]
)
def test_a_library_used_through_private_parts_ends_at_a_minor_version(name: str, digits: int) -> None:
    """Of lm-eval, all of whose versions are 0.4, at a patch."""
    (requirement,) = (requirement for requirement in RANGES if requirement.name == name)
    assert len(_bound(requirement, "<").release) == digits
