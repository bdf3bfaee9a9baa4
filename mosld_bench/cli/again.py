"""What a command that was interrupted says: a run what it leaves, and the command that goes on with it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import NoReturn

import typer

from mosld_bench.interruption import noting_interruptions, take_interruption
from mosld_bench.records.redaction import without_secrets

_EXIT_CODE = 128 + 2  # as a shell gives it for SIGINT


def until_interrupted(command: Callable[..., None]) -> Callable[..., None]:
    """``command``, which at Ctrl-C says so in a line, if it does not say more, and ends with the exit code of it."""

    @wraps(command)
    def ending_well(**given: object) -> None:
        try:
            with noting_interruptions():
                command(**given)
        except KeyboardInterrupt:
            _say("mosld-bench: interrupted")
            raise typer.Exit(_EXIT_CODE) from None

    return ending_well


def interrupted(overwrite: str) -> NoReturn:
    """Say what an interruption leaves, and which command runs the rest; end with the exit code of an interruption.

    ``overwrite``: the option of that name.
    """
    which = "this command runs" if overwrite == "never" else "the same command runs"
    note = ", though --overwrite always begins with the first one again" if overwrite == "always" else ""
    _say(f"mosld-bench: interrupted; finished trials are kept, {which} the rest{note}:")
    _say(f"\n    {next_command(sys.argv)}\n")
    take_interruption()
    raise typer.Exit(_EXIT_CODE) from None


def _say(line: str) -> None:
    with suppress(OSError):  # of a terminal that was closed
        print(without_secrets(line), file=sys.stderr, flush=True)


def next_command(words: Sequence[str]) -> str:
    """The command line that goes on with the interrupted one, as a shell takes it; ``words``: `sys.argv`.

    It is the same one, without ``--overwrite never``, by which the records that there are now would stop it.
    """
    program = Path(words[0]).name
    first = [Path(sys.executable).name, "-m", "mosld_bench"] if program == "__main__.py" else [program]
    rest = list(words[1:])
    for place, word in enumerate(rest):
        if rest[place : place + 2] == ["--overwrite", "never"]:
            del rest[place : place + 2]
            break
        if word == "--overwrite=never":
            del rest[place]
            break
    return shlex.join([*first, *rest])
