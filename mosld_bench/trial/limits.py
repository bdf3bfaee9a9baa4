"""The most time and memory that a trial may take: beyond, an error is raised where its code is.

A thread watches. It can end what runs in Python, a loop without end in a plug-in; a call of a library that does not
come back it cannot, for which the process has to be ended (`scheduling.executor.dispatch`).
"""

from __future__ import annotations

import ctypes
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType, TracebackType

_LOOK_SECONDS = 0.2  # between two looks
_AGAIN_SECONDS = 10.0  # after which the error is raised once more, where code has caught it and gone on


@dataclass(frozen=True)
class Limits:
    """What a trial may take, None for no limit: wall seconds, and bytes of its process, or on a GPU of its tensors."""

    seconds: float | None = None
    bytes: int | None = None

    def time_sentence(self) -> str:
        """That a trial took longer, without its name."""
        return f"It took longer than --time-limit allows, {(self.seconds or 0) / 60:g} min, and was ended."


#: For what may take what it takes.
NO_LIMITS = Limits()


class LimitExceededError(BaseException):
    """A trial takes more than it may. Not an Exception, which plug-ins catch now and then."""


class Watchdog:
    """Around a trial in this thread: raises LimitExceededError in it where it takes more than ``limits``.

    ``used``: the bytes that it takes now. Where the error was raised and did not end the block by itself, it is raised
    at the end. ``told``: what was exceeded, a sentence; empty if nothing was. Nothing is watched without a limit.
    """

    def __init__(self, limits: Limits, used: Callable[[], int]) -> None:
        self._limits, self._used = limits, used
        self._over, self._lock = threading.Event(), threading.Lock()
        self.told = ""
        self._watches = limits.seconds is not None or limits.bytes is not None

    def __enter__(self) -> Watchdog:
        self._ident, self._began = threading.get_ident(), time.monotonic()
        self._by_signal = self._watches and threading.current_thread() is threading.main_thread()
        if self._by_signal:  # which ends a wait of the main thread too
            self._before = signal.signal(signal.SIGALRM, self._handle)
        if self._watches:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if self.told and not isinstance(error, LimitExceededError | KeyboardInterrupt):
            raise LimitExceededError from error

    def close(self) -> None:
        """Watch no longer. To be called behind the block too: the error may have been raised on the way to its end."""
        while self._watches:
            try:
                with self._lock:
                    self._over.set()
                if self._by_signal:
                    signal.signal(signal.SIGALRM, self._before)
                else:  # take back one that did not arrive
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._ident), None)
                self._thread.join()
                self._watches = False
            except LimitExceededError:  # raised on the way
                continue

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._over.is_set():
            raise LimitExceededError

    def _watch(self) -> None:
        while not self._over.wait(_LOOK_SECONDS):
            told = self._exceeded()
            if told is None:
                continue
            with self._lock:
                if self._over.is_set():
                    return
                self.told = self.told or told
                if self._by_signal:
                    signal.pthread_kill(self._ident, signal.SIGALRM)
                else:
                    error = ctypes.py_object(LimitExceededError)
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._ident), error)
            self._over.wait(_AGAIN_SECONDS)

    def _exceeded(self) -> str | None:
        limits = self._limits
        if limits.seconds is not None and time.monotonic() - self._began > limits.seconds:
            return limits.time_sentence()
        if limits.bytes is not None and (used := self._used()) > limits.bytes:
            return (
                f"It took {used / 1e9:.2f} GB of memory, more than --memory-limit allows, {limits.bytes / 1e9:g} GB, "
                f"and was ended."
            )
        return None
