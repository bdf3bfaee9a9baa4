"""The data as text: numbers at a sensible length, and nothing in it that could end the script element it stands in."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

import numpy as np

DIGITS = 7  # significant ones of a number
_EXACT = 2.0**53  # below it a whole number has a float of its own

#: What could end a script element or begin a comment in it, and what ends a line in older JavaScript.
_ENDING = re.compile("[<>&\u2028\u2029]")


class Exact(NamedTuple):
    """Plain data that keeps every digit, such as what a trial was asked: its id follows from it."""

    value: Any


def encoded(data: Any, digits: int = DIGITS) -> str:
    """``data`` as JSON that may stand in a script element: the same text for the same data.

    Numbers have so many significant ``digits``; NaN and infinities are null, arrays lists, members of enums their
    values. A lone surrogate, which no UTF-8 holds, becomes a replacement character.
    """
    text = json.dumps(plain(data, digits), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return _ENDING.sub(_escaped, text).encode("utf-8", "replace").decode("utf-8")


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def plain(value: Any, digits: int = DIGITS) -> Any:
    """``value`` of lists, objects, texts and numbers alone; see `encoded`."""
    kind = type(value)
    if kind is float:
        return _number(value, digits)
    if kind is Exact:
        return value.value
    if value is None or kind is str or kind is int or kind is bool:
        return value
    if kind is list or kind is tuple:
        return [plain(of, digits) for of in value]
    if isinstance(value, Mapping):
        return {str(key): plain(of, digits) for key, of in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist(), digits)
    if isinstance(value, Enum):
        return plain(value.value, digits)
    return str(value)


def _number(value: float, digits: int) -> float | int | None:
    if not math.isfinite(value):
        return None
    if value.is_integer() and abs(value) < _EXACT:
        return int(value)
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < _EXACT else rounded
