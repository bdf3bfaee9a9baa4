"""The terminal that the commands print on."""

from __future__ import annotations

import sys

from rich.console import Console

# Width given where the output is no terminal: a table in a log must not be cut at 80 columns.
console = Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)


def say(line: str) -> None:
    """Print a line, which the terminal breaks where it likes: a path in it can be copied whole."""
    console.print(line, soft_wrap=True)
