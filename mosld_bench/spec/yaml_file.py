"""YAML files as settings: one level of `include:`, layers over each other, and every problem of a file at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer
from pydantic_core import ErrorDetails

from mosld_bench.errors import BadFileError, UnknownNameError
from mosld_bench.format import shortened
from mosld_bench.spec.yaml_reader import read_file

T = TypeVar("T", bound=BaseModel)


class Strict(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Grown(Strict):
    """Something to which fields were added, which old files lack: those are written where they are not at a default."""

    later: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, content: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = content(self)
        default = {name: type(self).model_fields[name].default for name in self.later}
        return {key: value for key, value in fields.items() if key not in default or value != default[key]}


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, see `yaml_reader`. Raises BadFileError where it is not one."""
    content = read_file(path)
    if not isinstance(content, dict):
        raise BadFileError(f"{path} must hold a mapping of keys to values, not {type(content).__name__}.")
    return content


def read_including(
    path: Path, merged: tuple[str, ...], replaces: Mapping[str, Sequence[str]] | None = None
) -> dict[str, Any]:
    """A YAML file on top of the one that it includes: key by key, and within the keys ``merged`` too.

    ``replaces``: see `layered`.

    Raises BadFileError where a file cannot be read, and where the included file includes another: one level is all
    that a reader can follow.
    """
    content = read_yaml(path)
    include = content.pop("include", None)
    if include is None:
        return content
    if not isinstance(include, str):
        raise BadFileError(f"{path}, include: takes the name of one file; given: {include!r}.")
    base = read_yaml(path.parent / include)
    if "include" in base:
        raise BadFileError(f"{path} includes {include}, which includes again; one level is allowed.")
    changes: dict[tuple[str, ...], Any] = {}
    for key, value in content.items():
        if key in merged and isinstance(value, dict):
            changes |= {(key, inner_key): inner_value for inner_key, inner_value in value.items()}
        else:
            changes[(key,)] = value
    return layered(base, changes, replaces or {})


def layered(
    base: dict[str, Any], changes: Mapping[tuple[str, ...], Any], replaces: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """``base`` with ``changes`` (path of keys -> value) on top; ``base`` itself stays as it is.

    ``replaces``: dotted path of a change -> dotted paths of the keys that such a change removes from ``base``, since
    they exclude each other.

    Raises UnknownNameError for a key within what is no mapping.
    """
    content = {key: dict(value) if isinstance(value, dict) else value for key, value in base.items()}
    for path in changes:
        for other in replaces.get(".".join(map(str, path)), ()):
            *parents, last = other.split(".")
            _mapping_at(content, parents, other).pop(last, None)
    for path, value in changes.items():
        *parents, last = path
        _mapping_at(content, parents, ".".join(map(str, path)))[last] = value
    return content


def _mapping_at(content: dict[str, Any], parents: list[str], key: str) -> dict[str, Any]:
    """The mapping below the keys ``parents``, made where it is missing. ``key`` is named where there is no mapping."""
    for parent in parents:
        content = content.setdefault(parent, {})
        if not isinstance(content, dict):
            raise UnknownNameError("key", key, [])
    return content


def parse(model: type[T], where: Path | str, content: dict[str, Any]) -> T:
    """``content`` as a ``model``. ``where`` is named in the error: a file, or a part of one.

    Raises BadFileError with every problem of the content, each with its key.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        problems = [p for p in error.errors() if not (p["type"] == "too_short" and p["input"])]  # all left out as wrong
        lines = [_explained(problem, model) for problem in problems or error.errors()]
        raise BadFileError(f"{where} has {len(lines)} problem(s):\n  " + "\n  ".join(lines)) from None


def _explained(problem: ErrorDetails, model: type[BaseModel]) -> str:
    """One of pydantic's problems as a line that names the key, and the nearest keys to one that is unknown."""
    *parents, last = map(str, problem["loc"] or ("",))
    if problem["type"] == "extra_forbidden":
        place = f"It stands in {'.'.join(parents)}." if parents else ""
        return str(UnknownNameError("key", last, _known_keys(model, problem["loc"]), place))
    key = ".".join((*parents, last))
    shown = repr(problem.get("input"))
    given = "" if problem["type"] == "missing" else f" (given: {shortened(shown, 200)})"
    return f"{key or 'file'}: {problem['msg'].removeprefix('Value error, ')}{given}"


def _known_keys(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The keys that are allowed beside the one at ``location``; none where a field there holds no model."""
    for part in (part for part in location[:-1] if isinstance(part, str)):  # not the positions in a list
        field = model.model_fields.get(part)
        annotations = (field.annotation, *get_args(field.annotation)) if field else ()
        models = [kind for kind in annotations if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not models:
            return []
        model = models[0]
    return [name for name in model.model_fields if name != "name"]  # a name is that of the file or folder
