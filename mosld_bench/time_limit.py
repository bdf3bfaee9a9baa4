"""A limit on the CPU time of a piece of work that might never end, such as a pattern or a template of a file."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class TookTooLongError(Exception):
    """Work that was ended since it took more than ``seconds`` of CPU time."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"takes more than {seconds:g} s of a core")
        self.seconds = seconds


@contextmanager
def cpu_limit(seconds: float) -> Iterator[None]:
    """End what is done within by TookTooLongError once it has taken ``seconds`` of this process's CPU time.

    Regular expressions are ended as well: `re` looks for signals while it matches. Within another limit the sooner one
    holds. Signals reach the main thread alone; in another thread, and on a system without this timer, nothing is ended.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return
    before, _ = signal.getitimer(signal.ITIMER_VIRTUAL)
    if 0 < before <= seconds:
        yield
        return

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise TookTooLongError(seconds)

    began = time.process_time()
    handler = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds, 0.5)  # again, should something have swallowed the first
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, handler)
        if before:
            signal.setitimer(signal.ITIMER_VIRTUAL, max(before - (time.process_time() - began), 0.001), 0.5)
