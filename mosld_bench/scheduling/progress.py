"""What a user sees while trials run: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
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
from mosld_bench.spec.trial import Domain
from mosld_bench.trial.session import Progress


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
        self._left = {
            trial: estimate or self._mean for trial, estimate in hours.items()
        }  # GPU-hours of what is not done
        self._done_hours = self._done_seconds = 0.0  # of the trials that are done: estimated, and measured
        self._workers = 0  # the most that were seen to run side by side
        self._running: dict[str, Running] = {}
        self._last_done: deque[Done] = deque(maxlen=5)
        live = bool(hours) and (console.is_terminal or _in_notebook(console))
        self._live = Live(console=console, refresh_per_second=2, transient=True) if live else None

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
        self._left |= {trial: estimate or self._mean for trial, estimate in hours.items()}

    def say(self, line: str) -> None:
        """Print a line above the table."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def show(self, progress: Progress) -> None:
        """Note where a running trial is; without a terminal, print its phase where it is a new one."""
        before = self._running.get(progress.trial)
        self._running[progress.trial] = Running(progress, before.since if before else time.monotonic())
        self._workers = max(self._workers, len(self._running))
        if self._live:
            self._live.update(self._table())
        elif before is None or before.progress.phase != progress.phase:
            self.say(f"  {progress.trial}: {progress.phase}")

    def finish(self, record: Record) -> None:
        """Note that a trial ended, and print its result."""
        running = self._running.pop(record.trial_id, None)
        since = running.since if running else self._started
        seconds = float(record.meta_info.get("seconds", time.monotonic() - since))
        hours = self._left.pop(record.trial_id)
        failed = record.status == "failed"
        self.done += 1
        self.failed += failed
        if record.status == "finished":  # what ended early tells nothing of the pace
            self._done_hours, self._done_seconds = self._done_hours + hours, self._done_seconds + seconds
        result = _result(record)
        self._last_done.append(Done(record.trial_id, result, seconds))
        self.say(f"[{self.done}/{self.total}] {record.trial_id}  {result}  {seconds:.1f} s  left {self.time_left()}")
        if self._live:
            self._live.update(self._table())

    def time_left(self) -> str:
        """Wall time to go as H:MM:SS: the estimates of what is left, at the pace of what is done; ? before that."""
        if not self._done_hours:
            return "?"
        now, seconds_per_hour = time.monotonic(), self._done_seconds / self._done_hours
        spent = {trial: now - running.since for trial, running in self._running.items()}
        left = (max(0.0, hours * seconds_per_hour - spent.get(trial, 0.0)) for trial, hours in self._left.items())
        return str(timedelta(seconds=round(side_by_side(left, max(1, self._workers)))))

    def _table(self) -> Table:
        table = Table(title=f"{self.done} of {self.total} trials done, {self.failed} failed, left {self.time_left()}")
        for column in ("trial", "state", "step", "loss", "time"):
            table.add_column(column, justify="left" if column in {"trial", "state"} else "right")
        for done in self._last_done:
            table.add_row(done.trial, done.result, "", "", f"{done.seconds:.0f} s", style="dim")
        for progress, since in self._running.values():
            table.add_row(
                progress.trial,
                progress.phase,
                f"{progress.step}/{progress.steps}" if progress.steps else "",
                f"{progress.loss:.3f}" if progress.loss is not None else "",
                f"{time.monotonic() - since:.0f} s",
            )
        return table


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
