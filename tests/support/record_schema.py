"""The fields of records, overlaps and scored records as tables, from the models themselves, for `results/README.md`.

`python -m tests.support.record_schema` prints the tables as they should stand there.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, Union, get_args, get_origin, get_type_hints

from mosld_bench.format import listed
from mosld_bench.records.overlap import Overlaps
from mosld_bench.records.provenance import TrialMetaInfo
from mosld_bench.records.record import Record
from mosld_bench.records.scored import Scored

_WORDS = {str: "text", int: "integer", float: "number", bool: "true or false", type(None): "null", Any: "anything"}


class FieldRow(NamedTuple):
    """A field of a JSON object: its key, its type in words, and what it means."""

    name: str
    type: str
    meaning: str


def record_schema() -> dict[type, list[FieldRow]]:
    """Every kind of object in record.json, overlap.json and scored.json -> its fields, those of a file first."""
    schema: dict[type, list[FieldRow]] = {}
    waiting: list[type] = [Record, Overlaps, Scored]
    while waiting:
        kind = waiting.pop(0)
        if kind not in schema:
            hints = _fields(kind)
            schema[kind] = [FieldRow(name, _words(hint), _meaning(hint, text)) for name, (hint, text) in hints.items()]
            waiting += [part for hint, _ in hints.values() for part in _parts(hint) if _is_object(part)]
    return schema


def tables() -> str:
    """`record_schema` in Markdown: a heading, a sentence and a table for every kind of object."""
    blocks = []
    for kind, rows in record_schema().items():
        lines = [f"### {kind.__name__}", "", _summary(kind), "", "| field | type | meaning |", "|---|---|---|"]
        lines += [f"| `{row.name}` | {row.type} | {row.meaning} |" for row in rows]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _fields(kind: Any) -> dict[str, tuple[Any, str]]:
    """Field -> its type and description, of a model, a dataclass of pydantic or a TypedDict."""
    described: dict[str, tuple[Any, str]] = {}
    if hasattr(kind, "__pydantic_fields__"):
        for name, field in kind.__pydantic_fields__.items():
            if field.exclude:
                continue
            described[name] = (field.annotation, field.description or "")
        if kind is Record:  # open to what later versions add, so that its type says nothing of its keys
            described["meta_info"] = (TrialMetaInfo, described["meta_info"][1])
        return described
    for name, hint in get_type_hints(kind, include_extras=True).items():
        plain, text = get_args(hint)[:2] if get_origin(hint) is Annotated else (hint, "")
        described[name] = (plain if name in kind.__required_keys__ else NotRequired[plain], text)
    return described


def _is_object(kind: Any) -> bool:
    """Whether values of a type are objects with fields of their own."""
    return isinstance(kind, type) and (hasattr(kind, "__pydantic_fields__") or hasattr(kind, "__required_keys__"))


def _parts(hint: Any) -> Iterator[Any]:
    """A type and all types within it."""
    yield hint
    for argument in get_args(hint):
        yield from _parts(argument)


def _words(hint: Any) -> str:
    """A type in words, as a reader of JSON has them."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (UnionType, Union):
        return " or ".join(map(_words, arguments))
    if origin is Annotated:
        return _words(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin is NotRequired:
        return f"{_words(arguments[0])}, or absent"
    if origin in (tuple, list):
        return f"list of {_words(arguments[0])}"
    if origin is dict:
        return f"text → {_words(arguments[1])}"
    if _is_object(hint):
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return " or ".join(f"`{member.value}`" for member in hint)
    return _WORDS[str if isinstance(hint, type) and issubclass(hint, str) else hint]  # a budget is a text


def _meaning(hint: Any, description: str) -> str:
    """What the description says; of an object without one, the summary of its kind."""
    kinds = [part for part in _parts(hint) if _is_object(part)]
    return description or listed([_summary(kind)[:-1] for kind in kinds])


def _summary(kind: type) -> str:
    """The first sentence of a class's docstring."""
    return (kind.__doc__ or "").partition("\n")[0]


if __name__ == "__main__":
    print(tables(), end="")
