"""Trials on Ray: which are missing, where they go, what happens when a worker dies. The only module that imports ray.

A worker is an actor that keeps one process, its base model and its tasks for many trials. It receives trials as plain
data and sends outcomes back; the driver alone writes, so a trial is recorded once, and only when it finished.
"""

from __future__ import annotations

import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mosld_bench.errors import ResourceError
from mosld_bench.records.record import Outcome
from mosld_bench.records.store import Store
from mosld_bench.run.progress import ProgressDisplay
from mosld_bench.spec.trial import Fit, PlannedTrial, Trial
from mosld_bench.trial.execute import execute, failed
from mosld_bench.trial.session import Progress, Session, WorkerConfig

_TRIES = 2  # a trial whose worker died is tried once more, on a new worker
_POLL = 0.5  # seconds


@dataclass(frozen=True)
class Pool:
    """What may be used. None: what there is."""

    gpus: int | None = None
    cpus: int | None = None
    gpus_per_trial: float = 1.0
    cpus_per_trial: float = 1.0
    address: str | None = None


def launch(
    jobs: Sequence[PlannedTrial],
    around: WorkerConfig,
    pool: Pool,
    results: Path,
    board: ProgressDisplay,
    begin: Callable[[], None] = lambda: None,
) -> list[Outcome]:
    """Run ``jobs`` on Ray, in their order, and write each outcome as it comes. Safe to kill and to repeat.

    ``begin`` is called once the devices are there, while the workers get ready. Raises ResourceError before that, where
    they are not.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    gpus, cpus = _start(ray, pool)
    if threading.current_thread() is threading.main_thread():  # Ray has set a handler that aborts the process
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # the end of a cluster's job is an interruption
    try:
        slots = slots_of(gpus, cpus, pool, len(jobs))
        options = {
            "num_gpus": pool.gpus_per_trial if gpus else 0,
            "num_cpus": min(pool.cpus_per_trial, cpus / slots),
            "max_concurrency": 2,  # the second thread answers `progress` while the first one runs a trial
        }
        around = replace(around, device="cuda" if gpus else "cpu")
        return _drive(ray, list(jobs), around, options, slots, results, board, begin)
    finally:
        ray.shutdown()


def run_inline(
    jobs: Sequence[PlannedTrial], around: WorkerConfig, results: Path, board: ProgressDisplay
) -> list[Outcome]:
    """The same without Ray, one after another in this process: for debugging."""
    session = Session(around)
    outcomes = []
    for trial, fit in jobs:
        outcomes.append(execute(trial, session, fit, board.show))
        Store(results).write(outcomes[-1])
        board.finish(outcomes[-1].record)
    return outcomes


def slots_of(gpus: float, cpus: float, pool: Pool, jobs: int) -> int:
    """How many trials run side by side."""
    room = gpus / pool.gpus_per_trial if gpus else cpus / pool.cpus_per_trial
    return max(1, min(jobs, int(room + 1e-9)))


def check_gpus(asked: int | None) -> int:
    """GPUs of this machine to use. Raises ResourceError where fewer are there than asked for."""
    import torch

    found = torch.cuda.device_count()
    if asked is not None and asked > found:
        raise ResourceError(
            f"--gpus {asked} was asked for, but this machine has {found} CUDA device(s). Ask for at most {found}, or "
            f"join a cluster with --ray-address."
        )
    return found if asked is None else asked


def _start(ray: Any, pool: Pool) -> tuple[float, float]:
    """Start or join Ray. Returns (GPUs, CPUs) to use."""
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if pool.address is None:
        from mosld_bench.trial import device as meters

        gpus, cpus = check_gpus(pool.gpus), pool.cpus or meters.cores()
        ray.init(address="local", num_cpus=cpus, num_gpus=gpus, include_dashboard=False, **quiet)
        return gpus, cpus
    try:
        ray.init(address=pool.address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ResourceError(
            f"No Ray cluster answers at --ray-address {pool.address}: {error}. If it is up, it may ask for a token: "
            f"set RAY_AUTH_MODE and RAY_AUTH_TOKEN as on its head node."
        ) from error
    there = ray.cluster_resources()
    gpus, cpus = there.get("GPU", 0), there.get("CPU", 0)
    for name, asked, found in (("--gpus", pool.gpus, gpus), ("--cpus", pool.cpus, cpus)):
        if asked is not None and asked > found:
            ray.shutdown()
            raise ResourceError(f"{name} {asked} was asked for, but the Ray cluster has {found:g}.")
    return (gpus if pool.gpus is None else pool.gpus), (cpus if pool.cpus is None else pool.cpus)


class Worker:
    """Lives in a Ray actor: a session, and what the running trial last said."""

    def __init__(self, around: WorkerConfig, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._session: Session | None = None
        self._around = around
        self._last: Progress | None = None

    def run(self, trial: Trial, fit: Fit) -> Outcome:
        if self._session is None:
            try:
                self._session = Session(self._around)
            except Exception:  # a plug-in or a folder that this node lacks: it concerns the trial, the worker lives
                return failed(trial, traceback.format_exc(), {})
        return execute(trial, self._session, fit, self._note)

    def progress(self) -> Progress | None:
        return self._last

    def _note(self, progress: Progress) -> None:
        self._last = progress


def _drive(
    ray: Any,
    jobs: list[PlannedTrial],
    around: WorkerConfig,
    options: dict[str, Any],
    slots: int,
    results: Path,
    board: ProgressDisplay,
    begin: Callable[[], None],
) -> list[Outcome]:
    """Feed workers until every job has an outcome."""
    actor = ray.remote(Worker)
    threads = max(1, int(options["num_cpus"]))

    def hire() -> Any:
        return actor.options(**options).remote(around, threads)

    def replaced(worker: Any) -> Any:
        ray.kill(worker)  # if it lives, it holds what the next one needs
        return hire()

    waiting = deque((job, 1) for job in jobs)
    idle = [hire() for _ in range(slots)]
    busy: dict[Any, tuple[Any, PlannedTrial, int]] = {}
    asked: dict[Any, Any] = {}
    outcomes: list[Outcome] = []

    def feed() -> None:
        while waiting and idle:
            worker = idle.pop()
            job, attempt = waiting.popleft()
            busy[worker.run.remote(*job)] = (worker, job, attempt)

    feed()
    begin()
    while busy:
        done, _ = ray.wait(list(busy), num_returns=1, timeout=_POLL)
        for finished in done:
            worker, job, attempt = busy.pop(finished)
            try:
                outcome = ray.get(finished)
                # After an error of the device a process is of no use: it would fail every trial that is left.
                spent = around.device == "cuda" and outcome.record.status == "failed"
                idle.append(replaced(worker) if spent else worker)
            except ray.exceptions.RayError as error:
                idle.append(replaced(worker))
                if attempt < _TRIES:
                    board.say(f"{job[0].id}: its worker died ({type(error).__name__}); trying once more")
                    waiting.append((job, attempt + 1))
                    feed()
                    continue
                outcome = failed(job[0], f"The worker died {_TRIES} times: {error}", {})
            feed()  # first: the worker trains on while this process writes
            Store(results).write(outcome)
            outcomes.append(outcome)
            board.finish(outcome.record)
        _watch(ray, busy, asked, board)
    return outcomes


def _watch(
    ray: Any, busy: dict[Any, tuple[Any, PlannedTrial, int]], asked: dict[Any, Any], board: ProgressDisplay
) -> None:
    """Show what busy workers said since the last look, and ask them again; never waits."""
    answers, _ = ray.wait(list(asked), num_returns=len(asked), timeout=0) if asked else ([], [])
    for answer in answers:
        worker = asked.pop(answer)
        try:
            progress = ray.get(answer)
        except ray.exceptions.RayError:
            continue  # the death of a worker shows in its trial
        if progress and any(w is worker and job[0].id == progress.trial for w, job, _ in busy.values()):
            board.show(progress)
    for worker, _, _ in busy.values():
        if all(worker is not other for other in asked.values()):
            asked[worker.progress.remote()] = worker
