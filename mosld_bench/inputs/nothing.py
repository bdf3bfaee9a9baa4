"""Fields that hold nothing (null) and are printed in a text all the same, as the word None."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

_Pairs = list[tuple[str, str]]


class _Mark(str):
    """Stands for nothing in a text where it can be told apart; false, as nothing is."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return False


_MARK = _Mark("\ue000\ue001\ue000")  # no letters: upper, title and their like leave it as it is


def printed_nothing(doc: dict[str, Any], pairs: _Pairs, render: Callable[[dict[str, Any]], _Pairs]) -> list[str]:
    """The columns of ``doc`` that hold nothing and that ``pairs``, its texts, print as ``None``; as ``a.b`` within one.

    A text is rendered once more with a mark in place of what is nothing: only where the mark takes the place of the
    word is nothing printed. A template that asks first (``{% if story %}``, ``story or ''``) prints no mark.
    """
    if not any("none" in text.lower() for pair in pairs for text in pair):
        return []
    return list(dict.fromkeys(name for name, marked in _marked(doc) if _prints(marked, pairs, render)))


def _prints(marked: dict[str, Any], pairs: _Pairs, render: Callable[[dict[str, Any]], _Pairs]) -> bool:
    try:
        texts = [text for pair in render(marked) for text in pair]
    except Exception:  # a function that takes nothing, but no text: it does not print it
        return False
    before = [text for pair in pairs for text in pair]
    return any(
        _MARK in text and text.replace(_MARK, "none").lower() == unmarked.lower()
        for text, unmarked in zip(texts, before, strict=False)
    )


def _marked(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """For every nothing in ``value`` the name of its column, and ``value`` with the mark in its place."""
    if value is None:
        yield path, _MARK
    elif isinstance(value, dict):
        for key, member in value.items():
            for name, marked in _marked(member, f"{path}.{key}" if path else str(key)):
                yield name, {**value, key: marked}
    elif isinstance(value, list):
        for place, member in enumerate(value):
            for name, marked in _marked(member, path):
                yield name, [*value[:place], marked, *value[place + 1 :]]
