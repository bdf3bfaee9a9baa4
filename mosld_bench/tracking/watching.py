"""Following a run of a study for trackers, in the driver: workers know nothing of them.

A worker tells the loss of a step now and then, which goes to `TrackedRun.live`; the whole course is in the record.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Protocol

from mosld_bench.errors import first_line
from mosld_bench.records.record import Record
from mosld_bench.spec.trial import PlannedTrial
from mosld_bench.tracking.tracker import Course, TrackedRun, Tracker, config_of
from mosld_bench.trial.session import Progress

_LIVE_SECONDS = 1.0  # between two losses of a trial that are noted while it runs


class _Display(Protocol):
    """What is told first of all that happens."""

    def show(self, progress: Progress) -> None: ...
    def say(self, line: str) -> None: ...
    def finish(self, record: Record) -> None: ...


class Tracking:
    """Passes on what happens to ``display``, and after it to every tracker. Use as a context manager.

    A tracker that raises is told of, and never keeps a record from being written: one that cannot begin a run is left
    alone from then on, one that fails later loses the run of that trial.
    """

    def __init__(self, display: _Display, trackers: Sequence[Tracker], planned: Iterable[PlannedTrial] = ()) -> None:
        self._display, self._trackers = display, list(trackers)
        self._planned: dict[str, PlannedTrial] = {}
        self._open: dict[str, dict[str, TrackedRun]] = {}  # trial -> tracker -> its run
        self._last_live: dict[str, float] = {}
        self._kept: set[str] = set()  # trackers that have a run
        self.expect(planned)

    def expect(self, planned: Iterable[PlannedTrial]) -> None:
        """Note trials that are to come."""
        self._planned |= {member.trial.id: member for member in planned}

    def show(self, progress: Progress) -> None:
        """See `RunWatcher.show`."""
        self._display.show(progress)
        now = time.monotonic()
        if not self._trackers or now - self._last_live.get(progress.trial, -_LIVE_SECONDS) < _LIVE_SECONDS:
            return
        self._last_live[progress.trial] = now
        self._begin(progress.trial)
        if progress.phase == "training" and progress.loss is not None:
            step, loss = progress.step, progress.loss
            self._each(progress.trial, lambda run: run.live(step, loss))

    def say(self, line: str) -> None:
        """See `RunWatcher.say`."""
        self._display.say(line)

    def finish(self, record: Record) -> None:
        """Note a trial that ended, whose record is written."""
        self._display.finish(record)
        if self._trackers:
            course = Course.of(record)
            self._begin(record.trial_id)
            self._each(record.trial_id, lambda run: run.end(course))
            self._open.pop(record.trial_id, None)

    def __enter__(self) -> Tracking:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give up what has not ended, and say where the runs are."""
        for trial in list(self._open):
            self._each(trial, lambda run: run.abandon())
        for tracker in self._trackers:
            if tracker.name in self._kept:
                self.say(f"{tracker.name}: {tracker.where()}")

    def _begin(self, trial: str) -> None:
        """Begin a run of the trial with every tracker, unless that has been done."""
        if trial in self._open or trial not in self._planned:
            return
        config = config_of(self._planned[trial])
        runs = self._open[trial] = {}
        for tracker in list(self._trackers):
            try:
                runs[tracker.name] = tracker.begin(trial, config)
                self._kept.add(tracker.name)
            except Exception as failure:  # whatever another library does, the study goes on
                self._trackers.remove(tracker)
                self.say(f"{tracker.name}: it began no run of {trial} and is left out from here on{_reason(failure)}")

    def _each(self, trial: str, deed: Callable[[TrackedRun], None]) -> None:
        """Do something with every run of a trial; one that raises is not kept on."""
        runs = self._open.get(trial, {})
        for name, run in list(runs.items()):
            try:
                deed(run)
            except Exception as failure:
                del runs[name]
                self.say(f"{name}: the run of {trial} is not complete{_reason(failure)}; its record is")


def _reason(error: Exception) -> str:
    return f" ({type(error).__name__}: {first_line(error)})"
