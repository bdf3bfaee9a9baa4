"""Who runs which trial: order, retries, and workers that are replaced; on a pool that plays a script."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from mosld_bench.errors import LostError
from mosld_bench.records.record import Outcome, Record
from mosld_bench.scheduling import InlineExecutor, Options, make_executor
from mosld_bench.scheduling.executor import MOST_TRIES, POLL_SECONDS, Ended, Unfit, WorkerDeath, dispatch
from mosld_bench.scheduling.ray_executor import RayExecutor
from mosld_bench.spec.trial import Fit, PlannedTrial, TrainSpec
from mosld_bench.trial.session import Progress
from tests.support.synthetic import RECIPES, make_study, make_trials

FIT = Fit(target=None, trainable=1, total=2, residual=None, params={})
STUDY = make_study(seeds=(0, 1, 2, 3))
PLANNED = [PlannedTrial(trial, FIT) for trial in make_trials(STUDY, [RECIPES["lora"]])]
IDS = [trial.id for trial, _ in PLANNED]


class Pool:
    """Plays ``script``: how the trials end, in the order in which they end.

    The trial that was submitted first ends first; ``late`` names those that end behind all others. ``roomless`` workers
    do not get ready. "none": nothing ends for a while; ``+1`` and ``-1``: nor does it, and the room has changed.
    """

    def __init__(
        self,
        script: Sequence[str],
        *,
        size: int = 1,
        gpu: bool = False,
        late: Sequence[PlannedTrial] = (),
        roomless: Sequence[int] = (),
    ) -> None:
        self.size, self.failures_spoil_workers, self.roomless = size, gpu, set(roomless)
        self._script, self._late = iter(script), [trial.id for trial, _ in late]
        self.started = 0
        self.stopped: list[int] = []
        self.running: dict[int, PlannedTrial] = {}
        self.submitted: list[tuple[int, str]] = []
        self.messages: list[tuple[int, Progress]] = []

    def start(self) -> int:
        self.started += 1
        return self.started - 1

    def ready(self, worker: int) -> bool:
        assert worker < self.started
        return worker not in self.roomless

    def stop(self, worker: int) -> None:
        if worker in self.roomless:
            self.running.pop(worker, None)
        assert worker not in self.running
        self.stopped.append(worker)

    def submit(self, worker: int, planned: PlannedTrial) -> None:
        assert worker < self.started
        assert worker not in self.running
        assert worker not in self.stopped
        self.running[worker] = planned
        self.submitted.append((worker, planned.trial.id))

    def wait(self, timeout_seconds: float) -> list[Ended]:
        assert timeout_seconds == POLL_SECONDS
        status = next(self._script)
        if status in {"none", "+1", "-1"}:
            self.size += int(status) if status != "none" else 0
            return []
        working = [number for number in self.running if number not in self.roomless]
        worker = min(working, key=lambda number: self.running[number].trial.id in self._late)
        trial = self.running.pop(worker).trial
        if status == "unfit":
            return [Ended(worker, Unfit("m", "The machine m lacks data."))]
        if status in {"died", "its machine went"}:
            blameless = status != "died"
            return [Ended(worker, WorkerDeath("ActorDiedError", f"killed while at {trial.id}", blameless))]
        record = Record.model_validate({"trial": trial, "trial_id": trial.id, "status": status})
        return [Ended(worker, Outcome(record, notes=(f"of {trial.id}",) if status == "finished" else ()))]

    def progress(self) -> list[tuple[int, Progress]]:
        messages, self.messages = self.messages, []
        return messages


class Watcher:
    """Keeps what it is shown and told."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.notes: list[str] = []
        self.lines: list[str] = []

    def show(self, progress: Progress) -> None:
        self.notes += progress.notes
        if not progress.notes:
            self.shown.append(progress.trial)

    def say(self, line: str) -> None:
        self.lines.append(line)


def outcomes_of(pool: Pool, watcher: Watcher | None = None) -> list[tuple[str, str]]:
    """(trial, status) of every outcome of `PLANNED`, in the order in which they come."""
    outcomes = dispatch(PLANNED, pool, watcher or Watcher())
    return [(outcome.record.trial_id, outcome.record.status) for outcome in outcomes]


def test_what_is_to_be_known_of_a_trial_is_told_though_nobody_looked_while_it_ran() -> None:
    watcher = Watcher()
    outcomes_of(Pool(["finished", "failed", "finished", "finished"]), watcher)
    assert watcher.notes == [f"of {trial}" for trial in (IDS[0], *IDS[2:])]


