"""The terminal that the commands print on, whatever its encoding."""

from __future__ import annotations

import codecs
import io
import json
import math
import os
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from mosld_bench.format import visible

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
        return super().render_str(visible(plain(text, self.encoding)), **options)


#: Width where the output is no terminal: a table in a log must not be cut at 80 columns.
_LOG_WIDTH = 160


def make_console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """A console for people: with NO_COLOR without colours and styles, off a terminal without any escape code.

    ``quiet``: one that prints nothing; `pipeline` prints failures on stderr then.
    """
    stream = sys.stderr if stderr else sys.stdout
    terminal = stream.isatty()
    return _Terminal(
        stderr=stderr,
        quiet=quiet,
        width=None if terminal else _LOG_WIDTH,
        color_system=None if os.environ.get("NO_COLOR") else "auto",
        force_terminal=None if terminal else False,
        highlight=False,
        markup=False,
        emoji=False,
    )


console = make_console()


def say(line: str, on: Console = console) -> None:
    """Print a line, which the terminal breaks where it likes: a path in it can be copied whole."""
    on.print(visible(line), soft_wrap=True)


def print_json(content: Any) -> None:
    """Print what a command has to say under --json, and nothing beside it: a number that is none is null."""
    plain_ascii = "utf" not in (sys.stdout.encoding or "").lower()
    print(json.dumps(_finite(content), indent=1, ensure_ascii=plain_ascii, allow_nan=False))


def _finite(content: Any) -> Any:
    """``content`` with null in place of numbers that JSON lacks."""
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return content


def print_in_any_encoding() -> None:
    """Let whatever is printed from now on, by a library too, come out in characters that the output has."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)
