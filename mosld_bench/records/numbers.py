"""The numbers of a record: what came out of a trial, and not how long it took or where it ran."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from mosld_bench.records.record import LATER_FIELDS, Record

#: Fields that say how a trial ran and not what came out.
_OF_THE_RUN = frozenset(
    {"seconds", "tokens_per_second", "peak_memory_bytes", "meta_info", "tokens_computed", "packed", "trial"}
)


class Difference(NamedTuple):
    """A number that two records of one trial do not agree on."""

    field: str
    ours: Any
    theirs: Any


def differences(ours: Record, theirs: Record) -> list[Difference]:
    """The numbers that two records of one trial do not agree on, scores first; what it took to make them is none."""
    first, second = dict(_numbers(ours)), dict(_numbers(theirs))
    return [
        Difference(name, first.get(name), second.get(name))
        for name in dict.fromkeys([*first, *second])
        if first.get(name) != second.get(name) and not _grown(name, first.get(name), second.get(name))
    ]


def _numbers(record: Record) -> Iterator[tuple[str, Any]]:
    """Name -> value of every number of a record, the scores first and the training curve last."""
    content = record.model_dump(mode="json")
    for metric in content.pop("metrics"):
        where = f"{metric.pop('task')} {metric.pop('metric')}"
        yield from ((f"{where}, {name}" if name != "value" else where, value) for name, value in metric.items())
    info = content.get("train_info") or {}
    curve = info.pop("curve", [])
    yield from _leaves(content, "")
    for point in curve:
        step = point.pop("step")
        yield from ((f"{name} at step {step}", value) for name, value in point.items() if name not in _OF_THE_RUN)


def _leaves(content: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if name in _OF_THE_RUN:
            continue
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _grown(name: str, ours: Any, theirs: Any) -> bool:
    """Whether one of two records is of a version that did not note a field."""
    return (ours is None or theirs is None) and not LATER_FIELDS.isdisjoint(name.replace(", ", ".").split("."))