def test_trials_start_in_their_order_on_one_worker_and_on_several() -> None:
    pool = Pool(["finished"] * 4)
    assert outcomes_of(pool) == [(trial, "finished") for trial in IDS]
    assert pool.submitted == [(0, trial) for trial in IDS]
    pool = Pool(["finished"] * 4, size=2, late=PLANNED[:1])
    assert outcomes_of(pool) == [(trial, "finished") for trial in (*IDS[1:], IDS[0])]
    assert [trial for _, trial in pool.submitted] == IDS
    busy = pool.submitted[0][0]
    assert [worker for worker, _ in pool.submitted] == [busy, 1 - busy, 1 - busy, 1 - busy]
    assert pool.stopped == []


def test_the_first_trials_are_submitted_before_the_first_outcome_is_asked_for() -> None:
    pool = Pool(["finished"] * 4, size=3)
    outcomes = dispatch(PLANNED, pool, Watcher())
    assert [trial for _, trial in pool.submitted] == IDS[:3]
    assert len(list(outcomes)) == 4


def test_a_worker_has_its_next_trial_before_the_outcome_of_the_last_is_yielded() -> None:
    pool = Pool(["finished"] * 4)
    outcomes = dispatch(PLANNED, pool, Watcher())
    for number, outcome in enumerate(outcomes):
        assert outcome.record.trial_id == IDS[number]
        assert [member.trial.id for member in pool.running.values()] == IDS[number + 1 : number + 2]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_list_may_grow_until_its_last_outcome_is_taken(size: int) -> None:
    """As a search goes on: what is next follows from the outcomes before. Workers are kept for it."""
    pool, planned, seen = Pool(["finished"] * 4, size=size), PLANNED[:2], []
    for outcome in dispatch(planned, pool, Watcher()):
        seen.append(outcome.record.trial_id)
        if len(seen) == 2:
            planned += PLANNED[2:]
    assert seen == IDS
    assert pool.started == size
    pool, planned = Pool(["finished"] * 4, size=size), PLANNED[:1]
    for number, _ in enumerate(dispatch(planned, pool, Watcher()), start=1):
        planned += PLANNED[number : number + 1]
    assert [trial for _, trial in pool.submitted] == IDS


def test_more_workers_than_trials_stay_idle() -> None:
    pool = Pool(["finished"] * 4, size=9)
    assert len(outcomes_of(pool)) == len(pool.submitted) == 4


def test_a_trial_whose_worker_died_is_tried_once_more_on_a_new_worker_behind_the_others() -> None:
    pool, watcher = Pool(["died", *["finished"] * 4]), Watcher()
    assert outcomes_of(pool, watcher) == [(trial, "finished") for trial in (*IDS[1:], IDS[0])]
    assert pool.submitted == [(0, IDS[0]), *[(1, trial) for trial in (*IDS[1:], IDS[0])]]
    assert pool.stopped == [0]
    assert watcher.lines == [f"{IDS[0]}: its worker died (ActorDiedError); trying once more"]


def test_after_two_deaths_a_trial_has_failed_and_the_others_go_on() -> None:
    pool = Pool(["died", "finished", "finished", "finished", "died"])
    outcomes = list(dispatch(PLANNED, pool, Watcher()))
    assert [outcome.record.status for outcome in outcomes] == ["finished"] * 3 + ["failed"]
    assert outcomes[-1].record.trial_id == IDS[0]
    assert outcomes[-1].record.error == f"The worker died 2 times: killed while at {IDS[0]}"
    assert [trial for _, trial in pool.submitted].count(IDS[0]) == 2
    assert pool.stopped == [0, 1]


def test_outcomes_of_others_are_not_lost_when_a_worker_dies() -> None:
    """The other worker is in the middle of its trial, and is neither stopped nor asked to begin again."""
    pool = Pool(["died", "finished", "finished", "died", "finished"], size=2, late=PLANNED[1:2])
    ends = [(IDS[2], "finished"), (IDS[3], "finished"), (IDS[0], "failed"), (IDS[1], "finished")]
    assert outcomes_of(pool) == ends
    assert [trial for _, trial in pool.submitted].count(IDS[1]) == 1
    assert len(pool.stopped) == 2


@pytest.mark.parametrize(
    ("gpu", "script", "workers"),
    [
        (False, ["failed", "finished", "finished", "finished"], 1),
        (True, ["failed", "finished", "finished", "finished"], 2),  # the GPU may be of no use to that process
        (False, ["died", "finished", "finished", "finished", "finished"], 2),
        (True, ["died", "died", "finished", "finished", "failed", "finished"], 4),
    ],
)
def test_a_worker_that_may_be_spent_is_replaced(gpu: bool, script: list[str], workers: int) -> None:
    pool = Pool(script, gpu=gpu)
    outcomes = outcomes_of(pool)
    assert sorted(trial for trial, _ in outcomes) == sorted(IDS)
    assert [status for _, status in outcomes] == [status for status in script if status != "died"]
    assert pool.started == workers
    assert pool.stopped == list(range(workers - 1))
    died = {worker for (worker, _), status in zip(pool.submitted, script, strict=True) if status == "died"}
    assert died <= set(pool.stopped)


