"""Ctrl-C, the end of a cluster's job or of a terminal, noted where no library can lose it.

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

#: What ends a run: Ctrl-C, a scheduler at a job's limit of time, a terminal that is closed.
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


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

    So are the signals by which a scheduler ends a job and a closed terminal what ran in it, unless they are ignored, as
    by nohup, or have a handler. Where SIGINT has another handler than Python's own or this one, or this is not the main
    thread, nothing is changed.
    """
    here, handler = threading.current_thread() is threading.main_thread(), signal.getsignal(signal.SIGINT)
    outermost = here and handler is signal.default_int_handler
    if not outermost and not (here and handler is interrupt):
        yield
        return
    before = {}
    if outermost:
        _noted.clear()
        ordinary = (signal.default_int_handler, signal.SIG_DFL)
        before = {number: handler for number in _SIGNALS if (handler := signal.getsignal(number)) in ordinary}
        for number in before:
            signal.signal(number, interrupt)
    try:
        yield
        raise_if_interrupted()
    except Exception as error:
        raise_if_interrupted(error)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if outermost:
            _noted.clear()
