"""Whether a Ray cluster still answers: asked beside Ray, whose own calls may wait for a dead process for ever.

`Liveness` asks each of its processes by a connection of our own, in a thread; `Calls` makes the calls into Ray, in
another thread, and goes on without one that does not come back.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

from mosld_bench.errors import LostError
from mosld_bench.scheduling.ray_places import answers

T = TypeVar("T")

#: How long a process may be silent. When the head has been away for 60, Ray ends this process without a sentence.
SILENT_SECONDS = 25.0
#: Between two rounds of questions, and until one counts as not answered.
ASK_SECONDS, ANSWER_SECONDS = 5.0, 5.0
#: How long one call into Ray may take where all processes answer.
CALL_SECONDS = 60.0
_LOOK_SECONDS = 0.5


class Process(NamedTuple):
    """A process of Ray, by where it listens."""

    host: str
    port: int


class Silences:
    """For how long processes have not answered: only such as have answered before, and only while they were asked."""

    def __init__(self) -> None:
        self._since: dict[Process, float | None] = {}  # when it first did not answer; None where it did the last time
        self._seconds: dict[Process, float] = {}

    def note(self, answered: Mapping[Process, bool], now: float) -> None:
        """Note a round of questions that ended at ``now``, in seconds of a clock that never goes back."""
        for process, answer in answered.items():
            if answer:
                self._since[process], self._seconds[process] = None, 0.0
            elif process in self._since:
                since = self._since[process]
                self._since[process] = now if since is None else since
                self._seconds[process] = 0.0 if since is None else now - since

    def seconds(self, process: Process) -> float:
        """For how long ``process`` is known to have been silent."""
        return self._seconds.get(process, 0.0)


class Liveness:
    """Asks processes every few seconds, in a thread, whether they live. To be closed after use.

    ``vital``: what nothing goes on without, by how a sentence calls it; others come by `ask`.
    """

    def __init__(self, vital: Mapping[str, Process]) -> None:
        self._vital, self._others = dict(vital), frozenset[Process]()
        self._silences, self._closed = Silences(), threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True, name="ray-liveness")
        self._thread.start()

    def ask(self, others: Iterable[Process]) -> None:
        """From now on ask ``others`` as well, in place of those before."""
        self._others = frozenset(others)

    def silent(self, process: Process) -> bool:
        """Whether ``process`` has fallen silent for so long that it counts as dead."""
        return self._silences.seconds(process) >= SILENT_SECONDS

    def lost(self) -> str | None:
        """What nothing goes on without and has fallen silent, in words; None while all is well."""
        for name, process in self._vital.items():
            if self.silent(process):
                return f"{name} ({process.host}:{process.port}) has not answered for {SILENT_SECONDS:.0f} seconds"
        return None

    def close(self) -> None:
        """Ask no more."""
        self._closed.set()

    def _follow(self) -> None:
        while not self._closed.is_set():
            processes = {*self._vital.values(), *self._others}
            self._silences.note(asyncio.run(_ask(processes)), time.monotonic())
            self._closed.wait(ASK_SECONDS)


async def _ask(processes: Iterable[Process]) -> dict[Process, bool]:
    """Which of ``processes`` answer, all asked at once."""
    listed = list(processes)
    return dict(zip(listed, await asyncio.gather(*(answers(*p, ANSWER_SECONDS) for p in listed)), strict=True))


class Calls:
    """Calls into Ray, one after another in a thread of their own, which an interruption or a silence does not wait for.

    ``lost``: why no call will come back any more; None while they do. To be closed after use.
    """

    def __init__(self, lost: Callable[[], str | None]) -> None:
        self._lost = lost
        self._waiting: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._make, daemon=True, name="ray-calls")
        self._thread.start()

    def __enter__(self) -> Calls:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __call__(self, function: Callable[..., T], *words: Any, **options: Any) -> T:
        """What ``function`` returns or raises. Raises LostError where it does not come back."""
        call = _Call(function, words, options)
        self._waiting.put(call)
        for _ in range(int(CALL_SECONDS / _LOOK_SECONDS)):  # by waits: while this process is stopped none is missed
            if call.done.wait(_LOOK_SECONDS):
                if call.error is not None:
                    raise call.error
                return call.result  # type: ignore[no-any-return]
            if (reason := self._lost()) is not None:
                raise lost(reason)
        raise lost(self._lost() or f"a call into it has not come back for {CALL_SECONDS:.0f} seconds")

    def close(self) -> None:
        """Make no more calls, and let the last one come back, if it soon does."""
        self._waiting.put(None)
        self._thread.join(ANSWER_SECONDS)

    def _make(self) -> None:
        while (call := self._waiting.get()) is not None:
            try:
                call.result = call.function(*call.words, **call.options)
            except BaseException as error:
                call.error = error
            call.done.set()


class _Call:
    """A call, and what came of it once it is ``done``."""

    def __init__(self, function: Callable[..., Any], words: tuple[Any, ...], options: dict[str, Any]) -> None:
        self.function, self.words, self.options = function, words, options
        self.done = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None


def lost(reason: str) -> LostError:
    """The error of a Ray with which a run cannot go on."""
    return LostError(f"Ray is lost: {reason}. It was ended or hangs, or its machine is gone.")


def within(seconds: float, function: Callable[[], object]) -> bool:
    """Call ``function`` in a thread; whether it came back in time, as it may after that."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()
