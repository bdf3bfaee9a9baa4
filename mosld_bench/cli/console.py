"""The terminal that the commands print on, whatever its encoding."""

from __future__ import annotations

import codecs
import io
import sys
from typing import Any

from rich.console import Console
from rich.text import Text

#: What stands for a character that an encoding lacks; "?" for any other.
_PLAIN = {
    "±": "+-", "–": "-", "—": "-", "−": "-", "×": "x", "…": "...", "≥": ">=", "≤": "<=", "→": "->", "†": "+",
    "“": '"', "”": '"', "‘": "'", "’": "'", "\u00a0": " ",
}  # fmt: skip


def plain(text: str, encoding: str) -> str:
    """The text with what ``encoding`` lacks written in characters that it has: '± 0.6' as '+- 0.6' in ASCII."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.encode(encoding, _HANDLER).decode(encoding)
    return text


def _replaced(error: UnicodeError) -> tuple[str, int]:
    """For `codecs.register_error`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(character, "?") for character in error.object[error.start : error.end]), error.end


_HANDLER = "mosld-bench-plain"
codecs.register_error(_HANDLER, _replaced)


class _Terminal(Console):
    """Replaces what the encoding lacks before a table is laid out, so that its columns stay straight."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(plain(text, self.encoding), **options)


# Width given where the output is no terminal: a table in a log must not be cut at 80 columns.
console = _Terminal(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False, emoji=False)


def say(line: str) -> None:
    """Print a line, which the terminal breaks where it likes: a path in it can be copied whole."""
    console.print(line, soft_wrap=True)


def print_in_any_encoding() -> None:
    """Let whatever is printed from now on, by a library too, come out in characters that the output has."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)