def test_a_trial_is_not_to_blame_for_its_machine() -> None:
    pool, watcher = Pool(["its machine went"] * 3 + ["finished"] * 3 + ["died", "finished"]), Watcher()
    assert sorted(outcomes_of(pool, watcher)) == sorted((trial, "finished") for trial in IDS)
    assert [line.split("; ")[1] for line in watcher.lines] == ["trying again"] * 3 + ["trying once more"]
    pool = Pool(["its machine went", "finished", "finished", "finished", "died", "its machine went", "died"])
    assert dict(outcomes_of(pool))[IDS[0]] == "failed"


def test_a_machine_that_cannot_run_trials_costs_none_a_try_and_is_told_of_once() -> None:
    pool, watcher = Pool(["unfit", "unfit", *["finished"] * 3, "died", "finished"]), Watcher()
    assert sorted(outcomes_of(pool, watcher)) == sorted((trial, "finished") for trial in IDS)
    assert pool.stopped == [0, 1, 2]
    assert [trial for _, trial in pool.submitted] == [*IDS, IDS[0], IDS[1], IDS[1]]
    assert watcher.lines == [
        "The machine m lacks data. That machine gets no more trials.",
        f"{IDS[1]}: its worker died (ActorDiedError); trying once more",
    ]


def test_machines_that_go_on_and_on_end_a_trial_some_time() -> None:
    pool = Pool(["finished"] * 3 + ["its machine went"] * MOST_TRIES, late=PLANNED[:1], size=2)
    assert dict(outcomes_of(pool))[IDS[0]] == "failed"
    assert [trial for _, trial in pool.submitted].count(IDS[0]) == MOST_TRIES


def test_a_machine_that_joins_is_used() -> None:
    pool = Pool(["+1", "finished", "+1", "finished", "+1", "finished", "finished"])
    assert sorted(outcomes_of(pool)) == sorted((trial, "finished") for trial in IDS)
    assert {worker for worker, _ in pool.submitted} == {0, 1, 2}  # the fourth would have had nothing to do
    assert pool.started == 3


def test_where_there_is_no_more_room_a_dead_worker_has_no_successor() -> None:
    pool = Pool(["-1", "died", "finished", "finished", "finished", "finished"], size=2)
    assert sorted(outcomes_of(pool)) == sorted((trial, "finished") for trial in IDS)
    assert pool.started == 2


def test_what_waits_for_a_worker_without_room_goes_to_one_that_has_nothing_to_do() -> None:
    pool = Pool(["finished", "finished", "finished", "none", "finished"], size=2, roomless=[1])
    ends = outcomes_of(pool)
    stuck = next(trial for worker, trial in pool.submitted if worker == 1)
    assert sorted(ends) == sorted((trial, "finished") for trial in IDS)
    assert pool.submitted[-1] == (0, stuck)
    assert pool.stopped == [1]
    pool = Pool(["none"] * 5, size=2, roomless=[0, 1])  # two wait for room: neither is better off elsewhere
    outcomes = dispatch(PLANNED[:1], pool, Watcher())
    with pytest.raises(RuntimeError, match="StopIteration"):
        next(outcomes)
    assert pool.stopped == []


def test_a_pool_that_is_lost_ends_it() -> None:
    class Lost(Pool):
        def wait(self, timeout_seconds: float) -> list[Ended]:
            raise LostError("Ray is lost.")

    with pytest.raises(LostError, match=r"Ray is lost\."):
        outcomes_of(Lost([]))


def test_progress_is_shown_of_the_trial_that_a_worker_runs_now() -> None:
    """Not what it told of an earlier trial, nor what a worker told that is idle or gone."""
    pool, watcher = Pool(["finished"] * 4), Watcher()
    pool.messages = [
        (0, Progress(IDS[0], "scoring")),
        (0, Progress(IDS[1], "training")),
        (7, Progress(IDS[1], "loading")),
    ]
    outcomes = dispatch(PLANNED, pool, watcher)
    next(outcomes)
    assert watcher.shown == []  # looked at between two waits
    next(outcomes)
    assert watcher.shown == [IDS[1]]
    list(outcomes)
    assert watcher.shown == [IDS[1]]


def test_the_executor_is_the_one_that_was_asked_for_and_counting_is_inline(tmp_path: Path) -> None:
    counting = STUDY.model_copy(update={"train": None})
    assert isinstance(STUDY.train, TrainSpec)
    for study, name, kind in ((STUDY, "ray", RayExecutor), (STUDY, "inline", InlineExecutor),
                              (counting, "ray", InlineExecutor)):  # fmt: skip
        executor = make_executor(study, (tmp_path,), Options(executor=name), gpus=0)
        assert type(executor) is kind
        assert list(executor.run([], Watcher())) == []  # where nothing is to run, nothing is started
        executor.close()
