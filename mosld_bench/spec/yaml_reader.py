"""The one reader of YAML: the core schema of YAML 1.2, within bounds, and only what JSON can hold.

PyYAML splits the text into its parts; what a part means is decided here, since PyYAML means YAML 1.1, by which ``1e-3``
is text, ``010`` is 8, ``no`` is false, ``1:30`` is 90, ``2024-01-01`` is a date, and the last of two equal keys wins.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mosld_bench.errors import BadFileError
from mosld_bench.spec.plain_file import read_text_file

#: What a file may have at most. Each is far above what anyone writes, and below what would stop a command.
MAX_BYTES = 1 << 20
MAX_DEPTH = 64
MAX_VALUES = 50_000  # with what aliases stand for, and a longer text as one for each 100 of its characters

_SPLITTER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the fast one where PyYAML was built with it
_TAG = "tag:yaml.org,2002:"

#: The tables of the core schema (YAML 1.2.2, section 10.3.2).
_NULL = re.compile(r"null|Null|NULL|~|")
_BOOL = re.compile(r"(true|True|TRUE)|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")

Function = Callable[[str], Any]
"""Makes a value of what follows the tag ``!function``."""


def read_file(path: Path, function: Function | None = None) -> Any:
    """The value in a YAML file; None for an empty one. ``function``: see `read_text`.

    Raises BadFileError, which names the file and, where there is one, the line and the key.
    """
    return read_text(read_text_file(path, most_bytes=MAX_BYTES, needed="a YAML file"), str(path), function)


def read_text(text: str, where: str, function: Function | None = None) -> Any:
    """The value that ``text`` writes: None, a truth value, a number, text, or lists and mappings of these.

    The keys of a mapping are text, as they are written. ``where`` is what the text is from, as an error names it.
    ``function`` makes a value of ``!function NAME``; without it, that tag is refused as others are.

    Raises BadFileError for what is no YAML or more than one document, for a key that stands twice in a mapping, for a
    value that JSON cannot hold, and for a text beyond `MAX_BYTES`, `MAX_DEPTH` or `MAX_VALUES`.
    """
    try:
        if len(text.encode()) > MAX_BYTES:
            raise BadFileError(f"{where} has more than {MAX_BYTES:,} bytes, which no file of settings needs.")
        return _Builder(where, function).build(text)
    except UnicodeEncodeError:
        raise BadFileError(f"{where} holds half a character (a lone surrogate), which is no text.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or error
        raise BadFileError(f"{where} is not YAML: {' '.join(str(problem).split())}{place}.") from None


@dataclass
class _Open:
    """A list or mapping whose end is not reached."""

    value: Any
    anchor: str | None
    before: int  # values counted before it
    key: str | None = None  # of the value that comes next; None where a key comes next
    merged: list[dict[str, Any]] = field(default_factory=list)  # what the merge key has brought

    @property
    def place(self) -> str:
        """The key or the position of what comes next in it."""
        return str(len(self.value)) if isinstance(self.value, list) else self.key or ""


class _Builder:
    """Makes a value of a document's events. Goes through them one by one and calls nothing again for what is nested."""

    def __init__(self, where: str, function: Function | None) -> None:
        self._where, self._function = where, function
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Any, int]] = {}  # -> the value, and how many values it is; 0 while it is open
        self._count = 0
        self._documents = 0
        self._value: Any = None
        self._line = 1

    def build(self, text: str) -> Any:
        """The value of the only document."""
        for event in yaml.parse(text, Loader=_SPLITTER):
            self._line = event.start_mark.line + 1  # type: ignore[union-attr]  # every event has its place
            if isinstance(event, yaml.DocumentStartEvent):
                self._documents += 1
                if self._documents > 1:
                    raise self._error("a second document begins; one is allowed")
            elif isinstance(event, yaml.AliasEvent):
                self._add(self._alias(str(event.anchor)))
            elif isinstance(event, yaml.ScalarEvent):
                self._scalar(event)
            elif isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
                self._begin(event)
            elif isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
                self._end()
        return self._value

    def _error(self, problem: str) -> BadFileError:
        keys = [place for place in (frame.place for frame in self._open) if place]
        shown = ".".join(keys if len(keys) < 9 else [*keys[:6], "…", keys[-1]])
        return BadFileError(f"{self._where}, line {self._line}{f', {shown}' if shown else ''}: {problem}.")

    def _begin(self, event: Any) -> None:
        kind: str = "seq" if isinstance(event, yaml.SequenceStartEvent) else "map"
        if event.tag not in {None, "!", _TAG + kind}:
            raise self._unknown(event.tag)
        if len(self._open) == MAX_DEPTH:
            raise self._error(f"lists and mappings stand in each other more than {MAX_DEPTH} deep")
        if self._expects_key:
            raise self._error("a list or mapping is no key; keys are text")
        if event.anchor:
            self._anchors[event.anchor] = (None, 0)
        self._tally(1)
        self._open.append(_Open([] if kind == "seq" else {}, event.anchor, self._count - 1))

    def _end(self) -> None:
        frame = self._open.pop()
        for mapping in frame.merged:  # what is written wins, then what was merged first
            frame.value = {**mapping, **frame.value}
        if frame.anchor:
            self._anchors[frame.anchor] = (frame.value, self._count - frame.before)
        self._add(frame.value)

    def _alias(self, anchor: str) -> Any:
        if anchor not in self._anchors:
            raise self._error(f"*{anchor} stands for nothing: there is no &{anchor} before it")
        value, count = self._anchors[anchor]
        if not count:
            raise self._error(f"*{anchor} stands within what it stands for")
        if self._expects_key and not isinstance(value, str):
            raise self._error("an alias is a key only where it stands for text")
        self._tally(count)
        return deepcopy(value)  # a value of its own: whoever changes it changes no other

    def _tally(self, count: int) -> None:
        self._count += count
        if self._count > MAX_VALUES:
            raise self._error(f"there are more than {MAX_VALUES:,} values, counting what aliases stand for")

    @property
    def _expects_key(self) -> bool:
        return bool(self._open) and isinstance(self._open[-1].value, dict) and self._open[-1].key is None

    def _scalar(self, event: Any) -> None:
        before = self._count
        self._tally(1 + len(event.value) // 100)
        text = event.value
        if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
            raise self._error("a text holds a NUL character or half a character, which no file can")
        plain = event.tag is None and event.implicit[0]  # without quotes
        value = text
        if not self._expects_key:  # a key is text, as it is written
            value = self._resolved(text) if plain else self._tagged(event.tag, text)
        if event.anchor:
            self._anchors[event.anchor] = (value, self._count - before)
        self._add(value, is_merge=plain and text == "<<")

    def _tagged(self, tag: str | None, text: str) -> Any:
        """A quoted scalar, or one with a tag of its own."""
        if tag in {None, "!", f"{_TAG}str"}:
            return text
        if tag == "!function" and self._function is not None:
            return self._function(text)
        kinds = {f"{_TAG}null": type(None), f"{_TAG}bool": bool, f"{_TAG}int": int, f"{_TAG}float": float}
        if tag not in kinds:
            raise self._unknown(tag)
        value = self._resolved(text)
        if type(value) is int and tag == f"{_TAG}float":
            return float(value)
        if type(value) is not kinds[tag]:
            raise self._error(f"{text[:40]!r} is not what its tag !!{tag.removeprefix(_TAG)} says")
        return value

    def _unknown(self, tag: str | None) -> BadFileError:
        shown = str(tag).replace(_TAG, "!!")[:60]
        return self._error(
            f"the tag {shown} is not read; values are text, numbers, true, false, null, lists and mappings"
        )

    def _resolved(self, text: str) -> Any:
        """A plain scalar by the core schema."""
        if _NULL.fullmatch(text):
            return None
        if truth := _BOOL.fullmatch(text):
            return bool(truth[1])
        if _INT.fullmatch(text):
            return self._whole(text)
        if _FLOAT.fullmatch(text):
            number = float(text)
            if math.isfinite(number):
                return number
            raise self._error(f"{text[:40]} is too large a number")
        if _NOT_FINITE.fullmatch(text):
            raise self._error(f"{text} is no finite number, and JSON has no other")
        return text

    def _whole(self, text: str) -> int:
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        if len(text) < 100:  # Python itself refuses thousands of digits, with an error of its own
            number = int(text[2:] if base != 10 else text, base)
            if -(2**63) <= number < 2**63:
                return number
        raise self._error(f"{text[:20]}{'…' if len(text) > 20 else ''} is too large a number (64 bits are read)")

    def _add(self, value: Any, is_merge: bool = False) -> None:
        """Put a finished value where it belongs: a key, the value of the last key, an element, or the document."""
        if not self._open:
            self._value = value
            return
        frame = self._open[-1]
        if isinstance(frame.value, list):
            frame.value.append(value)
        elif frame.key is None:
            if value in frame.value:
                frame.key = value
                raise self._error(f"the key {value!r} stands twice in one mapping; remove one of them")
            frame.key = "<<" if is_merge else value
            if not is_merge:
                frame.value[value] = None
            elif frame.merged:
                raise self._error("the key '<<' stands twice in one mapping; give it one list")
        elif frame.key == "<<" and "<<" not in frame.value:
            merged = value if isinstance(value, list) else [value]
            if not all(isinstance(mapping, dict) for mapping in merged):
                raise self._error("'<<' takes a mapping, or a list of mappings")
            frame.merged = merged or [{}]
            frame.key = None
        else:
            frame.value[frame.key], frame.key = value, None
