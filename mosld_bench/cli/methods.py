"""`mosld-bench methods`: list, show and check recipes and the methods that they set."""

from __future__ import annotations

from pathlib import Path

import yaml

from mosld_bench.cli.console import console, print_json, say
from mosld_bench.cli.examples import examples
from mosld_bench.cli.options import Json, Plugin, RecipeName, Root, load_plugins
from mosld_bench.spec.recipe import Recipe, load_recipes, recipe_named
from mosld_bench.spec.workspace import Workspace


@examples(
    ("mosld-bench methods ls", "what --methods takes"),
    ("mosld-bench methods ls --json", "for programs"),
)
def list_methods(plugin: Plugin = None, json: Json = False, root: Root = None) -> None:
    """List recipes, and the methods that they can set."""
    from mosld_bench import display
    from mosld_bench.methods.registry import names

    load_plugins(plugin)
    recipes = load_recipes(Workspace.find(root).methods)
    if json:
        shown = {"name", "title", "method", "group", "paper"}
        print_json(
            {
                "recipes": [recipe.model_dump(mode="json", include=shown) for recipe in recipes.values()],
                "methods": [{"name": name, "from": source} for name, source in names().items()],
                "unreadable": [
                    {"name": name, "file": str(file.path), "reason": file.reason}
                    for name, file in recipes.unreadable.items()
                ],
            }
        )
        return
    console.print(display.recipes_table(recipes.values()))
    console.print(display.methods_table(names()))
    for file in recipes.unreadable.values():
        say(f"not a recipe: {file.reason}")


@examples(
    ("mosld-bench methods show mosld", "a recipe as a file of methods/ would say it without an include"),
    ("mosld-bench methods show mosld --json", "for programs"),
)
def show_recipe(recipe: RecipeName, json: Json = False, root: Root = None) -> None:
    """Print a recipe with its includes resolved."""
    content = _recipe(recipe, root).model_dump(mode="json")
    if json:
        print_json(content)
        return
    print(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), end="")


@examples(
    ("mosld-bench methods check mosld", "a recipe of ours"),
)
def check_recipe(recipe: RecipeName, plugin: Plugin = None, root: Root = None) -> None:
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
    return recipe_named(load_recipes(Workspace.find(root).methods), name)
