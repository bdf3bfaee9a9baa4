"""The tables of `mosld-bench methods ls`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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
