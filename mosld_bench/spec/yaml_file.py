"""YAML files read strictly: one level of `include:`, layers over each other, and every problem of a file at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from mosld_bench.errors import BadFileError, UnknownNameError

T = TypeVar("T", bound=BaseModel)


class Strict(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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
