"""`mosld-bench methods`: list, show and check recipes and the methods that they set."""

from __future__ import annotations

from pathlib import Path

import yaml

from mosld_bench.cli.console import console
from mosld_bench.cli.options import Plugin, Root, load_plugins
from mosld_bench.errors import UnknownNameError
from mosld_bench.spec.recipe import Recipe, load_recipes
from mosld_bench.spec.workspace import Workspace


def list_methods(plugin: Plugin = None, root: Root = None) -> None:
    """List recipes, and the methods that they can set."""
    from mosld_bench import display
    from mosld_bench.methods.registry import names

    load_plugins(plugin)
    console.print(display.recipes_table(load_recipes(Workspace.find(root).methods).values()))
    console.print(display.methods_table(names()))


def show_recipe(recipe: str, root: Root = None) -> None:
    """Print a recipe with its includes resolved."""
    content = _recipe(recipe, root).model_dump(mode="json")
    print(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), end="")


def check_recipe(recipe: str, plugin: Plugin = None, root: Root = None) -> None:
    """Hold a recipe's method to the contract of a plug-in: zero start, gradients, counts, save and load."""
    from mosld_bench.methods.contract import check_method
    from mosld_bench.methods.registry import get
    from mosld_bench.trial.answer_check import check_answers

    load_plugins(plugin)
    checked = _recipe(recipe, root)
    method = get(checked.method)
    for line in check_method(method, checked.params, knob=checked.knob, fixed_size=checked.fixed_size):
        console.print(line)
    console.print(check_answers(method, checked.params))


def _recipe(name: str, root: Path | None) -> Recipe:
    recipes = load_recipes(Workspace.find(root).methods)
    if name not in recipes:
        raise UnknownNameError("recipe", name, recipes)
    return recipes[name]
