"""A watchdog ends what runs in Python, in the main thread and in others, and leaves nothing behind."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable

import pytest

from mosld_bench.trial.limits import NO_LIMITS, LimitExceededError, Limits, Watchdog

SOON = Limits(seconds=0.1)


def nothing() -> int:
    return 0


def loops() -> None:
    while True:
        pass


def waits() -> None:
    time.sleep(60)


def catches_exceptions() -> None:
    while True:
        try:
            time.sleep(0.01)
        except Exception:
            continue


def swallows() -> None:
    try:
        loops()
    except BaseException:
        return


def converts() -> None:
    try:
        loops()
    except BaseException as error:
        raise ValueError("as a library has it") from error


def ended(work: Callable[[], None], limits: Limits = SOON, used: Callable[[], int] = nothing) -> str:
    """What the watchdog told of ``work``."""
    watchdog = Watchdog(limits, used)
    with pytest.raises(LimitExceededError), watchdog:
        work()
    return watchdog.told


@pytest.mark.parametrize("work", [loops, waits, catches_exceptions, swallows, converts])
def test_it_ends_in_the_main_thread_whatever_it_does(work: Callable[[], None]) -> None:
    before, started = signal.getsignal(signal.SIGALRM), time.monotonic()
    assert ended(work).startswith("It took longer than --time-limit allows, 0.00166667 min")
    assert time.monotonic() - started < 20
    assert signal.getsignal(signal.SIGALRM) is before
    assert threading.active_count() == len(threading.enumerate())


@pytest.mark.parametrize("work", [loops, catches_exceptions, swallows, converts])
def test_it_ends_in_another_thread(work: Callable[[], None]) -> None:
    told: list[str] = []
    thread = threading.Thread(target=lambda: told.append(ended(work)), daemon=True)
    thread.start()
    thread.join(20)
    assert [text[:40] for text in told] == ["It took longer than --time-limit allows,"]


def test_memory_counts_as_it_is_taken() -> None:
    grown = iter([10**9, 2 * 10**9, 4 * 10**9])
    told = ended(loops, Limits(bytes=3 * 10**9), lambda: next(grown))
    assert told == "It took 4.00 GB of memory, more than --memory-limit allows, 3 GB, and was ended."


def test_what_ends_in_time_is_left_alone_and_without_limits_nothing_is_watched() -> None:
    for limits in (Limits(seconds=60), Limits(bytes=1), NO_LIMITS):
        threads = threading.active_count()
        with Watchdog(limits, nothing) as watchdog:
            assert threading.active_count() == threads + (limits is not NO_LIMITS)
        assert watchdog.told == ""
        assert threading.active_count() == threads


def is_interrupted() -> None:
    try:
        loops()
    except LimitExceededError:
        raise KeyboardInterrupt from None


def test_an_error_of_its_own_and_an_interruption_pass() -> None:
    with pytest.raises(KeyError), Watchdog(Limits(seconds=60), nothing):
        raise KeyError
    with pytest.raises(KeyboardInterrupt), Watchdog(SOON, nothing):
        is_interrupted()


class EndsEarly(Watchdog):
    """The error comes where its block has ended and before it is closed."""

    def __exit__(self, *exception: object) -> None:
        raise LimitExceededError


def test_one_that_was_broken_off_at_the_end_of_its_block_is_closed_behind_it() -> None:
    before, threads = signal.getsignal(signal.SIGALRM), threading.active_count()
    watchdog = EndsEarly(Limits(seconds=60), nothing)
    with pytest.raises(LimitExceededError), watchdog:
        pass
    assert threading.active_count() == threads + 1
    for _ in range(2):
        watchdog.close()
        assert threading.active_count() == threads
        assert signal.getsignal(signal.SIGALRM) is before
