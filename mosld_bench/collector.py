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


@contextmanager
def off() -> Iterator[None]:
    """Search for none inside the block: for reading what is walked again and again, and is none of it garbage."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def pass_over_what_stays() -> None:
    """Search what is here now no more, until `search_all`: models, tasks and libraries of a process for many trials.

    To look at them again and again took a twentieth of a trial. Nothing where that was done already.
    """
    if not gc.get_freeze_count():
        gc.collect()
        gc.freeze()


def search_all() -> None:
    """Search again what `pass_over_what_stays` left out, since some of it goes."""
    gc.unfreeze()
