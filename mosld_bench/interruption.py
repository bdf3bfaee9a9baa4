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
from typing import NoReturn

_noted = threading.Event()


def interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """The handler of a signal that ends a run: notes it, and raises KeyboardInterrupt."""
    _noted.set()
    raise KeyboardInterrupt


def raise_if_interrupted(error: BaseException | None = None) -> None:
    """Raise KeyboardInterrupt if there was an interruption since `noting_interruptions` began.

    ``error``: what came of it, if anything.
    """
    if _noted.is_set():
        raise KeyboardInterrupt from error


@contextmanager
def noting_interruptions() -> Iterator[None]:
    """Within it Ctrl-C is noted, and nothing but a KeyboardInterrupt leaves it after one.

    Where SIGINT has another handler than Python's own, or this is not the main thread, nothing is changed.
    """
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    _noted.clear()
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
        raise_if_interrupted()
    except Exception as error:
        raise_if_interrupted(error)
        raise
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _noted.clear()
