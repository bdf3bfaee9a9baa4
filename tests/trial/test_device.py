"""The clock, the memory and the cores of a device."""

from __future__ import annotations

import pytest
import torch

from mosld_bench.trial.device import Clock, PeakMemory, core_rate


def test_the_clock_counts_seconds_and_the_peak_holds_what_was_there() -> None:
    clock = Clock("cpu")
    work = torch.ones(300, 300)
    assert 0 < clock.seconds(lambda: work @ work, least=0.01) < 1
    with PeakMemory("cpu", every=0.001) as memory:
        held = torch.ones(30_000_000)
        assert clock.seconds(lambda: held.sum(), least=0.02) > 0
    assert memory.peak > held.nbytes


def test_clock_of_a_gpu_counts_between_events(monkeypatch: pytest.MonkeyPatch) -> None:
    class Event:
        """At 2 ms when first recorded, 5 ms later each time."""

        time = -3.0

        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            Event.time += 5.0
            self.at, self.waited = Event.time, False

        def synchronize(self) -> None:
            self.waited = True

        def elapsed_time(self, other: Event) -> float:
            assert other.waited
            return other.at - self.at

    monkeypatch.setattr(torch.cuda, "Event", Event)
    assert Clock("cuda").seconds(lambda: None, least=0.005) == pytest.approx(0.005)
    assert Clock("cuda").seconds(lambda: None, least=0.1) == pytest.approx(0.005 / 21)


def test_the_rate_of_a_core_is_measured_and_leaves_the_threads_alone() -> None:
    threads = torch.get_num_threads()
    assert 1e8 < core_rate("float32") < 1e13
    assert torch.get_num_threads() == threads
