"""How work grows with what it is about, counted and not timed: on a busy machine a count stays as it is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def calls(work: Callable[[], object]) -> int:
    """How many functions are called within ``work``, those of C among them."""
    count = 0

    def note(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def growth(work: Callable[[int], Callable[[], object]], *, few: int, many: int) -> float:
    """The calls for each of ``many`` by those for each of ``few``: 1 where work is linear, ``many / few`` for squares.

    ``work`` makes ready for so many, and returns what is counted. What is loaded once is loaded by a run before.
    """
    work(few)()
    return (calls(work(many)) / many) / (calls(work(few)) / few)
