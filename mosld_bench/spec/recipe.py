"""Recipes: named settings of a method, one YAML file each in methods/.

include: mosl.yaml          # one level; `params` are merged key by key
title: MoSLD
params: {dropout: 0.1, dropout_on: weight}
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, field_validator

from mosld_bench.errors import UnknownNameError
from mosld_bench.spec.names import MAX_NAME
from mosld_bench.spec.yaml_file import Strict, parse, read_including

Optimizer = Literal["adamw", "adafactor"]

#: Every optimiser that a recipe may name.
OPTIMIZERS: tuple[Optimizer, ...] = get_args(Optimizer)


_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")

#: What YAML 1.1 took for true or false and YAML 1.2 takes for text. To a method's library any text is true.
_WORDS = frozenset({"yes", "no", "on", "off", "y", "n", "true", "false"})


class Recipe(Strict):
    """A named setting of a method: what `--methods` selects and what a row of a table is."""

    name: str = Field(description="that of its file")
    title: str = Field(description="as printed in tables")
    method: str = Field(description="a registered method, or module:Class")
    paper: str = Field("", description="where the method is from")
    about: str = Field("", description="one or two sentences for the report's method section")
    group: Literal["main", "ablation"] = Field("main", description="`--methods all` selects main")
    order: int = Field(100, description="place among the rows of a table; equals go by name")
    params: dict[str, Any] = Field({}, description="the method's own settings, such as rank, experts and dropout")
    knob: str | None = Field(None, description="the field that the budget turns, where the method leaves it open")
    learning_rate_scale: float = Field(1.0, gt=0, description="multiplies the study's learning rate")
    optimizer: Optimizer = Field("adamw", description="adafactor keeps next to no state")
    deviations: tuple[str, ...] = Field((), description="where the recipe differs from its paper, and why")

    @field_validator("name")
    @classmethod
    def _refuse_other_names(cls, value: str) -> str:
        if not _NAME.fullmatch(value) or len(value) > MAX_NAME:
            raise ValueError(
                f"a recipe is named by its file: a-z, 0-9 and ._-, a letter or digit first, up to {MAX_NAME} characters"
            )
        return value

    @field_validator("params")
    @classmethod
    def _refuse_words_for_truth_values(cls, value: dict[str, Any]) -> dict[str, Any]:
        for path, word in _texts(value):
            if word.lower() in _WORDS:
                raise ValueError(f"{path} is the word {word!r}; write true or false")
        return value

    @property
    def identity(self) -> dict[str, Any]:
        """What of a recipe changes the numbers; without what is at its default, so that a new field changes none."""
        wanted = {"name", "method", "params", "knob", "learning_rate_scale", "optimizer"}
        return self.model_dump(mode="json", include=wanted, exclude_defaults=True)

    @classmethod
    def load(cls, path: Path) -> Recipe:
        """Read one file. Raises BadFileError with every problem of the file, each with its key."""
        return parse(cls, path, read_including(path, ("params",)) | {"name": path.stem})


def _texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every text in nested settings, with the path of its keys."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, str):
        yield path, value


def load_recipes(folder: Path) -> dict[str, Recipe]:
    """Every recipe of a folder by name, in the order of the tables. Raises BadFileError."""
    recipes = [Recipe.load(path) for path in folder.glob("*.yaml")]
    return {recipe.name: recipe for recipe in sorted(recipes, key=lambda recipe: (recipe.order, recipe.name))}


def select(recipes: Mapping[str, Recipe], wanted: Sequence[str]) -> list[Recipe]:
    """``all`` is every recipe of the group main; otherwise names, in the order given. Raises UnknownNameError."""
    chosen: dict[str, Recipe] = {}
    for name in wanted:
        if name == "all":
            chosen |= {recipe.name: recipe for recipe in recipes.values() if recipe.group == "main"}
        elif name in recipes:
            chosen[name] = recipes[name]
        else:
            raise UnknownNameError("recipe", name, recipes, "Recipes are the YAML files in methods/.")
    return list(chosen.values())
