"""The clock, the memory and the cores of a device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mosld_bench.trial.device import Clock, PeakMemory, core_rate, cores, cpu_quota


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


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, float("inf")),
        ({"sys/fs/cgroup/cpu.max": "max 100000"}, float("inf")),
        ({"sys/fs/cgroup/cpu.max": "250000 100000"}, 2.5),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, float("inf")),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, 0.5),
        (
            {
                "proc/self/cgroup": "1:cpu:/job\n0::/user/job\n",
                "sys/fs/cgroup/user/job/cpu.max": "max 100000",
                "sys/fs/cgroup/user/cpu.max": "300000 100000",
                "sys/fs/cgroup/cpu.max": "800000 100000",
            },
            3.0,
        ),
        ({"sys/fs/cgroup/cpu.max": "words of another kind"}, float("inf")),
    ],
)
def test_the_quota_of_a_container_is_known(files: dict[str, str], quota: float, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    assert cpu_quota(tmp_path) == quota


@pytest.mark.parametrize(("quota", "expected"), [(float("inf"), 8), (2.5, 2), (0.5, 1), (100.0, 8)])
def test_cores_are_those_of_the_quota(quota: float, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr("mosld_bench.trial.device.cpu_quota", lambda: quota)
    assert cores() == expected
