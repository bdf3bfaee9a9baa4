"""Errors that a user can act on: each is a sentence that says what, where, what was allowed and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_MOST_SHOWN = 60  # names that an error lists; the first ones of thousands help nobody


class BenchError(Exception):
    """Anything that the user can mend. The command line prints its text and exits with ``exit_code``."""

    exit_code = 2


class UnknownNameError(BenchError):
    """A name that is not there, with the nearest ones that are.

    ``kind``: what the name is of, as in "There is no recipe named"; ``hint``: a sentence on where the names are from.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        known = sorted(known)
        name = name if len(name) <= 200 else f"{name[:200]}…"
        near = get_close_matches(name, known, n=3, cutoff=0.5)
        guess = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        shown = ", ".join(known) if len(known) <= _MOST_SHOWN else f"{len(known):,} names"
        super().__init__(
            f"There is no {kind} named {name!r}.{guess} Known: {shown or 'none'}.{' ' + hint if hint else ''}"
        )


class BadFileError(BenchError):
    """A YAML file with all its problems at once, each with its key."""


class BudgetError(BenchError):
    """A text that is no budget, or a budget that a recipe cannot meet."""


class MethodError(BenchError):
    """A method from outside that cannot be loaded or breaks its contract: said with its distribution, file and line.

    ``finding``: what is wrong without whose it is, for a list that says that above.
    """

    def __init__(self, text: str, finding: str = "") -> None:
        super().__init__(text)
        self.finding = finding or text


class ModelError(BenchError):
    """A base model that cannot be found or read."""


class RoundingError(ModelError):
    """A method that cannot be on a base model whose weights are rounded as they are loaded."""


class DataError(BenchError):
    """A task or its data that cannot be found, read or used in the role asked for."""


class ResourceError(BenchError):
    """More devices asked for than there are."""


class OutOfMemoryError(ResourceError):
    """A device whose memory did not suffice for its work."""


class IntegrityError(BenchError):
    """A trial whose score would mean nothing: what was trained, saved or answered is not what it should be."""


class LostError(BenchError):
    """What a run that had begun cannot go on without: its workers, or room on a disk. What was recorded is kept."""

    exit_code = 1


def first_line(error: BaseException) -> str:
    """What a library's error says, without the advice that may go on for pages below; its name where it is silent."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def fetch_hint(arguments: str, option: str) -> str:
    """How to get a model or data that is missing, as a sentence that an error ends with.

    ``arguments``: those of `mosld-bench fetch`; ``option``: that of the other commands which takes the fetched folder.
    """
    return (
        f"Get it with 'mosld-bench fetch {arguments} --to DIR' on a machine with network, carry DIR here, and give "
        f"{option} DIR."
    )
