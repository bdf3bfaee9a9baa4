"""A function of the package, called in a process of its own at low priority, while this one goes on."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

#: The other process gets what it may import from before it imports anything, and the call after it.
_CODE = """
import pickle, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
from mosld_bench.background import answer_call
answer_call()
"""
_NICENESS = 10  # behind the trials, whose cores it shares


class BackgroundCall:
    """A call that was begun; ``done`` is told, in a thread of its own, why it failed, or None where it did not.

    The function is one of a module, and takes and is told what `pickle` carries; what it returns and prints is lost.
    Nothing is told of a call that was stopped.
    """

    def __init__(self, function: Callable[..., Any], *words: Any, done: Callable[[str | None], None], **options: Any):
        self._done, self._stopped = done, False
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", "-c", _CODE],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # an interruption of this process is not for that one to end by
        )
        content = pickle.dumps(sys.path) + pickle.dumps((function, words, options))
        self._thread = threading.Thread(target=self._follow, args=(content,), daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether it goes on, or has not been told to be over."""
        return self._thread.is_alive()

    def wait(self) -> None:
        """Until it is over and told."""
        self._thread.join()

    def stop(self) -> None:
        """End it, if it goes on; what it has written by then stays."""
        self._stopped = True
        self._process.terminate()
        self._thread.join()

    def _follow(self, content: bytes) -> None:
        _, errors = self._process.communicate(content)
        if not self._stopped:
            self._done(_last_line(errors, self._process.returncode) if self._process.returncode else None)


def _last_line(errors: bytes, code: int) -> str:
    lines = errors.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"its process ended with {code}"


def answer_call() -> None:
    """In the other process: read the call from the standard input, and make it.

    An error that a user can mend ends it by that sentence alone on the standard error, any other by its traceback.
    """
    from mosld_bench.errors import BenchError

    with suppress(AttributeError, OSError):  # a system without it, or a limit that forbids it
        os.nice(_NICENESS)
    function, words, options = pickle.load(sys.stdin.buffer)
    try:
        function(*words, **options)
    except BenchError as error:
        sys.exit(" ".join(str(error).split()))
