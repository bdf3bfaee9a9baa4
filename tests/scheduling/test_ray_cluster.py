"""Machines that come and go: how many workers they hold, and what becomes of trials; on a Ray that plays a script."""

from __future__ import annotations

import threading
from collections.abc import Callable
from math import inf
from typing import Any

import pytest

from mosld_bench.errors import LostError, ResourceError
from mosld_bench.records.record import Outcome, Record
from mosld_bench.scheduling import ray_cluster
from mosld_bench.scheduling.executor import Unfit, WorkerDeath
from mosld_bench.scheduling.ray_cluster import Cluster, Node, Room
from mosld_bench.scheduling.ray_executor import RayPool
from mosld_bench.scheduling.ray_liveness import Liveness, Process
from mosld_bench.spec.trial import Resources
from mosld_bench.trial.session import Progress, WorkerConfig
from tests.scheduling.test_executor import PLANNED


def nodes(*sizes: tuple[float, float]) -> list[Node]:
    """Machines of so many GPUs and cores."""
    return [Node(f"n{number}", Process("host", number), *size) for number, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("machines", "per_trial", "limits", "trials", "workers", "cpus"),
    [
        ([(8, 64)], {}, {}, 100, 8, 1),
        ([(2, 64)], {"gpus_per_trial": 0.25}, {}, 100, 8, 1),
        ([(2, 64)], {"gpus_per_trial": 0.4}, {}, 100, 4, 1),  # two on each: none can be of parts of both
        ([(3, 64)], {"gpus_per_trial": 2}, {}, 100, 1, 1),
        ([(2, 64), (2, 64)], {"gpus_per_trial": 2, "cpus_per_trial": 4}, {}, 100, 2, 4),
        ([(8, 4)], {}, {}, 100, 8, 0.5),
        ([(8, 64)], {}, {"gpus": 3}, 100, 3, 1),
        ([(8, 64)], {}, {"gpus": 0}, 100, 64, 1),
        ([(8, 64), (0, 64)], {}, {}, 100, 8, 1),  # what has no GPU has no place for a worker that has one
        ([(0, 4)], {"cpus_per_trial": 2}, {}, 100, 2, 2),
        ([(0, 4)], {}, {}, 3, 3, 1),
        ([(0, 1)], {"cpus_per_trial": 2}, {}, 3, 1, 1),  # slower than asked for, and better than not at all
        ([(0, 1), (0, 1)], {"cpus_per_trial": 2}, {}, 3, 2, 1),
        ([(0, 3), (0, 3)], {"cpus_per_trial": 2}, {}, 9, 2, 2),  # and not three
        ([(0, 4), (0, 4)], {}, {"cpus": 3}, 9, 3, 1),
        ([(0, 4)], {"cpus_per_trial": 2}, {"cpus": 1}, 9, 1, 1),
        ([(0, 0), (0, 2)], {}, {}, 9, 2, 1),  # a head that only leads
    ],
)
def test_as_many_workers_as_machines_hold(
    machines: list[tuple[float, float]],
    per_trial: dict[str, float],
    limits: dict[str, float],
    trials: int,
    workers: int,
    cpus: float,
) -> None:
    there = nodes(*machines)
    room = Room.of(Resources.model_validate(per_trial), there, **{"gpus": inf, "cpus": inf, **limits}, trials=trials)
    assert room.workers(there) == workers
    assert room.cpus_per_worker == cpus
    assert room.on_gpus == bool(machines[0][0] and limits.get("gpus", 1))


def test_a_trial_that_has_room_nowhere_is_refused() -> None:
    with pytest.raises(ResourceError, match=r"A trial takes 2 GPUs .* no machine has more than 1\."):
        Room.of(Resources(gpus_per_trial=2), nodes((1, 8), (1, 8)), gpus=inf, cpus=inf, trials=9)


def test_room_grows_with_machines_and_not_beyond_what_was_asked_for() -> None:
    room = Room.of(Resources(), nodes((0, 2)), gpus=inf, cpus=inf, trials=5)
    assert [room.workers(nodes(*[(0, 2)] * count)) for count in (0, 1, 2, 3)] == [1, 2, 4, 5]
    room = Room.of(Resources(), nodes((0, 2)), gpus=inf, cpus=1, trials=5)
    assert room.workers(nodes((0, 2), (0, 2))) == 1


class Error(Exception):
    """Of Ray."""


class TimeOutError(Error):
    """Of a call to Ray that took too long."""


