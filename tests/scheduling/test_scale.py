"""Studies of very many trials on many workers: work grows with their number and no faster, and workers stay busy."""

from __future__ import annotations

import heapq
import io
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mosld_bench.cost.estimate import side_by_side
from mosld_bench.records.record import Outcome, Record
from mosld_bench.records.store import Store
from mosld_bench.scheduling import Plan, ProgressDisplay, Rounds, missing
from mosld_bench.scheduling.executor import Ended, dispatch
from mosld_bench.spec import trial as trials_module
from mosld_bench.spec.trial import PlannedTrial
from mosld_bench.trial.session import Progress
from tests.support.growth import calls, growth
from tests.support.synthetic import RECIPES, make_record, make_study, make_trials

LINEAR = 1.3  # a square would be 4
FEW, MANY = 20, 80  # seeds


def plan_of(seeds: int) -> Plan:
    """Two recipes at two budgets, without prices."""
    study = make_study(seeds=tuple(range(seeds)), recipes=("lora", "mosld"), budgets=("30000", "60000"))
    trials = make_trials(study, [RECIPES["lora"], RECIPES["mosld"]])
    planned = [PlannedTrial(trial, size) for trial in trials if (size := make_record(trial, study).size)]
    configs: dict[str, Any] = {"embedded": None}
    return Plan(study, planned, configs, {})


