"""What a user sees while trials run: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from datetime import timedelta
from importlib.util import find_spec
from statistics import fmean
from types import TracebackType
from typing import NamedTuple

from rich.console import Console
from rich.live import Live
from rich.table import Table

from mosld_bench.cost.estimate import side_by_side
from mosld_bench.records.record import Record
from mosld_bench.records.scale import Scale
from mosld_bench.scheduling.progress_table import Line, progress_table
from mosld_bench.spec.trial import Domain
from mosld_bench.trial.session import Progress

#: A trial that takes longer than estimated is taken to need this share of its time so far on top.
_LATE_SHARE = 0.1


class Running(NamedTuple):
    """A trial that runs: where it is, and when it was first heard of, in seconds of the monotonic clock."""

    progress: Progress
    since: float


class Done(NamedTuple):
    """A trial that ended: its id, what came out in words, and its wall time in seconds."""

    trial: str
    result: str
    seconds: float


class ProgressDisplay:
    """Shows running and finished trials, and estimates the time that is left. Use as a context manager.

    ``hours``: id of a trial to come -> GPU-hours that it is estimated to take; 0 where there is no estimate. Only their
    proportions count: the pace of this machine is measured.
    """

    def __init__(self, hours: Mapping[str, float], console: Console) -> None:
        self.total, self.console = len(hours), console
        self.done = self.failed = 0
        self._started = time.monotonic()
        estimates = [estimate for estimate in hours.values() if estimate]
        self._mean = fmean(estimates) if estimates else 1.0
        self._left: dict[str, float] = {}  # GPU-hours of what is not done
        self._like: Counter[float] = Counter()  # GPU-hours -> how many of these trials take as many
        self._await(hours)
        self._done_hours = self._done_seconds = 0.0  # of the trials that are done: estimated, and measured
        self._workers = 0  # the most that were seen to run side by side
        self._running: dict[str, Running] = {}
        self._noted: set[str] = set()  # what trials told once, and need not tell again
        self._last_done: deque[Done] = deque(maxlen=5)
        self._lock = threading.RLock()  # the table is drawn by a thread of its own
        live = bool(hours) and (console.is_terminal or _in_notebook(console))
        self._live = (
            Live(get_renderable=self._table, console=console, refresh_per_second=2, transient=True) if live else None
        )

    def __enter__(self) -> ProgressDisplay:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def expect(self, hours: Mapping[str, float]) -> None:
        """Note that more trials are to come, with the GPU-hours that they are estimated to take."""
        self.total += len(hours)
        with self._lock:
            self._await(hours)

    def _await(self, hours: Mapping[str, float]) -> None:
        for trial, estimate in hours.items():
            self._left[trial] = estimate or self._mean
            self._like[self._left[trial]] += 1

    def say(self, line: str) -> None:
        """Print a line above the table."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def show(self, progress: Progress) -> None:
        """Note where a running trial is; without a terminal, print its phase where it is a new one."""
        with self._lock:
            before = self._running.get(progress.trial)
            self._running[progress.trial] = Running(progress, before.since if before else time.monotonic())
            self._workers = max(self._workers, len(self._running))
            new = [note for note in progress.notes if note not in self._noted]
            self._noted.update(new)
        for note in new:
            self.say(f"  {note}")
        if self._live:
            self._live.refresh()
        elif before is None or before.progress.phase != progress.phase:
            self.say(f"  {progress.trial}: {progress.phase}")

    def finish(self, record: Record) -> None:
        """Note that a trial ended, and print its result."""
        result = _result(record)
        with self._lock:
            running = self._running.pop(record.trial_id, None)
            since = running.since if running else self._started
            seconds = float(record.meta_info.get("seconds", time.monotonic() - since))
            hours = self._left.pop(record.trial_id)
            self._like[hours] -= 1
            self.done += 1
            self.failed += record.status == "failed"
            if record.status == "finished":  # what ended early tells nothing of the pace
                self._done_hours, self._done_seconds = self._done_hours + hours, self._done_seconds + seconds
            self._last_done.append(Done(record.trial_id, result, seconds))
        self.say(f"[{self.done}/{self.total}] {record.trial_id}  {result}  {seconds:.1f} s  left {self.time_left()}")
        if self._live:
            self._live.refresh()

    def time_left(self) -> str:
        """Wall time to go as H:MM:SS, rounded up; ? before it is known."""
        seconds = self.seconds_left()
        return "?" if seconds is None else str(timedelta(seconds=math.ceil(seconds - 1e-6)))

    def seconds_left(self) -> float | None:
        """Wall time to go: the estimates of what is left, at the pace of what is done; None before that.

        It is 0 where nothing is left, and not before: a trial that is late is taken to need some more.
        """
        with self._lock:
            if not self._done_hours:
                return None
            now, seconds_per_hour = time.monotonic(), self._done_seconds / self._done_hours
            waiting, left = self._like.copy(), Counter[float]()
            for trial in self._running.keys() & self._left.keys():
                hours, spent = self._left[trial], now - self._running[trial].since
                waiting[hours] -= 1
                left[max(hours * seconds_per_hour - spent, _LATE_SHARE * spent, 1.0)] += 1
            for hours, count in waiting.items():
                left[max(hours * seconds_per_hour, 1.0)] += count
        return side_by_side(left, max(1, self._workers))

    def _table(self) -> Table:
        now = time.monotonic()
        with self._lock:
            lines = [
                Line(done.trial, done.result, time=f"{done.seconds:.0f} s", ended=True) for done in self._last_done
            ]
            for progress, since in self._running.values():
                step = f"{progress.step}/{progress.steps}" if progress.steps else ""
                loss = f"{progress.loss:.3f}" if progress.loss is not None else ""
                lines.append(Line(progress.trial, progress.phase, step, loss, f"{now - since:.0f} s"))
            if not self._running and not self.done:
                lines.append(Line("no trial yet", "workers get ready", time=f"{now - self._started:.0f} s"))
            title = f"{self.done} of {self.total} trials done, {self.failed} failed, left {self.time_left()}"
        return progress_table(title, lines, self.console.width)


