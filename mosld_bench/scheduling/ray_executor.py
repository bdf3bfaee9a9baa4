"""Trials on Ray. The only module that imports ray.

A worker is an actor that keeps one process, its base model and its tasks for many trials. It receives trials as plain
data and sends outcomes back. `executor.dispatch` says who runs what, and what happens when a worker dies.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from math import inf
from pathlib import Path
from typing import Any

from mosld_bench import collector
from mosld_bench.compat.ray import keep_to_itself, on_loopback
from mosld_bench.errors import BenchError, LostError, ResourceError, first_line
from mosld_bench.interruption import interrupt
from mosld_bench.records.record import Outcome
from mosld_bench.scheduling.checks import local_gpus
from mosld_bench.scheduling.executor import Ended, RunWatcher, Unfit, WorkerDeath, dispatch
from mosld_bench.scheduling.node_files import NodeFiles, placed, placed_model
from mosld_bench.scheduling.ray_cluster import Cluster, Node, Room
from mosld_bench.scheduling.ray_liveness import within
from mosld_bench.scheduling.ray_places import TempFolder, check_address
from mosld_bench.spec import foreign_code
from mosld_bench.spec.trial import Fit, PlannedTrial, Trial
from mosld_bench.trial.execute import execute
from mosld_bench.trial.session import Progress, Session, WorkerConfig

_PACKAGES = Path(__file__).parents[2]
_QUIET = {"log_to_driver": False, "logging_level": "ERROR"}
_GET_SECONDS = 10.0  # until what Ray calls ready has come here
_SHUTDOWN_SECONDS = 10.0
_STARTS = 2
_NODE = "ray.io/node-id"  # the label that Ray gives each node


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
        self._cluster: Cluster | None = None
        self._pool: RayPool | None = None
        self._at_end: Any = None  # what SIGTERM does without Ray

    def run(self, planned: Sequence[PlannedTrial], watcher: RunWatcher, *, most: int = 0) -> Iterator[Outcome]:
        """See `Executor.run`. Nothing is started where there is nothing to run."""
        if not planned:
            return iter(())
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        here = threading.current_thread() is threading.main_thread()
        self._at_end = signal.getsignal(signal.SIGTERM) if here else None
        import ray

        self._ray = ray
        if self._address is None:
            self._start()
        else:
            self._join(self._address)
        if here:  # Ray has set a handler that aborts the process
            signal.signal(signal.SIGTERM, interrupt)  # the end of a cluster's job is an interruption
        config = replace(self._config, import_from=_import_from(planned, self._config.plugins))
        self._cluster = Cluster(ray, self._address)
        gpus, cpus = (inf if limit is None else limit for limit in (self._gpus, self._cpus))
        trials = max(most, len(planned))
        files = None if self._address is None else NodeFiles.of(config, (trial for trial, _ in planned))
        self._pool = RayPool(ray, config, self._cluster, files=files, gpus=gpus, cpus=cpus, trials=trials)
        if self._config.checkpoints:
            self._config.checkpoints.mark()
        return dispatch(planned, self._pool, watcher, retries=self._retries, limits=self._config.limits)

    def ended(self) -> Iterator[Outcome]:
        """See `Executor.ended`."""
        while self._pool is not None and (ended := self._pool.wait(0)):
            yield from (result for _, result in ended if isinstance(result, Outcome))

    def close(self) -> None:
        """End all workers, and Ray itself where it was started here, also where it is dead or hangs."""
        if self._config.checkpoints:
            self._config.checkpoints.unmark()
        try:
            if self._cluster is not None:
                if self._temp is not None and self._cluster.lost() is not None:
                    self._temp.end_processes()  # for a part that hangs the others wait
                self._cluster.close()
            if self._ray is not None and not within(_SHUTDOWN_SECONDS, self._ray.shutdown):
                if self._temp is not None:
                    self._temp.end_processes()  # for which it waits
                atexit.unregister(self._ray.shutdown)  # it would wait for this one
        finally:  # also where a second interruption does not wait for that
            if self._temp is not None:
                self._temp.remove()
            if self._at_end is not None:
                signal.signal(signal.SIGTERM, self._at_end)

    def _start(self) -> None:
        """Start Ray on this machine, for this machine alone. Raises ResourceError where it does not start."""
        from mosld_bench.trial.device import cores

        gpus, cpus = local_gpus(self._gpus), self._cpus or cores()
        keep_to_itself(self._ray)
        self._temp = TempFolder()
        machine = {"num_cpus": cpus, "num_gpus": gpus, "_temp_dir": self._temp.path}
        for left in reversed(range(_STARTS)):
            try:
                with on_loopback(self._ray):
                    self._ray.init(
                        address="local", include_dashboard=False, job_config=_job_config(self._ray), **machine, **_QUIET
                    )
                return
            except Exception as error:  # of any kind
                if not left:
                    raise ResourceError(
                        f"Ray does not start on this machine ({type(error).__name__}: {first_line(error)}). Its files "
                        f"go to {self._temp.path}, below TMPDIR. --executor inline needs no Ray."
                    ) from error
                self._ray.shutdown()  # it gives its processes half a minute, too little where there is much else to do
                self._temp.end_processes()

    def _join(self, address: str) -> None:
        """Join a Ray cluster. Raises ResourceError where none answers, or it has less than was asked for."""
        check_address(address)
        try:
            self._ray.init(address=address, job_config=_job_config(self._ray), **_QUIET)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ResourceError(
                f"No Ray cluster answers at --ray-address {address}: {first_line(error).rstrip('.')}. If it is up, it "
                f"may ask for a token: set RAY_AUTH_MODE and RAY_AUTH_TOKEN as on its head node."
            ) from error
        present = self._ray.cluster_resources()
        gpus, cpus = present.get("GPU", 0), present.get("CPU", 0)
        for option, asked, there in (("--gpus", self._gpus, gpus), ("--cpus", self._cpus, cpus)):
            if asked is not None and asked > there:
                raise ResourceError(f"{option} {asked} was asked for, but the Ray cluster has {there:g}.")


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


class RayPool:
    """Workers as Ray actors: a `WorkerPool`."""

    def __init__(
        self,
        ray: Any,
        config: WorkerConfig,
        cluster: Cluster,
        *,
        files: NodeFiles | None = None,
        gpus: float,
        cpus: float,
        trials: int,
    ) -> None:
        """``ray``: the module, connected. ``gpus`` and ``cpus``: what all workers together may use, infinity for all.

        ``files``: what machines without this one's file system are sent; None where there is this machine alone.
        ``trials``: how many there are at most. Raises ResourceError where no machine has the GPUs that a trial takes.
        """
        self._ray, self._cluster = ray, cluster
        self._room = Room.of(config.resources, cluster.nodes(), gpus=gpus, cpus=cpus, trials=trials)
        self.failures_spoil_workers = self._room.on_gpus
        device = "cuda" if self._room.on_gpus else "cpu"
        sent = None if files is None else SentFiles.of(files, ray.put)
        self._arguments = replace(config, device=device), max(1, int(self._room.cpus_per_worker)), sent
        self._actor = ray.remote(RayWorker)
        self._options: dict[str, Any] = {
            "num_gpus": self._room.gpus_per_worker,
            "num_cpus": self._room.cpus_per_worker,
            "max_concurrency": 2,  # the second thread answers `where` and `progress` while the first one runs a trial
        }
        self._unfit: dict[str, str] = {}  # node that cannot run trials -> why
        self._numbers = count()
        self._actors: dict[int, _Actor] = {}
        self._running: dict[Any, int] = {}  # what Ray will answer with an outcome -> its worker
        self._asked: dict[Any, int] = {}  # what Ray will answer with a progress -> its worker

    @property
    def size(self) -> int:
        """See `WorkerPool.size`: what the nodes that live and can run trials hold."""
        return self._room.workers(self._fit())

    def _fit(self) -> list[Node]:
        return [node for node in self._cluster.nodes() if node.id not in self._unfit]

    def start(self) -> int:
        """See `WorkerPool.start`."""
        worker = next(self._numbers)
        self._actors[worker] = self._cluster.call(self._begin)
        return worker

    def _begin(self) -> _Actor:
        elsewhere = {"label_selector": {_NODE: f"!in({','.join(sorted(self._unfit))})"}} if self._unfit else {}
        handle = self._actor.options(**self._options, **elsewhere).remote(*self._arguments)
        return _Actor(handle, handle.where.remote())

    def ready(self, worker: int) -> bool:
        """See `WorkerPool.ready`."""
        actor = self._actors[worker]
        if actor.node is None:
            actor.node = self._cluster.call(self._node_of, actor)
        return actor.node is not None

    def _node_of(self, actor: _Actor) -> str | None:
        if self._ray.wait([actor.where], timeout=0)[0]:
            with suppress(self._ray.exceptions.RayError):  # its death shows in its trial
                node: str = self._ray.get(actor.where, timeout=_GET_SECONDS)
                return node
        return None

    def stop(self, worker: int) -> None:
        """See `WorkerPool.stop`."""
        actor = self._actors.pop(worker)
        self._running = {answer: other for answer, other in self._running.items() if other != worker}
        self._asked = {answer: other for answer, other in self._asked.items() if other != worker}
        self._cluster.call(self._ray.kill, actor.handle)

    def submit(self, worker: int, planned: PlannedTrial) -> None:
        """See `WorkerPool.submit`."""
        self._running[self._cluster.call(self._actors[worker].handle.run.remote, *planned)] = worker

    def wait(self, timeout_seconds: float) -> list[Ended]:
        """See `WorkerPool.wait`; one trial at most, so that its worker is fed before the next is looked at."""
        if not self._running:
            return []
        self._check_left()
        answers, _ = self._cluster.call(self._ray.wait, list(self._running), num_returns=1, timeout=timeout_seconds)
        for answer in answers:
            try:
                result: Outcome | Unfit = self._cluster.call(self._ray.get, answer, timeout=_GET_SECONDS)
            except self._ray.exceptions.GetTimeoutError:  # it lies on a machine that may be gone
                break
            except self._ray.exceptions.RayError as error:
                self._cluster.look()
                self._cluster.check()
                return [
                    self._ended(answer, WorkerDeath(type(error).__name__, str(error), blameless=self._gone(answer)))
                ]
            if isinstance(result, Unfit):
                self._unfit[result.machine] = result.reason
                self._cluster.look()
            return [self._ended(answer, result)]
        self._cluster.look_now_and_then()
        for answer in self._running:
            if self._gone(answer):
                return [self._ended(answer, WorkerDeath("NodeLost", "its machine is gone or silent", blameless=True))]
        return []

    def _check_left(self) -> None:
        """Raises LostError where no machine is left that can run trials, and no worker has begun on one."""
        if self._unfit and not self._room.held(self._fit()) and not any(map(self.ready, self._running.values())):
            raise LostError(f"No machine is left that can run trials of this study. {list(self._unfit.values())[-1]}")

    def _ended(self, answer: Any, result: Outcome | WorkerDeath | Unfit) -> Ended:
        return Ended(self._running.pop(answer), result)

    def _gone(self, answer: Any) -> bool:
        """Whether the machine on which ``answer`` was to be made is there no more."""
        worker = self._running[answer]
        if not self.ready(worker) or self._cluster.has(self._actors[worker].node):
            return False
        self._cluster.look()  # it may have joined since the last time
        return not self._cluster.has(self._actors[worker].node)

    def progress(self) -> list[tuple[int, Progress]]:
        """See `WorkerPool.progress`: takes the answers that are there, and asks every busy worker again."""
        return self._cluster.call(self._progress) if self._running else []

    def _progress(self) -> list[tuple[int, Progress]]:
        messages = []
        answers = self._ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)[0] if self._asked else []
        for answer in answers:
            worker = self._asked.pop(answer)
            try:
                progress = self._ray.get(answer, timeout=_GET_SECONDS)
            except self._ray.exceptions.RayError:
                continue  # the death of a worker shows in its trial
            if progress is not None:
                messages.append((worker, progress))
        waiting = set(self._asked.values())
        for worker in self._running.values():
            if worker not in waiting:
                self._asked[self._actors[worker].handle.progress.remote()] = worker
        return messages


@dataclass
class _Actor:
    """The handle of a worker, what Ray will answer with the id of its node, and that id once it is known."""

    handle: Any
    where: Any
    node: str | None = None


@dataclass(frozen=True)
class SentFiles:
    """Files for the machines that lack them, and Ray's references to the contents of both groups."""

    files: NodeFiles
    definitions: Any
    data: Any

    @classmethod
    def of(cls, files: NodeFiles, put: Callable[[bytes | None], Any]) -> SentFiles:
        """``files``, each group given to Ray by its ``put``."""
        return cls(files, put(files.definitions.pack()), put(files.data.pack()))

    def placed(self, config: WorkerConfig) -> WorkerConfig:
        """See `node_files.placed`."""
        import ray

        return placed(config, self.files, lambda part: ray.get(getattr(self, part)))