class Remote:
    """The handle of an actor, and of each of its methods."""

    def __init__(self, ray: FakeRay, node: str) -> None:
        self.ray, self.node = ray, node
        self.run = self.where = self.progress = self

    def remote(self, *words: Any) -> object:
        """A promise; that of `where` is kept at once if the actor has a node."""
        promise = object()
        if not words and self.node:
            self.ray.kept[promise] = self.node
        return promise


class FakeRay:
    """The part of Ray that a pool uses: machines are in ``alive``, promises that were kept in ``kept``."""

    class exceptions:  # noqa: N801
        RayError, GetTimeoutError = Error, TimeOutError

    def __init__(self) -> None:
        self.alive = {"a": 1.0, "b": 1.0}
        self.kept: dict[object, Any] = {}
        self.places = iter(["a", "b", "", "c"])
        self.killed: list[str] = []
        self.asked: list[Any] = []  # of which nodes workers were to be

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {
                "NodeID": name, "Alive": cpus > 0, "NodeManagerAddress": name, "NodeManagerPort": 1,
                "Resources": {"CPU": cpus},
            }
            for name, cpus in self.alive.items()
        ]  # fmt: skip

    def get_runtime_context(self) -> Any:
        return type("Context", (), {"gcs_address": "head:1", "get_node_id": lambda self: "a"})()

    def remote(self, kind: type) -> Any:
        class Factory:
            def options(factory, **options: Any) -> Any:  # noqa: N805
                self.asked.append(options.get("label_selector"))
                return factory

            def remote(factory, *words: Any) -> Remote:  # noqa: N805
                return Remote(self, next(self.places))

        return Factory()

    def wait(
        self, promises: list[object], *, num_returns: int = 1, timeout: float
    ) -> tuple[list[object], list[object]]:
        return [promise for promise in promises if promise in self.kept][:num_returns], []

    def get(self, promise: object, *, timeout: float) -> Any:
        if isinstance(self.kept[promise], Exception):
            raise self.kept[promise]
        return self.kept[promise]

    def kill(self, handle: Remote) -> None:
        self.killed.append(handle.node)


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The hosts that have fallen silent, of which nobody is asked."""
    hosts: set[str] = set()
    monkeypatch.setattr(Liveness, "_follow", lambda self: None)
    monkeypatch.setattr(Liveness, "silent", lambda self, process: process.host in hosts)
    monkeypatch.setattr(ray_cluster, "_LOOK_SECONDS", 0.0)
    return hosts


def a_pool(ray: FakeRay) -> RayPool:
    return RayPool(ray, WorkerConfig((), Resources()), Cluster(ray, None), gpus=inf, cpus=inf, trials=9)


def ended(number: int) -> Outcome:
    trial = PLANNED[number].trial
    return Outcome(Record.model_validate({"trial": trial, "trial_id": trial.id, "status": "finished"}))


def test_a_pool_starts_feeds_and_ends_workers(silent: set[str]) -> None:
    ray = FakeRay()
    pool = a_pool(ray)
    assert pool.size == 2
    workers = [pool.start(), pool.start(), pool.start()]
    assert [pool.ready(worker) for worker in workers] == [True, True, False]  # the third has found no room
    for worker, planned in zip(workers, PLANNED, strict=False):
        pool.submit(worker, planned)
    assert pool.wait(0) == []
    first, second, third = pool._running
    ray.kept[second] = ended(1)
    assert pool.wait(0) == [(workers[1], ray.kept[second])]
    pool.stop(workers[2])  # of its trial nothing is told any more
    ray.kept[third] = ended(2)
    assert pool.wait(0) == []
    assert ray.killed == [""]
    ray.kept[first] = Error("died")
    assert pool.wait(0) == [(workers[0], WorkerDeath("Error", "died"))]
    assert pool.wait(0) == []


def dies(ray: FakeRay, silent: set[str]) -> None:
    ray.alive["b"] = 0.0


def leaves(ray: FakeRay, silent: set[str]) -> None:
    del ray.alive["b"]


def falls_silent(ray: FakeRay, silent: set[str]) -> None:
    silent.add("b")


@pytest.mark.parametrize("way", [dies, leaves, falls_silent])
@pytest.mark.parametrize("told", [False, True])
def test_a_machine_that_goes_ends_the_trials_that_it_has_and_no_others(
    silent: set[str], way: Callable[[FakeRay, set[str]], None], told: bool
) -> None:
    """Whether Ray tells of the death of the worker or not."""
    ray = FakeRay()
    pool = a_pool(ray)
    workers = [pool.start(), pool.start()]
    for worker, planned in zip(workers, PLANNED, strict=False):
        pool.submit(worker, planned)
        assert pool.ready(worker)
    way(ray, silent)
    if told:
        ray.kept[list(pool._running)[1]] = Error("died")
    (end,) = pool.wait(0)
    assert end.worker == workers[1]
    assert isinstance(end.result, WorkerDeath)
    assert end.result.blameless
    assert pool.size == 1
    pool.stop(workers[1])
    assert pool.wait(0) == []
    ray.alive["c"] = 2.0
    pool.wait(0)
    assert pool.size == 3  # what joins counts


def test_a_machine_that_cannot_run_trials_gets_no_more_workers(silent: set[str]) -> None:
    """Where none is left that can, or has begun, nothing goes on; not before."""
    ray = FakeRay()
    ray.places = iter(["a", "b", "", ""])
    pool = a_pool(ray)
    a, b = pool.start(), pool.start()
    for worker, planned in zip((a, b), PLANNED, strict=False):
        pool.submit(worker, planned)
    first, second = pool._running
    ray.kept[second] = Unfit("b", "The machine b lacks data.")
    assert pool.wait(0) == [(b, ray.kept[second])]
    pool.stop(b)
    assert pool.size == 1
    pool.stop(pool.start())
    assert ray.asked == [None, None, {"ray.io/node-id": "!in(b)"}]
    ray.alive["a"] = 0.25  # others have taken its cores, but it has begun
    pool._cluster.look()
    assert pool.wait(0) == []
    ray.kept[first] = Unfit("a", "The machine a lacks data.")
    assert pool.wait(0) == [(a, ray.kept[first])]
    pool.stop(a)
    pool.submit(pool.start(), PLANNED[0])
    assert ray.asked[-1] == {"ray.io/node-id": "!in(a,b)"}
    with pytest.raises(LostError, match=r"No machine is left that can run trials of this study\. The machine a lacks"):
        pool.wait(0)


def test_a_machine_that_joined_a_moment_ago_is_not_taken_for_one_that_went(
    silent: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = FakeRay()
    ray.places = iter(["c"])
    pool = a_pool(ray)
    monkeypatch.setattr(ray_cluster, "_LOOK_SECONDS", 1000.0)
    ray.alive["c"] = 1.0
    pool.submit(pool.start(), PLANNED[0])
    assert pool.wait(0) == []
    assert pool.size == 3


def test_what_lies_on_a_machine_that_hangs_is_waited_for_until_that_is_known(silent: set[str]) -> None:
    ray = FakeRay()
    pool = a_pool(ray)
    pool.start()
    worker = pool.start()
    assert pool.ready(worker)
    pool.submit(worker, PLANNED[0])
    ray.kept[next(iter(pool._running))] = TimeOutError()
    assert pool.wait(0) == []
    silent.add("b")
    (end,) = pool.wait(0)
    assert isinstance(end.result, WorkerDeath)
    assert end.result.blameless


def test_progress_is_asked_for_once_at_a_time(silent: set[str]) -> None:
    ray = FakeRay()
    pool = a_pool(ray)
    assert pool.progress() == []
    worker = pool.start()
    ray.kept.clear()
    pool.submit(worker, PLANNED[0])
    assert pool.progress() == []
    (question,) = pool._asked
    told = Progress(PLANNED[0].trial.id, "training")
    ray.kept = {question: told}
    assert pool.progress() == [(worker, told)]
    assert len(pool._asked) == 1


@pytest.mark.parametrize("told", [False, True])
def test_without_its_own_machine_nothing_goes_on(silent: set[str], told: bool) -> None:
    ray = FakeRay()
    pool = a_pool(ray)
    worker = pool.start()
    pool.submit(worker, PLANNED[0])
    del ray.alive["a"]
    if told:
        ray.kept[next(iter(pool._running))] = Error("died")
    with pytest.raises(LostError, match="its raylet on this machine is dead, as its head says"):
        pool.wait(0)


def test_without_its_head_nothing_goes_on(silent: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay()
    pool = a_pool(ray)
    worker = pool.start()
    pool.submit(worker, PLANNED[0])
    monkeypatch.setattr("mosld_bench.scheduling.ray_liveness._LOOK_SECONDS", 0.01)
    silent.add("head")
    hang = threading.Event()
    monkeypatch.setattr(ray, "wait", lambda *words, **options: hang.wait())
    with pytest.raises(LostError, match=r"Ray is lost: its head \(head:1\) has not answered for 25 seconds"):
        pool.wait(0)
    hang.set()