def _result(record: Record) -> str:
    """What came out of a trial, in a few words: its in-domain mean, or the last line of its error."""
    if record.status == "failed":
        last = (record.error or "").strip().splitlines()[-1:]
        return f"FAILED: {last[0] if last else 'unknown'}"
    info, mean = record.train_info, in_domain_mean(record)
    if record.status == "stopped" and info:
        loss = f"its validation loss {info.judged[-1].loss:.3f} is in the worse half" if info.judged else ""
        return f"stopped after {info.steps} steps: {info.diverged or loss}"
    absent = [
        f"no {metric.metric.removesuffix(',none')} of {metric.task}" for metric in record.unscored if metric.primary
    ]
    told = f"in-domain {mean[0].text(mean[1])}{mean[0].sign.strip()}" if mean else "finished"
    return "; ".join([told, *absent])


def _in_notebook(console: Console) -> bool:
    """Whether a table can be drawn again and again in the cell of a notebook."""
    return console.is_jupyter and not console.quiet and find_spec("ipywidgets") is not None


def in_domain_mean(record: Record) -> tuple[Scale, float] | None:
    """`domain_mean` of the trial's in-domain tasks."""
    return domain_mean(record, Domain.IN)


def domain_mean(record: Record, domain: Domain) -> tuple[Scale, float] | None:
    """Mean of the primary metrics over the trial's tasks of a domain, lm-eval's numbers, with their scale.

    None where it was scored on none, where one came to no number, and where they are on unlike scales.
    """
    metrics = [metric for metric in record.metrics if metric.primary and metric.role == domain]
    scales = {Scale.of(m.metric, higher_is_better=m.higher_is_better, values=[m.value]) for m in metrics}
    absent = any(metric.primary and metric.role == domain for metric in record.unscored)
    if len(scales) != 1 or absent:
        return None
    (scale,) = scales
    return scale, sum(metric.value for metric in metrics) / len(metrics)
