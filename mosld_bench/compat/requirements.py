"""The versions of libraries that this package is tested with, as its installation says."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, requires
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet


def tested_with(library: str) -> SpecifierSet | None:
    """The versions of ``library`` (its name as a distribution); None where this package runs without an installation.

    Of one that an extra brings as well.
    """
    from packaging.requirements import Requirement

    try:
        return next(r.specifier for line in requires("mosld-bench") or () if (r := Requirement(line)).name == library)
    except (PackageNotFoundError, StopIteration):
        return None
