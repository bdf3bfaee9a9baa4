"""Python's collector of garbage, put off where it would search much that stays, and find nothing."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

#: New objects until the youngest are searched; how often these are until the middle ones are, and those until all.
_SELDOM = (100_000, 50, 1000)


@contextmanager
def seldom() -> Iterator[None]:
    """Search for garbage seldom inside the block: for work that imports large libraries or builds model upon model.

    As Python sets itself up, it searches all that torch and transformers brought again and again meanwhile, which takes
    a third of the time of a plan. What dies without a cycle is freed at once as ever.
    """
    before = gc.get_threshold()
    gc.set_threshold(*_SELDOM)
    try:
        yield
    finally:
        gc.set_threshold(*before)
