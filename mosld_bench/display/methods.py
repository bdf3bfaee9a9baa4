"""The tables of `mosld-bench methods ls`, and the lines of `methods check`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from rich.table import Table

from mosld_bench.spec.recipe import Recipe


def recipes_table(recipes: Iterable[Recipe]) -> Table:
    """One line a recipe, in the order given. A name is never cut; longer texts go over several lines."""
    table = Table(title="recipes")
    table.add_column("recipe", no_wrap=True)
    for column in ("title", "method", "group", "paper"):
        table.add_column(column, overflow="fold")
    for recipe in recipes:
        table.add_row(recipe.name, recipe.title, recipe.method, recipe.group, recipe.paper)
    return table


def methods_table(sources: Mapping[str, str]) -> Table:
    """One line a method. ``sources``: name -> ``module:Class``, as `registry.names` gives them."""
    table = Table(title="methods")
    table.add_column("method", no_wrap=True)
    table.add_column("from", overflow="fold")
    for name, source in sources.items():
        table.add_row(name, source)
    return table


class Checked(Protocol):
    """What became of a claim of the contract of a method: `methods.contract.Check`."""

    @property
    def check(self) -> str:
        """The claim, in words."""

    @property
    def passed(self) -> bool | None:
        """Whether it holds; None where it was not tried."""

    @property
    def reason(self) -> str:
        """Why not; of one that holds, a detail."""


def check_lines(checks: Sequence[Checked]) -> Iterator[str]:
    """One line a check, and one that counts them."""
    words = {True: "passed   ", False: "FAILED   ", None: "not tried"}
    for each in checks:
        detail = f" ({each.reason})" if each.passed is not False and each.reason else f": {each.reason}"
        yield f"  {words[each.passed]}  {each.check}{detail if each.reason else ''}"
    failed, left = (sum(each.passed is passed for each in checks) for passed in (False, None))
    if failed:
        yield f"{failed} of {len(checks)} checks failed{f', {left} not tried' if left else ''}."
    else:
        yield f"All {len(checks)} checks passed."
