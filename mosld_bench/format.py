"""Lists and numbers as sentences, tables and axes have them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

#: Control characters, and those that turn the direction of writing.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_PARENTHESES = re.compile(r"\([^()]*\)")


def listed(items: Sequence[str], *, most: int | None = None, noun: str = "") -> str:
    """'a', 'a and b', 'a, b and c'; 'none' where there is nothing.

    Items with commas of their own, other than in parentheses, are told apart by semicolons: 'a; b, c; and d'. Of more
    than ``most``, which is two at least, so many are told together with how many more there are: 'a, b and 7 more';
    ``noun`` says what they are more of.
    """
    if most is not None and len(items) > most:
        items = [*items[: most - 1], f"{len(items) - most + 1} more{f' {noun}' if noun else ''}"]
    if len(items) < 2:
        return items[0] if items else "none"
    if len(items) > 2 and any(", " in _PARENTHESES.sub("", item) for item in items):
        return f"{'; '.join(items[:-1])}; and {items[-1]}"
    return f"{', '.join(items[:-1])} and {items[-1]}"


def spelled(count: int) -> str:
    """'no', 'one', 'ten', '11'."""
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    return words[count] if count < len(words) else str(count)


def counted(count: int, noun: str) -> str:
    """'no seeds', 'one seed', 'ten seeds', '11 seeds'."""
    return f"{spelled(count)} {noun}{'' if count == 1 else 's'}"


def short_count(value: float) -> str:
    """Three significant digits and a unit: 60000 -> '60k', 1500000 -> '1.5M'."""
    for unit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g}{letter}"
    return f"{value:.0f}"


def digits(value: float) -> str:
    """Three significant digits and no exponent: 0.01234 -> '0.0123', 12345.6 -> '12,346'."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def hours_text(hours: float) -> str:
    """Two significant digits below ten hours, whole hours above, no exponent: 2.345 -> '2.3', 13412 -> '13,412'."""
    if 0 < hours < 0.001:
        return "less than 0.001"
    return f"{hours:,.0f}" if hours >= 9.95 else f"{hours:.2g}"


def visible(text: str) -> str:
    r"""The text with escapes in place of characters that would steer a terminal; line ends and tabs stay.

    >>> visible("red: \x1b[31m")
    'red: \\x1b[31m'
    """
    return _STEERING.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def shortened(text: str, most: int = 100) -> str:
    """``text``, or of a longer one the first ``most`` characters and an ellipsis, as sentences show what was given."""
    return text if len(text) <= most else f"{text[:most]}…"


def one_line(text: str) -> str:
    """The text in one line: runs of spaces, tabs and line ends as one space, control characters and the like gone.

    >>> one_line("two\\n lines\\x07")
    'two lines'
    """
    spaced = " ".join(text.split())
    return "".join(c for c in spaced if unicodedata.category(c) not in {"Cc", "Cs", "Cn", "Co"})
