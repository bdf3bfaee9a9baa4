"""What a run that was interrupted says: what it leaves, and the command that goes on with it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import typer


def interrupted(overwrite: str) -> NoReturn:
    """Say what an interruption leaves, and which command runs the rest; end with the exit code of an interruption.

    ``overwrite``: the option of that name.
    """
    which = "this command runs" if overwrite == "never" else "the same command runs"
    note = ", though --overwrite always begins with the first one again" if overwrite == "always" else ""
    print(f"mosld-bench: interrupted; finished trials are kept, {which} the rest{note}:", file=sys.stderr)
    print(f"\n    {next_command(sys.argv)}\n", file=sys.stderr)
    raise typer.Exit(130) from None


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
