"""Examples of a command, which stand at the end of its help: `@examples` above the command, `epilog` for typer.

tests/cli/test_help.py holds that every command has some, and that each of them is understood.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from rich.markup import escape

Command = TypeVar("Command", bound=Callable[..., Any])


class Example(NamedTuple):
    """A command line as one types it, and what it is for, in a few words."""

    line: str
    purpose: str


def examples(*lines: tuple[str, str]) -> Callable[[Command], Command]:
    """Give a command its examples: pairs of a line, ``mosld-bench`` and all, and what it is for."""

    def decorate(command: Command) -> Command:
        command.__dict__["examples"] = tuple(Example(*line) for line in lines)
        return command

    return decorate


def examples_of(command: Callable[..., Any]) -> tuple[Example, ...]:
    """The examples that were given to a command; none where there are none."""
    given: tuple[Example, ...] = getattr(command, "examples", ())
    return given


def epilog(command: Callable[..., Any]) -> str | None:
    """The end of a command's help; None without examples. What reads as markup is text."""
    given = examples_of(command)
    if not given:
        return None
    return "\n\n".join(["Examples:", *(f"{escape(line)}\n    {escape(purpose)}" for line, purpose in given)])
