"""Ctrl-C, or the end of a cluster's job, noted where no library can lose it.

Python raises KeyboardInterrupt wherever the main thread is. Where that is a function that native code calls, a library
may make an error of its own of it, as pydantic does, or print it and go on; a run that goes by the exception alone
would then record a failed trial and start the next.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_noted, _saving = threading.Event(), threading.Event()


def interrupt(number: int, frame: FrameType | None) -> None:
    """The handler of a signal that ends a run: notes it, and raises KeyboardInterrupt.

    While something is saved (`saving`) the first one is noted alone.
    """
    first = not _noted.is_set()
    _noted.set()
    if not (first and _saving.is_set()):
        raise KeyboardInterrupt


@contextmanager
def saving() -> Iterator[None]:
    """Within it a first interruption waits for the end of the block; a second one does not."""
    _saving.set()
    try:
        yield
    finally:
        _saving.clear()
    raise_if_interrupted()


def raise_if_interrupted(error: BaseException | None = None) -> None:
    """Raise KeyboardInterrupt if there was an interruption since `noting_interruptions` began.

    ``error``: what came of it, if anything.
    """
    if _noted.is_set():
        raise KeyboardInterrupt from error


def take_interruption() -> None:
    """Note that what was noted has been acted upon: nothing else is to end by it."""
    _noted.clear()


@contextmanager
def noting_interruptions() -> Iterator[None]:
    """Within it Ctrl-C is noted, and nothing but a KeyboardInterrupt leaves it after one that nobody has taken.

    Where SIGINT has another handler than Python's own or this one, or this is not the main thread, nothing is changed.
    """
    here, handler = threading.current_thread() is threading.main_thread(), signal.getsignal(signal.SIGINT)
    outermost = here and handler is signal.default_int_handler
    if not outermost and not (here and handler is interrupt):
        yield
        return
    if outermost:
        _noted.clear()
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield
        raise_if_interrupted()
    except Exception as error:
        raise_if_interrupted(error)
        raise
    finally:
        if outermost:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            _noted.clear()
