"""`mosld-bench methods`: list, show and check recipes and the methods that they set."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
import yaml

from mosld_bench.cli.console import console, print_json, say
from mosld_bench.cli.examples import examples
from mosld_bench.cli.options import (
    AllowCode,
    Json,
    Model,
    ModelRoot,
    Plugin,
    RecipeName,
    Root,
    load_plugins,
    output,
    permit,
    place,
    running,
)
from mosld_bench.errors import BenchError
from mosld_bench.spec.recipe import SELECTORS, Recipe, load_recipes, recipe_named, write_recipe
from mosld_bench.spec.trial import ModelSpec
from mosld_bench.spec.workspace import Workspace


@examples(
    ("mosld-bench methods ls", "what --methods takes"),
    ("mosld-bench methods ls --json", "for programs"),
)
def list_methods(plugin: Plugin = None, json: Json = False, root: Root = None) -> None:
    """List recipes, and the methods that they can set."""
    from mosld_bench import display
    from mosld_bench.methods.registry import names, problems

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
    for problem in problems():
        say(problem)


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
    ("mosld-bench methods check lora --model embedded --json", "on the shape of a model; for programs"),
)
def check_recipe(
    recipe: RecipeName,
    *,
    model: Model = None,
    model_root: ModelRoot = None,
    json: Json = False,
    plugin: Plugin = None,
    allow_code: AllowCode = False,
    root: Root = None,
) -> None:
    """Hold a recipe's method to the contract of a plug-in: zero start, gradients, counts, save and load.

    On the shape of --model (default: embedded) with random weights; of a large model on its first layers. Exit code 1
    where something does not hold.
    """
    from mosld_bench import display
    from mosld_bench.inputs.models import load_config
    from mosld_bench.methods import author
    from mosld_bench.methods.contract import Check, check_all
    from mosld_bench.methods.registry import get
    from mosld_bench.methods.subject import shortened
    from mosld_bench.trial.answer_check import CLAIM, check_answers

    permit(allow_code)
    load_plugins(plugin)
    checked = _recipe(recipe, root)
    method, params = get(checked.method), checked.params
    config = shortened(load_config(ModelSpec(name=model or "embedded"), model_root))
    with _silence():
        checks = check_all(method, params, knob=checked.knob, fixed_size=checked.fixed_size, config=config)
        holds = all(check.passed for check in checks)
        checks.append(check_answers(method, params, config=config) if holds else Check(CLAIM, None, "needs the others"))
    if json:
        print_json([check._asdict() for check in checks])
    else:
        say(f"{checked.name}: {author.named(type(method))}")
        for line in display.check_lines(checks):
            say(line)
    if not all(check.passed for check in checks):
        raise typer.Exit(1)


@examples(
    ("mosld-bench methods new half-rank", "a plain torch module, its recipe and its test"),
    ("mosld-bench methods new half-rank --kind tuner --to mine", "a tuner of PEFT's, in another folder"),
)
def new_method(
    name: Annotated[str, typer.Argument(help="Of the method, its recipe and its package: a-z, 0-9 and dashes.")],
    *,
    to: Annotated[Path, place(help="Folder to write the package NAME into.")] = Path(),
    kind: Annotated[str, running(help="module: a plain torch module; tuner: a tuner of PEFT's.")] = "module",
    root: Root = None,
) -> None:
    """Write an installable package with a method of your own, its recipe and its test, to be changed."""
    from mosld_bench.methods.registry import names
    from mosld_bench.methods.scaffold import write_package

    recipes = load_recipes(Workspace.find(root).methods)
    files = write_package(name, to, kind=kind, methods=names(), recipes=[*recipes, *SELECTORS])
    for file in files:
        say(str(file))
    say(f"Next: pip install -e {to / name} && pytest {to / name}")
    say(f"      mosld-bench methods check {name} && mosld-bench run embedded --methods lora,{name}")


@examples(
    (
        "mosld-bench methods add adapter_config.json --name theirs",
        "a recipe with the settings of an adapter",
    ),
)
def add_recipe(
    config: Annotated[Path, typer.Argument(help="An adapter_config.json of PEFT's, or the folder of an adapter.")],
    *,
    name: Annotated[str | None, output(help="The recipe's; default: the folder's.")] = None,
    root: Root = None,
) -> None:
    """Make a recipe in methods/ from the settings of any adapter of PEFT's."""
    from mosld_bench.inputs.models import load_config
    from mosld_bench.methods import count_trainable
    from mosld_bench.methods.peft_file import name_of, read_config, take
    from mosld_bench.methods.registry import get

    workspace, content = Workspace.find(root), read_config(config)
    name = name or name_of(config)
    if name in {*load_recipes(workspace.methods), *SELECTORS}:
        raise BenchError(f"The name {name!r} is that of a recipe, or of several, already. Give another by --name.")
    taken = take(content)
    recipe = write_recipe(workspace.own_methods, name, taken.yaml(name, config.name))
    for line in (f"{workspace.own_methods / name}.yaml", *taken.sentences()):
        say(line)
    try:
        size = count_trainable(get(recipe.method), load_config(ModelSpec(name="embedded")), recipe.params)
        say(f"On the embedded model it has {size:,} trainable parameters.")
    except BenchError as error:
        say(f"The embedded model cannot have it as it is: {error}")


@contextmanager
def _silence() -> Iterator[None]:
    """What libraries remark and report is not for a list of what holds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def _recipe(name: str, root: Path | None) -> Recipe:
    return recipe_named(load_recipes(Workspace.find(root).methods), name)