def test_the_id_of_a_planned_trial_is_computed_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From the study to what is left to run, in its order: a plan asks a hundred thousand trials for it often."""
    really, asked = trials_module.digest, 0

    def noted(content: Any) -> str:
        nonlocal asked
        asked += 1
        return really(content)

    plan = plan_of(3)
    monkeypatch.setattr(trials_module, "digest", noted)
    fresh = [member._replace(trial=member.trial.model_copy()) for member in plan.planned]
    plan = Plan(plan.study, fresh, plan.configs, plan.sizes)
    todo = missing(plan.planned, Store(tmp_path / "results"), overwrite="only-missing", weights={})
    assert plan.in_rounds(todo.planned) == plan.in_rounds(plan.planned)
    assert len(plan.hours(plan.planned)) == len(plan.rows()) == len(plan.planned) == asked


def test_a_copy_of_a_trial_has_the_id_of_its_own_fields() -> None:
    trial = plan_of(1).planned[0].trial
    again = type(trial).model_validate(trial.model_dump(mode="json"))
    for deep in (False, True):
        other = trial.model_copy(update={"seed": 7}, deep=deep)
        assert other.id == again.model_copy(update={"seed": 7}).id != trial.id == again.id
    assert trial == again
    assert "id" not in trial.model_dump()
    assert "id" not in trial.model_fields_set


def test_a_study_is_planned_and_put_in_order_in_a_time_that_grows_with_its_trials() -> None:
    def expanded(seeds: int) -> Callable[[], object]:
        study = make_study(seeds=tuple(range(seeds)), recipes=("lora", "mosld"))
        return lambda: study.trials([RECIPES["lora"], RECIPES["mosld"]], dict.fromkeys(study.tasks, "0"))

    def ordered(seeds: int) -> Callable[[], object]:
        plan = plan_of(seeds)
        return lambda: (plan.in_rounds(plan.planned), plan.hours(plan.planned), Rounds(plan.rounds, plan.planned))

    assert growth(expanded, few=FEW, many=MANY) < LINEAR
    assert growth(ordered, few=FEW, many=MANY) < LINEAR


def test_what_is_left_to_run_is_found_in_a_time_that_grows_with_the_trials(tmp_path: Path) -> None:
    """Beside records of other studies, each of whose folders is listed once; half of the trials have a record."""

    def resumed(seeds: int) -> Callable[[], object]:
        plan, store = plan_of(seeds), Store(tmp_path / str(seeds) / "results")
        for trial, _ in plan.planned[::2]:
            if not store.folder(trial).exists():
                record = make_record(trial, plan.study)
                store.folder(trial).mkdir(parents=True)
                (store.folder(trial) / "record.json").write_text(record.model_dump_json(), encoding="utf-8")
        for other in range(10):
            (store.results / f"other-{other}" / plan.planned[1].trial.id).mkdir(parents=True, exist_ok=True)

        def find() -> None:
            todo = missing(plan.planned, store, overwrite="only-missing", weights={})
            assert [trial.id for trial, _ in todo.planned] == [trial.id for trial, _ in plan.planned[1::2]]

        return find

    assert growth(resumed, few=FEW // 4, many=MANY // 4) < LINEAR


def test_a_trial_that_ends_costs_the_driver_no_more_where_many_are_left() -> None:
    def ended(seeds: int) -> Callable[[], object]:
        plan = plan_of(seeds)
        display = ProgressDisplay(plan.hours(plan.planned), Console(file=io.StringIO(), width=100))
        rounds, records = Rounds(plan.rounds, plan.planned), [make_record(t, plan.study) for t, _ in plan.planned[:40]]

        def end() -> None:
            for record in records:
                display.show(Progress(record.trial_id, "training"))
                display.finish(record)
                assert display.seconds_left()
                rounds.ended(record.trial_id)

        return end

    ended(20)()
    assert calls(ended(80)) < 1.3 * calls(ended(20))


def test_equal_times_side_by_side_come_to_what_they_come_to_one_by_one() -> None:
    times = [5.0] * 1000 + [40.0, 3.0, 3.0] + [0.25] * 777 + [11.0] * 13
    for workers in (1, 2, 7, 64):
        until = [0.0] * workers
        for duration in sorted(times, reverse=True):
            heapq.heapreplace(until, until[0] + duration)
        assert side_by_side(times, workers) == pytest.approx(max(until), rel=1e-12)
    many = Counter({1.0: 10**6, 2.0: 10**6})
    assert calls(lambda: side_by_side(many, 64)) < 10_000
    assert side_by_side(many, 64) == pytest.approx(3 * 10**6 / 64)


class Cluster:
    """A pool of workers in a time of its own: trials take invented seconds, and the driver the time of its processor.

    So it tells what share of their time workers wait for the driver, on a machine of any speed and however busy.
    """

    failures_spoil_workers = False

    def __init__(self, size: int, seconds: Callable[[int], float], record: Callable[[PlannedTrial], Record]) -> None:
        self.size, self._seconds, self._record = size, seconds, record
        self._skipped, self._started = 0.0, 0
        self._running: list[tuple[float, int, PlannedTrial]] = []  # a heap, by when they end
        self._free_since: dict[int, float] = {}
        self.worked = self.waited = 0.0  # seconds of all workers; behind its last trial none waits
        self.most_running = 0

    def now(self) -> float:
        """Seconds: those of the driver, and those in which it waited."""
        return time.process_time() + self._skipped

    def start(self) -> int:
        self._started += 1
        self._free_since[self._started - 1] = self.now()
        return self._started - 1

    def ready(self, worker: int) -> bool:
        return True

    def stop(self, worker: int) -> None:
        raise AssertionError("no worker dies")

    def submit(self, worker: int, planned: PlannedTrial) -> None:
        assert worker not in {busy for _, busy, _ in self._running}
        seconds = self._seconds(planned.trial.seed)
        self.worked += seconds
        self.waited += self.now() - self._free_since[worker]
        heapq.heappush(self._running, (self.now() + seconds, worker, planned))
        self.most_running = max(self.most_running, len(self._running))

    def wait(self, timeout_seconds: float) -> list[Ended]:
        self._skipped += max(0.0, min(self._running[0][0] - self.now(), timeout_seconds))
        if self._running[0][0] > self.now():
            return []
        ended, worker, planned = heapq.heappop(self._running)
        self._free_since[worker] = ended
        return [Ended(worker, Outcome(self._record(planned)))]

    def progress(self) -> list[tuple[int, Progress]]:
        return [(worker, Progress(planned.trial.id, "training", 1, 2)) for _, worker, planned in self._running]


def test_sixty_four_workers_are_busy_nine_tenths_of_their_time(tmp_path: Path) -> None:
    """Trials of 4 to 8 seconds, far shorter than any study for a cluster has; all that the driver does is done."""
    plan = plan_of(160)
    store, template = Store(tmp_path / "results"), make_record(plan.planned[0].trial, plan.study)

    def record(planned: PlannedTrial) -> Record:
        return template.model_copy(update={"trial": planned.trial, "trial_id": planned.trial.id})

    cluster = Cluster(64, lambda seed: 4.0 + seed % 5, record)
    rounds, order = Rounds(plan.rounds, plan.planned), plan.in_rounds(plan.planned)
    display = ProgressDisplay(plan.hours(order), Console(file=io.StringIO(), width=100))
    written = 0
    for outcome in dispatch(order, cluster, display):
        store.write(outcome)
        display.finish(outcome.record)
        rounds.ended(outcome.record.trial_id)
        written += 1
    assert written == len(order) == 640
    assert cluster.most_running == 64, "each worker has one, and the others wait with the driver"
    assert cluster.worked / (cluster.worked + cluster.waited) > 0.9
