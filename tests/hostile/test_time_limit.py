"""Work that never ends is ended after its CPU time, and what was set before is set again."""

from __future__ import annotations

import re
import signal
import threading

import pytest

from mosld_bench.time_limit import TookTooLongError, cpu_limit


def _forever() -> None:
    while True:
        pass


@pytest.mark.parametrize("swallows", [False, True])
def test_a_loop_is_ended(swallows: bool) -> None:
    def work() -> None:
        try:
            _forever()
        except Exception:
            if not swallows:
                raise
        _forever()

    with pytest.raises(TookTooLongError, match=r"more than 0\.1 s"), cpu_limit(0.1):
        work()
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0, 0)


def test_a_regular_expression_is_ended() -> None:
    with pytest.raises(TookTooLongError), cpu_limit(0.1):
        re.match(r"(((.+)+)+)+!", "a" * 64)


def test_the_sooner_limit_holds() -> None:
    with pytest.raises(TookTooLongError, match=r"0\.1 s"), cpu_limit(0.1), cpu_limit(9):
        _forever()
    with cpu_limit(9):
        with pytest.raises(TookTooLongError, match=r"0\.1 s"), cpu_limit(0.1):
            _forever()
        left, _ = signal.getitimer(signal.ITIMER_VIRTUAL)
        assert 7 < left < 9


def test_another_thread_is_left_alone() -> None:
    done = []

    def work() -> None:
        with cpu_limit(0.001):
            done.append(sum(range(10**5)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [4999950000]
