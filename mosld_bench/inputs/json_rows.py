"""What is wrong with a JSON file of data that the library reading it does not say: it ends, or fails rows later."""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from pathlib import Path

from mosld_bench.compat.datasets import begins_with_null

#: Lists and mappings in each other; items of data sets have two or three.
MAX_DEPTH = 100

_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")


def problem_of(path: Path) -> str | None:
    """Why the file cannot be read, as a clause with the line; None where nothing is known.

    Looked at are characters that are no UTF-8, a first row that is null, and values that stand in each other more than
    `MAX_DEPTH` deep.
    """
    depth, begun = 0, False
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return f"is not UTF-8 (line {number})"
            if not begun and begins_with_null(line):
                return f"begins with a row that is null (line {number})"
            begun = begun or bool(line.removeprefix(BOM_UTF8).strip())
            opened = line.count(b"[") + line.count(b"{")
            if depth + opened <= MAX_DEPTH:
                depth = max(0, depth + opened - line.count(b"]") - line.count(b"}"))
                continue
            for bracket in _BRACKET.finditer(_TEXT.sub(b"", line)):
                depth = depth + 1 if bracket[0] in b"[{" else max(0, depth - 1)
                if depth > MAX_DEPTH:
                    return f"has lists and mappings in each other more than {MAX_DEPTH} deep (line {number})"
    return None
