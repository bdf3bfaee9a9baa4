"""Trials on Ray. The only module that imports ray.

A worker is an actor that keeps one process, its base model and its tasks for many trials. It receives trials as plain
data and sends outcomes back. `executor.dispatch` says who runs what, and what happens when a worker dies.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from mosld_bench.errors import ResourceError, first_line
from mosld_bench.interruption import interrupt
from mosld_bench.records.record import Outcome
from mosld_bench.scheduling.checks import local_gpus
from mosld_bench.scheduling.executor import Ended, RunWatcher, WorkerDeath, dispatch
from mosld_bench.scheduling.ray_places import TempFolder, check_address
from mosld_bench.spec import foreign_code
from mosld_bench.spec.trial import Fit, PlannedTrial, Resources, Trial
from mosld_bench.trial.execute import execute, failed
from mosld_bench.trial.session import Progress, Session, WorkerConfig

_PACKAGES = Path(__file__).parents[2]
_QUIET = {"log_to_driver": False, "logging_level": "ERROR"}


class RayExecutor:
    """Trials side by side, on this machine or on a Ray cluster. Safe to kill and to repeat."""

    def __init__(
        self,
        config: WorkerConfig,
        *,
        gpus: int | None = None,
        cpus: int | None = None,
        address: str | None = None,
        retries: int = 1,
    ) -> None:
        """``gpus``, ``cpus``: what may be used, None for all there is. ``address``: a cluster; None for this machine.

        ``config.resources`` says what a trial takes; ``config.device`` is set by what there is.
        """
        self._config, self._gpus, self._cpus, self._address = config, gpus, cpus, address
        self._retries = retries
        self._ray: Any = None
        self._temp: TempFolder | None = None

    def run(self, planned: Sequence[PlannedTrial], watcher: RunWatcher, *, most: int = 0) -> Iterator[Outcome]:
        """See `Executor.run`. Nothing is started where there is nothing to run."""
        if not planned:
            return iter(())
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        self._ray = ray
        gpus, cpus = self._start() if self._address is None else self._join(self._address)
        if threading.current_thread() is threading.main_thread():  # Ray has set a handler that aborts the process
            signal.signal(signal.SIGTERM, interrupt)  # the end of a cluster's job is an interruption
        config = replace(self._config, import_from=_import_from(planned, self._config.plugins))
        pool = RayPool(ray, config, gpus=gpus, cpus=cpus, trials=max(most, len(planned)))
        if self._config.checkpoints:
            self._config.checkpoints.mark()
        return dispatch(planned, pool, watcher, retries=self._retries, limits=self._config.limits)

    def close(self) -> None:
        """End all workers, and Ray itself where it was started here."""
        if self._config.checkpoints:
            self._config.checkpoints.unmark()
        if self._ray is not None:
            self._ray.shutdown()
        if self._temp is not None:
            self._temp.remove()

    def _start(self) -> tuple[float, float]:
        """Start Ray on this machine. Returns (GPUs, CPUs) to use. Raises ResourceError where it does not start."""
        from mosld_bench.trial.device import cores

        gpus, cpus = local_gpus(self._gpus), self._cpus or cores()
        self._temp = TempFolder()
        machine = {"num_cpus": cpus, "num_gpus": gpus, "_temp_dir": self._temp.path}
        try:
            self._ray.init(
                address="local", include_dashboard=False, job_config=_job_config(self._ray), **machine, **_QUIET
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise ResourceError(
                f"Ray does not start on this machine ({type(error).__name__}: {first_line(error)}). Its files go to "
                f"{self._temp.path}, below TMPDIR. --executor inline needs no Ray."
            ) from error
        return gpus, cpus

    def _join(self, address: str) -> tuple[float, float]:
        """Join a Ray cluster. Returns (GPUs, CPUs) to use."""
        check_address(address)
        try:
            self._ray.init(address=address, job_config=_job_config(self._ray), **_QUIET)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ResourceError(
                f"No Ray cluster answers at --ray-address {address}: {first_line(error)} If it is up, it may ask for "
                f"a token: set RAY_AUTH_MODE and RAY_AUTH_TOKEN as on its head node."
            ) from error
        present = self._ray.cluster_resources()
        gpus, cpus = present.get("GPU", 0), present.get("CPU", 0)
        for option, asked, there in (("--gpus", self._gpus, gpus), ("--cpus", self._cpus, cpus)):
            if asked is not None and asked > there:
                raise ResourceError(f"{option} {asked} was asked for, but the Ray cluster has {there:g}.")
        return (gpus if self._gpus is None else self._gpus), (cpus if self._cpus is None else self._cpus)


def _import_from(planned: Sequence[PlannedTrial], plugins: Sequence[str]) -> tuple[str, ...]:
    """Where workers look for modules after all other places: in this process's folder, where they need any from there.

    That is for plug-ins that are asked for by name, and for a recipe's module:Class.
    """
    if not plugins and not any(":" in trial.recipe.method for trial, _ in planned):
        return ()
    script = Path(sys.argv[0]).resolve().parent if sys.argv else None
    return (str(Path.cwd()), *([str(script)] if script and str(script) in sys.path else []))


def _job_config(ray: Any) -> Any:
    """Of a job whose workers do not get the current folder as the first place for modules, as Ray has it.

    A ``peft.py`` lying there would be run. Ray leaves it out where the job has a working directory of its own.
    """
    own = [str(_PACKAGES)] if str(_PACKAGES) == str(Path.cwd()) else []  # a checkout that is not installed
    config = ray.job_config.JobConfig(_py_driver_sys_path=own)
    config._runtime_env_has_working_dir = lambda: True
    return config


def worker_count(resources: Resources, *, gpus: float, cpus: float, trials: int) -> int:
    """How many of ``trials`` run side by side: as many as the GPUs hold or, where there are none, the CPUs."""
    room = gpus / resources.gpus_per_trial if gpus else cpus / resources.cpus_per_trial
    return max(1, min(trials, int(room + 1e-9)))


class RayPool:
    """Workers as Ray actors: a `WorkerPool`."""

    def __init__(self, ray: Any, config: WorkerConfig, *, gpus: float, cpus: float, trials: int) -> None:
        """``ray``: the module, connected. ``gpus`` and ``cpus``: what all workers together may use."""
        self.size = worker_count(config.resources, gpus=gpus, cpus=cpus, trials=trials)
        self.failures_spoil_workers = bool(gpus)
        cpus_per_worker = min(config.resources.cpus_per_trial, cpus / self.size)
        self._ray = ray
        self._arguments = replace(config, device="cuda" if gpus else "cpu"), max(1, int(cpus_per_worker))
        self._actor = ray.remote(RayWorker).options(
            num_gpus=config.resources.gpus_per_trial if gpus else 0,
            num_cpus=cpus_per_worker,
            max_concurrency=2,  # the second thread answers `progress` while the first one runs a trial
        )
        self._numbers = count()
        self._actors: dict[int, Any] = {}
        self._running: dict[Any, int] = {}  # what Ray will answer with an outcome -> its worker
        self._asked: dict[Any, int] = {}  # what Ray will answer with a progress -> its worker

    def start(self) -> int:
        """See `WorkerPool.start`."""
        worker = next(self._numbers)
        self._actors[worker] = self._actor.remote(*self._arguments)
        return worker

    def stop(self, worker: int) -> None:
        """See `WorkerPool.stop`."""
        self._ray.kill(self._actors.pop(worker))
        self._running = {answer: other for answer, other in self._running.items() if other != worker}

    def submit(self, worker: int, planned: PlannedTrial) -> None:
        """See `WorkerPool.submit`."""
        self._running[self._actors[worker].run.remote(*planned)] = worker

    def wait(self, timeout_seconds: float) -> list[Ended]:
        """See `WorkerPool.wait`; one trial at most, so that its worker is fed before the next is looked at."""
        answers, _ = self._ray.wait(list(self._running), num_returns=1, timeout=timeout_seconds)
        return [Ended(self._running.pop(answer), self._result(answer)) for answer in answers]

    def _result(self, answer: Any) -> Outcome | WorkerDeath:
        try:
            outcome: Outcome = self._ray.get(answer)
        except self._ray.exceptions.RayError as error:
            return WorkerDeath(type(error).__name__, str(error))
        return outcome

    def progress(self) -> list[tuple[int, Progress]]:
        """See `WorkerPool.progress`: takes the answers that are there, and asks every busy worker again."""
        messages = []
        answers = self._ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)[0] if self._asked else []
        for answer in answers:
            worker = self._asked.pop(answer)
            try:
                progress = self._ray.get(answer)
            except self._ray.exceptions.RayError:
                continue  # the death of a worker shows in its trial
            if progress is not None:
                messages.append((worker, progress))
        waiting = set(self._asked.values())
        for worker in self._running.values():
            if worker not in waiting:
                self._asked[self._actors[worker].progress.remote()] = worker
        return messages


class RayWorker:
    """Lives in a Ray actor: a session, and what the running trial last told."""

    def __init__(self, config: WorkerConfig, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        foreign_code.allow()  # what comes here has been looked at by the driver, which loads every task and method
        self._session: Session | None = None
        self._config = config
        self._last: Progress | None = None

    def run(self, trial: Trial, fit: Fit) -> Outcome:
        """Run a trial; the first one makes the session."""
        self._note(Progress(trial.id, "loading"))
        if self._session is None:
            try:
                self._session = Session(self._config)
            except Exception:  # a plug-in or a folder that this node lacks: it concerns the trial, the worker lives
                return failed(trial, traceback.format_exc(), {})
        return execute(trial, self._session, fit, self._note)

    def progress(self) -> Progress | None:
        """Where the running trial is, or where the last one was; None before the first."""
        return self._last

    def _note(self, progress: Progress) -> None:
        self._last = progress