class RayWorker:
    """Lives in a Ray actor: a session, and what the running trial last told."""

    def __init__(self, config: WorkerConfig, threads: int, sent: SentFiles | None = None) -> None:
        foreign_code.allow()  # what comes here has been looked at by the driver, which loads every task and method
        self._session: Session | None = None
        self._config, self._threads, self._sent = config, threads, sent
        self._last: Progress | None = None

    def run(self, trial: Trial, fit: Fit) -> Outcome | Unfit:
        """Run a trial, where this machine can; the first one makes the session."""
        self._note(Progress(trial.id, "loading"))
        try:
            session = self._session = self._session or self._ready()
            if self._sent is not None:
                model = placed_model(trial.model, session.config.model_root)
                trial = trial.model_copy(update={"model": model})
        except (Exception, SystemExit) as error:  # of a plug-in, a library or a folder that this machine lacks
            return Unfit(self.where(), _why_unfit(error))
        outcome = execute(trial, session, fit, self._note)
        collector.pass_over_what_stays()
        return outcome

    def _ready(self) -> Session:
        """A session on what is here, or was sent here."""
        import torch

        torch.set_num_threads(self._threads)
        return Session(self._config if self._sent is None else self._sent.placed(self._config))

    def where(self) -> str:
        """The id of the node that it is on."""
        import ray

        node: str = ray.get_runtime_context().get_node_id()
        return node

    def progress(self) -> Progress | None:
        """Where the running trial is, or where the last one was; None before the first."""
        return self._last

    def _note(self, progress: Progress) -> None:
        self._last = progress


def _why_unfit(error: BaseException) -> str:
    """Why this machine cannot run trials, in sentences that name it."""
    machine = f"The machine {socket.gethostname()}"
    if isinstance(error, BenchError):
        return str(error) if machine in str(error) else f"{machine} cannot run trials. {error}"
    place = traceback.extract_tb(error.__traceback__)[-1]
    reason = f"{type(error).__name__}: {first_line(error)}, in {place.filename}, line {place.lineno}"
    return f"{machine} cannot run trials ({reason})."
