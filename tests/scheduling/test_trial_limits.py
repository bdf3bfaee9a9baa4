"""Trials on a pool that hang, run out of memory, or are tried as often as asked; a pool that plays a script."""

from __future__ import annotations

from typing import Any

import pytest

from mosld_bench.errors import BenchError
from mosld_bench.records.record import Outcome
from mosld_bench.scheduling import Options, executor
from mosld_bench.scheduling.executor import GRACE_SECONDS, Ended, WorkerDeath, dispatch
from mosld_bench.spec.trial import PlannedTrial
from mosld_bench.trial.execute import failed
from mosld_bench.trial.limits import Limits
from mosld_bench.trial.session import Progress
from tests.scheduling.test_executor import IDS, PLANNED, Watcher


class Clock:
    """Goes on by ten seconds with every look of the dispatcher."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class Pool:
    """One worker; ``ends`` says for each try in turn how it ends: an outcome, a death, or None for one that hangs."""

    size, failures_spoil_workers = 1, False

    def __init__(self, clock: Clock, ends: list[str], waits: int = 0) -> None:
        self.clock, self.ends, self.waits = clock, ends, waits
        self.running: dict[int, PlannedTrial] = {}
        self.tried: list[str] = []
        self.stopped: list[int] = []
        self.started = 0

    def start(self) -> int:
        self.started += 1
        return self.started - 1

    def ready(self, worker: int) -> bool:
        return True

    def stop(self, worker: int) -> None:
        self.stopped.append(worker)
        self.running.pop(worker, None)

    def submit(self, worker: int, planned: PlannedTrial) -> None:
        self.running[worker] = planned
        self.tried.append(planned.trial.id)

    def wait(self, timeout_seconds: float) -> list[Ended]:
        self.clock.now += 10
        ((worker, (trial, _)),) = self.running.items()
        if self.waits or self.ends[0] == "hangs":
            return []
        del self.running[worker]
        end = self.ends.pop(0)
        results: dict[str, Outcome | WorkerDeath] = {
            "died": WorkerDeath("ActorDiedError", "killed"),
            "no memory": failed(trial, "Traceback\nMemoryError: too much", {}, may_pass=True),
            "failed": failed(trial, "KeyError", {}),
            "limit": failed(trial, "It took longer", {}, spent=True),
        }
        return [Ended(worker, results[end])]

    def progress(self) -> list[tuple[int, Progress]]:
        if self.waits:  # the machine has no room yet
            self.waits -= 1
            return []
        return [(worker, Progress(trial.id, "loading")) for worker, (trial, _) in self.running.items()]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(executor, "time", made)
    return made


@pytest.mark.parametrize(
    ("ends", "retries", "tries", "said", "error"),
    [
        (
            ["died", "died"],
            1,
            2,
            ["its worker died (ActorDiedError); trying once more"],
            "The worker died 2 times: killed",
        ),
        (["died"], 0, 1, [], "The worker died: killed"),
        (
            ["died", "no memory", "died"],
            2,
            3,
            ["its worker died (ActorDiedError); trying again", "MemoryError: too much; trying once more"],
            "The worker died 3 times: killed",
        ),
        (["no memory"], 0, 1, [], "Traceback\nMemoryError: too much"),
        (["failed"], 5, 1, [], "KeyError"),
        (["limit"], 5, 1, [], "It took longer"),
    ],
)
def test_what_another_try_can_help_is_tried_as_often_as_asked(
    ends: list[str], retries: int, tries: int, said: list[str], error: str, clock: Clock
) -> None:
    pool, watcher = Pool(clock, ends), Watcher()
    (outcome,) = dispatch(PLANNED[:1], pool, watcher, retries=retries)
    assert outcome.record.error == error
    assert pool.tried == IDS[:1] * tries
    assert watcher.lines == [f"{IDS[0]}: {line}" for line in said]
    assert len(pool.stopped) == (0 if error == "KeyError" else tries)


def test_a_trial_that_does_not_end_by_itself_is_ended_with_its_worker(clock: Clock) -> None:
    """Its time counts from when its worker began; the next trial runs on a new worker."""
    pool = Pool(clock, ["hangs", "failed"], waits=5)
    outcomes = dispatch(PLANNED[:2], pool, Watcher(), retries=3, limits=Limits(seconds=60))
    record = next(outcomes).record
    assert record.trial_id == IDS[0]
    assert record.status == "failed"
    assert record.error == (
        "It took longer than --time-limit allows, 1 min, and was ended. It hung in a library, so that its process "
        "was ended as well."
    )
    assert clock.now > 50 + 60 + GRACE_SECONDS
    assert pool.stopped == [0]
    pool.ends.pop(0)
    assert next(outcomes).record.trial_id == IDS[1]
    assert pool.tried == IDS[:2]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("checkpoint_minutes", -1.0), ("checkpoint_minutes", float("nan")), ("checkpoint_minutes", float("inf")),
        ("time_limit", 0.0), ("time_limit", -5.0), ("time_limit", float("nan")), ("memory_limit", 0.0),
        ("memory_limit", float("inf")), ("retries", -1),
    ],
)  # fmt: skip
def test_limits_beyond_reason_are_refused(option: str, value: float) -> None:
    changed: dict[str, Any] = {option: value}
    with pytest.raises(BenchError, match=f"--{option.replace('_', '-')} takes a number that is"):
        Options(**changed)


def test_limits_are_in_seconds_and_bytes() -> None:
    assert Options(time_limit=2, memory_limit=1.5).limits == Limits(seconds=120, bytes=1_500_000_000)
    assert Options().limits == Limits()
