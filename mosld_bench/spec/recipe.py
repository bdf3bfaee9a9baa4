"""Recipes: named settings of a method, one YAML file each in methods/.

include: mosl.yaml          # one level; `params` are merged key by key
title: MoSLD
params: {dropout: 0.1, dropout_on: weight}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mosld_bench.errors import BadFileError, UnknownNameError

T = TypeVar("T", bound=BaseModel)

Optimizer = Literal["adamw", "adafactor"]
OPTIMIZERS: tuple[Optimizer, ...] = get_args(Optimizer)


class Strict(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Recipe(Strict):
    """A named setting of a method: what `--methods` selects and what a row of a table is."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    title: str = Field(description="as printed in tables")
    method: str = Field(description="a registered method, or module:Class")
    paper: str = Field("", description="where the method is from")
    about: str = Field("", description="one or two sentences for the report's method section")
    group: Literal["main", "ablation"] = "main"
    order: int = Field(100, description="place among the rows of a table; equals go by name")
    params: dict[str, Any] = {}
    knob: str | None = Field(None, description="the field that the budget turns, where the method leaves it open")
    learning_rate_scale: float = Field(1.0, gt=0, description="multiplies the study's learning rate")
    optimizer: Optimizer = Field("adamw", description="adafactor keeps next to no state")
    deviations: tuple[str, ...] = Field((), description="where the recipe differs from its paper, and why")

    @property
    def identity(self) -> dict[str, Any]:
        """What of a recipe changes the numbers; without what is at its default, so that a new field changes none."""
        wanted = {"name", "method", "params", "knob", "learning_rate_scale", "optimizer"}
        return self.model_dump(mode="json", include=wanted, exclude_defaults=True)

    @classmethod
    def load(cls, path: Path) -> Recipe:
        """Read one file. Raises BadFileError with every problem of the file, each with its key."""
        return parse(cls, path, read_including(path, ("params",)) | {"name": path.stem})


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises BadFileError where it is not one."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadFileError(f"{path} does not exist.") from None
    except yaml.YAMLError as error:
        raise BadFileError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise BadFileError(f"{path} must hold a mapping of keys to values, not {type(content).__name__}.")
    return content


def read_including(path: Path, merged: tuple[str, ...], replaces: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A YAML file on top of the one that it includes: key by key, and within the keys ``merged`` too.

    Raises BadFileError where the included file includes another: one level is all that a reader can follow.
    """
    own = read_yaml(path)
    include = own.pop("include", None)
    if include is None:
        return own
    base = read_yaml(path.parent / str(include))
    if "include" in base:
        raise BadFileError(f"{path} includes {include}, which includes again; one level is allowed.")
    changes: dict[tuple[str, ...], Any] = {}
    for key, value in own.items():
        inner = value if key in merged and isinstance(value, dict) else None
        changes |= {(key,): value} if inner is None else {(key, name): one for name, one in inner.items()}
    return layered(base, changes, replaces or {})


def layered(
    base: dict[str, Any], changes: Mapping[tuple[str, ...], Any], replaces: Mapping[str, str]
) -> dict[str, Any]:
    """``base`` with ``changes`` (path of keys -> value) on top.

    ``replaces``: dotted path of a change -> that of what goes out of ``base``.

    Raises UnknownNameError for a key within what is no mapping.
    """
    content = {key: dict(value) if isinstance(value, dict) else value for key, value in base.items()}
    for path in changes:
        if other := replaces.get(".".join(map(str, path))):
            *parents, last = other.split(".")
            _within(content, parents, other).pop(last, None)
    for path, value in changes.items():
        *parents, last = path
        _within(content, parents, ".".join(map(str, path)))[last] = value
    return content


def _within(content: dict[str, Any], parents: list[str], key: str) -> dict[str, Any]:
    for parent in parents:
        content = content.setdefault(parent, {})
        if not isinstance(content, dict):
            raise UnknownNameError("key", key, [])
    return content


def parse(model: type[T], where: Path | str, content: dict[str, Any]) -> T:
    """Validate ``content``; every problem goes into one BadFileError that names file and key."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            *parents, last = map(str, problem["loc"] or ("",))
            if problem["type"] == "extra_forbidden":
                place = f"It stands in {'.'.join(parents)}." if parents else ""
                lines.append(str(UnknownNameError("key", last, _keys(model, problem["loc"]), place)))
            else:
                key = ".".join((*parents, last))
                given = "" if problem["type"] == "missing" else f" (given: {problem.get('input')!r})"
                lines.append(f"{key or 'file'}: {problem['msg'].removeprefix('Value error, ')}{given}")
        raise BadFileError(f"{where} has {len(lines)} problem(s):\n  " + "\n  ".join(lines)) from None


def _keys(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for part in (one for one in location[:-1] if isinstance(one, str)):  # not the places in a list
        field = model.model_fields.get(part)
        inner = (field.annotation, *get_args(field.annotation)) if field else ()
        models = [one for one in inner if isinstance(one, type) and issubclass(one, BaseModel)]
        if not models:
            return []
        model = models[0]
    return [name for name in model.model_fields if name != "name"]


def load_recipes(folder: Path) -> dict[str, Recipe]:
    """Every recipe of a folder by name, in the order of the tables."""
    recipes = [Recipe.load(path) for path in folder.glob("*.yaml")]
    return {recipe.name: recipe for recipe in sorted(recipes, key=lambda one: (one.order, one.name))}


def select(recipes: dict[str, Recipe], wanted: Sequence[str]) -> list[Recipe]:
    """``all`` is every recipe of the group main; otherwise names, in the order given. Raises UnknownNameError."""
    chosen: dict[str, Recipe] = {}
    for name in wanted:
        if name == "all":
            chosen |= {n: r for n, r in recipes.items() if r.group == "main"}
        elif name in recipes:
            chosen[name] = recipes[name]
        else:
            raise UnknownNameError("recipe", name, recipes, "Recipes are the YAML files in methods/.")
    return list(chosen.values())
