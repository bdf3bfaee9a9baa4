"""Where trials run: in this process, or on a pool of workers that are fed, watched and replaced.

An executor yields outcomes and writes nothing: the driver alone writes, so a trial is recorded once, and only when it
finished. `dispatch` is the policy of every pool; a pool, such as Ray's, only starts, feeds and ends workers.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from mosld_bench.records.provenance import command_line
from mosld_bench.records.record import Outcome
from mosld_bench.scheduling.options import Options
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import PlannedTrial
from mosld_bench.trial.checkpoint import CheckpointPlace
from mosld_bench.trial.execute import execute, failed
from mosld_bench.trial.limits import NO_LIMITS, Limits
from mosld_bench.trial.session import Progress, Session, WorkerConfig

MOST_TRIES = 10  # of a trial that is not to blame for the ends of its workers
POLL_SECONDS = 0.5  # between two looks at what running trials tell, where none ends
GRACE_SECONDS = 20.0  # beyond its time limit that a trial has to end by itself, before its worker is ended


class RunWatcher(Protocol):
    """Whoever follows a run, such as a display."""

    def show(self, progress: Progress) -> None:
        """Note where a running trial is."""

    def say(self, line: str) -> None:
        """Tell the user something out of the ordinary."""


class Executor(Protocol):
    """Runs trials. To be closed after use, whether or not all outcomes were taken."""

    def run(self, planned: Sequence[PlannedTrial], watcher: RunWatcher, *, most: int = 0) -> Iterator[Outcome]:
        """Outcomes of ``planned`` as trials end, each once. Workers, if any, are started and fed before this returns.

        A list may grow while the outcomes are taken, until the last of them is; then ``most`` says how many trials may
        wait at a time. A trial that fails has an outcome as well. Raises ResourceError where devices that were asked
        for are missing.
        """

    def ended(self) -> Iterator[Outcome]:
        """After an interruption: the outcomes of trials that had ended and were not taken. Waits for none."""

    def close(self) -> None:
        """Stop what still runs and give the devices back."""


def make_executor(
    study: Study, task_folders: Sequence[Path], options: Options, *, gpus: int, results: Path | None = None
) -> Executor:
    """The executor that ``options`` name. ``gpus``: those of this machine that an inline run may use.

    ``results``: the folder where trials leave checkpoints; None for none.
    """
    inline, seconds = options.inline(study), 60 * options.checkpoint_minutes
    place = (
        CheckpointPlace(str(results.resolve()), study.name, seconds) if results and seconds and study.trains else None
    )
    config = WorkerConfig(
        task_folders=tuple(str(folder.resolve()) for folder in task_folders),
        resources=study.resources,
        data_root=str(options.data_root.resolve()) if options.data_root else None,
        model_root=str(options.model_root.resolve()) if options.model_root else None,
        plugins=options.plugins,
        device="cuda" if inline and gpus else "cpu",
        save_adapter=options.save_adapters,
        command=options.command or command_line(),
        checkpoints=place,
        limits=options.limits,
    )
    if inline:
        return InlineExecutor(config, retries=options.retries)
    from mosld_bench.scheduling.ray_executor import RayExecutor

    return RayExecutor(config, gpus=options.gpus, cpus=options.cpus, address=options.address, retries=options.retries)


class InlineExecutor:
    """One trial after another in this process, in the order given, without Ray."""

    def __init__(self, config: WorkerConfig, *, retries: int = 1) -> None:
        self._config, self._retries = config, retries

    def run(self, planned: Sequence[PlannedTrial], watcher: RunWatcher, *, most: int = 0) -> Iterator[Outcome]:
        """See `Executor.run`; a trial starts when its outcome is asked for."""
        if not planned:
            return
        if self._config.checkpoints:
            self._config.checkpoints.mark()
        session = Session(self._config)
        for trial, fit in planned:
            for left in reversed(range(self._retries + 1)):
                outcome = execute(trial, session, fit, watcher.show)
                if not (outcome.may_pass and left):
                    break
                watcher.say(f"{trial.id}: {_last_line(outcome)}; trying {_again(left)}")
            yield outcome

    def ended(self) -> Iterator[Outcome]:
        """None: a trial that has ended was taken."""
        return iter(())

    def close(self) -> None:
        """Nothing is left to stop."""
        if self._config.checkpoints:
            self._config.checkpoints.unmark()


def _last_line(outcome: Outcome) -> str:
    return ((outcome.record.error or "").strip().splitlines() or ["it failed"])[-1]


def _again(left: int) -> str:
    """In words, where a trial can be tried ``left`` times more."""
    return "once more" if left == 1 else "again"


class WorkerDeath(NamedTuple):
    """How the process of a worker ended while it ran a trial."""

    kind: str  # the name of the error
    message: str
    blameless: bool = False  # whether its machine went, which is no matter of the trial


class Unfit(NamedTuple):
    """Why the machine of a worker can run no trials of this run, which is no matter of the one that it was given."""

    machine: str  # as the pool tells it from others
    reason: str  # sentences that name it


class Ended(NamedTuple):
    """A trial that a worker has ended, with its outcome or with its own death, or that its machine cannot run."""

    worker: int
    result: Outcome | WorkerDeath | Unfit


class WorkerPool(Protocol):
    """Workers, each a process that runs one trial at a time. A worker is known by a number that is never used again."""

    @property
    def size(self) -> int:
        """How many workers there is room for now, at least 1: machines come and go."""

    @property
    def failures_spoil_workers(self) -> bool:
        """Whether a process may be of no use after a failed trial, as after an error of a GPU."""

    def start(self) -> int:
        """A new worker; it may still be getting ready."""

    def ready(self, worker: int) -> bool:
        """Whether ``worker`` has got ready at some time; until then it may wait for a machine with room for it."""

    def stop(self, worker: int) -> None:
        """End ``worker``, which may be dead already, and give back what it holds; of its trial nothing is returned."""

    def submit(self, worker: int, planned: PlannedTrial) -> None:
        """Have ``worker``, which is idle, run a trial."""

    def wait(self, timeout_seconds: float) -> list[Ended]:
        """Trials that ended: at least one, or none where none ends in time. Each is returned once.

        Of a machine that cannot run trials there is one for each worker that it has; others do not start there. Raises
        LostError where none will end any more, since what the pool rests on is gone, or no machine can run them.
        """

    def progress(self) -> list[tuple[int, Progress]]:
        """What busy workers told since the last call, perhaps of an earlier trial of theirs. Never waits for one."""


class Attempt(NamedTuple):
    """A trial, how often it was tried, this time included, and how often of these it was not to blame for its end."""

    planned: PlannedTrial
    number: int
    blameless: int = 0


def dispatch(
    planned: Sequence[PlannedTrial],
    pool: WorkerPool,
    watcher: RunWatcher,
    *,
    retries: int = 1,
    limits: Limits = NO_LIMITS,
) -> Iterator[Outcome]:
    """Run ``planned`` on ``pool`` in their order. The first trials are submitted before this returns.

    A worker has its next trial before the outcome of the last one is yielded, so that it goes on while the outcome is
    written. A worker that died, or may be spent, is replaced. A trial whose worker died, or which ran out of memory, is
    tried again behind the others, ``retries`` times if it may be to blame for that, and then it has failed; of an error
    of its own another try would be the same. One that goes on `GRACE_SECONDS` beyond the time limit is ended with its
    worker, and has failed. One whose machine cannot run any is given to another machine. Where more room comes there
    are more workers; what waits for a worker that finds no room goes to one that has nothing else to do.
    """
    dispatcher = _Dispatcher(pool, planned, watcher, retries, limits)
    dispatcher.feed()
    return dispatcher.outcomes()


class _Dispatcher:
    """Who waits, who is idle and who is busy."""

    def __init__(
        self, pool: WorkerPool, planned: Sequence[PlannedTrial], watcher: RunWatcher, retries: int, limits: Limits
    ) -> None:
        self._pool, self._watcher = pool, watcher
        self._retries, self._limits = retries, limits
        self._planned, self._begun = planned, 0
        self._again: deque[Attempt] = deque()  # behind the others
        self._idle = [pool.start() for _ in range(pool.size)]
        self._busy: dict[int, Attempt] = {}
        self._began: dict[int, float] = {}  # busy worker -> when it was first heard of its trial
        self._unfit: set[str] = set()  # machines of which it was said

    def feed(self) -> None:
        """Give every idle worker a trial, as long as there are any."""
        while self._idle and (attempt := self._next()):
            self._give(self._idle.pop(), attempt)

    def _give(self, worker: int, attempt: Attempt) -> None:
        self._busy[worker] = attempt
        self._pool.submit(worker, attempt.planned)

    def _next(self) -> Attempt | None:
        """The trial that waits longest; None where none does."""
        if self._begun < len(self._planned):
            self._begun += 1
            return Attempt(self._planned[self._begun - 1], 1)
        return self._again.popleft() if self._again else None

    def outcomes(self) -> Iterator[Outcome]:
        """The outcomes as trials end, until none is left."""
        while self._busy:
            ended = self._pool.wait(POLL_SECONDS)
            for worker, result in ended:
                outcome = self._ended(worker, self._busy.pop(worker), result)
                self.feed()  # before the outcome is yielded: the worker trains on while the driver writes
                if outcome is not None:
                    yield outcome
                    self.feed()  # with what was planned meanwhile
            if not ended:
                self._grow()
                self._take_back()
            self._show_progress()
            for worker in self._overdue():
                outcome = self._cut_off(worker)
                self.feed()
                yield outcome
                self.feed()

    def _overdue(self) -> list[int]:
        """Workers whose trial should have ended by itself, and did not."""
        most = self._limits.seconds
        if most is None:
            return []
        latest = time.monotonic() - most - GRACE_SECONDS
        return [worker for worker, began in self._began.items() if began < latest and worker in self._busy]

    def _cut_off(self, worker: int) -> Outcome:
        """End ``worker``, whose trial has failed."""
        trial = self._busy.pop(worker).planned.trial
        self._began.pop(worker, None)
        self._replace(worker)
        told = f"{self._limits.time_sentence()} It hung in a library, so that its process was ended as well."
        return failed(trial, told, {})

    def _grow(self) -> None:
        """Start workers where trials wait and there is more room."""
        waiting = len(self._planned) - self._begun + len(self._again)
        for _ in range(min(waiting, self._pool.size - len(self._busy) - len(self._idle))):
            self._idle.append(self._pool.start())
        self.feed()

    def _take_back(self) -> None:
        """Where a worker has nothing to do, let it have a trial whose worker has not got ready."""
        unready = [worker for worker in self._busy if not self._pool.ready(worker)]
        idle = [worker for worker in self._idle if self._pool.ready(worker)] if unready else []
        for late, worker in zip(unready, idle, strict=False):
            attempt = self._busy.pop(late)
            self._pool.stop(late)
            self._idle.remove(worker)
            self._give(worker, attempt)

    def _ended(self, worker: int, attempt: Attempt, result: Outcome | WorkerDeath | Unfit) -> Outcome | None:
        """The outcome of a trial; None where it waits for another try. Leaves an idle worker in place of ``worker``."""
        trial, blameless = attempt.planned.trial, attempt.blameless
        self._began.pop(worker, None)
        if isinstance(result, Unfit):
            self._replace(worker)
            self._again.append(attempt)
            if result.machine not in self._unfit:
                self._unfit.add(result.machine)
                self._watcher.say(f"{result.reason} That machine gets no more trials.")
            return None
        if isinstance(result, WorkerDeath):
            self._replace(worker)
            blameless += result.blameless
            reason = f"its worker died ({result.kind})"
            times = "" if attempt.number == 1 else f" {attempt.number} times"
            outcome = failed(trial, f"The worker died{times}: {result.message}", {})
        else:
            if result.notes:  # which may have come between two looks at its progress
                self._watcher.show(Progress(trial.id, "scoring", notes=result.notes))
            # After an error of its device a process would fail every trial that is left.
            spoilt = self._pool.failures_spoil_workers and result.record.status == "failed"
            if spoilt or result.spent or result.may_pass:
                self._replace(worker)
            else:
                self._idle.append(worker)
            if not result.may_pass:
                return result
            reason, outcome = _last_line(result), result
        left = self._retries + 1 - (attempt.number - blameless)
        if left <= 0 or attempt.number >= max(MOST_TRIES, self._retries + 1):
            return outcome
        self._watcher.say(f"{trial.id}: {reason}; trying {_again(left)}")
        self._again.append(Attempt(attempt.planned, attempt.number + 1, blameless))
        return None

    def _replace(self, worker: int) -> None:
        """End ``worker``, and start another where there is room for it, or else none is left."""
        self._pool.stop(worker)  # if it lives, it holds what the next one needs
        workers = len(self._busy) + len(self._idle)
        if not workers or workers < self._pool.size:
            self._idle.append(self._pool.start())

    def _show_progress(self) -> None:
        for worker, progress in self._pool.progress():
            attempt = self._busy.get(worker)
            if attempt is not None and attempt.planned.trial.id == progress.trial:
                self._began.setdefault(worker, time.monotonic())
                self._watcher.show(progress)
