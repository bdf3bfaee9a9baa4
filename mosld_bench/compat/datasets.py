"""What the data sets library is kept from: rows that end the interpreter."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

_NULL_FIRST = re.compile(rb"(\xef\xbb\xbf)?\s*null")  # behind the mark of UTF-8, which may be there
_MOST_BYTES = (1 << 31) - 1  # of a block
_NULL_IN_A_LINE = re.compile(rb"^[ \t\r]*null", re.MULTILINE)


def begins_with_null(content: bytes) -> bool:
    """Whether the first row of JSON lines is null."""
    return _NULL_FIRST.match(content) is not None


def guard_json() -> None:
    """Keep rows that are null away from pyarrow's reader of JSON, which ends the process with a segmentation fault.

    It does so where what it reads at a time, a block of lines, begins with one. So text that begins with one is refused
    as other malformed JSON is, and text that has one at the beginning of another line is read as a single block.
    """
    import pyarrow as pa
    from datasets.packaged_modules.json import json as builder

    reader: Any = getattr(builder, "paj", None)
    if reader is None or isinstance(reader, SimpleNamespace):
        return

    def read_json(source: Any, read_options: Any = None, **options: Any) -> Any:
        content = source.read()
        if begins_with_null(content):
            raise pa.ArrowInvalid("JSON parse error: a row is null, and not a mapping")
        if _NULL_IN_A_LINE.search(content):
            read_options = reader.ReadOptions(block_size=min(len(content), _MOST_BYTES))
        return reader.read_json(pa.BufferReader(content), read_options=read_options, **options)

    builder.paj = SimpleNamespace(read_json=read_json, ReadOptions=reader.ReadOptions)
